"""The routes of the `comfyui` dialect: those of a local ComfyUI, each as `/x` and `/api/x`.

It behaves as measured on ComfyUI 0.33.0, except that it answers 400 where ComfyUI answers bad input with 500.
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute

from sweeper.embedded.common_routes import FEATURES, CommonRoutes, list_shared_routes, make_constant_endpoint
from sweeper.embedded.folders import read_metadata
from sweeper.embedded.http_helpers import (
    RequestRefusedError,
    cut_page,
    json_response,
    parse_json,
    read_body,
    read_integer,
    read_object,
    refuse,
)
from sweeper.embedded.jobs import ENDED, STATUS_WORDS, ServerJob, describe_end, describe_workflow, make_row, select_jobs
from sweeper.embedded.media_routes import MediaRoutes
from sweeper.embedded.service import Service
from sweeper.embedded.validation import is_canonical_id


def make_comfyui_app(service: Service) -> Router:
    routes = ComfyRoutes(service)
    media = MediaRoutes(service)
    table = [
        *list_shared_routes(routes, media),
        ("/queue", routes.get_queue, "GET"),
        ("/queue", routes.change_queue, "POST"),
        ("/history", routes.list_history, "GET"),
        ("/history", routes.change_history, "POST"),
        ("/history/{prompt_id:path}", routes.get_history_entry, "GET"),
        ("/interrupt", routes.interrupt, "POST"),
        ("/free", routes.free, "POST"),
        ("/models", routes.get_model_folders, "GET"),
        ("/models/{folder}", routes.get_model_files, "GET"),
        ("/view_metadata/{folder}", routes.get_model_metadata, "GET"),
        ("/object_info/{node_class}", routes.get_node_info, "GET"),
        ("/users", make_constant_endpoint({"storage": "server", "migrated": True}), "GET"),
        ("/embeddings", make_constant_endpoint([]), "GET"),
        ("/extensions", make_constant_endpoint([]), "GET"),
        # ComfyUI has these with the prefix /api only.
        ("/api/assets", routes.refuse_assets, "GET"),
        ("/api/jobs", routes.list_jobs, "GET"),
        ("/api/jobs/cancel", routes.cancel_jobs, "POST"),
        ("/api/jobs/{job_id}", routes.get_job, "GET"),
        ("/api/jobs/{job_id}/cancel", routes.cancel_job, "POST"),
    ]
    paths: list[BaseRoute] = []
    for prefix in ("", "/api"):
        paths += [Route(prefix + path, endpoint, methods=[method]) for path, endpoint, method in table]
        paths.append(WebSocketRoute(prefix + "/ws", routes.stream_events))
    return Router(paths, redirect_slashes=False)


class ComfyRoutes(CommonRoutes):
    features: ClassVar = FEATURES | {
        "supports_model_type_tags": True,
        "extension": {"manager": {"supports_v4": True}},
        "node_replacements": True,
        "assets": False,
    }

    async def get_queue(self, _: Request) -> Response:
        """GET /queue: 5-tuples with the whole graphs."""
        self.drop_if("drop_status_times")
        running, pending = self.queue.snapshot()
        listing = {"queue_running": running, "queue_pending": pending}
        return json_response({name: [_queue_item(job) for job in jobs] for name, jobs in listing.items()})

    async def change_queue(self, request: Request) -> Response:
        """POST /queue: `clear` all or `delete` some waiting jobs; always 200, also for unknown ids."""
        ids, everything = await self.read_deletion(request)
        self.service.cancel_waiting(None if everything else ids)
        return Response(status_code=200)

    async def list_history(self, request: Request) -> Response:
        max_items, offset = (read_integer(request, name, None) for name in ("max_items", "offset"))
        jobs = self.queue.list_ended(max_items, -1 if offset is None else offset)
        return json_response({job.id: _history_entry(job) for job in jobs})

    async def get_history_entry(self, request: Request) -> Response:
        """GET /history/{id}: the history entry of a job, or `{}` if no job with this id has ended."""
        self.drop_if("drop_status_times")
        job = self.queue.find_ended(request.path_params["prompt_id"])
        return json_response({} if job is None else {job.id: _history_entry(job)})

    async def interrupt(self, request: Request) -> Response:
        """POST /interrupt: stop the job `prompt_id` if it runs, or any running job; always 200."""
        try:
            data = parse_json(await read_body(request))
        except ValueError:
            data = {}  # an empty or invalid body means any running job
        if not isinstance(data, dict):
            raise refuse("The body must be a JSON object.")
        prompt_id = data.get("prompt_id") or None
        if prompt_id is not None and not isinstance(prompt_id, str):
            raise refuse("prompt_id must be a string.")
        self.service.interrupt(prompt_id)
        return Response(status_code=200)

    async def free(self, request: Request) -> Response:
        """POST /free: `free_memory` clears the execution cache; there are no models to unload."""
        if (await read_object(request)).get("free_memory"):
            self.service.free_memory()
        return Response(status_code=200)

    async def list_jobs(self, request: Request) -> Response:
        """GET /api/jobs: running, waiting and ended jobs, newest first; all of them unless `limit` is given."""
        limit, offset = _read_number(request, "limit", None), _read_number(request, "offset", 0)
        if limit is not None and limit <= 0:
            raise _refuse_locally("limit must be a positive integer")
        running, waiting = self.queue.snapshot()
        jobs, unknown = select_jobs(request.query_params, [*running, *waiting, *self.queue.list_ended()])
        if unknown:
            words = f"{', '.join(unknown)}. Valid values: {', '.join(STATUS_WORDS)}"
            raise _refuse_locally(f"Invalid status value(s): {words}")
        jobs.sort(key=lambda job: job.created, reverse=True)
        page, pagination = cut_page(jobs, max(0, offset or 0), limit)
        return json_response({"jobs": [_make_row(job) for job in page], "pagination": pagination})

    async def get_job(self, request: Request) -> Response:
        """GET /api/jobs/{id}: a job; with its outputs and its workflow if it has ended."""
        self.drop_if("drop_status_times")
        prompt_id = request.path_params["job_id"]
        job = self.queue.find_ended(prompt_id) or self.queue.find(prompt_id)
        if job is None:
            raise _refuse_locally("Job not found", status=404)
        more = describe_end(job) | {"workflow": describe_workflow(job)} if job.state in ENDED else {}
        return json_response(_make_row(job) | more)

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

    async def get_node_info(self, request: Request) -> Response:
        """GET /object_info/{node_class}; `{}` for an unknown class."""
        name = request.path_params["node_class"]
        return json_response(self.describe_nodes({name} & self.service.nodes.keys()))

    async def get_model_folders(self, _: Request) -> Response:
        return json_response(list(self.list_models()))

    async def get_model_files(self, request: Request) -> Response:
        files = self.list_models().get(request.path_params["folder"])
        return Response(status_code=404) if files is None else json_response(files)

    async def get_model_metadata(self, request: Request) -> Response:
        """GET /view_metadata/{folder}: what the header of a safetensors file says, read from the disk; else 404."""
        name = request.query_params.get("filename", "")
        path = self.service.folders.find_model(request.path_params["folder"], name)
        metadata = read_metadata(path) if path and name.endswith(".safetensors") else None
        return Response(status_code=404) if metadata is None else json_response(metadata)

    async def refuse_assets(self, _: Request) -> Response:
        """GET /api/assets: as a ComfyUI answers that was started without `--enable-assets`."""
        text = "Assets system is disabled. Start the server with --enable-assets to use this feature."
        return json_response({"error": {"code": "SERVICE_DISABLED", "message": text, "details": {}}}, 503)


def _queue_item(job: ServerJob) -> list[Any]:
    return [job.number, job.id, job.graph, job.extra_data, list(job.outputs)]


def _history_entry(job: ServerJob) -> dict[str, Any]:
    end = describe_end(job)
    outputs, status = end["outputs"], end["execution_status"]
    return {"prompt": _queue_item(job), "outputs": outputs, "status": status, "meta": job.meta}


def _make_row(job: ServerJob) -> dict[str, Any]:
    error = {} if job.error is None else {"execution_error": job.error}
    counts = {"outputs_count": 0, "previewable_outputs_count": 0}
    return counts | make_row(job) | {"priority": job.number} | error


def _refuse_locally(message: str, status: int = 400, **more: Any) -> RequestRefusedError:
    return RequestRefusedError(json_response({"error": message} | more, status))


def _read_number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    try:
        return default if text is None else int(text)
    except ValueError as problem:
        raise _refuse_locally(f"{name} must be an integer") from problem
