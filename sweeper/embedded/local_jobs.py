"""`/api/jobs` of the comfyui dialect: listing, details and cancelling, as measured on ComfyUI 0.33.0."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.common_routes import CommonRoutes
from sweeper.embedded.http_helpers import RequestRefusedError, RouteRow, json_response, parse_json, read_body
from sweeper.embedded.job_records import STATUS_WORDS, describe_end, describe_workflow, make_row
from sweeper.embedded.jobs import ENDED, ServerJob
from sweeper.embedded.request_parsing import cut_page
from sweeper.embedded.submission import is_canonical_id


class LocalJobRoutes(CommonRoutes):
    """Endpoints below /api/jobs, in ComfyUI's form."""

    def list_routes(self) -> list[RouteRow]:
        """All routes. ComfyUI has them with the prefix /api only."""
        return [
            ("/api/jobs", self.list_jobs, "GET"),
            ("/api/jobs/cancel", self.cancel_jobs, "POST"),
            ("/api/jobs/{job_id}", self.get_job, "GET"),
            ("/api/jobs/{job_id}/cancel", self.cancel_job, "POST"),
        ]

    async def list_jobs(self, request: Request) -> Response:
        """GET /api/jobs: running, waiting and ended jobs, newest first; all of them unless `limit` is given."""
        query = request.query_params
        words = [word.strip().lower() for word in query.get("status", "").split(",") if word.strip()]
        unknown = [word for word in words if word not in STATUS_WORDS]
        if unknown:
            raise _refuse(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUS_WORDS)}")
        sort = _read_word(request, "sort_by", ("created_at", "execution_duration"))
        order = _read_word(request, "sort_order", ("desc", "asc"))
        limit, offset = _read_number(request, "limit", None), _read_number(request, "offset", 0)
        if limit is not None and limit <= 0:
            raise _refuse("limit must be a positive integer")
        running, waiting = self.queue.snapshot()
        rows = [_make_row(job) for job in (*running, *waiting, *self.queue.list_ended())]
        rows = [row for row in rows if not words or row["status"] in words]
        if query.get("workflow_id"):
            rows = [row for row in rows if row.get("workflow_id") == query["workflow_id"]]
        rows.sort(key=_duration if sort == "execution_duration" else itemgetter("create_time"), reverse=order == "desc")
        page, pagination = cut_page(rows, max(0, offset or 0), limit)
        return json_response({"jobs": page, "pagination": pagination})

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: a job; with its outputs and its workflow if it has ended."""
        self.drop_if("drop_status_times")
        prompt_id = request.path_params["job_id"]
        job = self.queue.find_ended(prompt_id) or self.queue.find(prompt_id)
        if job is None:
            raise _refuse("Job not found", status=404)
        detail = _make_row(job)
        if job.state in ENDED:
            detail |= describe_end(job) | {"workflow": describe_workflow(job)}
        return json_response(detail)

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/jobs/{id}/cancel: always 200; `cancelled` is false for an ended and for an unknown job."""
        return json_response({"cancelled": self.service.cancel(request.path_params["job_id"])})

    async def cancel_jobs(self, request: Request) -> Response:
        """POST /api/jobs/cancel: cancel each job of a list that waits or runs; ignore ended and unknown ones."""
        try:
            data = parse_json(await read_body(request))
        except ValueError as problem:
            raise _refuse("Request body must be valid JSON") from problem
        ids = data.get("job_ids") if isinstance(data, dict) else None
        if not isinstance(ids, list):
            raise _refuse("job_ids must be a list")
        invalid = [value if isinstance(value, str) else repr(value) for value in ids if not is_canonical_id(value)]
        if invalid:
            raise _refuse("job_ids contains invalid id(s)", invalid_ids=invalid)
        cancelled = [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]
        return json_response({"cancelled": bool(cancelled)})


def _make_row(job: ServerJob) -> dict[str, Any]:
    error = {} if job.error is None else {"execution_error": job.error}
    counts = {"outputs_count": 0, "previewable_outputs_count": 0}
    return counts | make_row(job) | {"priority": job.number} | error


def _duration(row: dict[str, Any]) -> int:
    return int(row.get("execution_end_time", 0) - row.get("execution_start_time", 0))


def _refuse(message: str, status: int = 400, **more: Any) -> RequestRefusedError:
    return RequestRefusedError(json_response({"error": message} | more, status))


def _read_word(request: Request, name: str, words: tuple[str, str]) -> str:
    word = request.query_params.get(name, words[0]).lower()
    if word not in words:
        raise _refuse(f"{name} must be {' or '.join(repr(one) for one in sorted(words))}")
    return word


def _read_number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    try:
        return default if text is None else int(text)
    except ValueError as problem:
        raise _refuse(f"{name} must be an integer") from problem
