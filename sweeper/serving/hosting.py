"""A thread that serves ASGI apps with uvicorn on sockets of ours, and stops cleanly.

It does not handle signals, because it never runs in the main thread. A client can hold a connection only as long as it
sends its request, reads its answer, or has a stream of events.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import Any, Final

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

Transports = MutableMapping[Any, asyncio.Transport]  # (our address, theirs) -> the connection's transport

BACKLOG = 256
# When the server stops, unfinished requests get this many seconds.
GRACE_SECONDS = 2
# The limits of Apache's mod_reqtimeout: seconds for the head of a request, and for the first bytes of its body; then
# a body has a second more for each of these bytes.
WAIT_SECONDS: Final = 20
MIN_BODY_RATE: Final = 500
# Seconds in which a client sends or reads nothing, though it should; as in nginx.
STALL_SECONDS: Final = 60
CHECK_SECONDS: Final = 5
MAX_CONNECTIONS: Final = 512  # of all sites of a `ServerThread`


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
        on_loop: Callable[[asyncio.AbstractEventLoop], None] = lambda _loop: None,
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
        state, limit = ServerState(), _get_connection_limit()
        open_sites = []
        for listener, app in self._sites:
            config = _make_config(_ignore_disconnects(app))
            config.load()
            protocol = partial(GuardedProtocol, config, state, {}, transports=self._transports, limit=limit)
            open_sites.append((listener, await loop.create_server(protocol, sock=listener, backlog=BACKLOG)))
        self._loop = loop
        self._ready.set()
        await self._stop_requested.wait()
        for listener, server in open_sites:
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
        await asyncio.wait(list(state.tasks), timeout=GRACE_SECONDS)
    # Before `asyncio.run` cancels what is left: uvicorn logs a request that is cancelled while its client is there.
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()
    # Transports report their end in the next two rounds, and the loop must not close before that.
    await _yield_to_loop()


async def _yield_to_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def _get_connection_limit() -> int:
    """`MAX_CONNECTIONS`, or less if they would need more than half of the files that this process may open."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - Windows has none

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            return min(MAX_CONNECTIONS, files // 2)
    return MAX_CONNECTIONS


def _ignore_disconnects(app: ASGIApp) -> ASGIApp:
    """End an application quietly if its client goes away in the middle of a body, or the server stops meanwhile."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect, asyncio.CancelledError):
            await app(scope, receive, send)

    return serve


def _make_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        log_level="error",  # below that, uvicorn logs each wrong request, and URLs of event streams with their token
        access_log=False,
        proxy_headers=False,
        ws_max_size=4 * 1024 * 1024,  # bytes from client to server, as ComfyUI's aiohttp allows
        ws_ping_interval=None,  # no heartbeat: ComfyUI has none
        timeout_keep_alive=75,
    )


class GuardedProtocol(H11Protocol):
    """Uvicorn's HTTP protocol with deadlines, a limit of connections, and the date in each response.

    It records its transport in `transports`, by (our address, theirs), in the order in which clients were last served.
    Above `limit` connections, the first one closes that has no response under way, so that half requests do not lock
    out a client with a whole one.
    """

    def __init__(self, *args: Any, transports: Transports, limit: int) -> None:
        super().__init__(*args)
        self._transports = transports
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self.loop.time() + WAIT_SECONDS  # for what the client has begun to send
        self._unsent, self._sent_at = 0, self.loop.time()  # bytes that wait for the client, and when it read some

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._transports[self.server, self.client] = transport
        self._timer = self.loop.call_later(CHECK_SECONDS, self._check_deadlines)
        if len(self.connections) > self._limit:
            # Close the connection that has waited longest: the first, or this one if all others get responses.
            for address, waiting in self._transports.items():
                protocol = waiting.get_protocol()
                if not (isinstance(protocol, GuardedProtocol) and protocol.is_answering):
                    del self._transports[address]
                    waiting.abort()
                    break

    @property
    def is_answering(self) -> bool:
        """Whether a part of a response has been sent and the rest has not."""
        is_open = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        return is_open or self.transport.get_write_buffer_size() > 0

    def data_received(self, data: bytes) -> None:
        # Real servers send the time, by which clients correct their clock; uvicorn's `Server` would set it.
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        had_head = self.conn.their_state is h11.SEND_BODY
        super().data_received(data)
        now = self.loop.time()
        if self.conn.their_state is h11.IDLE:  # in a head, which has a limit of its own: see `h11`
            self._deadline = min(self._deadline, now + WAIT_SECONDS)
        elif self.conn.their_state is not h11.SEND_BODY:
            self._deadline = math.inf
        elif not had_head:
            self._deadline = now + WAIT_SECONDS
        elif self.conn.our_state is not h11.DONE:  # else the body means nothing any more
            self._deadline = min(self._deadline + len(data) / MIN_BODY_RATE, now + STALL_SECONDS)

    def _check_deadlines(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if self.flow.read_paused or self.conn.they_are_waiting_for_100_continue:  # the client waits for the application
            self._deadline = max(self._deadline, now + WAIT_SECONDS)
        if unsent == 0 or unsent < self._unsent:
            self._sent_at = now
        self._unsent = unsent
        if now >= self._deadline or now - self._sent_at >= STALL_SECONDS:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(CHECK_SECONDS, self._check_deadlines)

    def on_response_complete(self) -> None:
        address = self.server, self.client
        if (transport := self._transports.pop(address, None)) is not None:
            self._transports[address] = transport  # the last: it waits from now on
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application must not answer too
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # the response is under way or sent, and the rest of the body is wrong
            self.transport.abort()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._forget_transport()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_transport()
        super().connection_lost(exc)

    def _forget_transport(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transports.pop((self.server, self.client), None)
