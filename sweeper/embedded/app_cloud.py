"""The routes of the `cloud` dialect: Comfy Cloud's, below `/api`, and `/ws`.

Shapes by the published specification. Ids and order are the server's, jobs leave traces, pictures come from the storage
host, and an interrupt hits every running job.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute

from sweeper.embedded.exchange import (
    RefusedError,
    bad_request,
    json_answer,
    number_parameter,
    read_object,
    string_list,
)
from sweeper.embedded.gate import DropError
from sweeper.embedded.jobs import CANCELLED, ENDED, ERROR, LOST, SUBMITTED, SUCCESS, WAITING, Job
from sweeper.embedded.pictures import PictureRoutes, Sign
from sweeper.embedded.routes_common import CommonRoutes
from sweeper.embedded.service import Service, status_string

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

# Raw state -> the word of /api/jobs; what is not here is in progress.
_WORDS = {
    SUBMITTED: "pending",
    WAITING: "pending",
    SUCCESS: "completed",
    ERROR: "failed",
    LOST: "failed",
    CANCELLED: "cancelled",
}
STATUS_WORDS = ("pending", "in_progress", "completed", "failed", "cancelled")

PAGE, MAX_PAGE = 100, 1000  # jobs a page, as the specification has it

# Open to everybody in the published specification.
_PUBLIC = ("/api/features", "/api/system_stats", "/api/experiment/models")


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path.startswith(_PUBLIC)


def cloud_app(service: Service, sign: Sign) -> Router:
    """The ASGI app of this dialect; `sign` makes the URLs that /api/view redirects to."""
    routes = CloudRoutes(service)
    pictures = PictureRoutes(service, sign)
    table: list[tuple[str, Callable[..., Any], str]] = [
        ("/prompt", routes.submit, "POST"),
        ("/prompt", routes.prompt_info, "GET"),
        ("/job/{job_id}/status", routes.status, "GET"),
        ("/jobs", routes.jobs, "GET"),
        ("/jobs/{job_id}", routes.job, "GET"),
        ("/history", routes.change_history, "POST"),
        ("/history_v2", routes.history, "GET"),
        ("/history_v2/{job_id}", routes.history_of, "GET"),
        ("/queue", routes.queue_listing, "GET"),
        ("/queue", routes.change_queue, "POST"),
        ("/interrupt", routes.interrupt, "POST"),
        ("/view", pictures.view, "GET"),
        ("/upload/image", pictures.upload_image, "POST"),
        ("/upload/mask", pictures.upload_mask, "POST"),
        ("/object_info", routes.nodes, "GET"),
        ("/features", routes.features, "GET"),
        ("/system_stats", routes.system_stats, "GET"),
        ("/user", routes.user, "GET"),
        ("/experiment/models", routes.model_kinds, "GET"),
        ("/experiment/models/{folder}", routes.model_files, "GET"),
    ]
    listed: list[BaseRoute] = [Route("/api" + path, endpoint, methods=[method]) for path, endpoint, method in table]
    return Router([*listed, WebSocketRoute("/ws", routes.events)], redirect_slashes=False)


class CloudRoutes(CommonRoutes):
    """Jobs as Cloud tells them."""

    def _known(self, request: Request) -> Job:
        job = self.queue.find(request.path_params["job_id"])
        if job is None:
            raise RefusedError(json_answer({"code": "not_found", "message": "Job not found"}, 404))
        return job

    async def status(self, request: Request) -> Response:
        """GET /api/job/{id}/status: the raw state."""
        if self.faults.take("drop_status_times"):
            raise DropError
        job = self._known(request)
        error = job.error
        return json_answer(
            {
                "id": job.id,
                "status": self.faults.odd_state() or self.queue.state_of(job),
                "created_at": _iso(job.created),
                "updated_at": _iso(job.changed or job.created),
                "last_state_update": _iso(job.changed or job.created),
                "assigned_inference": None,
                "error_message": None if error is None else error["exception_message"],
            }
        )

    async def jobs(self, request: Request) -> Response:
        """GET /api/jobs: light rows, newest first unless asked otherwise."""
        query = request.query_params
        limit, offset = number_parameter(request, "limit", PAGE), number_parameter(request, "offset", 0)
        if limit is None or offset is None or not 1 <= limit <= MAX_PAGE or offset < 0:
            raise RefusedError(bad_request(f"'limit' must be 1 to {MAX_PAGE}, 'offset' 0 or more."))
        wanted = {word.strip() for word in query.get("status", ",".join(STATUS_WORDS)).split(",")}
        if not wanted <= set(STATUS_WORDS):
            raise RefusedError(bad_request(f"'status' takes {', '.join(STATUS_WORDS)}, separated by commas."))
        found = [job for job in self.queue.all() if word(job) in wanted]
        if query.get("sort_by", "create_time") == "execution_time":
            found.sort(key=lambda job: (job.ended or 0) - (job.started or job.ended or 0))
        if query.get("sort_order", "desc") == "desc":
            found.reverse()
        page = found[offset : offset + limit]
        more = offset + len(page) < len(found)
        pagination = {"offset": offset, "limit": limit, "total": len(found), "has_more": more}
        return json_answer({"jobs": [_row(job) for job in page], "pagination": pagination})

    async def job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: everything, the workflow too."""
        return json_answer(_detail(self._known(request)))

    async def history(self, request: Request) -> Response:
        """GET /api/history_v2: ended jobs, newest first."""
        max_items, offset = number_parameter(request, "max_items", None), number_parameter(request, "offset", 0)
        newest = self.queue.histories()[::-1][max(0, offset or 0) :]
        page = newest if max_items is None else newest[: max(0, max_items)]
        return json_answer({"history": [_history_row(job) for job in page]})

    async def history_of(self, request: Request) -> Response:
        """GET /api/history_v2/{id}: `{}` while it has not ended."""
        job = self._known(request)
        return json_answer({job.id: _history_detail(job)} if job.state in ENDED else {})

    async def change_history(self, request: Request) -> Response:
        """POST /api/history: forget all or some ended jobs."""
        data = await read_object(request)
        ids = string_list(data["delete"]) if "delete" in data else []
        self.queue.forget(None if data.get("clear") else ids)
        return Response(status_code=200)

    async def queue_listing(self, _: Request) -> Response:
        """GET /api/queue: 5-tuples, the outputs before the metadata (not as in ComfyUI)."""
        running, pending = self.queue.snapshot()
        listing = {
            "queue_running": [_item(job, place) for place, job in enumerate(running, 1)],
            "queue_pending": [_item(job, place) for place, job in enumerate(pending, len(running) + 1)],
        }
        return json_answer(listing)

    async def change_queue(self, request: Request) -> Response:
        """POST /api/queue: cancel some waiting jobs (`delete`), or all of them (`clear`)."""
        data = await read_object(request)
        ids = string_list(data["delete"]) if "delete" in data else []
        answer: dict[str, Any] = {"deleted": self.service.cancel_waiting(ids)}
        if data.get("clear"):
            self.service.cancel_waiting(None)
            answer["cleared"] = True
        return json_answer(answer)

    async def interrupt(self, _: Request) -> Response:
        """POST /api/interrupt: every running job, whatever the body says."""
        self.service.interrupt(None)
        return Response(status_code=200)

    async def user(self, _: Request) -> Response:
        """GET /api/user."""
        return json_answer({"status": "active"})

    async def model_kinds(self, _: Request) -> Response:
        """GET /api/experiment/models."""
        return json_answer([{"name": name, "folders": [name]} for name in self.models()])

    async def model_files(self, request: Request) -> Response:
        """GET /api/experiment/models/{folder}."""
        files = self.models().get(request.path_params["folder"])
        if files is None:
            return json_answer({"code": "not_found", "message": "Folder not found"}, 404)
        return json_answer([{"name": name, "pathIndex": 0} for name in files])


def word(job: Job) -> str:
    """The job's status as /api/jobs words it."""
    return _WORDS.get(job.state, "in_progress")


def _row(job: Job) -> dict[str, Any]:
    row: dict[str, Any] = {"id": job.id, "status": word(job), "create_time": job.created // 1000}
    if job.state not in ENDED:
        return row
    files = [file for ui in job.results.values() for kind in ui.values() for file in kind if isinstance(file, dict)]
    row["outputs_count"] = len(files)
    if files:
        row["preview_output"] = files[0]
    if job.started is not None:
        row |= {"execution_start_time": job.started, "execution_end_time": job.ended}
    error = execution_error(job)
    return row if error is None else row | {"execution_error": error}


def _detail(job: Job) -> dict[str, Any]:
    detail = _row(job)
    detail["update_time"] = (job.changed or job.created) // 1000
    detail["workflow"] = {"prompt": job.graph, "extra_data": job.extra_data}
    if job.state in ENDED:
        detail |= {"outputs": job.results, "execution_status": _status(job), "execution_meta": job.meta}
    return detail


def execution_error(job: Job) -> dict[str, Any] | None:
    """What went wrong, for a job that failed; a lost one has a word of the service's own."""
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


def _status(job: Job) -> dict[str, Any]:
    status = status_string(job)
    return {"status_str": status, "completed": status == "success", "messages": job.messages}


def _history_row(job: Job) -> dict[str, Any]:
    extra = {**job.extra_data}
    if isinstance(extra.get("extra_pnginfo"), dict):
        extra["extra_pnginfo"] = {key: value for key, value in extra["extra_pnginfo"].items() if key != "workflow"}
    prompt = {"priority": job.number, "prompt_id": job.id, "extra_data": extra}
    facts = {"outputs": job.results, "status": _status(job), "meta": job.meta}
    return {"prompt_id": job.id, "create_time": job.created, "prompt": prompt} | facts


def _history_detail(job: Job) -> dict[str, Any]:
    prompt = {
        "priority": job.number,
        "prompt_id": job.id,
        "prompt": job.graph,
        "extra_data": job.extra_data,
        "outputs_to_execute": list(job.outputs),
    }
    return {"prompt": prompt, "outputs": job.results, "status": _status(job), "meta": job.meta}


def _item(job: Job, place: int) -> list[Any]:
    return [place, job.id, job.graph, list(job.outputs), {"create_time": job.created}]


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
