"""`/api/jobs` of the Cloud dialect: listing by cursor, details, output files and cancelling.

It follows Comfy Cloud's published specification (the `openapi.yaml` of Comfy-Org/ComfyUI, August to November 2026).
"""

from __future__ import annotations

import asyncio
import mimetypes
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.account import make_credits_header
from sweeper.embedded.asset_routes import AssetRoutes
from sweeper.embedded.assets import Asset
from sweeper.embedded.common_routes import CommonRoutes
from sweeper.embedded.http_helpers import RouteRow, json_response, read_object, refuse, refuse_as
from sweeper.embedded.job_records import (
    STATUS_WORDS,
    describe_end,
    describe_workflow,
    get_workflow_id,
    make_row,
    status_word,
)
from sweeper.embedded.jobs import ENDED, ERROR, LIMITED, LOST, ServerJob
from sweeper.embedded.request_parsing import cut_page, make_cursor, parse_cursor, read_bounded, read_choice, read_words
from sweeper.embedded.service import Service

# By the specification.
PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000  # jobs
ASSETS_PAGE_SIZE, MAX_ASSETS_PAGE_SIZE = 20, 500
MAX_CANCELLED_JOBS = 100  # in one request

_ASSET_FIELDS = ("id", "name", "hash", "size", "mime_type", "created_at", "preview_url")
_UNKNOWN_SOURCE = {"node_id": None, "output_key": None, "output_index": None}
_MEDIA_WORDS = ("image", "video", "audio", "3d")
_TYPES_OF_3D = ("model/", "text/vnd.wavefront")


class CloudJobRoutes(CommonRoutes):
    """Endpoints below /api/jobs, in Cloud's form. `assets` describes the files of a job."""

    def __init__(self, service: Service, assets: AssetRoutes) -> None:
        super().__init__(service)
        self.assets = assets

    def list_routes(self) -> list[RouteRow]:
        """All routes."""
        return [
            ("/jobs", self.list_jobs, "GET"),
            ("/jobs/cancel", self.cancel_jobs, "POST"),
            ("/jobs/{job_id}", self.get_job, "GET"),
            ("/jobs/{job_id}/assets", self.list_assets, "GET"),
            ("/jobs/{job_id}/cancel", self.cancel_job, "POST"),
        ]

    # --- listing -----------------------------------------------------------------------------------------------------

    async def list_jobs(self, request: Request) -> Response:
        """GET /api/jobs: short descriptions of jobs, newest first by default.

        A page ends with `next_cursor`, which `after` takes. A page after a cursor reports 0 as `offset` and `total`,
        as the specification allows. Jobs sorted by execution time have no cursors.
        """
        limit = read_bounded(request, "limit", PAGE_SIZE, 1, MAX_PAGE_SIZE)
        offset = read_bounded(request, "offset", 0, 0)
        sort = read_choice(request, "sort_by", ("create_time", "execution_time"), "create_time")
        order = read_choice(request, "sort_order", ("asc", "desc"), "desc")
        after = _read_after(request) if sort == "create_time" else None
        jobs = self._select_jobs(request)
        if sort == "execution_time":
            jobs.sort(key=lambda job: (job.ended or 0) - (job.started or job.ended or 0))
        if order == "desc":
            jobs.reverse()
        if after is not None:
            jobs = [job for job in jobs if (job.number < after if order == "desc" else job.number > after)]
            offset = 0
        page, pagination = cut_page(jobs, offset, limit)
        if after is not None:
            pagination["total"] = 0
        if pagination["has_more"] and sort == "create_time":
            pagination["next_cursor"] = make_cursor({"s": sort, "v": page[-1].number})
        return json_response({"jobs": [_job_row(job) for job in page], "pagination": pagination})

    def _select_jobs(self, request: Request) -> list[ServerJob]:
        """The jobs that match the query, oldest first."""
        query = request.query_params
        jobs = self.queue.list_jobs()
        if "status" in query:
            statuses = set(read_words(request, "status"))
            if not statuses <= set(STATUS_WORDS):
                raise refuse(f"'status' takes {', '.join(STATUS_WORDS)}, separated by commas.")
            jobs = [job for job in jobs if status_word(job) in statuses]
        if "workflow_id" in query:
            jobs = [job for job in jobs if get_workflow_id(job) == query["workflow_id"]]
        if "output_type" in query:
            media = read_choice(request, "output_type", _MEDIA_WORDS, "")
            jobs = [job for job in jobs if any(_media_word(name) == media for (_, _, name), _ in job.output_files)]
        return jobs

    # --- one job -----------------------------------------------------------------------------------------------------

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: the full description of a job, with its workflow and why it still waits."""
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        reason = self._get_queue_reason(job)
        position = self.queue.get_position(job) if reason == "concurrency_limit" else None
        detail = {**_job_row(job), "update_time": job.changed or job.created, "workflow": describe_workflow(job)}
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
        if status_word(job) != "pending":
            return None
        return "concurrency_limit" if self.queue.get_state(job) == LIMITED else "capacity"

    async def list_assets(self, request: Request) -> Response:
        """GET /api/jobs/{id}/assets: the output files of a job, each with its node, output key and index."""
        limit = read_bounded(request, "limit", ASSETS_PAGE_SIZE, 1, MAX_ASSETS_PAGE_SIZE)
        offset = read_bounded(request, "offset", 0, 0)
        job = self.find_job(request)
        store, sources = self.assets.asset_store, dict(job.output_files)
        await asyncio.to_thread(store.import_outputs, [job])
        page, pagination = cut_page([one for one in store.list_assets() if one.prompt_id == job.id], offset, limit)
        rows = [self._describe_asset(asset, sources.get(asset.location, _UNKNOWN_SOURCE)) for asset in page]
        return json_response({"job_id": job.id, "assets": rows, "pagination": pagination})

    def _describe_asset(self, asset: Asset, source: dict[str, Any]) -> dict[str, Any]:
        record = self.assets.to_json(asset)
        return {name: record[name] for name in _ASSET_FIELDS if name in record} | source

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


def _media_word(filename: str) -> str:
    kind = mimetypes.guess_type(filename)[0] or ""
    return "3d" if kind.startswith(_TYPES_OF_3D) else kind.partition("/")[0]


def _job_row(job: ServerJob) -> dict[str, Any]:
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
