"""HTTP helpers: limited bodies, strict JSON, forms, query parameters, errors, files; and what guards the routes.

`RequestGuard` is middleware: it logs each request, checks its origin and API key, and injects general faults. It is
plain ASGI, so that it can also close a socket without an answer, as a broken network does. Routes and their meanings
live in the `app_*` and `*_routes` modules.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.datastructures import Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sweeper.embedded.faults import Faults, LoggedRequest, RequestLog
from sweeper.embedded.validation import make_error
from sweeper.model import bounded_json
from sweeper.serving.access import OwnNames
from sweeper.serving.hosting import Transports

RouteRow = tuple[str, Callable[..., Any], str]  # path, endpoint, method

MAX_BODY = 104_857_600  # 100 MiB: ComfyUI's default --max-upload-size

# A browser must not run these from our origin, so they are sent as downloads (as in ComfyUI's server.py).
_NEVER_INLINE = frozenset({"text/html", "application/xhtml+xml", "text/javascript", "text/css", "image/svg+xml"})


class RequestRefusedError(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. ASCII only, because a prompt may contain lone surrogates, which UTF-8 cannot encode."""
    body = json.dumps(data, separators=(",", ":"))
    return Response(body, status, headers, media_type="application/json; charset=utf-8")


def parse_json(body: bytes | str) -> Any:
    """Parse strict JSON. Keeps half surrogate pairs, as ComfyUI does. Raises ValueError with the reason."""
    return bounded_json.parse_json(body, keeps_surrogates=True)


async def read_object(request: Request) -> dict[str, Any]:
    """Read a JSON object from the body. Raises RequestRefusedError with 400 for anything else."""
    data = await read_json(request)
    if not isinstance(data, dict):
        raise refuse("The body must be a JSON object.")
    return data


async def read_json(request: Request) -> Any:
    """Read a JSON value from the body. Raises RequestRefusedError with 400 for anything else."""
    body = await request.body()
    try:
        return parse_json(body)
    except ValueError as problem:
        raise refuse(f"Invalid JSON: {problem}") from problem


def refuse(message: str, status: int = 400, code: str = "invalid_request", **more: Any) -> RequestRefusedError:
    """Make a refusal in the form of both dialects: ComfyUI's `error`, with `more`, and Cloud's `code` and `message`."""
    body = {"error": make_error(code, message) | more, "node_errors": {}, "code": code, "message": message}
    return RequestRefusedError(json_response(body, status))


def refuse_in_text(status: int, message: str, headers: Mapping[str, str] | None = None) -> RequestRefusedError:
    return RequestRefusedError(Response(message, status, headers, media_type="text/plain"))


def format_time(milliseconds: int) -> str:
    """Format a time in milliseconds since the epoch as Cloud does: RFC 3339, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def file_response(path: Path) -> FileResponse:
    """Send a file with ETag and Last-Modified, whole or the byte ranges that the request names."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"content-disposition": f"filename*=UTF-8''{quote(path.name, errors='replace')}"}
    media = "application/octet-stream" if kind in _NEVER_INLINE else kind
    return FileResponse(path, headers=headers, media_type=media)


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form with one file, with its name, type and content. The last of several texts of a name counts."""

    texts: dict[str, str]
    filename: str
    content_type: str
    data: bytes


async def read_form(request: Request, field: str) -> Form:
    """Read a form whose file is in the field `field`."""
    try:
        async with request.form(max_files=8, max_fields=64) as form:
            file = form.get(field)
            if not isinstance(file, UploadFile):
                raise refuse(f"The form needs a file field called {field!r}.")
            texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            return Form(texts, file.filename or "", file.content_type or "", await file.read())
    except (MultiPartException, ValueError, KeyError) as problem:
        raise refuse(f"Not a multipart form: {problem}") from problem


def read_integer(request: Request, name: str, default: Item, minimum: float = -math.inf) -> int | Item:
    """Read an integer of at least `minimum` from the query. Raises RequestRefusedError with 400 for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError as problem:
        raise refuse(f"'{name}' must be an integer, not {text!r}.") from problem
    if number < minimum:
        raise refuse(f"'{name}' must be {minimum} or more.")
    return number


def cut_page(items: Sequence[Item], offset: int, limit: int | None) -> tuple[Sequence[Item], dict[str, Any]]:
    """Cut a page out of a list. Returns (its items, the `pagination` that describes it)."""
    page = items[offset:][:limit]
    more = offset + len(page) < len(items)
    return page, {"offset": offset, "limit": limit, "total": len(items), "has_more": more}


# --- in front of the routes -------------------------------------------------------------------------------------------

_FOREIGN_NAME = (
    "The Host header does not name this server. Address it by its IP address or as localhost, or start it with"
    " `sweeper serve --host NAME`."
)


@dataclass(eq=False)
class RequestGuard:
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
            await self.app(scope, _limit_body(receive, headers), send)
        except RequestRefusedError as refused:
            await self.shape_refusal(scope["path"], refused.response)(scope, receive, send)
        except DropError:  # close the client's socket at once; bytes that were already written are still sent
            transport = self.transports.get((tuple(scope["server"]), tuple(scope["client"])))
            if transport is not None:
                transport.close()
            while (await receive())["type"] != "http.disconnect":
                pass

    def _check_access(self, scope: Scope, headers: Headers) -> None:
        """Raise RequestRefusedError for a foreign name or web page (403) and for a wrong or missing key (401)."""
        name, origin = headers.get("host"), headers.get("origin")
        if name is not None and name not in self.own_names:
            raise refuse_in_text(403, _FOREIGN_NAME)
        # Without this, any web page could submit jobs here. ComfyUI checks it on loopback only.
        if origin is not None and origin.partition("://")[2].lower() != (name or "").lower():
            raise RequestRefusedError(Response(status_code=403))
        if self.api_key is None or self.is_public(scope["path"]):
            return
        key = "" if scope["path"].startswith("/api/v2/") else headers.get("x-api-key", "")
        if scope["type"] == "websocket":
            key = QueryParams(scope["query_string"]).get("token", "")
        if not is_right_key(key or read_bearer(headers), self.api_key):
            message = "Missing or invalid API key: send it in the X-API-Key header."
            raise refuse(message, 401, "unauthorized")

    def _inject_faults(self) -> None:
        if self.faults.take("error_500_times"):
            raise refuse_in_text(500, "500 Internal Server Error")
        if self.faults.take("error_503_times") or self.faults.should_inject("error"):
            raise refuse_in_text(503, "503 Service Unavailable", {"retry-after": f"{self.faults.retry_after:.0f}"})
        if self.faults.take("garbage_times"):
            raise RequestRefusedError(Response("<html><body>Gateway</body></html>", 200, media_type="text/html"))


def _limit_body(receive: Receive, headers: Headers) -> Receive:
    """A `receive` that raises RequestRefusedError with 413 for a body of more than `MAX_BODY` bytes."""
    declared = headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() and int(declared) > MAX_BODY else 0  # then nothing is read

    async def receive_limited() -> Message:
        nonlocal size
        if size <= MAX_BODY:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= MAX_BODY:
                return message
        raise refuse_in_text(413, f"Maximum request body size {MAX_BODY} exceeded.", {"connection": "close"})

    return receive_limited


def read_bearer(headers: Headers) -> str:
    """The key in the Authorization header, or an empty string."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def is_right_key(key: str, expected: str | None) -> bool:
    """Whether a request with this key has access; `expected` None: no key is required."""
    return expected is None or hmac.compare_digest(key.encode(), expected.encode())


class DropError(Exception):
    """Raise this in a route to close the socket without an answer."""
