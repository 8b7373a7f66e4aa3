"""Serve a page in a thread, and control the access to it: an ASGI layer checks each request before the application.

On a loopback address everybody on this machine has access, but only by a loopback name: a page of another site can
point its own name at 127.0.0.1 and send requests there as if they were of its own origin (DNS rebinding), but the
browser still sends that name as `Host`. On any other address a token is required, and on loopback for a page that
writes or spends, or for the paths of one that do: as `Authorization: Bearer`, or as the cookie that `POST /session`
sets. It has 256 random bits, so nobody guesses it. No URL that a server or proxy sees contains the token: the printed
address has it after `#`, which browsers do not send. Only a page of this server may send what the application writes
down.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sweeper.errors import UsageError
from sweeper.model.bounded_json import parse_json
from sweeper.schemas.values import fits_shape
from sweeper.serving.hosting import ServerThread, bind
from sweeper.serving.page_files import SHARED_PAGE, join_script, read_html, read_page


def is_loopback(name: str) -> bool:
    """Whether a host name or IP address can only be reached from this machine."""
    address = _parse_address(name)
    return name == "localhost" if address is None else address.is_loopback and "%" not in name  # any text may follow it


class OwnNames:
    """The host names of a server that listens on `address`.

    On loopback these are the names of loopback. Elsewhere they are also the address itself, this machine's name, and
    any IP address, because another site can rebind a name but not an address.
    """

    def __init__(self, address: str) -> None:
        self._is_local = is_loopback(address)
        names = () if self._is_local else (address, socket.gethostname(), socket.getfqdn())
        self._names = frozenset(name.lower() for name in names if name)

    def __contains__(self, host_header: str) -> bool:
        name = host_header if host_header.endswith("]") else host_header.rpartition(":")[0] or host_header
        name = name.strip("[]").lower().rstrip(".")
        if is_loopback(name) or name in self._names:
            return True
        return not self._is_local and _parse_address(name) is not None


def _parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


LOGIN_PAGE: Final = SHARED_PAGE / "enter.html"
COOKIE_PREFIX: Final = "sweeper-view"
# The login page needs these; they contain nothing of the run.
_PUBLIC_PATHS: Final = frozenset({"/session", "/enter.js", "/page.css"})
HAS_SESSION: Final = "sweeper.has_session"  # of a request's scope: whether it has the token, where that matters
MAX_BODY_BYTES: Final = 4096  # of a request's body
WRONG_TOKEN_SECONDS: Final = 1.0  # until the answer to a wrong token; a right one never waits
_YEAR_SECONDS: Final = 365 * 86400
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NO_STORE: Final = {"cache-control": "no-store"}  # for what may change
SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def check_embedder(origin: str) -> str:
    """The origin of a page on this machine that may show ours in a frame. Raises UsageError for any other."""
    try:
        parts = urlsplit(origin)
        port = "" if parts.port is None else f":{parts.port}"
        host = parts.hostname or ""
    except ValueError:
        parts, port, host = urlsplit(""), "", ""
    name = f"[{host}]" if ":" in host else host
    found = f"{parts.scheme}://{name}{port}"
    if parts.scheme not in ("http", "https") or not is_loopback(host) or origin.rstrip("/").lower() != found:
        raise UsageError(f"{origin!r} is not the origin of a page on this machine, such as http://127.0.0.1:8188")
    return found


class AccessControl:
    """Passes a request to `app`, or answers it. `token` is None if none is required.

    `writable`: the paths that take POST requests. Their bodies are JSON, which `read_json` reads. `guarded`: if given,
    only these paths require the token. `embedder`: the origin whose pages may show these in a frame.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, token: str | None, writable: Collection[str] = (),
        guarded: Collection[str] | None = None, embedder: str | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._headers = dict(SECURITY_HEADERS)
        if embedder is not None:
            del self._headers["x-frame-options"]  # names no origin
            self._headers["content-security-policy"] = CONTENT_SECURITY_POLICY.replace(
                "frame-ancestors 'none'", f"frame-ancestors {embedder}"
            )
        self._token = token
        self._writable, self._guarded = frozenset(writable), guarded
        # Cookies do not depend on the port, so two views on one machine need different names.
        self._cookie_name = f"{COOKIE_PREFIX}-{_hash(token or '')[:12]}"
        self._cookie_value = _hash(f"session {token}")  # needs no quotes, whatever the token is
        self._own_names = OwnNames(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no page uses one
            await send({"type": "websocket.close"})  # before the handshake, so uvicorn answers 403
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in self._headers.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        request = Request(scope, receive)
        response = await self._intercept(request)
        await (response or self._app)(scope, receive, send_with_headers)

    async def _intercept(self, request: Request) -> Response | None:
        """Answer a login or a refused request; None lets the request pass."""
        if request.headers.get("host", "") not in self._own_names:
            return PlainTextResponse("this server does not use this host name", 421)
        if self._token is not None and request.url.path == "/session" and request.method == "POST":
            return await self._create_session(request)
        path = request.url.path
        if request.method == "POST" and path in self._writable:
            # Another site's page can send JSON only if this server permits it in an answer to OPTIONS, and it does not.
            # Browsers also name the page's site in `Origin`.
            origin, kind = request.headers.get("origin"), request.headers.get("content-type", "")
            is_own = origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
            if not is_own or kind.partition(";")[0].strip().lower() != "application/json":
                return PlainTextResponse("only a page of this server may send this, as application/json", 403)
        elif request.method not in ("GET", "HEAD"):
            return PlainTextResponse("only GET", 405)
        return await self._check_token(request, path)

    async def _check_token(self, request: Request, path: str) -> Response | None:
        if self._token is None or path in _PUBLIC_PATHS:
            return None
        sent = self._check_credentials(request)
        request.scope[HAS_SESSION] = any(sent)
        if any(sent) or (self._guarded is not None and path not in self._guarded):
            return None
        if sent:
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
        if path == "/":
            return Response(read_html(LOGIN_PAGE), 401, NO_STORE, "text/html; charset=utf-8")
        return PlainTextResponse(
            "a token is required; the address that sweeper printed has it", 401, {"www-authenticate": "Bearer"}
        )

    def _check_credentials(self, request: Request) -> list[bool]:
        """Whether what a request has in its `Authorization` header, and in its cookie, is right.

        Not by `http.cookies`, which needs a second for 15 kB of backslashes (CVE-2024-7592).
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        checks = [self._is_token(token.strip())] if kind.lower() == "bearer" else []
        for pair in request.headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._cookie_name:
                checks.append(secrets.compare_digest(value.encode(), self._cookie_value.encode()))
        return checks

    def _is_token(self, token: str) -> bool:
        assert self._token is not None
        return secrets.compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (token, self._token)))

    async def _create_session(self, request: Request) -> Response:
        token = ""
        with suppress(HTTPException):
            token = (await read_json(request, {"token": str}))["token"]
        if not self._is_token(token):
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
            return JSONResponse({"entered": False}, 403)
        response = JSONResponse({"entered": True})
        response.set_cookie(
            self._cookie_name, self._cookie_value, max_age=_YEAR_SECONDS, httponly=True, samesite="strict"
        )
        return response


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def read_json(
    request: Request, shape: Any = object, limit: int = MAX_BODY_BYTES, *, advice: str = "send less"
) -> Any:
    """The JSON of a request, of this shape (see `fits_shape`). Raises HTTPException, 413 for more than `limit` bytes.

    `advice`: what to do if it is too long.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(413, f"the request has more than {limit:,} bytes; {advice}")
    try:
        value = await asyncio.to_thread(parse_json, bytes(body))
    except ValueError as error:
        raise HTTPException(400, f"the request is not JSON: {error}") from None
    if not fits_shape(value, shape):
        raise HTTPException(400, "the request does not have what this page sends")
    return value


_FIRST_PORT: Final = 49152  # of the range for private use
_PORT_COUNT: Final = 16384
_PAGE_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class PageServer:
    """Serves an app from `start` to `stop`. `close` is for a server that was never started.

    Args:
        host, port: where to listen. Port 0: the port that `identity` always has, or any free one if that is taken,
            because browsers store a page's settings by origin.
        identity: names the page and its folder, for that port.
        token: required from visitors; None makes one. On a loopback address none is required, unless `needs_token`,
            or for the paths `guarded` alone. Then `session_url` has it, and `url` and `token` do not.
        embedder: see `AccessControl`.

    Raises:
        UsageError: the address cannot be used.

    """

    def __init__(
        self, host: str, port: int, identity: str, token: str | None, *, needs_token: bool = False,
        guarded: Collection[str] = (), embedder: str | None = None,
    ) -> None:  # fmt: skip
        is_open = is_loopback(host) and not needs_token
        self._secret = None if is_open and not guarded else token or secrets.token_urlsafe(32)
        self.token = None if is_open else self._secret
        self._guarded = frozenset(guarded) if is_open else None
        self._host, self._embedder = host, embedder and check_embedder(embedder)
        self._listener = _listen(host, port, identity)
        self._thread: ServerThread | None = None

    @property
    def url(self) -> str:
        """The address of the page. A token follows after `#`, which browsers send to no server."""
        address, port = self._listener.getsockname()[:2]
        if address in ("0.0.0.0", "::"):  # noqa: S104 - not bound here, only recognised
            address = socket.gethostname()
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}/" + _write_token(self.token)

    @property
    def session_url(self) -> str:
        """The same with the token in any case, so that the page may do all that it can."""
        return self.url if self.token else self.url + _write_token(self._secret)

    def start(self, app: ASGIApp, *, writable: Collection[str] = ()) -> None:
        """Serve `app`. `writable`: see `AccessControl`."""
        access = AccessControl(
            app, host=self._host, token=self._secret, writable=writable, guarded=self._guarded, embedder=self._embedder
        )
        self._thread = ServerThread([(self._listener, access)], {})
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; requests that are being answered get a few seconds."""
        if self._thread is not None:
            self._thread.stop()
        self.close()

    def close(self) -> None:
        self._listener.close()


def _write_token(token: str | None) -> str:
    return "" if token is None else f"#token={quote(token, safe='')}"


def make_page_route(root: Path) -> Route:
    """Make the last route of an application: it serves the files of the page in a folder, and of the login page."""
    files = read_page(root) | {"enter.js": join_script(SHARED_PAGE / "js" / "enter.js")}

    async def serve_page(request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        if name not in files:
            return respond_not_found()
        return Response(files[name], headers=NO_STORE, media_type=_PAGE_TYPES[PurePosixPath(name).suffix])

    return Route("/{name:path}", serve_page)


def respond_not_found() -> Response:
    return PlainTextResponse("not found", 404)


def _listen(host: str, port: int, identity: str) -> socket.socket:
    own = _FIRST_PORT + int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % _PORT_COUNT
    ports = [port] if port else [own, 0]
    for candidate in ports:
        try:
            return bind(host, candidate)
        except OSError as error:
            if candidate == ports[-1]:
                raise UsageError(f"cannot listen on {host}:{port or 'any port'}: {error.strerror or error}") from error
    raise AssertionError
