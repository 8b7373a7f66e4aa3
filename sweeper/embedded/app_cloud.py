"""The routes of the `cloud` dialect: Comfy Cloud's API below `/api`, and `/ws`.

It follows the published specification. Unlike in ComfyUI, the server chooses ids and order of jobs and remembers
cancelled jobs, and pictures come from the storage host. `job_routes.py` has `/api/jobs`. The calls that it replaces
still work, and their responses carry a `Deprecation` header (RFC 9745).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from sweeper.embedded.app_cloud_v2 import V2Routes, make_v2_refusal
from sweeper.embedded.asset_routes import AssetStore
from sweeper.embedded.common_routes import FEATURES, CommonRoutes, list_shared_routes, make_constant_endpoint
from sweeper.embedded.http_helpers import (
    RequestRefusedError,
    RouteRow,
    error_response,
    format_time,
    json_response,
    parse_json,
    read_body,
    refuse_as,
)
from sweeper.embedded.job_routes import CloudJobRoutes
from sweeper.embedded.jobs import ServerJob
from sweeper.embedded.media_routes import MediaRoutes, UrlSigner
from sweeper.embedded.request_guard import is_right_key, read_bearer
from sweeper.embedded.service import Service

# The specification of August 2026 is the first that we know to call them deprecated.
DEPRECATED_SINCE = f"@{int(datetime(2026, 8, 1, tzinfo=UTC).timestamp())}"

# Paths that need no key by the specification.
_PUBLIC = ("/api/features", "/api/system_stats", "/api/experiment/models")


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path.startswith(_PUBLIC)


def shape_refusal(path: str, response: Response) -> Response:
    """Convert a refusal to the form of the specification, `code` and `message`, or to that of API v2."""
    status = response.status_code
    json_body = response.headers.get("content-type", "").startswith("application/json")
    text = bytes(response.body).decode("utf-8", "replace")
    code = HTTPStatus(status).phrase
    if status >= 400 and path.startswith("/api/v2/"):
        shaped = make_v2_refusal(status, json.loads(text) if json_body else None)
    elif status < 400 or json_body:
        return response
    else:
        shaped = error_response(status, code.lower().replace(" ", "_"), text or code)
    for name in ("retry-after", "connection", "deprecation"):
        if name in response.headers:
            shaped.headers[name] = response.headers[name]
    return shaped


def make_cloud_app(service: Service, sign_url: UrlSigner, asset_store: AssetStore) -> Router:
    """Make the ASGI app of this dialect; `sign_url` makes the URLs to which /api/view redirects."""
    routes = CloudRoutes(service)
    media = MediaRoutes(service, sign_url)
    table: list[RouteRow] = [
        *list_shared_routes(routes, media),
        ("/queue", routes.get_queue, "GET"),
        ("/user", make_constant_endpoint({"id": "embedded", "status": "active"}), "GET"),
        ("/billing/balance", routes.get_balance, "GET"),
        *CloudJobRoutes(service).list_routes(),
        *V2Routes(service, asset_store, sign_url).list_routes(),
    ]
    deprecated: list[RouteRow] = [
        ("/job/{job_id}/status", routes.get_status, "GET"),
        ("/history", routes.change_history, "POST"),
        ("/queue", routes.change_queue, "POST"),
        ("/interrupt", routes.interrupt, "POST"),
    ]
    table += [(path, _mark_deprecated(endpoint), method) for path, endpoint, method in deprecated]
    paths: list[BaseRoute] = [Route("/api" + path, endpoint, methods=[method]) for path, endpoint, method in table]
    stream = WebSocketRoute("/ws", routes.stream_events)
    return Router([*paths, stream], redirect_slashes=False, default=respond_not_found)


def _mark_deprecated(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Add the `Deprecation` header to every response of an endpoint, refusals included."""

    async def respond(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except RequestRefusedError as refused:
            refused.response.headers["deprecation"] = DEPRECATED_SINCE
            raise
        response.headers["deprecation"] = DEPRECATED_SINCE
        return response

    return respond


async def respond_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404 for an unknown path, also to a request for an event stream."""
    await shape_refusal(scope["path"], error_response(404, "not_found", "Not found"))(scope, receive, send)


class CloudRoutes(CommonRoutes):
    """Endpoints for the deprecated job calls and for facts, in Cloud's form."""

    async def get_status(self, request: Request) -> Response:
        """GET /api/job/{id}/status: the raw state of a job."""
        self.drop_if("drop_status_times")
        job = self.find_job(request)
        error = job.error
        return json_response(
            {
                "id": job.id,
                "status": self.faults.pop_odd_state() or self.queue.get_state(job),
                "created_at": format_time(job.created),
                "updated_at": format_time(job.changed or job.created),
                "last_state_update": format_time(job.changed or job.created),
                "assigned_inference": None,
                "error_message": None if error is None else error["exception_message"],
            }
        )

    async def get_queue(self, _: Request) -> Response:
        """GET /api/queue: 5-tuples with the outputs before the metadata, unlike in ComfyUI."""
        running, pending = self.queue.snapshot()
        listing = {
            "queue_running": [_queue_item(job, position) for position, job in enumerate(running, 1)],
            "queue_pending": [_queue_item(job, position) for position, job in enumerate(pending, len(running) + 1)],
        }
        return json_response(listing)

    async def change_queue(self, request: Request) -> Response:
        """POST /api/queue: cancel some waiting or running jobs (`delete`), or all waiting ones (`clear`)."""
        ids, everything = await self.read_deletion(request)
        answer: dict[str, Any] = {"deleted": [prompt_id for prompt_id in ids if self.service.cancel(prompt_id)]}
        if everything:
            self.service.cancel_waiting(None)
            answer["cleared"] = True
        return json_response(answer)

    async def interrupt(self, request: Request) -> Response:
        """POST /api/interrupt: cancel the job `prompt_id`, else the oldest running job, else the next waiting one."""
        try:
            data = parse_json(await read_body(request))
        except ValueError:
            data = None  # any body is allowed
        prompt_id = data.get("prompt_id") if isinstance(data, dict) else None
        if isinstance(prompt_id, str) and prompt_id:
            if self.queue.find(prompt_id) is None:
                raise refuse_as(404, "not_found", "Job not found")
            self.service.cancel(prompt_id)
        else:
            running, waiting = self.queue.snapshot()
            for job in (*running, *waiting)[:1]:
                self.service.cancel(job.id)
        return Response(status_code=200)

    async def get_features(self, request: Request) -> Response:
        """GET /api/features: what the server can do; with a valid key also what the account may do."""
        key = request.headers.get("x-api-key") or read_bearer(request.headers)
        if not is_right_key(key, self.service.settings.api_key):
            return json_response(FEATURES)
        free, left = self.faults.scenario.tier == "free", self.faults.get_credits_left()
        account: dict[str, Any] = {"max_concurrent_jobs": self.queue.workers, "can_run_partner_nodes": not free}
        if free and left is not None:
            allowance = self.faults.scenario.credits or 0
            account["free_tier_balance"] = {"allowance": allowance, "used": allowance - left, "remaining": left}
        return json_response(FEATURES | account)

    async def get_balance(self, _: Request) -> Response:
        """GET /api/billing/balance: what is left on the account. The fields contain cents, whatever their names say."""
        balance = self.service.account.balance
        if balance is None:
            return error_response(404, "not_found", "Not found")
        cents = round(balance * 100, 6)
        return json_response({"amount_micros": cents, "effective_balance_micros": cents, "currency": "usd"})


def _queue_item(job: ServerJob, position: int) -> list[Any]:
    return [position, job.id, job.graph, list(job.outputs), {"create_time": job.created}]
