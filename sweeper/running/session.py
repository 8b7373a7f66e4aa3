"""One run, step by step: targets, results folder, lanes, table and summary. Here network and disk are put together.

How a job is carried, watched and retried is told by the modules beside this one; what the table looks like by
`sweeper.tables.result_rows`. Nothing here prints: whoever wants to see passes `report`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import ResultsError, SweeperError, TargetError
from sweeper.model.result import Run
from sweeper.planning.server_cache import CLASSIC_CACHE, ServerCache, find_smallest_cache
from sweeper.running.live_feed import LiveFeed
from sweeper.running.output_location import open_artifact_folder
from sweeper.running.run_events import Event, Notice, RunEnded, RunStarted, TargetReady
from sweeper.running.stop_control import UNWRITABLE, StopControl
from sweeper.store.live_folder import LiveFolder

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan
    from sweeper.running.restore_files import MissingFiles
    from sweeper.running.resume import ResumeState
    from sweeper.running.settings import EffectiveSettings
    from sweeper.store import Store
    from sweeper.store.artifacts import ArtifactFolder

TABLE_NAME: Final = "results.csv"


class Session:
    """One call of `run_async`, step by step; `sweeper.cluster` has one whose steps in between are a cluster's."""

    def __init__(
        self,
        *,
        experiment: Experiment,
        plan: Plan,
        settings: EffectiveSettings,
        targets: tuple[Target, ...],
        output: tuple[Path, str | None],
        report: Callable[[Event], None],
        is_selected: Callable[[Trial], bool],
        control: StopControl,
    ) -> None:
        self.experiment, self.plan, self.settings, self.targets = experiment, plan, settings, targets
        (self.out, self.artifact_url), self.is_selected = output, is_selected
        self.report = LiveFeed(LiveFolder(self.out), report)
        self.target_names = tuple(target.name for target in targets)
        self.control = control
        self.metrics: dict[str, Any] = {}
        self.server_infos: dict[str, dict[str, Any]] = {}  # what each target says of itself
        self.pending: list[tuple[ComfyClient, str]] = []  # targets that did not answer at the start, and why
        self.cachings: list[ServerCache] = []
        self.caching = CLASSIC_CACHE  # what the targets keep of node results from one job to the next
        self.embedded_workers = 0  # of the embedded server, where there is one

    @classmethod
    def resolve_targets(
        cls, specs: TargetSpec | Sequence[TargetSpec], *, named: NamedTargets, environ: Mapping[str, str]
    ) -> tuple[Target, ...]:
        """The targets of a run (CONTRACT.md 15). Raises UsageError."""
        from sweeper.comfy.target import resolve_targets  # noqa: PLC0415 (httpx and websockets, only where used)

        return resolve_targets(specs, named=named, environ=environ)

    async def run(self) -> Run:
        """Every step, from the first look at the store to the table."""
        from sweeper.running.folder_lock import lock_folder  # noqa: PLC0415
        from sweeper.running.restore_files import MissingFiles  # noqa: PLC0415
        from sweeper.store import FILE_NAME, Store  # noqa: PLC0415

        if self.experiment.metrics:
            from sweeper.images.metrics.registry import load_metrics  # noqa: PLC0415

            self.metrics = load_metrics(self.experiment.metrics)
        async with AsyncExitStack() as connections:
            with ExitStack() as stack:
                # A new folder is made only once a target answers; an old one is held before it is read.
                store: Store | None = None
                clients: Sequence[Any] = ()
                if (self.out / FILE_NAME).is_file():
                    stack.enter_context(lock_folder(self.out, now=time.time()))
                    store = stack.enter_context(Store.open(self.out))
                missing = MissingFiles(store, self.out, self.settings)
                found = self._load_resume_state(store, missing)
                if found.todo and not self.control.stopping:
                    clients = await self._connect(connections)
                    for client in clients:
                        await self.control.run_unless_stopped(self._check(client))
                elif missing.jobs and not self.control.stopping:
                    with contextlib.suppress(TargetError):  # told below, with the files
                        clients = await self._connect(connections)
                if store is None:
                    stack.enter_context(lock_folder(self.out, now=time.time()))
                    made_meanwhile = (self.out / FILE_NAME).is_file()
                    store = stack.enter_context(Store.open(self.out))
                    if made_meanwhile:  # by another run, which may have done it all while we waited for the targets
                        missing = MissingFiles(store, self.out, self.settings)
                        found = self._load_resume_state(store, missing)
                if missing.jobs and not self.control.stopping:
                    await self.control.run_unless_stopped(self._restore(missing, clients))
                return await self._record_and_execute(store, found, clients if found.todo else ())

    def _load_resume_state(self, store: Store | None, missing: MissingFiles) -> ResumeState:
        from sweeper.running.restore_files import describe_regenerated  # noqa: PLC0415
        from sweeper.running.resume import load_resume_state  # noqa: PLC0415

        found = load_resume_state(
            self.plan, store, self.target_names, self.settings, self.is_selected, should_redo=missing
        )
        if missing.redo_count:
            self.report(Notice(describe_regenerated(missing.redo_count)))
        return found

    async def _restore(self, missing: MissingFiles, clients: Sequence[Any]) -> None:
        """Fetch files that are gone from the results folder once more, and tell of it."""
        from sweeper.running.restore_files import restore  # noqa: PLC0415

        await restore(missing, clients, self.report)

    async def _connect(self, stack: AsyncExitStack) -> Sequence[Any]:
        """Clients of the targets that answer, none when the run is stopped before. The others are `late`. Raises
        RefusedError for one that refuses us, and UnreachableError when nobody answers.
        """
        from sweeper.comfy.client import ComfyClient
        from sweeper.running.health import connect_all  # noqa: PLC0415

        clients: list[ComfyClient] = []
        for target in self.targets:
            url = self._start_embedded(stack) if target.embedded else target.url
            client = await stack.enter_async_context(ComfyClient(replace(target, url=url)))
            client.retry_waiter.on_wait = partial(self._report_wait, target.name)
            clients.append(client)
        met = await self.control.run_unless_stopped(connect_all(clients))
        if met is None:
            return ()
        self.pending = met.pending
        for client, server in met.servers:
            await self.control.run_unless_stopped(self._register_server(client, server))
        self.caching = find_smallest_cache(self.cachings)
        return [client for client, _ in met.servers]

    def _report_wait(self, target: str, seconds: float, reason: str) -> None:
        self.report(Notice(f"{target}: asks us to wait {seconds:.0f} s: {reason}"))

    async def _register_server(self, client: ComfyClient, server: Server) -> None:
        """Remember what a server says of itself, and tell that it can be used."""
        from sweeper.running.node_class_cache import save_server  # noqa: PLC0415

        name = client.target.name
        self.server_infos[name] = await client.get_server_info()
        self.report(TargetReady(name, server.dialect, server.version, self._get_concurrency(client)))
        self.cachings.append(save_server(client.target, server))

    async def _check(self, client: Any) -> None:
        """Hold the plan against what the target can do; see `admit`."""
        from sweeper.running.preflight import check_target  # noqa: PLC0415

        await check_target(client, self.plan, self.settings, self.report)

    def _start_embedded(self, stack: AsyncExitStack) -> str:
        from sweeper.embedded import EmbeddedServer

        # One picture per core; a queue one deeper than its workers keeps them busy.
        self.embedded_workers = self.settings.concurrency or min(4, os.cpu_count() or 1)
        server = stack.enter_context(EmbeddedServer(dialect="cloud", workers=self.embedded_workers))
        url: str = server.url
        return url

    def _get_concurrency(self, client: ComfyClient) -> int:
        if client.target.embedded:
            return self.embedded_workers + 1
        found: int = self.settings.concurrency or client.target.concurrency or client.dialect.concurrency
        return found

    async def _record_and_execute(self, store: Store, state: ResumeState, clients: Sequence[Any]) -> Run:
        from sweeper.running.resume import record_run  # noqa: PLC0415
        from sweeper.store.records import TableLayout  # noqa: PLC0415

        layout = TableLayout(
            self.experiment.name,
            tuple(self.plan.axis_columns),
            tuple(self.plan.slot_names),
            tuple(self.experiment.metrics),
            self.plan.value_order,
            self.plan.together,
        )
        run_id = record_run(
            self.plan, store, state, layout, target_names=self.target_names, experiment=self.experiment, now=time.time()
        )
        for name, about in self.server_infos.items():
            store.servers.save_info(run_id, name, about)
        total = len(state.first_index) + sum(map(len, state.duplicates.values()))
        self.report(RunStarted(run_id, self.out, total, state.todo_rows, state.reused, self.target_names))
        folder = open_artifact_folder(self.out, self.artifact_url)
        folder.remove_leftovers(work.job.id for work in state.unresolved if work.job is not None)
        error: str | None = None
        try:
            if clients:
                self._mark_embedded_lost(store, state)
                error = await self._execute(store, state, clients, run_id, folder)
            await self._finish(store, run_id, self.control.reason)
        except BaseException as trouble:
            if full := isinstance(trouble, ResultsError):  # in mid-run, so this is how the run ended
                self.control.drain(UNWRITABLE)
                error = str(trouble)
            # What is done is in the table, and the run is known to have ended, if the disk still takes that.
            with contextlib.suppress(SweeperError, OSError):
                await self._finish(store, run_id, self.control.reason or "error")
            if not full:
                raise
        ended = self._summarize(store, run_id, error)
        self.report(RunEnded(ended))
        return ended

    def _mark_embedded_lost(self, store: Store, state: ResumeState) -> None:
        """Jobs on servers that ended with an earlier run."""
        from sweeper.running.resume import mark_embedded_lost  # noqa: PLC0415

        for target in self.targets:
            if target.embedded:
                mark_embedded_lost(store, state, target.name)

    async def _execute(
        self, store: Store, state: ResumeState, clients: Sequence[Any], run_id: int, folder: ArtifactFolder
    ) -> str | None:
        """Let every target pull its work until none is left. Returns why it stopped early, for people."""
        from sweeper.planning.order import Costs  # noqa: PLC0415
        from sweeper.planning.transition_cost import TransitionCost  # noqa: PLC0415
        from sweeper.running.concurrency_limit import ConcurrencyLimit  # noqa: PLC0415
        from sweeper.running.resume import iter_remaining  # noqa: PLC0415
        from sweeper.running.run_context import RunContext  # noqa: PLC0415
        from sweeper.running.scheduler import Scheduler  # noqa: PLC0415
        from sweeper.running.sharding import make_work_source  # noqa: PLC0415
        from sweeper.running.target_worker import PendingTarget  # noqa: PLC0415
        from sweeper.running.work_queue import WorkQueue  # noqa: PLC0415

        costs = Costs(store.servers.mean_node_seconds(self.target_names), self.caching)
        plan = self.plan.reordered(costs)
        fresh = make_work_source(
            iter_remaining(plan, state, self.settings, self.is_selected),
            TransitionCost(self.experiment.template, costs),
            count=state.todo - len(state.unresolved),
            reachable=len(clients),
            targets=len(self.targets),
        )
        shared = RunContext(
            plan=plan,
            experiment=self.experiment.name,
            run_id=run_id,
            store=store,
            folder=folder,
            settings=self.settings,
            control=self.control,
            work_queue=WorkQueue(state.unresolved, fresh),
            report=self.report,
            target_names=self.target_names,
            duplicates=state.duplicates,
            node_classes={name: node["class_type"] for name, node in self.experiment.template.graph.items()},
        )

        def make_limit(client: ComfyClient) -> ConcurrencyLimit:
            if not client.target.embedded:  # that one is empty at every start
                name = client.target.name
                client.uploads.preload(store.servers.load_uploads(name), partial(store.servers.save_upload, name))
            return ConcurrencyLimit(self._get_concurrency(client), shared.random)

        async def prepare(client: ComfyClient, server: Server) -> ConcurrencyLimit:
            await self._check(client)
            await self._register_server(client, server)
            store.servers.save_info(run_id, client.target.name, self.server_infos[client.target.name])
            return make_limit(client)

        lanes: list[tuple[ComfyClient, ConcurrencyLimit | PendingTarget]] = [
            (client, make_limit(client)) for client in clients
        ]
        lanes += [(client, PendingTarget(reason, prepare)) for client, reason in self.pending]
        try:
            return await Scheduler(shared, lanes).run()
        finally:
            shared.close()
            for target, times in shared.node_times.items():
                store.servers.add_node_times(target, times)

    async def _finish(self, store: Store, run_id: int, stopped_by: str | None) -> None:
        store.end_run(run_id, now=time.time(), stopped_by=stopped_by)
        await self._write_table(store, run_id)

    async def _write_table(self, store: Store, run_id: int) -> None:
        from sweeper.running.measure_run import measure_run  # noqa: PLC0415
        from sweeper.running.restore_files import describe_empty_trials  # noqa: PLC0415
        from sweeper.tables.result_rows import write_csv  # noqa: PLC0415

        for problem in await measure_run(store, run_id, self.out, self.metrics, self.control):
            self.report(Notice(problem))
        write_csv(store.results(run_id), store.layout(run_id), self.out / TABLE_NAME)
        if empty := store.count_without_files(run_id):
            self.report(Notice(describe_empty_trials(empty, self.settings)))

    def _summarize(self, store: Store, run_id: int, error: str | None) -> Run:
        counts = store.count_by_status(run_id)
        return Run(
            run_id=run_id,
            out=self.out,
            trials=sum(counts.values()),
            submitted=store.count_submitted(run_id),
            reused=store.count_reused(run_id),
            pictures=self.artifact_url or str(self.out / "artifacts"),
            stopped_by=self.control.reason,
            error=error,
            **counts,
        )
