"""`EmbeddedServer`: starts and stops the server, and connects its parts."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from socket import socket
from typing import Any, Literal, Self

from sweeper.embedded.app_cloud import is_public, make_cloud_app, shape_refusal
from sweeper.embedded.app_cloud_v2 import make_v2_app
from sweeper.embedded.app_comfyui import make_comfyui_app
from sweeper.embedded.cache import make_cache
from sweeper.embedded.executor import run_jobs
from sweeper.embedded.faults import DEFAULT, Faults, RequestLog, Scenario
from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.http_helpers import RequestGuard
from sweeper.embedded.jobs import SQLiteJournal
from sweeper.embedded.media_routes import StorageHost
from sweeper.embedded.nodes import NodeClass
from sweeper.embedded.service import Account, ServerSettings, Service
from sweeper.embedded.stand_ins.class_descriptions import describe_classes, list_known_classes
from sweeper.errors import UsageError
from sweeper.serving import hosting
from sweeper.serving.access import OwnNames
from sweeper.wording import suggest


class EmbeddedServer:
    """A server on loopback in its own threads. Use it in a `with` statement, or call `start` and `stop`.

    A stopped server can be started again at the same URL. With a `data` folder, its files stay. The comfyui dialect
    forgets its jobs. The others keep them: waiting jobs then run, and a job that was running at a crash is `lost`.

    Args:
        dialect: "cloud", "comfyui" or "v2" (Comfy API v2 as a deployment serves it).
        host, port: the address to listen on; port 0 takes a free port, and keeps it for later starts. All dialects but
            comfyui also listen on a second free port, as their storage host.
        api_key: the key that requests must send (X-API-Key; v2: Authorization; /ws: `token=`); None: none is required.
        data: the folder for input/, output/, temp/ and, except for comfyui, jobs and assets; None: a temporary
            folder, which is deleted at stop.
        strict_models: refuse model files that the loaders do not list.
        workers: the number of jobs that run at once; the comfyui dialect always has one.
        cache: which node results to keep between jobs: "classic", "lru N", "ram N" or "none".
        faults: the faults to inject; also available as `server.faults`. A scenario's `concurrency` or `tier` overrides
            `workers`.
        object_info: the response of a server to GET /object_info. Stand-ins run those of its classes that this server
            lacks.
        permissive: let stand-ins run classes that nothing describes, from what the submitted graph shows of them.
        nodes: class_type -> NodeClass; None: sweeper's own nodes, and stand-ins for the other core nodes of ComfyUI.

    Raises:
        InputError: `object_info` describes no node classes.
        UsageError: an argument is wrong, the address is in use, or another server uses `data`.

    """

    def __init__(
        self,
        dialect: Literal["cloud", "comfyui", "v2"] = "cloud",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        data: str | Path | None = None,
        strict_models: bool = False,
        workers: int = 1,
        cache: str = "classic",
        faults: Faults | None = None,
        object_info: Mapping[str, Any] | None = None,
        permissive: bool = False,
        nodes: Mapping[str, NodeClass] | None = None,
    ) -> None:
        self.faults = faults or Faults()
        _check_arguments(dialect, workers, cache, self.faults.scenario)
        self.account = Account(self.faults)
        workers = 1 if dialect == "comfyui" else self.faults.scenario.jobs_at_once or workers
        self.settings = ServerSettings(dialect, api_key, strict_models, workers, cache, permissive)
        self.data = None if data is None else Path(data).absolute()
        self._address = (host, port)
        own_nodes = list_known_classes() if nodes is None else nodes
        self._nodes = own_nodes if object_info is None else describe_classes(object_info, own_nodes)
        if not permissive:
            _check_class_names(self._nodes, self.faults)
        self._lock = threading.RLock()  # a start waits for a stop in another thread, because both use the data folder
        self._parts: ExitStack | None = None  # what stop closes; None: the server is stopped
        self._service: Service | None = None
        self._url = ""
        self._storage_url: str | None = None
        self.seen = RequestLog()  # since the last start; kept after a stop

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.settings.dialect} {self._url if self._service else 'stopped'}>"

    @property
    def url(self) -> str:
        """`http://HOST:PORT`. Raises UsageError if the server is not running."""
        self._require_service()
        return self._url

    @property
    def storage_url(self) -> str | None:
        """The URL of the storage host; None in the comfyui dialect. Raises UsageError if the server is not running."""
        self._require_service()
        return self._storage_url

    @property
    def folders(self) -> ServerFolders:
        """The server's folders. Raises UsageError if the server is not running."""
        return self._require_service().folders

    @property
    def charge_total(self) -> float:
        """What all jobs were charged, in USD, also before a restart."""
        return self.account.charge_total

    def list_charges(self, prompt_id: str) -> dict[str, float]:
        """What a job was charged, in USD: by the id of the node, and for its time by an empty text."""
        job = self._require_service().queue.find(prompt_id)
        return {} if job is None else dict(job.charges)

    def _require_service(self) -> Service:
        if self._service is None:
            raise UsageError("The embedded server is not running: use it in a 'with', or call start() first.")
        return self._service

    def start(self) -> Self:
        """Start, and return when the server accepts requests."""
        with self._lock:
            if self._parts is None:
                with ExitStack() as parts:
                    self._service = self._open(parts)
                    self._parts = parts.pop_all()
        return self

    def _open(self, parts: ExitStack) -> Service:
        """Open what a running server needs, and start its threads. `parts` close it in the opposite order."""
        settings = self.settings
        base = self.data or Path(
            parts.enter_context(tempfile.TemporaryDirectory(prefix="sweeper-", ignore_cleanup_errors=True))
        )
        folders = ServerFolders(base)
        folders.prepare()
        durable = settings.cloud and self.data is not None
        journal = parts.enter_context(closing(SQLiteJournal(base / "jobs.sqlite"))) if durable else None
        service = Service(settings, self._nodes, folders, self.faults, self.account, journal=journal)
        if journal is not None:
            service.restore(journal.load())
        self.seen = service.seen
        # The thread closes the sockets too, which does no harm.
        main = parts.enter_context(_bind(self._address))
        self._address = self._address[0], main.getsockname()[1]  # later starts keep the port
        self._url = hosting.base_url(main)
        transports: dict[Any, Any] = {}
        shared: dict[str, Any] = {"transports": transports, "own_names": OwnNames(self._address[0])}
        options = {**shared, "seen": service.seen, "faults": self.faults, "api_key": settings.api_key}
        if settings.cloud:
            second = parts.enter_context(_bind((self._address[0], 0)))
            self._storage_url = hosting.base_url(second)
            storage = StorageHost(service, self._storage_url)
            # The storage host needs no key, logs separately, and injects only its own faults.
            files = RequestGuard(storage.make_app(), seen=RequestLog(), faults=Faults(), **shared)
            make_app = make_v2_app if settings.dialect == "v2" else make_cloud_app
            app = make_app(service, storage.sign_url)
            guard = RequestGuard(app, is_public=is_public, shape_refusal=shape_refusal, **options)
            sites = [(main, guard), (second, files)]
        else:
            sites = [(main, RequestGuard(make_comfyui_app(service), **options))]
        thread = hosting.ServerThread(sites, transports)
        thread.start()
        parts.callback(thread.stop)
        service.start(run_jobs)
        parts.callback(service.stop)
        return service

    def stop(self) -> None:
        """Interrupt running jobs, end the threads, and close the sockets. Does nothing if the server is stopped.

        If another thread is stopping the server, wait until that has finished.
        """
        with self._lock:
            if self._parts is not None:
                parts, self._parts, self._service = self._parts, None, None
                parts.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _check_arguments(dialect: str, workers: int, cache: str, scenario: Scenario) -> None:
    if dialect not in {"cloud", "comfyui", "v2"}:
        raise UsageError(f"dialect {dialect!r}: the embedded server speaks 'cloud', 'comfyui' and 'v2'")
    if workers < 1:
        raise UsageError(f"workers {workers}: at least one job must be able to run")
    try:
        make_cache(cache)
    except ValueError as problem:
        raise UsageError(str(problem)) from problem
    for name in ("tier", "credits", "refusal_rate"):
        if dialect == "comfyui" and getattr(scenario, name) not in {None, 0}:
            raise UsageError(f"scenario: {name}: a ComfyUI has no account; use the cloud dialect or v2")
    if dialect != "cloud" and scenario.balance is not None:
        raise UsageError("scenario: balance: only the cloud dialect tells a balance; use it, or leave `balance` out")


def _check_class_names(nodes: Mapping[str, NodeClass], faults: Faults) -> None:
    seconds = faults.scenario.node_seconds
    by_class = {"prices": faults.scenario.prices, "node_seconds": seconds if isinstance(seconds, dict) else {}}
    for key, values in by_class.items():
        for name in values:
            if name not in nodes and (key, name) != ("node_seconds", DEFAULT):
                raise UsageError(f"scenario: {key}: this server has no class '{name}'{suggest(name, nodes)}")


def _bind(address: tuple[str, int]) -> socket:
    try:
        return hosting.bind(*address)
    except OSError as problem:
        host, port = address
        raise UsageError(
            f"cannot listen on {host}:{port}: {problem.strerror or problem}; try another port"
        ) from problem
