"""`/api/jobs` of Comfy Cloud and of a ComfyUI: listing, details, output files and cancelling.

Cloud's follows its published specification (the `openapi.yaml` of Comfy-Org/ComfyUI, August to November 2026), that of
ComfyUI what 0.33.0 does. The first part describes jobs as both answer alike.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.account import make_credits_header
from sweeper.embedded.common_routes import CommonRoutes
from sweeper.embedded.http_helpers import (
    RequestRefusedError,
    RouteRow,
    cut_page,
    json_response,
    make_cursor,
    parse_cursor,
    parse_json,
    read_body,
    read_bounded,
    read_choice,
    read_object,
    read_words,
    refuse,
    refuse_as,
)
from sweeper.embedded.jobs import (
    ALLOCATED,
    CANCELLED,
    ENDED,
    ERROR,
    LIMITED,
    LOST,
    SUBMITTED,
    SUCCESS,
    WAITING,
    ServerJob,
)
from sweeper.embedded.validation import is_canonical_id

# Raw state -> status; other states are "in_progress".
_STATUS_BY_STATE = {
    SUBMITTED: "pending",
    WAITING: "pending",
    ALLOCATED: "pending",
    SUCCESS: "completed",
    ERROR: "failed",
    LOST: "failed",
    CANCELLED: "cancelled",
}
STATUS_WORDS = ("pending", "in_progress", "completed", "failed", "cancelled")

MAX_TEXT_PREVIEW = 1024  # characters
_PREVIEWABLE_KINDS = frozenset({"images", "video", "audio", "3d", "text"})
_MODEL_SUFFIXES = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXT_SUFFIXES = (".txt", ".md", ".json")


def get_status_word(job: ServerJob) -> str:
    """The status of a job: one of STATUS_WORDS."""
    return _STATUS_BY_STATE.get(job.state, "in_progress")


def get_workflow_id(job: ServerJob) -> str | None:
    """The id of the UI-format workflow of a job, if the client sent that workflow with the graph."""
    info = job.extra_data.get("extra_pnginfo")
    workflow = info.get("workflow") if isinstance(info, dict) else None
    workflow_id = workflow.get("id") if isinstance(workflow, dict) else None
    return workflow_id if isinstance(workflow_id, str) else None


def make_row(job: ServerJob) -> dict[str, Any]:
    """The fields of a job that a listing has, without its error. Times are milliseconds since the epoch."""
    row: dict[str, Any] = {"id": job.id, "status": get_status_word(job), "create_time": job.created}
    workflow_id = get_workflow_id(job)
    if workflow_id is not None:
        row["workflow_id"] = workflow_id
    if job.state in ENDED:
        if job.started is not None:
            row |= {"execution_start_time": job.started, "execution_end_time": job.ended}
        row |= summarize_outputs(job.results)
    return row


def describe_end(job: ServerJob) -> dict[str, Any]:
    """The fields that only the details of an ended job have."""
    # `success` or `error`, ComfyUI's only values: an interrupted job is an `error` too.
    succeeded = bool(job.messages) and job.messages[-1][0] == "execution_success"
    words = {"status_str": "success" if succeeded else "error", "completed": succeeded, "messages": job.messages}
    return {"outputs": job.results, "execution_status": words}


def describe_history(job: ServerJob) -> dict[str, Any]:
    """The history entry of a job without its `prompt`."""
    end = describe_end(job)
    return {"outputs": end["outputs"], "status": end["execution_status"], "meta": job.meta}


def describe_workflow(job: ServerJob) -> dict[str, Any]:
    """The `workflow` of a job's details."""
    return {"prompt": job.graph, "extra_data": job.extra_data}


def summarize_outputs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Count the output files of a job, and choose its preview.

    The preview is the first saved picture, film, sound or model, else the first temporary one, else the first text
    file, else the first text that a node shows. Such a text is not a file, so it does not count.
    """
    count, previews = 0, []
    previewable = 0
    for node_id, kind, item in _iter_items(results):
        source = {"nodeId": node_id, "mediaType": kind}
        file = _as_file(item)
        if file is None:
            if kind == "text":
                previews.append((3, _shorten(str(item)) | source))
            continue
        count += 1
        name = str(file.get("filename", "")).lower()
        film_or_sound = str(file.get("format", "")).startswith(("video/", "audio/"))
        if kind in _PREVIEWABLE_KINDS or film_or_sound or name.endswith(_MODEL_SUFFIXES + _TEXT_SUFFIXES):
            previewable += 1
            text = kind == "text" or name.endswith(_TEXT_SUFFIXES)
            rank = 2 if text else 0 if file.get("type") == "output" else 1
            previews.append((rank, source | file))
    summary: dict[str, Any] = {"outputs_count": count, "previewable_outputs_count": previewable}
    if previews:
        summary["preview_output"] = min(previews, key=lambda preview: preview[0])[1]
    return summary


def _iter_items(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for node_id, ui in results.items():
        for kind, items in ui.items():
            if kind != "animated" and isinstance(items, list | tuple):  # `animated` is a flag
                yield from ((node_id, kind, item) for item in items)


def _as_file(item: Any) -> dict[str, Any] | None:
    if isinstance(item, str) and item.lower().endswith(_MODEL_SUFFIXES):  # 3D nodes name their file by a string
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return item if isinstance(item, dict) else None


def _shorten(text: str) -> dict[str, Any]:
    short: dict[str, Any] = {"content": text[:MAX_TEXT_PREVIEW]}
    return short | {"truncated": True} if len(text) > MAX_TEXT_PREVIEW else short


# --- Comfy Cloud -----------------------------------------------------------------------------------------------------

# By the specification.
PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000  # jobs
MAX_CANCELLED_JOBS = 100  # in one request


class CloudJobRoutes(CommonRoutes):
    """Endpoints below /api/jobs, in Cloud's form."""

    def list_routes(self) -> list[RouteRow]:
        """All routes."""
        return [
            ("/jobs", self.list_jobs, "GET"),
            ("/jobs/cancel", self.cancel_jobs, "POST"),
            ("/jobs/{job_id}", self.get_job, "GET"),
            ("/jobs/{job_id}/cancel", self.cancel_job, "POST"),
        ]

    # --- listing -----------------------------------------------------------------------------------------------------

    async def list_jobs(self, request: Request) -> Response:
        """GET /api/jobs: short descriptions of jobs, newest first by default.

        A page ends with `next_cursor`, which `after` takes. A page after a cursor reports 0 as `offset` and `total`,
        as the specification allows.
        """
        limit = read_bounded(request, "limit", PAGE_SIZE, 1, MAX_PAGE_SIZE)
        offset = read_bounded(request, "offset", 0, 0)
        read_choice(request, "sort_by", ("create_time",), "create_time")
        order = read_choice(request, "sort_order", ("asc", "desc"), "desc")
        after = _read_after(request)
        jobs = self._select_jobs(request)
        if order == "desc":
            jobs.reverse()
        if after is not None:
            jobs = [job for job in jobs if (job.number < after if order == "desc" else job.number > after)]
            offset = 0
        page, pagination = cut_page(jobs, offset, limit)
        if after is not None:
            pagination["total"] = 0
        if pagination["has_more"]:
            pagination["next_cursor"] = make_cursor({"v": page[-1].number})
        return json_response({"jobs": [_make_job_row(job) for job in page], "pagination": pagination})

    def _select_jobs(self, request: Request) -> list[ServerJob]:
        """The jobs that match the query, oldest first."""
        query = request.query_params
        jobs = self.queue.list_jobs()
        if "status" in query:
            statuses = set(read_words(request, "status"))
            if not statuses <= set(STATUS_WORDS):
                raise refuse(f"'status' takes {', '.join(STATUS_WORDS)}, separated by commas.")
            jobs = [job for job in jobs if get_status_word(job) in statuses]
        if "workflow_id" in query:
            jobs = [job for job in jobs if get_workflow_id(job) == query["workflow_id"]]
        return jobs

    # --- one job -----------------------------------------------------------------------------------------------------

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: the full description of a job, with its workflow and why it still waits."""
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        reason = self._get_queue_reason(job)
        position = self.queue.get_position(job) if reason == "concurrency_limit" else None
        detail = {**_make_job_row(job), "update_time": job.changed or job.created, "workflow": describe_workflow(job)}
        if job.state in ENDED:
            detail |= describe_end(job) | {"execution_meta": job.meta}
        status = self.faults.pop_odd_state() or detail["status"]
        credit_count = self.service.account.get_reported_credits(job)
        if credit_count is not None:
            detail["metrics"] = {"credits_used": credit_count}
        body = detail | {"status": status, "queue_reason": reason, "queue_position": position}
        return json_response(body, headers=make_credits_header(credit_count))

    def _get_queue_reason(self, job: ServerJob) -> str | None:
        """`concurrency_limit` if the account's own running jobs hold a job back, else `capacity`."""
        if get_status_word(job) != "pending":
            return None
        return "concurrency_limit" if self.queue.get_state(job) == LIMITED else "capacity"

    # --- cancelling --------------------------------------------------------------------------------------------------

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/jobs/{id}/cancel: `cancelled` is false if the job has ended or is being cancelled already."""
        if not _is_uuid(request.path_params["job_id"]):
            raise refuse("The job id must be a UUID.")
        return json_response({"cancelled": self.service.cancel(self.find_job(request).id)})

    async def cancel_jobs(self, request: Request) -> Response:
        """POST /api/jobs/cancel: cancel a list of jobs; 404 for an unknown one, and then none is cancelled."""
        data = await read_object(request)
        ids = data.get("job_ids")
        if set(data) != {"job_ids"} or not isinstance(ids, list) or not 1 <= len(ids) <= MAX_CANCELLED_JOBS:
            raise refuse(f"The body holds only 'job_ids', a list of 1 to {MAX_CANCELLED_JOBS} job ids.")
        if not all(_is_uuid(prompt_id) for prompt_id in ids):
            raise refuse("'job_ids' must be UUIDs.")
        if any(self.queue.find(prompt_id) is None for prompt_id in ids):
            raise refuse_as(404, "not_found", "A job was not found; none was cancelled.")
        return json_response({"cancelled": [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]})


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) == 36 and bool(uuid.UUID(value))
    except ValueError:
        return False


def _read_after(request: Request) -> float | None:
    """Read `after`: the number of the last job of the page before, or None."""
    text = request.query_params.get("after")
    if not text:
        return None
    number = parse_cursor(text).get("v")
    if not isinstance(number, int | float):
        raise refuse("'after' is not a cursor of jobs.")
    return number


def _make_job_row(job: ServerJob) -> dict[str, Any]:
    error = make_execution_error(job)
    return make_row(job) if error is None else make_row(job) | {"execution_error": error}


def make_execution_error(job: ServerJob) -> dict[str, Any] | None:
    """The error of a failed or lost job, or None."""
    if job.state == LOST:
        message = "The server lost this job: it was running when the service stopped."
        empty: dict[str, Any] = {"traceback": [], "current_inputs": {}, "current_outputs": {}}
        return {"node_id": "", "node_type": "", "exception_type": "ServiceError", "exception_message": message} | empty
    if job.state != ERROR or job.error is None:
        return None
    names = ("node_id", "node_type", "exception_message", "exception_type", "traceback")
    return {name: job.error[name] for name in names} | {
        "current_inputs": job.error["current_inputs"] or {},
        "current_outputs": {},
    }


# --- ComfyUI ---------------------------------------------------------------------------------------------------------


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
            raise _refuse_locally(
                f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUS_WORDS)}"
            )
        sort = _read_word(request, "sort_by", ("created_at", "execution_duration"))
        order = _read_word(request, "sort_order", ("desc", "asc"))
        limit, offset = _read_number(request, "limit", None), _read_number(request, "offset", 0)
        if limit is not None and limit <= 0:
            raise _refuse_locally("limit must be a positive integer")
        running, waiting = self.queue.snapshot()
        rows = [_make_local_row(job) for job in (*running, *waiting, *self.queue.list_ended())]
        rows = [row for row in rows if not words or row["status"] in words]
        if query.get("workflow_id"):
            rows = [row for row in rows if row.get("workflow_id") == query["workflow_id"]]
        rows.sort(
            key=_get_duration if sort == "execution_duration" else itemgetter("create_time"), reverse=order == "desc"
        )
        page, pagination = cut_page(rows, max(0, offset or 0), limit)
        return json_response({"jobs": page, "pagination": pagination})

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: a job; with its outputs and its workflow if it has ended."""
        self.drop_if("drop_status_times")
        prompt_id = request.path_params["job_id"]
        job = self.queue.find_ended(prompt_id) or self.queue.find(prompt_id)
        if job is None:
            raise _refuse_locally("Job not found", status=404)
        detail = _make_local_row(job)
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
            raise _refuse_locally("Request body must be valid JSON") from problem
        ids = data.get("job_ids") if isinstance(data, dict) else None
        if not isinstance(ids, list):
            raise _refuse_locally("job_ids must be a list")
        invalid = [value if isinstance(value, str) else repr(value) for value in ids if not is_canonical_id(value)]
        if invalid:
            raise _refuse_locally("job_ids contains invalid id(s)", invalid_ids=invalid)
        cancelled = [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]
        return json_response({"cancelled": bool(cancelled)})


def _make_local_row(job: ServerJob) -> dict[str, Any]:
    error = {} if job.error is None else {"execution_error": job.error}
    counts = {"outputs_count": 0, "previewable_outputs_count": 0}
    return counts | make_row(job) | {"priority": job.number} | error


def _get_duration(row: dict[str, Any]) -> int:
    return int(row.get("execution_end_time", 0) - row.get("execution_start_time", 0))


def _refuse_locally(message: str, status: int = 400, **more: Any) -> RequestRefusedError:
    return RequestRefusedError(json_response({"error": message} | more, status))


def _read_word(request: Request, name: str, words: tuple[str, str]) -> str:
    word = request.query_params.get(name, words[0]).lower()
    if word not in words:
        raise _refuse_locally(f"{name} must be {' or '.join(repr(one) for one in sorted(words))}")
    return word


def _read_number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    try:
        return default if text is None else int(text)
    except ValueError as problem:
        raise _refuse_locally(f"{name} must be an integer") from problem
