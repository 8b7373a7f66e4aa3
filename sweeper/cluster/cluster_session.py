"""A run on a Dask cluster: the session of a local run, with the workers of a cluster in place of connections."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from sweeper.cluster.address import connect_cluster, resolve_for_workers
from sweeper.cluster.batch_follower import WorkPool
from sweeper.cluster.dispatcher import Dispatcher
from sweeper.cluster.messages import RunSpec, WorkerInfo
from sweeper.cluster.worker_plugin import SHARED_MARKER, SweeperWorkerPlugin
from sweeper.cluster.workers import WorkerGoneError, WorkerRegistry, fetch_identity, make_worker_event
from sweeper.comfy.target import Target
from sweeper.errors import RefusedError, UnreachableError
from sweeper.model.target_spec import CLOUD_URL, NamedTargets, TargetSpec
from sweeper.planning.order import TransitionCost, find_smallest_cache
from sweeper.running.measure_run import get_cacheable_versions
from sweeper.running.preflight import find_classes
from sweeper.running.resume import MissingFiles, ResumeState
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import ClusterReady, Notice
from sweeper.running.session import Session
from sweeper.running.target_models import ModelSource
from sweeper.running.work_queue import WorkItem
from sweeper.store import Store, records
from sweeper.store.containment import refuse_links

if TYPE_CHECKING:
    from distributed import Client

_POLL_INTERVAL: Final = 0.5  # seconds between two checks for the first worker


@dataclass(slots=True)
class _WorkerClient:
    """Stands in for the client of a worker's server, for the check against its node classes.

    The node classes are cached by server id, because the URL may mean another server on every machine. The check sets
    `extra_data` if partner nodes need a key, which only workers have.
    """

    target: Target
    registry: WorkerRegistry
    address: str
    extra_data: Mapping[str, str] = field(default_factory=dict)

    unanswered = ()  # the worker knows

    @property
    def models(self) -> ModelSource:
        return cast("ModelSource", self)

    def __getattr__(self, question: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A method of ModelSource, which the worker answers. It raises UnreachableError if the worker is gone."""

        async def ask(*arguments: Any) -> Any:
            call = SweeperWorkerPlugin.ask_server, self.registry.run_spec, question, *arguments
            try:
                return await self.registry.call(*call, address=self.address)
            except WorkerGoneError as error:
                raise UnreachableError(str(error)) from None

        return ask


class ClusterSession(Session):
    """A session on the cluster at `address`. `worker_resources`: the Dask resources that a worker must have."""

    address: str = ""
    worker_resources: Mapping[str, float] = {}
    registry: WorkerRegistry  # since `connect`

    @classmethod
    def resolve_targets(
        cls, specs: TargetSpec | Sequence[TargetSpec], *, named: NamedTargets, environ: Mapping[str, str]
    ) -> tuple[Target, ...]:
        """The only target of a cluster. Each worker inserts its key and `${NAME}`. Raises UsageError."""
        return (resolve_for_workers(specs, named),)

    # --- the steps that differ from a local run

    async def connect(self, stack: AsyncExitStack) -> bool:
        """Find the workers. Returns whether one can be used; False if the run is stopped before.

        Raises RefusedError or UnreachableError if no worker can be used.
        """
        client = await stack.enter_async_context(connect_cluster(self.address))
        await self._wait_for_worker(client)
        if self.control.stopping:
            return False
        registry = self.registry = WorkerRegistry(client, self._make_run_spec(), self.worker_resources)
        await registry.install_plugin(are_children=self.address.startswith("local:"))
        came: list[WorkerInfo] = []
        while not registry.workers and not registry.unusable and not self.control.stopping:
            came, _ = await registry.refresh()
            if not registry.present:
                await asyncio.sleep(_POLL_INTERVAL)
        workers = list(registry.workers.values())
        self.report(ClusterReady(self.address, str(client.dashboard_link or ""), len(workers)))
        for worker in came:
            self.report(make_worker_event(worker, self.targets[0].name))
        if not workers and not self.control.stopping:
            first = next((worker for worker in came if worker.refused), came[0])
            error_class = RefusedError if first.refused else UnreachableError
            raise error_class("; ".join(f"{worker.name}: {worker.problem}" for worker in came))
        self.server_cache = find_smallest_cache(worker.server_cache for worker in workers)
        if workers:
            self.server_infos.setdefault(self.targets[0].name, dict(workers[0].server_info))
        return bool(workers)

    async def _wait_for_worker(self, client: Client) -> None:
        """Wait for the first worker. A task that needs one makes an adaptive cluster start it."""
        if (await fetch_identity(client))["workers"]:
            return
        self.report(Notice(f"{self.address} has no worker yet; waiting for one (press Ctrl-C to stop)"))
        future = client.submit(int, 0, pure=False, resources=dict(self.worker_resources))
        while not self.control.stopping and future.status == "pending":  # noqa: ASYNC110 (two things to wait for)
            await asyncio.sleep(_POLL_INTERVAL)

    def _make_run_spec(self) -> RunSpec:
        folder = str(self.out.resolve())
        return RunSpec(
            folder_id=hashlib.sha256(f"{socket.gethostname()} {folder}".encode()).hexdigest()[:24],
            driver_id=f"sweeper-{uuid4().hex}",
            experiment=self.experiment.name,
            experiment_folder=str(self.experiment.file.parent.resolve()),
            target=self.targets[0],
            settings=self.settings,
            metrics={},
            folder=folder,
            token=uuid4().hex,
            artifact_url=self.artifact_url,
            naming=self.naming,
        )

    async def check_targets(self) -> None:
        """Check the plan against the node classes of the first worker's server."""
        registry = self.registry
        worker_client = self._make_worker_client(next(iter(registry.workers.values())))
        await self.check(worker_client)
        registry.run_spec = replace(
            registry.run_spec,
            has_partner_nodes=bool(worker_client.extra_data),
            sampler_nodes=frozenset(self.sampler_nodes),
        )

    def _make_worker_client(self, worker: WorkerInfo) -> _WorkerClient:
        target = self.targets[0] if self.targets[0].embedded else replace(self.targets[0], url=worker.server_id)
        if target.partner_key_env is not None or target.url == CLOUD_URL:
            target = replace(target, partner_key="on the workers")
        return _WorkerClient(target, self.registry, worker.address)

    async def read_models(self) -> None:
        """Ask the first worker's server about the model files of the plan."""
        worker_client = self._make_worker_client(next(iter(self.registry.workers.values())))
        await self.read_models_of(worker_client, await find_classes(worker_client, self.plan))

    async def find_outdated_models(self, store: Store) -> None:
        """Let the servers of all workers forget files that they may have read before these were replaced."""
        for worker in self.registry.workers.values():
            client = self._make_worker_client(worker)
            with contextlib.suppress(UnreachableError):  # the worker is gone
                outdated = await self.models.find_outdated(client.models, client.target, store)
                if outdated and await self.models.free_all(client.models, client.target):
                    self.report(Notice(f"{worker.name}: model files were replaced; its server reads them again"))

    async def restore(self, missing: MissingFiles) -> None:
        """Report the missing files. A cluster does not fetch them again from the workers' servers."""
        paths = [artifact.path for _, artifacts in missing.jobs for artifact in artifacts]
        more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
        self.report(
            Notice(
                f"missing, and not fetched again from the workers' servers: {paths[0]}{more}; "
                "the rows stay. Use `--remake` to submit their trials again"
            )
        )

    def mark_embedded_lost(self, store: Store, state: ResumeState) -> None:
        """Do nothing: a worker's embedded server outlives the driver, so its jobs can be searched for."""

    async def dispatch(
        self,
        context: RunContext,
        store: Store,
        state: ResumeState,
        items: Iterator[WorkItem],
        transition_cost: TransitionCost,
    ) -> str | None:
        """Let the workers execute the items, which wait in a WorkPool and not in the context's queue."""
        registry = self.registry
        local = {name for likeness in self.experiment.likenesses.values() for name in likeness.columns}
        metrics = {name: metric for name, metric in self.metrics.items() if name not in local}  # workers lack the files
        registry.run_spec = replace(registry.run_spec, metrics=get_cacheable_versions(store, metrics))
        pool = WorkPool(items, state.todo, transition_cost)
        marker = self.out / SHARED_MARKER
        refuse_links(marker)
        marker.write_text(registry.run_spec.token, "ascii")
        try:
            dispatcher = Dispatcher(context, store, registry, pool)
            known = {*registry.workers, *registry.unusable}
            registry.workers, registry.unusable = {}, {}  # all register again, because the results folder exists now
            for worker in (await registry.refresh())[0]:
                if worker.address not in known:  # it came meanwhile
                    self.report(make_worker_event(worker, self.targets[0].name))
            self._queue_open_items(context, store, state, pool, registry)
            return await dispatcher.run()
        finally:
            with contextlib.suppress(OSError):
                marker.unlink()

    def _queue_open_items(
        self, context: RunContext, store: Store, state: ResumeState, pool: WorkPool, registry: WorkerRegistry
    ) -> None:
        """Queue the jobs that an earlier driver left open: to search for them, or to submit unsent ones again."""
        target = self.targets[0]
        for item in state.unresolved:
            job = item.job
            assert job is not None
            if job.id in registry.unsent_jobs:
                context.finish_job(item, job, records.JobEnd(records.UNSENT))
                item.job, item.submissions = None, 0
                pool.requeue(item)
                continue
            server_id = store.servers.get_server_id(job.id)
            if server_id is None:  # a local run sent it: to the URL, or to an embedded server that ended with that run
                server_id = f"embedded {socket.gethostname()}" if target.embedded else target.url
            pool.add_open_item(server_id, item)
