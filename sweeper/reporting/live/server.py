"""`LiveView` serves the page: start it, show its `url`, stop it. The threads and sockets are here.

Each results folder has a port of its own that is tried first, because browsers store marks and settings by origin.
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

from sweeper.embedded.host_names import is_loopback
from sweeper.errors import UsageError
from sweeper.model.experiment import Experiment
from sweeper.reporting.live.access import AccessControl
from sweeper.reporting.live.app import make_app
from sweeper.reporting.live.check_follower import CheckFunction
from sweeper.reporting.live.follower import Follower
from sweeper.reporting.live.notifier import ChangeNotifier

_FIRST_PORT: Final = 49152  # of the range for private use
_PORT_COUNT: Final = 16384
_GRACE_SECONDS: Final = 1  # seconds for open requests when the server stops


class LiveView:
    """Serves the page of a results folder and keeps it up to date; a context manager.

    Args:
        results: the folder; `experiment`: its plan is shown as long as nothing has run there.
        run: an earlier run instead of the latest.
        host, port: where to listen. Port 0: the folder's own port, or any free one if that is taken.
        check: compares trials with the baseline, if there is one.
        token: required from visitors unless `host` is a loopback address; None makes one.

    Raises:
        ResultsError, InputError: there is nothing to show.
        UsageError: the address cannot be used.

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
        check: CheckFunction | None = None,
    ) -> None:
        self.token = None if is_loopback(host) else token or secrets.token_urlsafe(32)
        self._notifier = ChangeNotifier()
        self._listener = _listen(host, port, results)
        try:
            self._follower = Follower(results, self._notifier.notify, run=run, experiment=experiment, check=check)
        except BaseException:
            self._listener.close()
            raise
        app = AccessControl(make_app(self._follower, self._notifier), host=host, token=self.token)
        self._server = _HttpServer(
            uvicorn.Config(
                app, http="h11", ws="none", lifespan="off", log_config=None, log_level="critical", access_log=False,
                proxy_headers=False, server_header=False, timeout_graceful_shutdown=_GRACE_SECONDS,
            ),
            self._notifier,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._serve, name="sweeper-view-http", daemon=True)

    @property
    def url(self) -> str:
        """The address of the page. A token follows after `#`, which browsers send to no server."""
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
        self._notifier.close()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve([self._listener]))
        finally:
            self._server.ready.set()


class _HttpServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to the command and sets `ready` when it responds."""

    def __init__(self, config: uvicorn.Config, notifier: ChangeNotifier) -> None:
        super().__init__(config)
        self.notifier = notifier
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.notifier.bind()
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int, results: Path) -> socket.socket:
    own = (
        _FIRST_PORT + int.from_bytes(hashlib.sha256(str(results.resolve()).encode()).digest()[:4], "big") % _PORT_COUNT
    )
    ports = [port] if port else [own, 0]
    for candidate in ports:
        try:
            return _bind(host, candidate)
        except OSError as error:
            if candidate == ports[-1]:
                raise UsageError(f"cannot listen on {host}:{port or 'any port'}: {error.strerror or error}") from error
    raise AssertionError


def _bind(host: str, port: int) -> socket.socket:
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
