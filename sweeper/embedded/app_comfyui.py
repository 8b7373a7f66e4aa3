"""The routes of the `comfyui` dialect: those of a local ComfyUI, each as `/x` and `/api/x`.

It behaves as measured on ComfyUI 0.33.0, except that it answers 400 where ComfyUI answers bad input with 500.
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from sweeper.embedded.common_routes import FEATURES, CommonRoutes, list_shared_routes, make_constant_endpoint
from sweeper.embedded.http_helpers import (
    json_response,
    parse_json,
    read_body,
    read_integer,
    read_object,
    refuse,
)
from sweeper.embedded.job_routes import LocalJobRoutes, describe_history
from sweeper.embedded.jobs import ServerJob
from sweeper.embedded.media_routes import MediaRoutes
from sweeper.embedded.service import Service


def make_comfyui_app(service: Service) -> Router:
    """Make the ASGI app of this dialect."""
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
        ("/object_info/{node_class}", routes.get_node_info, "GET"),
        ("/models", routes.get_model_folders, "GET"),
        ("/models/{folder}", routes.get_model_files, "GET"),
        ("/users", make_constant_endpoint({"storage": "server", "migrated": True}), "GET"),
        ("/i18n", make_constant_endpoint({}), "GET"),
        ("/embeddings", make_constant_endpoint([]), "GET"),
        ("/extensions", make_constant_endpoint([]), "GET"),
        *LocalJobRoutes(service).list_routes(),
    ]
    paths: list[BaseRoute] = []
    for prefix in ("", "/api"):
        paths += [AiohttpRoute(prefix + path, endpoint, methods=[method]) for path, endpoint, method in table]
        paths.append(WebSocketRoute(prefix + "/ws", routes.stream_events))
    return Router(paths, redirect_slashes=False, default=respond_not_found)


class AiohttpRoute(Route):
    """A route that answers a wrong method as aiohttp does, which ComfyUI uses."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to this path."""
        allowed = self.methods is None or scope["method"] in self.methods
        await (super().handle if allowed else respond_not_found)(scope, receive, send)


async def respond_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an unknown path or method. As in ComfyUI, a GET looks for a static file and gets 404, others get 405."""
    method = scope.get("method")
    if method == "OPTIONS":
        answer = Response(status_code=200)  # ComfyUI's middleware answers so for any path
    elif method in {"GET", "HEAD"}:
        answer = Response(status_code=404, media_type="application/octet-stream")
    else:
        answer = Response("405: Method Not Allowed", 405, media_type="text/plain")
    await answer(scope, receive, send)


class ComfyRoutes(CommonRoutes):
    """Endpoints in ComfyUI's form."""

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
        if everything:
            self.service.cancel_waiting(None)
        self.service.cancel_waiting(ids)
        return Response(status_code=200)

    async def list_history(self, request: Request) -> Response:
        """GET /history: the ended jobs."""
        max_items = read_integer(request, "max_items", None)
        offset = read_integer(request, "offset", -1)
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

    async def get_model_folders(self, _: Request) -> Response:
        """GET /models: the model folders."""
        return json_response(list(self.list_models()))

    async def get_model_files(self, request: Request) -> Response:
        """GET /models/{folder}: the files of a model folder."""
        files = self.list_models().get(request.path_params["folder"])
        return Response(status_code=404) if files is None else json_response(files)


def _queue_item(job: ServerJob) -> list[Any]:
    return [job.number, job.id, job.graph, job.extra_data, list(job.outputs)]


def _history_entry(job: ServerJob) -> dict[str, Any]:
    return {"prompt": _queue_item(job)} | describe_history(job)
