"""Serves a page in a thread, at an address that its folder always has. `access` controls who may see it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sweeper.errors import UsageError
from sweeper.serving.access import LOGIN_PAGE, NO_STORE, AccessControl
from sweeper.serving.host_names import is_loopback
from sweeper.serving.hosting import ServerThread, bind

_FIRST_PORT: Final = 49152  # of the range for private use
_PORT_COUNT: Final = 16384
_PAGE_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class PageServer:
    """Serves an app from `start` to `stop`. `close` is for a server that was never started.

    Args:
        host, port: where to listen. Port 0: the port that `identity` always has, or any free one if that is taken,
            because browsers store a page's settings by origin.
        identity: names the page and its folder, for that port.
        token: required from visitors unless `host` is a loopback address; None makes one.

    Raises:
        UsageError: the address cannot be used.

    """

    def __init__(self, host: str, port: int, identity: str, token: str | None) -> None:
        self.token = None if is_loopback(host) else token or secrets.token_urlsafe(32)
        self._host = host
        self._listener = _listen(host, port, identity)
        self._thread: ServerThread | None = None

    @property
    def url(self) -> str:
        """The address of the page. A token follows after `#`, which browsers send to no server."""
        address, port = self._listener.getsockname()[:2]
        if address in ("0.0.0.0", "::"):  # noqa: S104 - not bound here, only recognised
            address = socket.gethostname()
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}/" + (f"#token={quote(self.token, safe='')}" if self.token else "")

    def start(
        self,
        app: ASGIApp,
        *,
        writable: Collection[str] = (),
        on_loop: Callable[[asyncio.AbstractEventLoop], None] = lambda _loop: None,
    ) -> None:
        """Serve `app`. `writable`: see `AccessControl`. `on_loop`: see `ServerThread`."""
        guarded = AccessControl(app, host=self._host, token=self.token, writable=writable)
        self._thread = ServerThread([(self._listener, guarded)], {}, on_loop)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; requests that are being answered get a few seconds."""
        if self._thread is not None:
            self._thread.stop()
        self.close()

    def close(self) -> None:
        self._listener.close()


def make_page_route(root: Path) -> Route:
    """Make the last route of an application: it serves the files of a page, and of the login page."""
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), _PAGE_TYPES[path.suffix])
        for folder in (root, LOGIN_PAGE.parent)
        for path in folder.rglob("*")
        if path.suffix in _PAGE_TYPES
    }

    async def serve_page(request: Request) -> Response:
        file = files.get(request.path_params["name"] or "index.html")
        if file is None:
            return respond_not_found()
        content, media_type = file
        return Response(content, headers=NO_STORE, media_type=f"{media_type}; charset=utf-8")

    return Route("/{name:path}", serve_page)


def respond_not_found() -> Response:
    """The response to a request for something that is not there."""
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
