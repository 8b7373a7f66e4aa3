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

from sweeper.cluster.address import connect_cluster, resolve_address
from sweeper.cluster.worker_target import resolve_for_workers
from sweeper.errors import RefusedError, UnreachableError
from sweeper.model.target_spec import CLOUD_URL
from sweeper.planning.server_cache import find_smallest_cache, parse_cache_arguments
from sweeper.running import run as local_run
from sweeper.running.run_events import ClusterReady, Notice, TargetDown, TargetReady
from sweeper.running.session import Session
from sweeper.store import records

if TYPE_CHECKING:
    from distributed import Client

    from sweeper.cluster.messages import WorkerInfo
    from sweeper.cluster.work_pool import WorkPool
    from sweeper.cluster.workers import WorkerRegistry
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.result import Run
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.running.restore_files import MissingFiles
    from sweeper.running.resume import ResumeState
    from sweeper.store import Store
    from sweeper.store.artifacts import ArtifactFolder

_POLL_INTERVAL: Final = 0.5  # seconds between two looks for the first worker


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
    return local_run.run(experiment, session=_bind_session(cluster, resources), **rest)


async def run_async(
    experiment: Experiment | str | os.PathLike[str],
    cluster: str,
    *,
    resources: Mapping[str, float] | None = None,
    **rest: Any,
) -> Run:
    """As `run`, to be awaited."""
    return await local_run.run_async(experiment, session=_bind_session(cluster, resources), **rest)


def _bind_session(cluster: str, resources: Mapping[str, float] | None) -> type[Session]:
    class BoundSession(ClusterSession):
        address = resolve_address(cluster, os.environ)
        needs: Mapping[str, float] = dict(resources or {})

    return BoundSession


@dataclass(slots=True)
class _WorkerClient:
    """A worker's server in the place of a client, for the check against its node classes. The class is kept by the
    server's place, since its URL means another server on every machine. `extra_data` is set where partner nodes need a
    key, which is the workers' own.
    """

    target: Target
    registry: WorkerRegistry
    address: str
    extra_data: Mapping[str, str] = field(default_factory=dict)

    async def get_object_info(self) -> Any:
        from sweeper.cluster import worker_rpc  # noqa: PLC0415 (distributed)

        return await self.registry.call(worker_rpc.get_object_info, self.registry.run_spec, address=self.address)


class ClusterSession(Session):
    """The steps of a Session that a cluster does. `address`: the cluster's; `needs`: Dask's resources of a worker."""

    address: str = ""
    resources: Mapping[str, float] = {}

    @classmethod
    def resolve_targets(
        cls,
        specs: TargetSpec | Sequence[TargetSpec],
        *,
        named: NamedTargets,
        environ: Mapping[str, str],  # noqa: ARG003 (keys are read on the workers)
    ) -> tuple[Target, ...]:
        """The one target; keys and `${NAME}` are the workers' to fill in. Raises UsageError."""
        return (resolve_for_workers(specs, named),)

    # --- the steps that differ

    async def _connect(self, stack: AsyncExitStack) -> Sequence[Any]:
        """The fleet, with at least one worker whose server answers, or none when the run is stopped before."""
        client = await stack.enter_async_context(connect_cluster(self.address))
        from sweeper.cluster.workers import WorkerRegistry  # noqa: PLC0415 (distributed, which `connected` has found)

        await self._wait_for_worker(client)
        if self.control.stopping:
            return ()
        fleet = WorkerRegistry(client, self._make_run_spec(), self.resources)
        await fleet.install_plugin(are_children=self.address.startswith("local:"))
        came: list[WorkerInfo] = []
        while not fleet.workers and not fleet.unusable and not self.control.stopping:
            came, _ = await fleet.refresh()
            if not fleet.present:
                await asyncio.sleep(_POLL_INTERVAL)
        self.report(ClusterReady(self.address, str(client.dashboard_link or ""), len(fleet.workers)))
        for seat in came:
            self._report_worker(seat)
        if not fleet.workers and not self.control.stopping:
            worst = next((seat for seat in came if seat.refused), came[0])
            kind = RefusedError if worst.refused else UnreachableError
            raise kind("; ".join(f"{seat.name}: {seat.problem}" for seat in came))
        self.caching = find_smallest_cache(parse_cache_arguments(seat.arguments) for seat in fleet.workers.values())
        for seat in fleet.workers.values():
            self.server_infos.setdefault(self.targets[0].name, dict(seat.server_info))
        return (fleet,) if fleet.workers else ()

    async def _wait_for_worker(self, client: Client) -> None:
        """Wait for the first worker; a task that wants one makes a cluster that adapts itself start it."""
        from sweeper.cluster.workers import fetch_identity  # noqa: PLC0415 (distributed)

        if (await fetch_identity(client))["workers"]:
            return
        self.report(Notice(f"{self.address} has no worker yet; waiting for one (Ctrl-C ends it)"))
        wish = client.submit(int, 0, pure=False, resources=dict(self.resources))
        while not self.control.stopping and wish.status == "pending":  # noqa: ASYNC110 (two things to wait for)
            await asyncio.sleep(_POLL_INTERVAL)

    def _report_worker(self, worker: WorkerInfo) -> None:
        name = f"{worker.name}: {self.targets[0].name}"
        if worker.problem is None:
            self.report(TargetReady(name, worker.dialect, worker.version, worker.concurrency))
        else:
            self.report(TargetDown(name, worker.problem, final=True))

    def _make_run_spec(self) -> Any:
        from sweeper.cluster.messages import RunSpec  # noqa: PLC0415

        folder = str(self.out.resolve())
        key = hashlib.sha256(f"{socket.gethostname()} {folder}".encode()).hexdigest()[:24]
        return RunSpec(
            folder_id=key,
            driver_id=f"sweeper-{uuid4().hex}",
            experiment=self.experiment.name,
            target=self.targets[0],
            settings=self.settings,
            metrics={},
            folder=folder,
            token=uuid4().hex,
            artifact_url=self.artifact_url,
        )

    async def _check(self, client: Any) -> None:
        fleet: WorkerRegistry = client
        seat = next(iter(fleet.workers.values()))
        target = self.targets[0] if self.targets[0].embedded else replace(self.targets[0], url=seat.server_id)
        if target.partner_key_env is not None or target.url == CLOUD_URL:
            target = replace(target, partner_key="on the workers")
        asked = _WorkerClient(target, fleet, seat.address)
        await super()._check(asked)
        fleet.run_spec = replace(fleet.run_spec, has_partner_nodes=bool(asked.extra_data))

    async def _restore(self, missing: MissingFiles, clients: Sequence[Any]) -> None:  # noqa: ARG002 (as the base has it)
        """Not from workers' servers: what is gone is told, with what brings it back."""
        paths = [artifact.path for _, gone in missing.jobs for artifact in gone]
        self.report(
            Notice(
                f"gone, and not fetched again from workers' servers: {paths[0]}"
                f"{f' and {len(paths) - 1} more files' if len(paths) > 1 else ''}; the rows stay, and `--remake` "
                "submits their trials again"
            )
        )

    def _mark_embedded_lost(self, store: Store, state: ResumeState) -> None:
        """Nothing: a worker's embedded server outlives a driver, so its jobs are looked for like any."""

    async def _execute(
        self, store: Store, state: ResumeState, clients: Sequence[Any], run_id: int, folder: ArtifactFolder
    ) -> str | None:
        from sweeper.cluster.dispatcher import Dispatcher  # noqa: PLC0415
        from sweeper.cluster.work_pool import WorkPool  # noqa: PLC0415
        from sweeper.cluster.worker_plugin import SHARED_MARKER  # noqa: PLC0415 (distributed)
        from sweeper.planning.order import Costs  # noqa: PLC0415
        from sweeper.planning.transition_cost import TransitionCost  # noqa: PLC0415
        from sweeper.running.measure_run import get_cacheable_versions  # noqa: PLC0415
        from sweeper.running.resume import iter_remaining  # noqa: PLC0415

        fleet: WorkerRegistry = clients[0]
        fleet.run_spec = replace(fleet.run_spec, metrics=get_cacheable_versions(store, self.metrics))
        costs = Costs(store.servers.mean_node_seconds(self.target_names), self.caching)
        plan = self.plan.reordered(costs)
        fresh = iter_remaining(plan, state, self.settings, self.is_selected)
        pool = WorkPool(fresh, state.todo, TransitionCost(self.experiment.template, costs))
        shared = self._make_context(store, state, plan, run_id, folder)
        mark = self.out / SHARED_MARKER
        mark.write_text(fleet.run_spec.token, "ascii")
        try:
            dispatch = Dispatcher(shared, store, fleet, pool)
            fleet.reset()
            await fleet.refresh()
            self._queue_open_items(store, state, pool, fleet)
            return await dispatch.run()
        finally:
            with contextlib.suppress(OSError):
                mark.unlink()
            for target, times in shared.node_times.items():
                store.servers.add_node_times(target, times)

    def _make_context(self, store: Store, state: ResumeState, plan: Any, run_id: int, folder: ArtifactFolder) -> Any:
        from sweeper.cluster.worker_context import ClusterArtifactFolder  # noqa: PLC0415
        from sweeper.running.run_context import RunContext  # noqa: PLC0415
        from sweeper.running.sharding import SingleQueue  # noqa: PLC0415
        from sweeper.running.work_queue import WorkQueue  # noqa: PLC0415

        return RunContext(
            plan=plan,
            experiment=self.experiment.name,
            run_id=run_id,
            store=store,
            folder=ClusterArtifactFolder(folder.out) if self.artifact_url is None else folder,
            settings=self.settings,
            control=self.control,
            work_queue=WorkQueue([], SingleQueue(iter(()))),  # a cluster's work waits in a Pool
            report=self.report,
            target_names=self.target_names,
            duplicates=state.duplicates,
        )

    def _queue_open_items(self, store: Store, state: ResumeState, pool: WorkPool, registry: WorkerRegistry) -> None:
        """What an earlier driver left open: to be looked for at its place, or known never to have left."""
        target = self.targets[0]
        for work in state.unresolved:
            job = work.job
            assert job is not None
            if job.id in registry.unsent_jobs:
                store.record_finished(job.id, records.UNSENT)
                work.job = None
                pool.requeue(work)
                continue
            place = store.servers.get_server_id(job.id)
            if place is None:  # sent from one machine: to the URL, or to a server that ended with that run
                place = f"embedded {socket.gethostname()}" if target.embedded else target.url
            pool.add_open_item(place, work)
