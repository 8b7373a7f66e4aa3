"""The Dask plugin of a worker. It lives as long as the worker, and holds the server beside it and its batches.

A worker with two or more threads takes two batches (each task occupies a thread), otherwise one; the Dask resource
`sweeper` limits that. The second batch begins when the first has no pending trials, so that the server does not wait
for a round trip to the driver. Everything runs in the worker's event loop, also what the driver calls by `Client.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from distributed import WorkerPlugin, get_worker

from sweeper import embedded
from sweeper.cluster.address import resolve_on_worker
from sweeper.cluster.messages import RunSpec, WorkerInfo
from sweeper.cluster.worker_batch import LEASE_SECONDS, WorkerBatch
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.target import Target
from sweeper.errors import RefusedError, SweeperError, UsageError
from sweeper.files import replace_file
from sweeper.images.metrics.registry import load_metrics
from sweeper.model.urls import is_loopback
from sweeper.planning.order import detect_server_cache
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.preflight import PARTNER_KEY_FIELD
from sweeper.running.stop_control import list_stop_signals
from sweeper.store.artifacts import ArtifactFolder
from sweeper.store.remote_artifacts import RemoteFolder, allow_storage, check_url

if TYPE_CHECKING:
    from distributed import Worker


PLUGIN_NAME: Final = "sweeper-worker"
RESOURCE_NAME: Final = "sweeper"
SHARED_MARKER: Final = ".shared"  # a file in the results folder, by which a worker knows that it sees the folder
_MAX_BATCHES: Final = 2  # per worker: one that runs, and the next one
_TURN_INTERVAL: Final = 0.02  # seconds between two checks whose turn it is
_MAX_REMEMBERED: Final = 4096  # batches whose task will not start again here


class SweeperWorkerPlugin(WorkerPlugin):
    """The plugin of one worker.

    `idempotent`: a second driver uses the plugin of the first one, with its server. `ignore_sigint`: the worker is a
    child of the driver, so Ctrl-C in the terminal reaches it too, but only the driver decides when to stop.

    A server's id is its URL; for a loopback URL the host name and the URL, separated by a space; for the embedded
    server `embedded` and the id of this plugin's instance.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, *, ignore_sigint: bool) -> None:
        self.ignore_sigint = ignore_sigint

    def setup(self, worker: Worker) -> None:
        if self.ignore_sigint and threading.current_thread() is threading.main_thread():
            for number in {*list_stop_signals()} - {signal.SIGTERM}:
                signal.signal(number, signal.SIG_IGN)
        self.worker = worker
        self.instance_id = uuid4().hex[:12]
        self.batches: dict[str, WorkerBatch] = {}
        self.spool_folder = Path(tempfile.mkdtemp(prefix="sweeper-worker-"))
        self.inputs_folder = self.spool_folder / "inputs"  # see `worker_file_name`
        self.inputs_folder.mkdir()
        self._seen_batches: deque[str] = deque(maxlen=_MAX_REMEMBERED)
        self._clients: dict[Any, ComfyClient] = {}
        self._targets: dict[str, Target] = {}  # by driver id
        self._limits: dict[ComfyClient, ConcurrencyLimit] = {}
        self._registrations: dict[str, tuple[WorkerInfo, RunSpec]] = {}  # by driver id
        self._embedded_server: embedded.EmbeddedServer | None = None
        self._lock = asyncio.Lock()

    async def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker closes. Jobs on a server keep running; nothing more is submitted."""
        for batch in list(self.batches.values()):
            await batch.drop()
        for client in self._clients.values():
            await client.close()
        if self._embedded_server is not None:
            await asyncio.to_thread(self._embedded_server.stop)
        shutil.rmtree(self.spool_folder, ignore_errors=True)

    # --- registration

    async def register(self, run_spec: RunSpec) -> WorkerInfo:
        """Prepare for a run: drop batches of earlier drivers, connect to the server, and accept batches."""
        unsent: list[str] = []
        for batch_id, batch in list(self.batches.items()):
            other = batch.run_spec
            is_replaced = other.folder_id == run_spec.folder_id and other.driver_id != run_spec.driver_id
            is_orphaned = batch.seconds_since_heartbeat > 2 * LEASE_SECONDS  # its driver will not come back
            if is_replaced or is_orphaned:
                unsent += await batch.drop()
                self.batches.pop(batch_id, None)
        info = WorkerInfo(self.worker.address, str(self.worker.name), socket.gethostname(), unsent_jobs=tuple(unsent))
        async with self._lock:
            try:
                info = await self._with_server_info(info, run_spec)
            except SweeperError as error:
                info = replace(info, problem=str(error), refused=isinstance(error, RefusedError))
        self._registrations[run_spec.driver_id] = info, run_spec
        await self.worker.set_resources(**{RESOURCE_NAME: 0 if info.problem else info.max_batches})
        return info

    async def _with_server_info(self, worker_info: WorkerInfo, run_spec: RunSpec) -> WorkerInfo:
        """Connect to the server, and add what it reports. Raises SweeperError if the worker cannot be used."""
        target = await self._resolve_target(run_spec)
        if run_spec.has_partner_nodes and run_spec.settings.check and target.partner_key is None:
            variable = target.partner_key_env or "that `partner_key_env` names"
            raise UsageError(f"a paid partner's nodes need a key: the variable {variable} is not set on this worker")
        client = self._get_client(target, run_spec)
        server = await client.connect()
        if run_spec.target.embedded:
            server_id, concurrency = f"embedded {self.instance_id}", self._count_embedded_slots(run_spec) + 1
        else:
            server_id = f"{worker_info.host} {target.url}" if is_loopback(target.url) else target.url
            concurrency = (
                run_spec.settings.concurrency or target.concurrency or server.max_jobs or client.dialect.concurrency
            )
        if run_spec.artifact_url is not None:
            await asyncio.to_thread(check_url, run_spec.artifact_url)
            allow_storage(run_spec.artifact_url)
        stores_directly = run_spec.artifact_url is not None or await asyncio.to_thread(_can_see_folder, run_spec)
        return replace(
            worker_info, server_id=server_id, url=target.url, dialect=server.dialect, version=server.version,
            server_cache=detect_server_cache(server.version, server.arguments, server.memory), concurrency=concurrency,
            stores_directly=stores_directly, server_info=await client.get_server_info(),
            max_batches=min(_MAX_BATCHES, self.worker.state.nthreads), server_time=client.server_time,
        )  # fmt: skip

    async def _resolve_target(self, run_spec: RunSpec) -> Target:
        """The target with this worker's URL and keys. Starts the embedded server if the run uses it."""
        target = run_spec.target
        if target.embedded:
            if self._embedded_server is None:
                slots, classes = self._count_embedded_slots(run_spec), run_spec.settings.object_info
                server = embedded.EmbeddedServer(dialect="cloud", workers=slots, object_info=classes, permissive=True)
                self._embedded_server = await asyncio.to_thread(server.start)
            return replace(target, url=self._embedded_server.url)
        if run_spec.driver_id not in self._targets:
            resolved = await asyncio.to_thread(resolve_on_worker, target, os.environ)
            self._targets[run_spec.driver_id] = resolved
        return self._targets[run_spec.driver_id]

    def _count_embedded_slots(self, run_spec: RunSpec) -> int:
        """How many jobs the embedded server runs at a time."""
        threads: int = self.worker.state.nthreads
        return run_spec.settings.concurrency or max(1, threads // _MAX_BATCHES)

    def _get_client(self, target: Target, run_spec: RunSpec) -> ComfyClient:
        """The client of a server, kept for later batches because it keeps connections open."""
        partner_key = target.partner_key if run_spec.has_partner_nodes else None
        patience = run_spec.settings.patience
        identity = (target.name, target.url, target.dialect, target.key, partner_key, patience)
        if identity not in self._clients:
            client = self._clients[identity] = ComfyClient(target, patience=patience)
            if partner_key is not None:
                client.extra_data = {PARTNER_KEY_FIELD: partner_key}
        return self._clients[identity]

    def _get_limit(self, client: ComfyClient, concurrency: int) -> ConcurrencyLimit:
        """The limit of a server, shared by its batches, so that the next one uses the permits that the first leaves."""
        limit = self._limits.get(client)
        if limit is None or limit.maximum != concurrency:
            limit = self._limits[client] = ConcurrencyLimit(concurrency, Random())
        return limit

    async def ask_server(self, run_spec: RunSpec, question: str, *arguments: Any) -> Any:
        """What the server beside this worker answers to a method of `ServerModels`. Raises SweeperError."""
        client = self._get_client(await self._resolve_target(run_spec), run_spec)
        await client.connect()
        return await getattr(client.models, question)(*arguments)

    # --- batches

    async def run_batch(self, batch_id: str, driver_id: str, run_id: int, server_url: str | None) -> str:
        """Run a batch from its start to its end. Returns a word for the dashboard; the driver pulls the messages."""
        info, run_spec = self._registrations.get(driver_id, (None, None))
        if info is None or run_spec is None or info.problem:
            return "not registered"
        if batch_id in self._seen_batches:
            return "started before"
        self._seen_batches.append(batch_id)
        batch = self.batches[batch_id] = self._make_batch(run_id, run_spec, info)
        # Tell the driver where the batch is, and wait until it starts the batch.
        self.worker.log_event(run_spec.driver_id, {"batch_id": batch_id, "address": self.worker.address})
        try:
            async with asyncio.timeout(LEASE_SECONDS):
                await batch.started.wait()
        except TimeoutError:
            batch.dropped = True
        if batch.dropped:
            self.batches.pop(batch_id, None)
            return "not started"
        if not await self._wait_for_turn(batch):
            return "dropped"
        try:
            target = await self._resolve_target(run_spec)
            if server_url is not None:
                target = replace(target, url=server_url)
            client = self._get_client(target, run_spec)
            await client.connect()
            await batch.run(client, self._get_limit(client, info.concurrency))
        except Exception as error:  # noqa: BLE001 (such as a full disk; the driver gets the error, and decides)
            await batch.fail(error)
            return "failed"
        return "dropped" if batch.dropped else "done"

    async def _wait_for_turn(self, batch: WorkerBatch) -> bool:
        """Wait until no earlier batch has pending trials, or the run stops. Returns False if the batch was dropped."""
        while not batch.control.stopping and self._is_behind(batch):
            if batch.seconds_since_heartbeat > LEASE_SECONDS:
                await batch.drop()
            await asyncio.sleep(_TURN_INTERVAL)
        return not batch.dropped

    def _is_behind(self, batch: WorkerBatch) -> bool:
        earlier = takewhile(lambda other: other is not batch, self.batches.values())  # in the order of their arrival
        return any(other.has_pending for other in earlier)

    def _make_batch(self, run_id: int, run_spec: RunSpec, worker_info: WorkerInfo) -> WorkerBatch:
        metrics: dict[str, Any] = {}
        if run_spec.metrics:
            # If only the driver has a user's metric, it measures there.
            with contextlib.suppress(SweeperError):
                loaded = load_metrics(run_spec.metrics, Path(run_spec.experiment_folder))
                metrics = {name: metric for name, metric in loaded.items() if metric.version == run_spec.metrics[name]}
        # A folder for each driver, because two runs may have files of the same name.
        spool_folder = self.spool_folder / run_spec.driver_id
        folder: ArtifactFolder = ArtifactFolder(Path(run_spec.folder) if worker_info.stores_directly else spool_folder)
        if run_spec.artifact_url is not None:
            folder = RemoteFolder(spool_folder, run_spec.artifact_url, keep_local=bool(metrics))
        return WorkerBatch(
            run_spec,
            run_id,
            folder=folder,
            stores_directly=worker_info.stores_directly,
            inputs_folder=self.inputs_folder,
            metrics=metrics,
            name=f"{worker_info.name}: {run_spec.target.name}",
        )

    async def retire(self) -> None:
        """Accept no more batches in this run, because the worker's server refuses us or is gone."""
        await self.worker.set_resources(**{RESOURCE_NAME: 0})

    async def call_batch(self, batch_id: str, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of WorkerBatch on a batch; None if the worker does not have it."""
        batch = self.batches.get(batch_id)
        if batch is None:
            return None
        answer = method(batch, *arguments)
        return await answer if inspect.isawaitable(answer) else answer

    def close_batch(self, batch_id: str) -> None:
        """Forget a batch, because the driver has recorded everything."""
        batch = self.batches.pop(batch_id, None)
        if batch is not None:
            batch.discard_messages()

    async def drop_batch(self, batch_id: str) -> tuple[str, ...] | None:
        """Give up a batch; return its jobs that were never submitted, None if the worker does not have the batch."""
        batch = self.batches.pop(batch_id, None)
        return None if batch is None else await batch.drop()

    def stop_batches(self, driver_id: str, cancelling: bool) -> None:
        """Submit nothing more for that driver; with `cancelling`, cancel its jobs too."""
        for batch in self.batches.values():
            if batch.run_spec.driver_id == driver_id:
                batch.stop(cancelling=cancelling)

    # --- files

    def find_missing_inputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of these input files (see `worker_file_name`) that the worker does not have."""
        return tuple(name for name in names if not (self.inputs_folder / name).is_file())

    def write_input(self, name: str, offset: int, content: bytes, last: bool) -> None:
        """Write a chunk of an input file. The file gets its name with the `last` chunk."""
        partial = self.inputs_folder / f".{name}.part"
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(content)
        if last:
            replace_file(partial, partial.with_name(name))


def _can_see_folder(run_spec: RunSpec) -> bool:
    """Whether this worker sees the driver's results folder."""
    try:
        return (Path(run_spec.folder) / SHARED_MARKER).read_text("ascii") == run_spec.token
    except (OSError, UnicodeDecodeError):
        return False


def plugin_of(worker: Worker) -> SweeperWorkerPlugin:
    """The plugin of a worker. Raises KeyError before it is set up."""
    return cast("SweeperWorkerPlugin", worker.plugins[PLUGIN_NAME])


async def run_batch(batch_id: str, driver_id: str, run_id: int, server_url: str | None) -> str:
    """The Dask task of a batch. `server_url`: the only server that knows its open jobs; None: the worker's own.

    Workers get the trials as `pack` makes them, and the `RunSpec` by the driver's id, because Dask's logs keep the
    tasks of the last thousand messages in the memory of driver and scheduler.
    """
    return await plugin_of(get_worker()).run_batch(batch_id, driver_id, run_id, server_url)


async def call_plugin(method: Callable[..., Any], *arguments: Any, dask_worker: Worker) -> Any:
    """Call a method of SweeperWorkerPlugin on a worker. Raises what it raises, and KeyError before it is set up."""
    answer = method(plugin_of(dask_worker), *arguments)
    return await answer if inspect.isawaitable(answer) else answer
