"""Endpoints that both dialects share: submitting, node classes, models, system information, the event stream.

`app_comfyui.py` and `app_cloud.py` hold the paths and everything in which the dialects differ.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable
from importlib.metadata import version
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from sweeper.embedded.cache import measure_memory
from sweeper.embedded.event_streams import Connection, answer_feature_flags
from sweeper.embedded.http_helpers import (
    MAX_BODY,
    DropError,
    RequestRefusedError,
    RouteRow,
    json_response,
    read_json,
    read_object,
    refuse,
    refuse_as,
)
from sweeper.embedded.jobs import ServerJob, now_ms
from sweeper.embedded.media_routes import MediaRoutes
from sweeper.embedded.scenario import QUEUE_LIMIT, make_refusal
from sweeper.embedded.service import Service
from sweeper.embedded.stand_ins.class_descriptions import list_model_files, make_object_info
from sweeper.errors import DISTRIBUTION

FEATURES: dict[str, Any] = {"supports_preview_metadata": True, "max_upload_size": MAX_BODY}

# The version of ComfyUI whose behaviour this server has. `system.embedded_server` says that it is not a ComfyUI.
COMFYUI_VERSION = "0.33.0"


class CommonRoutes:
    features: ClassVar[dict[str, Any]] = FEATURES  # what GET /features and an event stream answer

    def __init__(self, service: Service) -> None:
        self.service = service
        self.queue = service.queue
        self.faults = service.faults
        self.seen = service.seen

    def find_job(self, request: Request) -> ServerJob:
        """The job that the path names. Raises RequestRefusedError with 404."""
        job = self.queue.find(request.path_params["job_id"])
        if job is None:
            raise refuse_as(404, "not_found", "Job not found")
        return job

    def drop_if(self, fault: str) -> None:
        """Close the socket without an answer if this budget of `Faults` is not used up. Raises DropError."""
        if self.faults.take(fault):
            raise DropError

    async def submit(self, request: Request) -> Response:
        self.seen.count(submits=1)
        data = await read_json(request)
        if isinstance(data, list | str):
            data = {}  # ComfyUI looks for "prompt" in it, and does not find it
        if not isinstance(data, dict):
            raise refuse("The body must be a JSON object.")
        status, body = self.submit_with_faults(data)
        return json_response(body, status)

    def submit_with_faults(self, data: dict[str, Any], **job_fields: Any) -> tuple[int, dict[str, Any]]:
        """Submit a job, with the faults before and after `Service.submit`. Returns (HTTP status, body)."""
        self._check_limits(data.get("prompt"))
        self.drop_if("drop_before_accept")
        status, body = self.service.submit(data, **job_fields)
        if status == 200 and (self.faults.take("drop_after_accept") or self.faults.should_inject("drop")):
            raise DropError
        return status, body

    def _check_limits(self, graph: Any) -> None:
        faults = self.faults
        kind = faults.take_refusal()
        if kind is None and faults.is_queue_full(len(self.queue.snapshot()[1]), self.service.settings.queue_bound):
            kind = QUEUE_LIMIT
        if kind is not None:
            raise RequestRefusedError(json_response(*make_refusal(kind, graph, faults.retry_after)))

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
            name: service.account.describe(node, make_object_info(node, service.folders, strict_models=strict))
            for name in names
            for node in (service.nodes[name],)
        }

    async def get_features(self, _: Request) -> Response:
        return json_response(self.features)

    async def get_system_stats(self, _: Request) -> Response:
        """GET /system_stats; `argv` shows the cache policy, as a real server's does."""
        device = {"name": "cpu", "type": "cpu", "index": None}
        memory = {"vram_total": 0, "vram_free": 0, "torch_vram_total": 0, "torch_vram_free": 0}
        return json_response({"system": self._describe_system(), "devices": [device | memory]})

    def _describe_system(self) -> dict[str, Any]:
        total, free = measure_memory()
        return {
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

    def _build_argv(self) -> list[str]:
        settings = self.service.settings
        preview_flags = ["--preview-method", "auto"] if settings.previews and not settings.cloud else []
        name, *size = settings.cache.split()
        # The first number of `--cache-ram` limits the results of the current job, which this server always keeps.
        return ["main.py", f"--cache-{name}", *(["1"] if name == "ram" else []), *size, *preview_flags]

    def list_models(self) -> dict[str, list[str]]:
        """Model folder -> the file names that the loaders list."""
        return list_model_files(self.service.nodes, self.service.folders)

    async def get_experiment_folders(self, _: Request) -> Response:
        return json_response([{"name": name, "folders": [name]} for name in self.list_models()])

    async def get_experiment_files(self, request: Request) -> Response:
        folder = request.path_params["folder"]
        files = self.list_models().get(folder)
        if files is None:
            raise RequestRefusedError(Response(status_code=404))
        return json_response([self.service.folders.describe_model(folder, name) for name in files])

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


def make_constant_endpoint(data: Any) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Make the endpoint of a GET whose answer never changes here, such as a list that is always empty."""

    async def respond(_: Request) -> Response:
        return json_response(data)

    return respond


def list_shared_routes(routes: CommonRoutes, media: MediaRoutes) -> list[RouteRow]:
    """The routes that a ComfyUI and Comfy Cloud both have, without the prefix `/api`."""
    return [
        ("/prompt", routes.submit, "POST"),
        ("/prompt", routes.get_prompt_info, "GET"),
        ("/view", media.view, "GET"),
        ("/upload/image", media.upload_image, "POST"),
        ("/upload/mask", media.upload_mask, "POST"),
        ("/object_info", routes.get_object_info, "GET"),
        ("/experiment/models", routes.get_experiment_folders, "GET"),
        ("/experiment/models/{folder}", routes.get_experiment_files, "GET"),
        ("/features", routes.get_features, "GET"),
        ("/system_stats", routes.get_system_stats, "GET"),
    ]


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
        if text is None:
            continue
        wants, reply = answer_feature_flags(text, first, features)
        first = False
        connection.wants_metadata = connection.wants_metadata or wants
        if reply is not None:
            connection.enqueue(reply)
