"""A worker's berth: the plugin that lives as long as the worker, with the server beside it and the groups under way.

It takes one group at a time, or two where the worker has two threads or more (a task takes one): Dask sees to that by
the resource `sweeper`. The second begins when nothing of the first waits any more, so that the server does not wait for
a round trip to the driver.
Everything runs in the worker's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import tempfile
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from distributed import WorkerPlugin, get_worker

from sweeper.cluster.messages import BatchTask, RunSpec, WorkerInfo
from sweeper.cluster.worker_batch import LEASE_SECONDS, WorkerBatch
from sweeper.cluster.worker_context import ClusterArtifactFolder
from sweeper.cluster.worker_target import resolve_on_worker, worker_environment
from sweeper.comfy.target import Target
from sweeper.errors import RefusedError, SweeperError, UsageError
from sweeper.model.urls import is_loopback
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.preflight import PARTNER_KEY_FIELD
from sweeper.store.remote_artifacts import RemoteFolder, check_url

if TYPE_CHECKING:
    from distributed import Worker

    from sweeper.comfy.client import ComfyClient
    from sweeper.embedded import EmbeddedServer
    from sweeper.store.artifacts import ArtifactFolder

PLUGIN_NAME: Final = "sweeper-berth"
RESOURCE_NAME: Final = "sweeper"
_MAX_BATCHES: Final = 2  # groups that a worker may have: one under way, one that is next
_TURN_INTERVAL: Final = 0.02  # seconds between two looks at whose turn it is
SHARED_MARKER: Final = ".shared"  # the file by which a worker knows that it sees the driver's results folder
_MAX_REMEMBERED: Final = 4096  # groups whose task will not begin again here


class SweeperWorkerPlugin(WorkerPlugin):
    """See the module. `idempotent`: a later driver finds the berth of the first, with its server.

    `deaf`: the worker is a child of the driver, so Ctrl-C on the terminal reaches it; the driver's word counts.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, *, ignore_sigint: bool) -> None:
        self.ignore_sigint = ignore_sigint

    def setup(self, worker: Worker) -> None:
        """Called by Dask when the worker has it."""
        if self.ignore_sigint and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.worker = worker
        self.instance_id = uuid4().hex[:12]
        self.batches: dict[str, WorkerBatch] = {}
        self.spool_folder = Path(tempfile.mkdtemp(prefix="sweeper-worker-"))
        self._seen_batches: OrderedDict[str, None] = OrderedDict()
        self._clients: dict[Any, ComfyClient] = {}
        self._targets: dict[str, Target] = {}  # by epoch
        self._limits: dict[ComfyClient, ConcurrencyLimit] = {}
        self._registrations: dict[str, tuple[WorkerInfo, RunSpec]] = {}  # by epoch
        self._embedded_server: EmbeddedServer | None = None
        self._lock = asyncio.Lock()

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002 (Dask passes it)
        """Called by Dask when the worker closes: what runs on a server goes on there, nothing more is sent."""
        for stint in list(self.batches.values()):
            await stint.drop()
        for client in self._clients.values():
            await client.close()
        if self._embedded_server is not None:
            await asyncio.to_thread(self._embedded_server.stop)
        shutil.rmtree(self.spool_folder, ignore_errors=True)

    # --- who we are

    async def register(self, run_spec: RunSpec) -> WorkerInfo:
        """Be ready for a run: earlier epochs of its folder let go, the server beside us answers, groups may come."""
        unsent: list[str] = []
        for group, stint in list(self.batches.items()):
            if (
                stint.run_spec.folder_id == run_spec.folder_id and stint.run_spec.driver_id != run_spec.driver_id
            ) or stint.is_orphaned:
                unsent += await stint.drop()
                self.batches.pop(group, None)
        seat = WorkerInfo(self.worker.address, str(self.worker.name), socket.gethostname(), unsent_jobs=tuple(unsent))
        async with self._lock:
            try:
                seat = await self._with_server_info(seat, run_spec)
            except SweeperError as error:
                seat = replace(seat, problem=str(error), refused=isinstance(error, RefusedError))
        self._registrations[run_spec.driver_id] = seat, run_spec
        await self.worker.set_resources(**{RESOURCE_NAME: 0 if seat.problem else seat.max_batches})
        return seat

    async def _with_server_info(self, worker_info: WorkerInfo, run_spec: RunSpec) -> WorkerInfo:
        target = await self._resolve_target(run_spec)
        if run_spec.has_partner_nodes and run_spec.settings.check and target.partner_key is None:
            variable = target.partner_key_env or "that `partner_key_env` names"
            raise UsageError(f"a paid partner's nodes need a key: the variable {variable} is not set on this worker")
        client = await self.get_client(target, run_spec)
        server = await client.connect()
        if run_spec.target.embedded:
            place, concurrency = f"embedded {self.instance_id}", self._count_embedded_slots(run_spec) + 1
        else:
            place = f"{worker_info.host} {target.url}" if is_loopback(target.url) else target.url
            concurrency = run_spec.settings.concurrency or target.concurrency or client.dialect.concurrency
        if run_spec.artifact_url is not None:
            await asyncio.to_thread(check_url, run_spec.artifact_url)
        shared = run_spec.artifact_url is not None or await asyncio.to_thread(_can_see_folder, run_spec)
        return replace(
            worker_info, server_id=place, url=target.url, dialect=server.dialect, version=server.version,
            arguments=server.arguments, concurrency=concurrency, stores_directly=shared,
            server_info=await client.get_server_info(), max_batches=min(_MAX_BATCHES, self.worker.state.nthreads),
        )  # fmt: skip

    async def _resolve_target(self, run_spec: RunSpec) -> Target:
        if not run_spec.target.embedded:
            if run_spec.driver_id not in self._targets:
                self._targets[run_spec.driver_id] = await asyncio.to_thread(
                    resolve_on_worker, run_spec.target, worker_environment()
                )
            return self._targets[run_spec.driver_id]
        from sweeper.embedded import EmbeddedServer  # noqa: PLC0415 (only where one is asked for)

        if self._embedded_server is None:
            server = EmbeddedServer(dialect="cloud", workers=self._count_embedded_slots(run_spec))
            await asyncio.to_thread(server.start)
            self._embedded_server = server
        return replace(run_spec.target, url=self._embedded_server.url)

    def _count_embedded_slots(self, run_spec: RunSpec) -> int:
        threads: int = self.worker.state.nthreads
        return run_spec.settings.concurrency or max(1, threads // _MAX_BATCHES)

    async def get_client(self, target: Target, run_spec: RunSpec) -> ComfyClient:
        """The client of a server; kept, since a connection is worth keeping."""
        from sweeper.comfy.client import ComfyClient  # noqa: PLC0415 (httpx)

        partner_key = target.partner_key if run_spec.has_partner_nodes else None
        known = (target.name, target.url, target.dialect, target.key, partner_key)
        if known not in self._clients:
            client = self._clients[known] = ComfyClient(target)
            if partner_key is not None:
                client.extra_data = {PARTNER_KEY_FIELD: partner_key}
        return self._clients[known]

    def _get_limit(self, client: ComfyClient, concurrency: int) -> ConcurrencyLimit:
        """One for all groups on a server: the one that is next takes the slots that the first has no use for."""
        gate = self._limits.get(client)
        if gate is None or gate.maximum != concurrency:
            gate = self._limits[client] = ConcurrencyLimit(concurrency, Random())  # noqa: S311 (jitter)
        return gate

    async def get_object_info(self, run_spec: RunSpec) -> dict[str, Any]:
        client = await self.get_client(await self._resolve_target(run_spec), run_spec)
        await client.connect()
        return await client.get_object_info()

    # --- groups

    async def run_batch(self, task: BatchTask) -> str:
        """A group's task, from its start to its end; the word is for the dashboard, the news go by `pull`."""
        seat, order = self._registrations.get(task.driver_id, (None, None))
        if seat is None or order is None or seat.problem:
            return "not enlisted"
        if task.batch_id in self._seen_batches:
            return "begun before"
        self._remember_batch(task.batch_id)
        stint = self._make_batch(task.run_id, order, seat)
        self.batches[task.batch_id] = stint
        self.worker.log_event(order.driver_id, {"group": task.batch_id, "address": self.worker.address})
        try:
            async with asyncio.timeout(LEASE_SECONDS):
                await stint.started.wait()
        except TimeoutError:
            stint.dropped = True
        if stint.dropped:
            self.batches.pop(task.batch_id, None)
            return "not granted"
        if not await self._wait_for_turn(stint):
            return "dropped"
        try:
            target = await self._resolve_target(order)
            if task.server_url is not None:
                target = replace(target, url=task.server_url)
            client = await self.get_client(target, order)
            await client.connect()
            await stint.run(client, self._get_limit(client, seat.concurrency))
        except Exception as error:  # noqa: BLE001 (a full disk, a server that is gone: the driver is told, and decides)
            await stint.fail(error)
            return "failed"
        return "dropped" if stint.dropped else "done"

    async def _wait_for_turn(self, batch: WorkerBatch) -> bool:
        """Wait until no earlier group has anything waiting here, or the brake is on; False: the group was let go."""
        while not batch.control.stopping and self._is_behind(batch):
            if batch.seconds_since_heartbeat > LEASE_SECONDS:
                await batch.drop()
            await asyncio.sleep(_TURN_INTERVAL)
        return not batch.dropped

    def _is_behind(self, batch: WorkerBatch) -> bool:
        for other in self.batches.values():  # in the order in which they came
            if other is batch:
                return False
            if other.has_pending:
                return True
        return False

    def _make_batch(self, run_id: int, run_spec: RunSpec, worker_info: WorkerInfo) -> WorkerBatch:
        metrics: dict[str, Any] = {}
        if run_spec.metrics:
            from sweeper.images.metrics.registry import load_metrics  # noqa: PLC0415 (NumPy and Pillow come with it)

            with contextlib.suppress(SweeperError):  # a metric of the user's that only the driver has: it measures
                loaded = load_metrics(run_spec.metrics)
                metrics = {name: one for name, one in loaded.items() if one.version == run_spec.metrics[name]}
        folder: ArtifactFolder = ClusterArtifactFolder(
            Path(run_spec.folder) if worker_info.stores_directly else self.spool_folder
        )
        if run_spec.artifact_url is not None:
            folder = RemoteFolder(self.spool_folder, run_spec.artifact_url, keep_local=bool(metrics))
        return WorkerBatch(
            run_spec,
            run_id,
            folder=folder,
            stores_directly=worker_info.stores_directly,
            inputs_folder=self.inputs_folder,
            metrics=metrics,
            name=f"{worker_info.name}: {run_spec.target.name}",
        )

    def _remember_batch(self, batch_id: str) -> None:
        self._seen_batches[batch_id] = None
        while len(self._seen_batches) > _MAX_REMEMBERED:
            self._seen_batches.popitem(last=False)

    @property
    def inputs_folder(self) -> Path:
        """Where the driver puts input files, each under its SHA-256 and suffix."""
        path = self.spool_folder / "inputs"
        path.mkdir(exist_ok=True)
        return path


def _can_see_folder(run_spec: RunSpec) -> bool:
    try:
        return (Path(run_spec.folder) / SHARED_MARKER).read_text("ascii") == run_spec.token
    except (OSError, UnicodeDecodeError):
        return False


def plugin_of(worker: Worker) -> SweeperWorkerPlugin:
    return cast("SweeperWorkerPlugin", worker.plugins[PLUGIN_NAME])


async def run_batch(task: BatchTask) -> str:
    """The function of a group's task."""
    return await plugin_of(get_worker()).run_batch(task)
