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

from sweeper.cluster.messages import Order, Parcel, Seat
from sweeper.cluster.worker_batch import LEASE, Stint
from sweeper.cluster.worker_context import Folder
from sweeper.cluster.worker_target import here, resolve_here
from sweeper.comfy.target import Target
from sweeper.errors import RefusedError, SweeperError, UsageError
from sweeper.model.urls import loopback
from sweeper.running.concurrency_limit import Gate
from sweeper.running.preflight import FIELD
from sweeper.store.remote_artifacts import RemoteFolder, reach

if TYPE_CHECKING:
    from distributed import Worker

    from sweeper.comfy.client import ComfyClient
    from sweeper.embedded import EmbeddedServer
    from sweeper.store.artifacts import ArtifactFolder

NAME: Final = "sweeper-berth"
RESOURCE: Final = "sweeper"
_GROUPS: Final = 2  # groups that a worker may have: one under way, one that is next
_TURN: Final = 0.02  # seconds between two looks at whose turn it is
MARK: Final = ".shared"  # the file by which a worker knows that it sees the driver's results folder
_REMEMBERED: Final = 4096  # groups whose task will not begin again here


class Berth(WorkerPlugin):
    """See the module. `idempotent`: a later driver finds the berth of the first, with its server.

    `deaf`: the worker is a child of the driver, so Ctrl-C on the terminal reaches it; the driver's word counts.
    """

    name = NAME
    idempotent = True

    def __init__(self, *, deaf: bool) -> None:
        self.deaf = deaf

    def setup(self, worker: Worker) -> None:
        """Called by Dask when the worker has it."""
        if self.deaf and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.worker = worker
        self.instance = uuid4().hex[:12]
        self.stints: dict[str, Stint] = {}
        self.spool = Path(tempfile.mkdtemp(prefix="sweeper-worker-"))
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._clients: dict[Any, ComfyClient] = {}
        self._targets: dict[str, Target] = {}  # by epoch
        self._gates: dict[ComfyClient, Gate] = {}
        self._seats: dict[str, tuple[Seat, Order]] = {}  # by epoch
        self._server: EmbeddedServer | None = None
        self._lock = asyncio.Lock()

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002 (Dask passes it)
        """Called by Dask when the worker closes: what runs on a server goes on there, nothing more is sent."""
        for stint in list(self.stints.values()):
            await stint.drop()
        for client in self._clients.values():
            await client.close()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
        shutil.rmtree(self.spool, ignore_errors=True)

    # --- who we are

    async def enlist(self, order: Order) -> Seat:
        """Be ready for a run: earlier epochs of its folder let go, the server beside us answers, groups may come."""
        unsent: list[str] = []
        for group, stint in list(self.stints.items()):
            if (stint.order.key == order.key and stint.order.epoch != order.epoch) or stint.abandoned:
                unsent += await stint.drop()
                self.stints.pop(group, None)
        seat = Seat(self.worker.address, str(self.worker.name), socket.gethostname(), unsent=tuple(unsent))
        async with self._lock:
            try:
                seat = await self._seated(seat, order)
            except SweeperError as error:
                seat = replace(seat, problem=str(error), refused=isinstance(error, RefusedError))
        self._seats[order.epoch] = seat, order
        await self.worker.set_resources(**{RESOURCE: 0 if seat.problem else seat.groups})
        return seat

    async def _seated(self, seat: Seat, order: Order) -> Seat:
        target = await self._target(order)
        if order.partner and order.settings.check and target.partner_key is None:
            variable = target.partner_key_env or "that `partner_key_env` names"
            raise UsageError(f"a paid partner's nodes need a key: the variable {variable} is not set on this worker")
        client = await self.client(target, order)
        server = await client.connect()
        if order.target.embedded:
            place, concurrency = f"embedded {self.instance}", self._embedded_workers(order) + 1
        else:
            place = f"{seat.host} {target.url}" if loopback(target.url) else target.url
            concurrency = order.settings.concurrency or target.concurrency or client.dialect.concurrency
        if order.pictures is not None:
            await asyncio.to_thread(reach, order.pictures)
        shared = order.pictures is not None or await asyncio.to_thread(_sees, order)
        return replace(
            seat, place=place, url=target.url, dialect=server.dialect, version=server.version,
            arguments=server.arguments, concurrency=concurrency, shared=shared, about=await client.about(),
            groups=min(_GROUPS, self.worker.state.nthreads),
        )  # fmt: skip

    async def _target(self, order: Order) -> Target:
        if not order.target.embedded:
            if order.epoch not in self._targets:
                self._targets[order.epoch] = await asyncio.to_thread(resolve_here, order.target, here())
            return self._targets[order.epoch]
        from sweeper.embedded import EmbeddedServer  # noqa: PLC0415 (only where one is asked for)

        if self._server is None:
            server = EmbeddedServer(dialect="cloud", workers=self._embedded_workers(order))
            await asyncio.to_thread(server.start)
            self._server = server
        return replace(order.target, url=self._server.url)

    def _embedded_workers(self, order: Order) -> int:
        threads: int = self.worker.state.nthreads
        return order.settings.concurrency or max(1, threads // _GROUPS)

    async def client(self, target: Target, order: Order) -> ComfyClient:
        """The client of a server; kept, since a connection is worth keeping."""
        from sweeper.comfy.client import ComfyClient  # noqa: PLC0415 (httpx)

        partner_key = target.partner_key if order.partner else None
        known = (target.name, target.url, target.dialect, target.key, partner_key)
        if known not in self._clients:
            client = self._clients[known] = ComfyClient(target)
            if partner_key is not None:
                client.extra_data = {FIELD: partner_key}
        return self._clients[known]

    def _gate(self, client: ComfyClient, concurrency: int) -> Gate:
        """One for all groups on a server: the one that is next takes the slots that the first has no use for."""
        gate = self._gates.get(client)
        if gate is None or gate.most != concurrency:
            gate = self._gates[client] = Gate(concurrency, Random())  # noqa: S311 (jitter)
        return gate

    async def object_info(self, order: Order) -> dict[str, Any]:
        client = await self.client(await self._target(order), order)
        await client.connect()
        return await client.object_info()

    # --- groups

    async def carry(self, parcel: Parcel) -> str:
        """A group's task, from its start to its end; the word is for the dashboard, the news go by `pull`."""
        seat, order = self._seats.get(parcel.epoch, (None, None))
        if seat is None or order is None or seat.problem:
            return "not enlisted"
        if parcel.group in self._seen:
            return "begun before"
        self._remember(parcel.group)
        stint = self._stint(parcel.run_id, order, seat)
        self.stints[parcel.group] = stint
        self.worker.log_event(order.epoch, {"group": parcel.group, "address": self.worker.address})
        try:
            async with asyncio.timeout(LEASE):
                await stint.granted.wait()
        except TimeoutError:
            stint.dropped = True
        if stint.dropped:
            self.stints.pop(parcel.group, None)
            return "not granted"
        if not await self._turn(stint):
            return "dropped"
        try:
            target = await self._target(order)
            if parcel.url is not None:
                target = replace(target, url=parcel.url)
            client = await self.client(target, order)
            await client.connect()
            await stint.run(client, self._gate(client, seat.concurrency))
        except Exception as error:  # noqa: BLE001 (a full disk, a server that is gone: the driver is told, and decides)
            await stint.fail(error)
            return "failed"
        return "dropped" if stint.dropped else "done"

    async def _turn(self, stint: Stint) -> bool:
        """Wait until no earlier group has anything waiting here, or the brake is on; False: the group was let go."""
        while not stint.control.stopping and self._is_behind(stint):
            if stint.unheard > LEASE:
                await stint.drop()
            await asyncio.sleep(_TURN)
        return not stint.dropped

    def _is_behind(self, stint: Stint) -> bool:
        for other in self.stints.values():  # in the order in which they came
            if other is stint:
                return False
            if other.waits:
                return True
        return False

    def _stint(self, run_id: int, order: Order, seat: Seat) -> Stint:
        metrics: dict[str, Any] = {}
        if order.metrics:
            from sweeper.images.metrics import load_metrics  # noqa: PLC0415 (NumPy and Pillow come with it)

            with contextlib.suppress(SweeperError):  # a metric of the user's that only the driver has: it measures
                loaded = load_metrics(order.metrics)
                metrics = {name: one for name, one in loaded.items() if one.version == order.metrics[name]}
        folder: ArtifactFolder = Folder(Path(order.folder) if seat.shared else self.spool)
        if order.pictures is not None:
            folder = RemoteFolder(self.spool, order.pictures, reading=bool(metrics))
        return Stint(
            order,
            run_id,
            folder=folder,
            shared=seat.shared,
            inputs=self.inputs,
            metrics=metrics,
            name=f"{seat.name}: {order.target.name}",
        )

    def _remember(self, group: str) -> None:
        self._seen[group] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    @property
    def inputs(self) -> Path:
        """Where the driver puts input files, each under its SHA-256 and suffix."""
        path = self.spool / "inputs"
        path.mkdir(exist_ok=True)
        return path


def _sees(order: Order) -> bool:
    try:
        return (Path(order.folder) / MARK).read_text("ascii") == order.token
    except (OSError, UnicodeDecodeError):
        return False


def berth_of(worker: Worker) -> Berth:
    return cast("Berth", worker.plugins[NAME])


async def carry_group(parcel: Parcel) -> str:
    """The function of a group's task."""
    return await berth_of(get_worker()).carry(parcel)
