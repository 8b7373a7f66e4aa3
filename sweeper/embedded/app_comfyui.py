"""The routes of the `comfyui` dialect: those of a local ComfyUI, each as `/x` and `/api/x`.

`CommonRoutes` has those that the other dialects share: submitting, node classes, models, system information, the event
stream. The server behaves as measured on ComfyUI 0.33.0, except that it answers 400 where ComfyUI answers bad input
with 500. `app_cloud.py` and `app_cloud_v2.py` hold everything in which the other dialects differ.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from sweeper.embedded.cache import measure_memory
from sweeper.embedded.event_streams import Connection
from sweeper.embedded.faults import QUEUE_LIMIT, REFUSALS
from sweeper.embedded.folders import read_metadata
from sweeper.embedded.http_helpers import (
    MAX_BODY,
    DropError,
    RequestRefusedError,
    RouteRow,
    cut_page,
    json_response,
    parse_json,
    read_integer,
    read_json,
    read_object,
    refuse,
)
from sweeper.embedded.jobs import STATUS_WORDS, ServerJob, now_ms, select_jobs
from sweeper.embedded.media_routes import MediaRoutes
from sweeper.embedded.service import Service
from sweeper.embedded.stand_ins.class_descriptions import list_model_files, make_object_info
from sweeper.embedded.validation import is_canonical_id
from sweeper.errors import DISTRIBUTION

FEATURES: dict[str, Any] = {"supports_preview_metadata": True, "max_upload_size": MAX_BODY}

# The version of ComfyUI whose behaviour this server has. `system.embedded_server` says that it is not a ComfyUI.
COMFYUI_VERSION = "0.33.0"


class CommonRoutes(MediaRoutes):
    features: ClassVar[dict[str, Any]] = FEATURES  # what GET /features and an event stream answer

    def list_shared_routes(self) -> list[RouteRow]:
        """The routes that a ComfyUI and Comfy Cloud both have, without the prefix `/api`."""
        return [
            ("/prompt", self.submit, "POST"),
            ("/prompt", self.get_prompt_info, "GET"),
            ("/view", self.view, "GET"),
            ("/upload/image", self.upload_image, "POST"),
            ("/upload/mask", self.upload_mask, "POST"),
            ("/object_info", self.get_object_info, "GET"),
            ("/experiment/models", self.get_experiment_folders, "GET"),
            ("/experiment/models/{folder}", self.get_experiment_files, "GET"),
            ("/features", self.get_features, "GET"),
            ("/system_stats", self.get_system_stats, "GET"),
        ]

    def find_job(self, request: Request) -> ServerJob:
        """The job that the path names. Raises RequestRefusedError with 404."""
        job = self.queue.find(request.path_params["job_id"])
        if job is None:
            raise refuse("Job not found", 404, "not_found")
        return job

    def drop_if(self, fault: str) -> None:
        """Close the socket without an answer if this budget of `Faults` is not used up. Raises DropError."""
        if self.faults.take(fault):
            raise DropError

    async def submit(self, request: Request) -> Response:
        self.seen.count(submits=1)
        data = await read_json(request)
        status, body = self.submit_with_faults(data if isinstance(data, dict) else {})  # in which "prompt" is missing
        return json_response(body, status)

    def submit_with_faults(self, data: dict[str, Any], **job_fields: Any) -> tuple[int, dict[str, Any]]:
        """Submit a job, with the faults before and after `Service.submit`. Returns (HTTP status, body)."""
        faults, waiting = self.faults, self.queue.snapshot()[1]
        refusal = faults.take_refusal(len(waiting), self.service.settings.queue_bound)
        if refusal is not None:
            raise _refuse_submission(refusal, data.get("prompt"), faults.retry_after)
        self.drop_if("drop_before_accept")
        status, body = self.service.submit(data, **job_fields)
        if status == 200 and (faults.take("drop_after_accept") or faults.should_inject("drop")):
            raise DropError
        return status, body

    def list_jobs_shown(self) -> list[ServerJob]:
        """The jobs that a listing shows by now, newest first."""
        shown = now_ms() - 1000 * self.faults.list_lag
        return [job for job in reversed(self.queue.list_jobs()) if job.created <= shown]

    async def get_prompt_info(self, _: Request) -> Response:
        return json_response({"exec_info": {"queue_remaining": self.queue.remaining}})

    async def get_object_info(self, _: Request) -> Response:
        return json_response(self.describe_nodes(self.service.nodes))

    def describe_nodes(self, names: Iterable[str]) -> dict[str, Any]:
        service, strict = self.service, self.service.settings.strict_models
        return {
            name: service.account.describe(node, make_object_info(node, self.folders, strict_models=strict))
            for name in names
            for node in (service.nodes[name],)
        }

    async def get_features(self, _: Request) -> Response:
        return json_response(self.features)

    async def get_system_stats(self, _: Request) -> Response:
        """GET /system_stats; `argv` shows the cache policy, as a real server's does."""
        device = {"name": "cpu", "type": "cpu", "index": None}
        memory = {"vram_total": 0, "vram_free": 0, "torch_vram_total": 0, "torch_vram_free": 0}
        total, free = measure_memory()
        system = {
            "os": "nt" if sys.platform == "win32" else "posix",
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": "none",
            "python_version": sys.version,
            "pytorch_version": "none",
            "embedded_python": False,
            "embedded_server": f"sweeper {version(DISTRIBUTION)}: procedural nodes, no diffusion model",
            "argv": self._build_argv(),
        }
        return json_response({"system": system, "devices": [device | memory]})

    def _build_argv(self) -> list[str]:
        name, *size = self.service.settings.cache.split()
        # The first number of `--cache-ram` limits the results of the current job, which this server always keeps.
        return ["main.py", f"--cache-{name}", *(["1"] if name == "ram" else []), *size]

    def list_models(self) -> dict[str, list[str]]:
        """Model folder -> the file names that the loaders list."""
        return list_model_files(self.service.nodes, self.folders)

    async def get_experiment_folders(self, _: Request) -> Response:
        return json_response([{"name": name, "folders": [name]} for name in self.list_models()])

    async def get_experiment_files(self, request: Request) -> Response:
        folder = request.path_params["folder"]
        files = self.list_models().get(folder)
        if files is None:
            raise RequestRefusedError(Response(status_code=404))
        return json_response([self.folders.describe_model(folder, name) for name in files])

    async def read_deletion(self, request: Request) -> tuple[list[str], bool]:
        """Read a body with `delete`, a list of ids, and `clear`. Returns (ids, clear)."""
        data = await read_object(request)
        ids = data.get("delete", [])
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise refuse("'delete' must be a list of job ids.")
        return ids, bool(data.get("clear", False))

    async def change_history(self, request: Request) -> Response:
        ids, everything = await self.read_deletion(request)
        self.queue.forget(None if everything else ids)
        return Response(status_code=200)

    async def stream_events(self, websocket: WebSocket) -> None:
        if self.faults.refuse_events:
            await websocket.close()
            return
        await websocket.accept()
        self.seen.count(connections=1)
        sid = websocket.query_params.get("clientId") or uuid.uuid4().hex
        connection = self.service.hub.attach(sid, self.queue.remaining)
        writer = asyncio.create_task(_write(websocket, connection))
        try:
            if not self.faults.take("drop_events_times"):
                await _listen(websocket, connection, self.features)
        finally:
            self.service.hub.detach(connection)
            writer.cancel()
            await asyncio.wait([writer])


def _refuse_submission(kind: str, graph: Any, retry_after: float) -> RequestRefusedError:
    """The refusal by an `error.type` of REFUSALS. `retry_after`: seconds, for those after which clients shall wait."""
    more: dict[str, Any] = {"type": kind}
    if kind == "PARTNER_NODE_DISABLED":
        nodes = graph.values() if isinstance(graph, dict) else ()
        classes = sorted({str(node.get("class_type")) for node in nodes if isinstance(node, dict)})
        more |= {"class_types": classes, "providers": ["embedded"]}
    if kind == "BILLING_UNAVAILABLE":
        more["reason"] = "funds_unavailable"
    status, message = REFUSALS[kind]
    code = "queue_full" if kind == QUEUE_LIMIT else kind.lower()
    refused = refuse(message, status, code, **more)
    if kind in {QUEUE_LIMIT, "BILLING_UNAVAILABLE"}:
        refused.response.headers["retry-after"] = f"{retry_after:.0f}"
    return refused


async def _write(websocket: WebSocket, connection: Connection) -> None:
    """Send the queued messages of a stream in order, until it closes."""
    while True:
        message = await connection.queue.get()
        if message is None:
            return
        try:
            if isinstance(message, str):
                await websocket.send_text(message)
            else:
                await websocket.send_bytes(message)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # the client has closed it; `_listen` notices too


async def _listen(websocket: WebSocket, connection: Connection, features: dict[str, Any]) -> None:
    first = True
    while (message := await websocket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if first and text is not None:
            connection.answer_first(text, features)
        first = first and text is None


# --- a local ComfyUI -------------------------------------------------------------------------------------------------


def make_comfyui_app(service: Service) -> Router:
    routes = ComfyRoutes(service)
    table: list[RouteRow] = [
        *routes.list_shared_routes(),
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
        # A response is the endpoint of what never changes here.
        ("/users", json_response({"storage": "server", "migrated": True}), "GET"),
        ("/embeddings", json_response([]), "GET"),
        ("/extensions", json_response([]), "GET"),
        # ComfyUI has these with the prefix /api only.
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
            data = parse_json(await request.body())
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
            self.service.clearings += 1  # before its next job, each worker clears its cache
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
        more = job.describe_end() | {"workflow": job.workflow} if job.has_ended else {}
        return json_response(_make_row(job) | more)

    async def cancel_job(self, request: Request) -> Response:
        """POST /api/jobs/{id}/cancel: always 200; `cancelled` is false for an ended and for an unknown job."""
        return json_response({"cancelled": self.service.cancel(request.path_params["job_id"])})

    async def cancel_jobs(self, request: Request) -> Response:
        """POST /api/jobs/cancel: cancel each job of a list that waits or runs; ignore ended and unknown ones."""
        try:
            data = parse_json(await request.body())
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
        path = self.folders.find_model(request.path_params["folder"], name)
        metadata = read_metadata(path) if path and name.endswith(".safetensors") else None
        return Response(status_code=404) if metadata is None else json_response(metadata)


def _queue_item(job: ServerJob) -> list[Any]:
    return [job.number, job.id, job.graph, job.extra_data, list(job.outputs)]


def _history_entry(job: ServerJob) -> dict[str, Any]:
    end = job.describe_end()
    outputs, status = end["outputs"], end["execution_status"]
    return {"prompt": _queue_item(job), "outputs": outputs, "status": status, "meta": job.meta}


def _make_row(job: ServerJob) -> dict[str, Any]:
    error = {} if job.error is None else {"execution_error": job.error}
    counts = {"outputs_count": 0, "previewable_outputs_count": 0}
    return counts | job.make_row() | {"priority": job.number} | error


def _refuse_locally(message: str, status: int = 400, **more: Any) -> RequestRefusedError:
    return RequestRefusedError(json_response({"error": message} | more, status))


def _read_number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    try:
        return default if text is None else int(text)
    except ValueError as problem:
        raise _refuse_locally(f"{name} must be an integer") from problem
