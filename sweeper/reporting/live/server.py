"""`LiveView`: start it, tell people its `url`, stop it. Threads and sockets live here.

A results folder prefers a port of its own, so that what a browser keeps for the page (marks, theme) is there again the
next time: it is kept by origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import uvicorn

from sweeper.errors import UsageError
from sweeper.model.experiment import Experiment
from sweeper.reporting.live.access import Guard, is_loopback
from sweeper.reporting.live.app import live_app
from sweeper.reporting.live.check_follower import Check
from sweeper.reporting.live.follower import Follower
from sweeper.reporting.live.notifier import Bell

_FIRST_PORT: Final = 49152  # of the range that no service is registered in
_PORTS: Final = 16384
_GRACE: Final = 1  # seconds for what is being answered when the server stops


class LiveView:
    """Serves the page of a results folder and keeps it up to date; a context manager.

    Args:
        results: the folder; `experiment` is the one whose plan is shown while nothing was run there yet.
        run: an earlier run instead of the latest.
        host, port: where to listen. Port 0: the folder's own, or any free one when that is taken.
        check: what holds trials against a baseline, where there is one.
        token: what a visitor has to show where `host` is no loopback address; None makes one.

    Raises:
        ResultsError, InputError: there is nothing to show.
        UsageError: the address cannot be had.

    """

    def __init__(
        self,
        results: Path,
        *,
        experiment: Experiment | None = None,
        run: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        check: Check | None = None,
    ) -> None:
        self.token = None if is_loopback(host) else token or secrets.token_urlsafe(32)
        self._bell = Bell()
        self._listener = _listen(host, port, results)
        try:
            self._follower = Follower(results, self._bell.ring, run=run, experiment=experiment, check=check)
        except BaseException:
            self._listener.close()
            raise
        app = Guard(live_app(self._follower, self._bell), host=host, token=self.token)
        self._server = _Server(
            uvicorn.Config(
                app, http="h11", ws="none", lifespan="off", log_config=None, log_level="critical", access_log=False,
                proxy_headers=False, server_header=False, timeout_graceful_shutdown=_GRACE,
            ),
            self._bell,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._serve, name="sweeper-view-http", daemon=True)

    @property
    def url(self) -> str:
        """Where the page is. Where a token is needed it stands behind `#`, which is sent to no server."""
        address, port = self._listener.getsockname()[:2]
        if address in ("0.0.0.0", "::"):  # noqa: S104 - not bound here, only recognised
            address = socket.gethostname()
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}/" + (f"#token={quote(self.token, safe='')}" if self.token else "")

    def __enter__(self) -> Self:
        self._follower.start()
        self._thread.start()
        self._server.ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._follower.stop()
        self._bell.end()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve([self._listener]))
        finally:
            self._server.ready.set()


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to the command and says when it answers."""

    def __init__(self, config: uvicorn.Config, bell: Bell) -> None:
        super().__init__(config)
        self.bell = bell
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.bell.hang()
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int, results: Path) -> socket.socket:
    own = _FIRST_PORT + int.from_bytes(hashlib.sha256(str(results.resolve()).encode()).digest()[:4], "big") % _PORTS
    wishes = [port] if port else [own, 0]
    for wish in wishes:
        try:
            return _bound(host, wish)
        except OSError as error:
            if wish == wishes[-1]:
                raise UsageError(f"cannot listen on {host}:{port or 'any port'}: {error.strerror or error}") from error
    raise AssertionError


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
