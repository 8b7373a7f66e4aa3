"""Middleware in front of the routes: logs each request, checks its origin and API key, and injects general faults.

It is plain ASGI, so that it can also close a socket without an answer, as a broken network does.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sweeper.embedded.faults import Faults, LoggedRequest, RequestLog
from sweeper.embedded.http_helpers import RequestRefusedError, refuse_as, refuse_in_text
from sweeper.serving.access import OwnNames, is_loopback
from sweeper.serving.hosting import Transports

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_FOREIGN_NAME = (
    "The Host header does not name this server. Address it by its IP address or as localhost, or start it with"
    " `sweeper serve --host NAME`."
)


@dataclass(eq=False)
class RequestGuard:
    """ASGI middleware around one app."""

    app: ASGIApp  # the routes
    _: KW_ONLY
    own_names: OwnNames  # under which clients may address this server
    seen: RequestLog
    faults: Faults
    transports: Transports  # of the open connections, to close one without an answer
    api_key: str | None = None  # required in X-API-Key or as Bearer token (event streams: in `token=`); None: no key
    is_public: Callable[[str], bool] = lambda _path: False  # whether a path needs no key
    shape_refusal: Callable[[str, Response], Response] = lambda _path, response: response  # to the dialect's form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        method = scope["method"] if scope["type"] == "http" else "WS"
        self.seen.requests.append(LoggedRequest(method, scope["path"], frozenset(headers.keys())))
        delay = self.faults.latency + self.faults.draw_seconds("latency")
        if delay > 0:
            await asyncio.sleep(delay)
        try:
            self._check_access(scope, headers)
            if method != "WS":
                self._inject_faults()
            await self.app(scope, receive, send)
        except RequestRefusedError as refused:
            await self.shape_refusal(scope["path"], refused.response)(scope, receive, send)
        except DropError:
            await drop_connection(scope, receive, self.transports)

    def _check_access(self, scope: Scope, headers: Headers) -> None:
        """Raise RequestRefusedError for a foreign name or web page (403) and for a wrong or missing key (401)."""
        name = headers.get("host")
        if name is not None and name not in self.own_names:
            raise refuse_in_text(403, _FOREIGN_NAME)
        if _is_cross_origin(headers):
            raise RequestRefusedError(Response(status_code=403))
        if self.api_key is None or self.is_public(scope["path"]):
            return
        key = "" if scope["path"].startswith("/api/v2/") else headers.get("x-api-key", "")
        if scope["type"] == "websocket":
            key = QueryParams(scope["query_string"]).get("token", "")
        if not is_right_key(key or read_bearer(headers), self.api_key):
            message = "Missing or invalid API key: send it in the X-API-Key header."
            raise refuse_as(401, "unauthorized", message)

    def _inject_faults(self) -> None:
        if self.faults.take("error_500_times"):
            raise refuse_in_text(500, "500 Internal Server Error")
        if self.faults.take("error_503_times") or self.faults.should_inject("error"):
            raise refuse_in_text(503, "503 Service Unavailable", {"retry-after": f"{self.faults.retry_after:.0f}"})
        if self.faults.take("garbage_times"):
            raise RequestRefusedError(Response("<html><body>Gateway</body></html>", 200, media_type="text/html"))


def read_bearer(headers: Headers) -> str:
    """The key in the Authorization header, or an empty string."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def is_right_key(key: str, expected: str | None) -> bool:
    """Whether a request with this key has access; `expected` None: no key is required."""
    return expected is None or hmac.compare_digest(key.encode(), expected.encode())


def _is_cross_origin(headers: Headers) -> bool:
    """Whether a browser sends this from a page of another site, while this server is on loopback.

    ComfyUI's origin check (`server.py`, create_origin_only_middleware): without it any web page could submit jobs here.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if not origin or not host:
        return False
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
    except ValueError:  # such as `http://[`, which no browser sends
        return True
    # A request to 0.0.0.0 reaches loopback too.
    if not server.hostname or not (is_loopback(server.hostname) or server.hostname in _ANY_ADDRESS):
        return False
    return page.netloc.lower() != (server.netloc if ":" in page.netloc else server.hostname).lower()


class DropError(Exception):
    """Raise this in a route to close the socket without an answer."""


async def drop_connection(scope: Scope, receive: Receive, transports: Transports) -> None:
    """Close the client's socket at once. Bytes that were already written are still sent."""
    transport = transports.get((tuple(scope["server"]), tuple(scope["client"])))
    if transport is not None:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
