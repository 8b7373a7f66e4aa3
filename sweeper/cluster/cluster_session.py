"""A run on a Dask cluster: the runner's session, with a fleet of workers in the place of connections of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from sweeper.cluster.address import connected, resolve_address
from sweeper.cluster.worker_target import resolve_for_workers
from sweeper.errors import RefusedError, UnreachableError
from sweeper.model.target_spec import CLOUD_URL
from sweeper.planning.server_cache import caching_of, weakest
from sweeper.running import run as local_run
from sweeper.running.run_events import ClusterReady, Noticed, TargetDown, TargetReady
from sweeper.running.session import Session
from sweeper.store import records

if TYPE_CHECKING:
    from distributed import Client

    from sweeper.cluster.messages import Seat
    from sweeper.cluster.work_pool import Pool
    from sweeper.cluster.workers import Fleet
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.result import Run
    from sweeper.model.target_spec import Named, Spec
    from sweeper.running.restore_files import Missing
    from sweeper.running.resume import Survey
    from sweeper.store import Store
    from sweeper.store.artifacts import ArtifactFolder

_LOOK: Final = 0.5  # seconds between two looks for the first worker


def run(
    experiment: Experiment | str | os.PathLike[str],
    cluster: str,
    *,
    resources: Mapping[str, float] | None = None,
    **rest: Any,
) -> Run:
    """Run an experiment on a Dask cluster and wait for its end; `rest` are the arguments of `sweeper.run`.

    `cluster`: `local:N` starts N workers here, else a scheduler's address or file, or `auto` for the one that
    DASK_SCHEDULER_ADDRESS names. `resources`: what a worker must have of Dask's, such as {"GPU": 1}.

    Raises UsageError also for a cluster whose workers have another version, UnreachableError when no scheduler answers.
    """
    return local_run.run(experiment, session=_bound(cluster, resources), **rest)


async def run_async(
    experiment: Experiment | str | os.PathLike[str],
    cluster: str,
    *,
    resources: Mapping[str, float] | None = None,
    **rest: Any,
) -> Run:
    """As `run`, to be awaited."""
    return await local_run.run_async(experiment, session=_bound(cluster, resources), **rest)


def _bound(cluster: str, resources: Mapping[str, float] | None) -> type[Session]:
    class Bound(ClusterSession):
        address = resolve_address(cluster, os.environ)
        needs: Mapping[str, float] = dict(resources or {})

    return Bound


@dataclass(slots=True)
class _Asked:
    """A worker's server in the place of a client, for the check against its node classes. The class is kept by the
    server's place, since its URL means another server on every machine. `extra_data` is set where partner nodes need a
    key, which is the workers' own.
    """

    target: Target
    fleet: Fleet
    address: str
    extra_data: Mapping[str, str] = field(default_factory=dict)

    async def object_info(self) -> Any:
        from sweeper.cluster import worker_rpc  # noqa: PLC0415 (distributed)

        return await self.fleet.call(worker_rpc.object_info, self.fleet.order, address=self.address)


class ClusterSession(Session):
    """The steps of a Session that a cluster does. `address`: the cluster's; `needs`: Dask's resources of a worker."""

    address: str = ""
    needs: Mapping[str, float] = {}

    @classmethod
    def resolve(
        cls,
        specs: Spec | Sequence[Spec],
        *,
        named: Named,
        environ: Mapping[str, str],  # noqa: ARG003 (keys are read on the workers)
    ) -> tuple[Target, ...]:
        """The one target; keys and `${NAME}` are the workers' to fill in. Raises UsageError."""
        return (resolve_for_workers(specs, named),)

    # --- the steps that differ

    async def _connect(self, stack: AsyncExitStack) -> Sequence[Any]:
        """The fleet, with at least one worker whose server answers, or none when the run is stopped before."""
        client = await stack.enter_async_context(connected(self.address))
        from sweeper.cluster.workers import Fleet  # noqa: PLC0415 (distributed, which `connected` has found)

        await self._first_worker(client)
        if self.control.stopping:
            return ()
        fleet = Fleet(client, self._order(), self.needs)
        await fleet.register(children=self.address.startswith("local:"))
        came: list[Seat] = []
        while not fleet.seats and not fleet.lost and not self.control.stopping:
            came, _ = await fleet.refresh()
            if not fleet.present:
                await asyncio.sleep(_LOOK)
        self.report(ClusterReady(self.address, str(client.dashboard_link or ""), len(fleet.seats)))
        for seat in came:
            self._announce(seat)
        if not fleet.seats and not self.control.stopping:
            worst = next((seat for seat in came if seat.refused), came[0])
            kind = RefusedError if worst.refused else UnreachableError
            raise kind("; ".join(f"{seat.name}: {seat.problem}" for seat in came))
        self.caching = weakest(caching_of(seat.arguments) for seat in fleet.seats.values())
        for seat in fleet.seats.values():
            self.abouts.setdefault(self.targets[0].name, dict(seat.about))
        return (fleet,) if fleet.seats else ()

    async def _first_worker(self, client: Client) -> None:
        """Wait for the first worker; a task that wants one makes a cluster that adapts itself start it."""
        from sweeper.cluster.workers import identify  # noqa: PLC0415 (distributed)

        if (await identify(client))["workers"]:
            return
        self.report(Noticed(f"{self.address} has no worker yet; waiting for one (Ctrl-C ends it)"))
        wish = client.submit(int, 0, pure=False, resources=dict(self.needs))
        while not self.control.stopping and wish.status == "pending":  # noqa: ASYNC110 (two things to wait for)
            await asyncio.sleep(_LOOK)

    def _announce(self, seat: Seat) -> None:
        name = f"{seat.name}: {self.targets[0].name}"
        if seat.problem is None:
            self.report(TargetReady(name, seat.dialect, seat.version, seat.concurrency))
        else:
            self.report(TargetDown(name, seat.problem, final=True))

    def _order(self) -> Any:
        from sweeper.cluster.messages import Order  # noqa: PLC0415

        folder = str(self.out.resolve())
        key = hashlib.sha256(f"{socket.gethostname()} {folder}".encode()).hexdigest()[:24]
        return Order(
            key=key,
            epoch=f"sweeper-{uuid4().hex}",
            experiment=self.experiment.name,
            target=self.targets[0],
            settings=self.settings,
            metrics={},
            folder=folder,
            token=uuid4().hex,
            pictures=self.pictures,
        )

    async def _check(self, client: Any) -> None:
        fleet: Fleet = client
        seat = next(iter(fleet.seats.values()))
        target = self.targets[0] if self.targets[0].embedded else replace(self.targets[0], url=seat.place)
        if target.partner_key_env is not None or target.url == CLOUD_URL:
            target = replace(target, partner_key="on the workers")
        asked = _Asked(target, fleet, seat.address)
        await super()._check(asked)
        fleet.order = replace(fleet.order, partner=bool(asked.extra_data))

    async def _restore(self, missing: Missing, clients: Sequence[Any]) -> None:  # noqa: ARG002 (as the base has it)
        """Not from workers' servers: what is gone is told, with what brings it back."""
        paths = [artifact.path for _, gone in missing.jobs for artifact in gone]
        self.report(
            Noticed(
                f"gone, and not fetched again from workers' servers: {paths[0]}"
                f"{f' and {len(paths) - 1} more files' if len(paths) > 1 else ''}; the rows stay, and `--remake` "
                "submits their trials again"
            )
        )

    def _forget(self, store: Store, found: Survey) -> None:
        """Nothing: a worker's embedded server outlives a driver, so its jobs are looked for like any."""

    async def _work(
        self, store: Store, found: Survey, clients: Sequence[Any], run_id: int, folder: ArtifactFolder
    ) -> str | None:
        from sweeper.cluster.dispatcher import Dispatch  # noqa: PLC0415
        from sweeper.cluster.work_pool import Pool  # noqa: PLC0415
        from sweeper.cluster.worker_plugin import MARK  # noqa: PLC0415 (distributed)
        from sweeper.planning.order import Costs  # noqa: PLC0415
        from sweeper.planning.transition_cost import Reruns  # noqa: PLC0415
        from sweeper.running.measure_run import measurable  # noqa: PLC0415
        from sweeper.running.resume import remaining  # noqa: PLC0415

        fleet: Fleet = clients[0]
        fleet.order = replace(fleet.order, metrics=measurable(store, self.metrics))
        costs = Costs(store.servers.node_seconds(self.names), self.caching)
        plan = self.plan.reordered(costs)
        fresh = remaining(plan, found, self.settings, self.chosen)
        pool = Pool(fresh, found.todo, Reruns(self.experiment.template, costs))
        shared = self._shared(store, found, plan, run_id, folder)
        mark = self.out / MARK
        mark.write_text(fleet.order.token, "ascii")
        try:
            dispatch = Dispatch(shared, fleet, pool)
            fleet.forget()
            await fleet.refresh()
            self._sort_opened(store, found, pool, fleet)
            return await dispatch.run()
        finally:
            with contextlib.suppress(OSError):
                mark.unlink()
            for target, times in shared.node_times.items():
                store.servers.add_node_times(target, times)

    def _shared(self, store: Store, found: Survey, plan: Any, run_id: int, folder: ArtifactFolder) -> Any:
        from sweeper.cluster.worker_context import Folder  # noqa: PLC0415
        from sweeper.running.run_context import Shared  # noqa: PLC0415
        from sweeper.running.sharding import Line  # noqa: PLC0415
        from sweeper.running.work_queue import Backlog  # noqa: PLC0415

        return Shared(
            plan=plan,
            experiment=self.experiment.name,
            run_id=run_id,
            store=store,
            folder=Folder(folder.out) if self.pictures is None else folder,
            settings=self.settings,
            control=self.control,
            backlog=Backlog([], Line(iter(()))),  # a cluster's work waits in a Pool
            report=self.report,
            names=self.names,
            twins=found.twins,
        )

    def _sort_opened(self, store: Store, found: Survey, pool: Pool, fleet: Fleet) -> None:
        """What an earlier driver left open: to be looked for at its place, or known never to have left."""
        target = self.targets[0]
        for work in found.opened:
            job = work.job
            assert job is not None
            if job.id in fleet.unsent:
                store.finish(job.id, records.UNSENT)
                work.job = None
                pool.give_back(work)
                continue
            place = store.servers.place_of(job.id)
            if place is None:  # sent from one machine: to the URL, or to a server that ended with that run
                place = f"embedded {socket.gethostname()}" if target.embedded else target.url
            pool.seek(place, work)
