"""A thread that serves ASGI apps with uvicorn on sockets of ours, and stops cleanly.

It does not handle signals, because it never runs in the main thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sweeper.embedded.request_guard import Transports

BACKLOG = 256
# When the server stops, unfinished requests get this many seconds.
GRACE_SECONDS = 2


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the socket names the protocol TCP. Without it an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows, SO_REUSEADDR would let two servers listen on one port.
        listener.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def base_url(listener: socket.socket) -> str:
    """`http://HOST:PORT` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ServerThread:
    """Serves each app on its socket, all on one event loop in its own thread.

    It uses uvicorn's protocols without uvicorn's `Server`, which polls for its end ten times a second and takes another
    tenth of a second to close. A test suite starts and stops hundreds of these servers.

    Args:
        sites: (listening socket, app) pairs; the sockets are closed at the end.
        transports: filled with the open connections, by (our address, theirs).
        on_loop: called with the event loop before the first request is accepted.

    """

    def __init__(
        self,
        sites: Sequence[tuple[socket.socket, ASGIApp]],
        transports: Transports,
        on_loop: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        self._sites = sites
        self._transports = transports
        self._on_loop = on_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested = asyncio.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="embedded-server", daemon=True)

    def start(self) -> None:
        """Start the thread, and return when it accepts requests. Raises any error of its start."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Stop the thread, and return when it has ended."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_requested.set)
            self._thread.join()
            self._loop = None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:  # noqa: BLE001 - `start` raises it
            self._error = problem
        finally:
            for listener, _ in self._sites:
                listener.close()
            self._ready.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._on_loop(loop)
        open_sites = []
        for listener, app in self._sites:
            config, state = _make_config(app, self._transports), ServerState()
            config.load()
            kind: Callable[..., asyncio.Protocol] = config.http_protocol_class
            protocol = partial(kind, config=config, server_state=state, app_state={})
            open_sites.append((listener, await loop.create_server(protocol, sock=listener, backlog=BACKLOG), state))
        self._loop = loop
        self._ready.set()
        await self._stop_requested.wait()
        for listener, server, state in open_sites:
            await _close(listener, server, state)


async def _close(listener: socket.socket, server: asyncio.Server, state: ServerState) -> None:
    """Stop accepting connections, let running requests finish within `GRACE_SECONDS`, then close everything."""
    # A socket accepted in this round of the loop becomes a connection in the next two. If the server is closed by then,
    # the connection stays open (python/cpython#109564), so stop listening first. A proactor loop has no readers.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().remove_reader(listener)
    await _yield_to_loop()
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    await asyncio.sleep(0)
    if state.tasks:
        _, unfinished = await asyncio.wait(list(state.tasks), timeout=GRACE_SECONDS)
        for task in unfinished:
            task.cancel()
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()
    # Transports report their end in the next two rounds, and the loop must not close before that.
    await _yield_to_loop()


async def _yield_to_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def _make_config(app: ASGIApp, transports: Transports) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_make_tracking_protocol(transports),
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        log_level="warning",  # below that, uvicorn logs the URL of each event stream with its token
        access_log=False,
        proxy_headers=False,
        ws_max_size=4 * 1024 * 1024,  # bytes from client to server, as ComfyUI's aiohttp allows
        ws_ping_interval=None,  # no heartbeat: ComfyUI has none
        timeout_keep_alive=75,
    )


def _make_tracking_protocol(transports: Transports) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP protocol, extended to send the date and to record each connection's transport in `transports`."""

    class TrackingProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transports[self.server, self.client] = transport

        def data_received(self, data: bytes) -> None:
            # Real servers send the time, by which clients correct their clock; uvicorn's `Server` would set it.
            self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop((self.server, self.client), None)
            super().connection_lost(exc)

    return TrackingProtocol
