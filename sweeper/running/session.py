"""One run from start to end: targets, results folder, target workers, table, summary.

This module connects network and disk; the modules beside it submit, poll and retry jobs. Nothing here prints: events
go to `report`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.protocol import Server
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import LOST_ERROR, ResultsError, SweeperError, TargetError
from sweeper.images.metrics.registry import load_metrics
from sweeper.model.experiment import Experiment
from sweeper.model.node_classes import NodeInfo
from sweeper.model.result import PIXEL_HASH, Run
from sweeper.model.target_spec import NamedTargets, TargetSpec, is_comfy_platform
from sweeper.model.trial import Trial
from sweeper.model.workflow import find_unique_titles
from sweeper.planning.job_size import JobSizes
from sweeper.planning.order import CLASSIC_CACHE, Costs, ServerCache, TransitionCost, find_smallest_cache
from sweeper.planning.plan import Plan
from sweeper.running import resume
from sweeper.running.ask_judges import ask_judges, check_judges
from sweeper.running.concurrency_limit import ConcurrencyLimit
from sweeper.running.done_work import DoneRule, describe_renaming
from sweeper.running.folder_lock import lock_folder
from sweeper.running.health import LaunchedServers, connect_all, make_embedded_server
from sweeper.running.lock import describe_drift
from sweeper.running.measure_run import measure_run, measure_while_watched
from sweeper.running.node_class_cache import ClassSource, save_server
from sweeper.running.preflight import check_target, describe_stand_ins, find_classes
from sweeper.running.resume import MissingFiles, ResumeState, load_resume_state
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import Event, LiveFeed, Notice, RunEnded, RunStarted, TargetReady
from sweeper.running.scheduler import PendingTarget, Scheduler
from sweeper.running.settings import EffectiveSettings
from sweeper.running.spending import FolderSpending, JobPrices, describe_over_budget
from sweeper.running.stop_control import BUDGET, UNWRITABLE, StopControl, run_for_all
from sweeper.running.target_models import RunModels
from sweeper.running.work_queue import ShardedQueue, SingleQueue, WorkItem, WorkQueue, WorkSource, may_pass
from sweeper.store import FILE_NAME, Store, records
from sweeper.store.artifacts import ArtifactFolder, UnfinishedJob
from sweeper.store.file_names import FileNaming
from sweeper.store.live_folder import LiveFolder
from sweeper.store.records import JobEnd, TableLayout
from sweeper.store.remote_artifacts import RemoteFolder
from sweeper.tables.export import TableFile
from sweeper.tables.results_folder import check_owner
from sweeper.wording import count_things

_COMPARE_SECONDS: Final = 15.0  # for the questions of a run that has nothing else to ask


class Session:
    """One call of `run_async`. `sweeper.cluster` has a subclass that executes the trials on a Dask cluster.

    It overrides the steps `connect`, `check_targets`, `read_models`, `find_outdated_models`, `restore`,
    `mark_embedded_lost` and `dispatch`, and nothing else.

    `targets`: resolved; `output`: the results folder, and the URL for pictures if they go elsewhere; `report` gets the
    events; `is_selected(trial)`: whether this run may submit the trial.
    """

    spending_class: ClassVar[type[FolderSpending]] = FolderSpending

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
        self.target_names, self.control = tuple(target.name for target in targets), control
        self.naming = FileNaming.for_plan(plan.axis_sizes, len(plan), plan.axis_cells)
        self.metrics: dict[str, Any] = {}
        self.server_infos: dict[str, dict[str, Any]] = {}  # by target: versions and devices
        self.max_jobs: dict[str, int | None] = {}  # by target: how many jobs it executes at once
        self.clients: list[ComfyClient] = []  # of the targets that responded at the start
        self.pending: list[tuple[ComfyClient, str]] = []  # targets that did not respond at the start, and why
        self.server_cache = CLASSIC_CACHE  # which node results all targets keep from one job to the next
        self.sampler_nodes: set[str] = set()  # ids of the nodes that are samplers on some target
        self.embedded_workers = 0
        self.launched = LaunchedServers(self.out, settings.patience, self.report)
        self.gone: dict[int, tuple[str, str]] = {}  # by index, trials to leave out: the target, and why
        self.models = RunModels(plan, may_differ=settings.allow_different_models)
        self.prices = JobPrices(plan, settings.timeout)
        self.spending: FolderSpending | None = None
        self._check_lock: Callable[[], None] = lambda: None

    @classmethod
    def resolve_targets(
        cls, specs: TargetSpec | Sequence[TargetSpec], *, named: NamedTargets, environ: Mapping[str, str]
    ) -> tuple[Target, ...]:
        """Resolve names and keys of the run's targets; `comfy.target` has the rules. Raises UsageError."""
        return resolve_targets(specs, named=named, environ=environ)

    async def run(self) -> Run:
        """Run from the first look at the store to the table."""
        judges = self.experiment.judges
        check_judges(judges, self.settings.budget)
        names = [name for name in self.experiment.metrics if name not in judges]
        folder, likenesses = Path(self.experiment.file).parent, self.experiment.likenesses
        self.metrics = load_metrics([*names, PIXEL_HASH], folder, likenesses)
        async with AsyncExitStack() as connections:
            with ExitStack() as stack:
                # A new folder is created only when a target responds. An existing one is locked before it is read.
                store: Store | None = None
                if (self.out / FILE_NAME).is_file():
                    self._check_lock = stack.enter_context(self.lock())
                    store = stack.enter_context(Store.open(self.out))
                    check_owner(store, self.experiment.file, self.experiment.name)
                missing, state, is_connected = await self._find_work(store, connections)
                if store is None:
                    self._check_lock = stack.enter_context(self.lock())
                    was_created_meanwhile = (self.out / FILE_NAME).is_file()
                    store = stack.enter_context(Store.open(self.out))
                    if was_created_meanwhile:  # another run may have done everything while we connected
                        check_owner(store, self.experiment.file, self.experiment.name)
                        missing = MissingFiles(store, self.out, self.settings)
                        state = self._load_resume_state(store, missing)
                if missing.jobs and not self.control.stopping:
                    await self.control.run_unless_stopped(self.restore(missing))
                return await self._record_and_execute(store, state, may_submit=is_connected and state.todo > 0)

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        return lock_folder(self.out, now=time.time())

    def open_artifacts(self) -> ArtifactFolder:
        url = self.artifact_url
        return ArtifactFolder(self.out) if url is None else RemoteFolder(self.out, url)

    async def _find_work(
        self, store: Store | None, connections: AsyncExitStack
    ) -> tuple[MissingFiles, ResumeState, bool]:
        """Find out what is left to do, connect if anything has to be asked, and check the plan and the model files.

        Returns also whether a target can be used.
        """
        missing = MissingFiles(store, self.out, self.settings)
        state = self._load_resume_state(store, missing)
        if state.todo and not self.settings.fresh:
            self._warn(describe_renaming(self.plan, self.out, store, self.rule))
        if state.todo and any(target.embedded for target in self.targets):
            self._warn(describe_stand_ins(self.experiment.template, self.settings.object_info))
        is_checked = is_connected = False
        if state.todo and not self.control.stopping:
            is_checked = is_connected = await self.connect(connections)
            if is_connected:
                await self.control.run_unless_stopped(self.check_targets())
        elif (missing.jobs or state.work.has_models) and not self.control.stopping:
            is_connected = await self._connect_for_done_work(connections, compares=state.work.has_models)
        if self.gone or (self.models.facts and store is not None):
            missing = MissingFiles(store, self.out, self.settings)
            state = self._load_resume_state(store, missing)
            if state.todo and not is_checked:
                await self.control.run_unless_stopped(self.check_targets())
        infos = {target.name: self.server_infos.get(target.name, {}) for target in self.targets if not target.embedded}
        drift = describe_drift(self.plan, infos, self.models.facts)
        for note in (*self.models.list_notes(), *state.list_notes(self.target_names), *drift):
            self._warn(note)
        return missing, state, is_connected

    def may_submit(self, trial: Trial) -> bool:
        """Whether this run may submit a trial: it is selected, and every target still offers what it needs."""
        return trial.index not in self.gone and self.is_selected(trial)

    @property
    def rule(self) -> DoneRule:
        """Which jobs of the folder count, by what the targets told so far."""
        given = self.settings
        return DoneRule(self.target_names, self.models.facts, given.per_target, given.keep_stale, given.remake_stale)

    async def _connect_for_done_work(self, stack: AsyncExitStack, *, compares: bool) -> bool:
        """Connect although nothing is left to do: to fetch missing files, and to compare model files if `compares`.

        Returns whether a target responds. If none does, what is done stays done.
        """
        if any(target.launch for target in self.targets):
            return False  # none is started for that, and it would have no earlier job
        is_connected = False
        with suppress(TargetError, TimeoutError):  # `restore` reports missing files one by one
            async with asyncio.timeout(_COMPARE_SECONDS):
                is_connected = await self.connect(stack)
                await run_for_all(self.read_versions, self.clients)
                if is_connected and compares:
                    await self.control.run_unless_stopped(self.read_models())
        if compares and not self.models.facts and not self.control.stopping:
            self._warn(f"{' and '.join(self.target_names)}: no answer about model files; finished trials stay done")
        return is_connected

    def _warn(self, message: str | None) -> None:
        if message is not None:
            self.report(Notice(message))

    def _load_resume_state(self, store: Store | None, missing: MissingFiles) -> ResumeState:
        state = load_resume_state(self.plan, store, self.rule, self.settings, self.may_submit, should_redo=missing)
        if missing.redo_count:
            count = count_things(missing.redo_count, "trial")
            self._warn(f"files of {count} are missing; the embedded server generates them again")
        return state

    async def restore(self, missing: MissingFiles) -> None:
        """Download files again that are missing from the results folder, and report the outcome."""
        await resume.restore(missing, self.clients, self.report)

    async def connect(self, stack: AsyncExitStack) -> bool:
        """Connect to the targets. Returns whether one can be used; False if the run stops meanwhile.

        Those that respond go to `self.clients`, the others to `self.pending`. Raises RefusedError, UnreachableError.
        """
        clients: list[ComfyClient] = []
        if not self.launched.is_shared:
            stack.push_async_callback(self.launched.aclose)
        for target in self.targets:
            url = self._start_embedded(stack) if target.embedded else target.url
            url = url if target.launch is None else self.launched.start(target)
            client = ComfyClient(replace(target, url=url), patience=self.settings.patience)
            await stack.enter_async_context(client)
            client.retry_waiter.on_wait = lambda seconds, reason, name=target.name: self._warn(
                f"{name}: the server asks us to wait {seconds:.0f} s: {reason}"
            )
            clients.append(client)
        connections = await self.control.run_unless_stopped(connect_all(clients, self.launched))
        if connections is None:
            return False
        servers, self.pending = connections
        self.server_cache = find_smallest_cache([self._register_server(client, server) for client, server in servers])
        self.clients = [client for client, _ in servers]
        return bool(self.clients)

    async def read_versions(self, client: ComfyClient) -> None:
        self.server_infos[client.target.name] = await client.get_server_info()

    def _register_server(self, client: ComfyClient, server: Server) -> ServerCache:
        """Save what is known of a server that responded, and report that it can be used. Returns its cache."""
        target, name = client.target, client.target.name
        self.max_jobs[name] = server.max_jobs
        self.report(TargetReady(name, server.dialect, server.version, self._get_concurrency(client), target.group))
        return save_server(target, server)

    async def check_targets(self) -> None:
        """Check the plan against each target that responds, while it tells its versions."""
        await run_for_all(lambda ask: run_for_all(ask, self.clients), (self.check, self.read_versions))

    async def read_models(self) -> None:
        """Ask the targets that respond about the model files of the plan."""
        for client in self.clients:
            await self.read_models_of(client, await find_classes(client, self.plan))

    async def read_models_of(self, client: ClassSource, classes: NodeInfo | None) -> None:
        if not client.target.embedded:
            await self.models.read(client.models, client.target, classes)

    async def check(self, client: ClassSource) -> None:
        """Check the plan against the target; see `preflight.check_target`. Its classes have prices and samplers."""
        classes = await check_target(client, self.plan, self.settings, self.report, self.gone)
        await self.read_models_of(client, classes)
        self.prices.add_target(client.target, classes)
        graph, known = self.experiment.template.graph, classes or NodeInfo({})
        self.sampler_nodes |= {node_id for node_id, node in graph.items() if known.is_sampler(node["class_type"])}

    def _start_embedded(self, stack: AsyncExitStack) -> str:
        # One picture per core. One more job in flight than workers keeps them busy; see `_get_concurrency`.
        self.embedded_workers = self.settings.concurrency or min(4, os.cpu_count() or 1)
        return stack.enter_context(make_embedded_server(self.settings, self.embedded_workers)).url

    def _get_concurrency(self, client: ComfyClient) -> int:
        if client.target.embedded:
            return self.embedded_workers + 1
        max_jobs = self.max_jobs.get(client.target.name)
        return self.settings.concurrency or client.target.concurrency or max_jobs or client.dialect.concurrency

    async def _record_and_execute(self, store: Store, state: ResumeState, *, may_submit: bool) -> Run:
        self.spending = self._make_spending(store, state) if may_submit else None
        plan, table, titles = self.plan, TableFile(store), find_unique_titles(self.experiment.template.graph)
        layout = TableLayout(
            self.experiment.name, tuple(plan.axis_columns), tuple(plan.slot_names), self.experiment.metric_columns,
            plan.value_order, plan.together, plan.search_columns, titles,
            JobSizes(self.experiment.template).differ(plan), plan.extras)  # fmt: skip
        run_id, table.is_same = resume.record_run(
            plan, store, state, layout,
            target_names=self.target_names, experiment=self.experiment, now=time.time(), settings=self.settings,
        )  # fmt: skip
        for name, info in self.server_infos.items():
            store.servers.save_info(run_id, name, info)
        if self.gone:
            left_out = [trial for trial in plan.written() if trial.index in self.gone and self.is_selected(trial)]
            self._warn(resume.record_gone(store, run_id, left_out, self.gone, now=time.time()))
        if may_submit:
            table.is_same = False
            await self.find_outdated_models(store)
        counts, more = (len(plan), state.todo_rows, state.reused), (state.reused_failures, layout.sizes_differ)
        self.report(RunStarted(run_id, self.out, *counts, self.target_names, *more))
        if self.spending is not None:
            self.spending.report()
        folder = self.open_artifacts()
        unfinished = [
            UnfinishedJob(item.job.id, item.job.intended, self.naming.build_stem(item.trial))
            for item in state.unresolved
            if item.job is not None
        ]
        folder.remove_leftovers(unfinished, {path for path, _ in store.files()} if unfinished else ())
        error: str | None = None
        try:
            if may_submit:
                self.mark_embedded_lost(store, state)
                async with measure_while_watched(store, run_id, self.out, self.metrics, self.report.has_viewer):
                    error = await self.execute(store, state, run_id, folder)
                    for client in [] if self.control.stopping else self.clients:
                        self._warn(await self.models.set_aside_mixed(client.models, client.target.name, store, run_id))
            await self._finish(store, run_id, self.control.reason, table)
        except BaseException as failure:
            # If the results folder cannot be written any more, that is how the run ended, and not an error of ours.
            is_unwritable = isinstance(failure, ResultsError)
            if is_unwritable:
                self.control.drain(UNWRITABLE)
                error = str(failure)
            # Write the table and the run's end nevertheless, as far as the disk permits.
            table.is_same = False
            with suppress(SweeperError, OSError):
                await self._finish(store, run_id, self.control.reason or "error", table)
            if not is_unwritable:
                raise
        run = self._summarize(store, run_id, error)
        self.report(RunEnded(run))
        return run

    async def find_outdated_models(self, store: Store) -> None:
        """Find out which files the servers may still have in their memory as they were before."""
        await run_for_all(lambda of: self.models.find_outdated(of.models, of.target, store), self.clients)

    def mark_embedded_lost(self, store: Store, state: ResumeState) -> None:
        """Mark open jobs of embedded servers as lost, because those servers ended with their runs."""
        embedded_names = {target.name for target in self.targets if target.embedded}
        end = JobEnd(records.LOST, error=(LOST_ERROR, "the embedded server ended with its run"))
        for item in state.unresolved:
            if (job := item.open_job) is not None and job.target in embedded_names:
                store.record_finished(job.id, end)
                item.job = replace(job, state=records.LOST)

    async def execute(self, store: Store, state: ResumeState, run_id: int, folder: ArtifactFolder) -> str | None:
        """Execute the remaining work. Returns why that stopped early, as a message."""
        seconds = self.settings.node_seconds or store.servers.mean_node_seconds(self.target_names)
        costs = Costs(seconds, self.server_cache)
        plan = self.plan.reordered(costs)
        context = RunContext(
            plan=plan,
            experiment=self.experiment.name,
            run_id=run_id,
            store=store,
            folder=folder,
            settings=self.settings,
            control=self.control,
            report=self.report,
            target_names=self.target_names,
            models=self.models.by_target,
            duplicates=state.duplicates,
            naming=self.naming,
            check_lock=self._check_lock,
            is_watched=self.report.has_viewer,
            node_classes={name: node["class_type"] for name, node in self.experiment.template.graph.items()},
            sampler_nodes=self.sampler_nodes,
            launched=self.launched,
            spending=self.spending,
            charges_jobs=self.spending is not None,
            is_only_target=len(self.targets) == 1,
        )
        items = resume.iter_remaining(plan, state, self.settings, self.may_submit)
        try:
            error = await self.dispatch(context, store, state, items, TransitionCost(self.experiment.template, costs))
            return "; ".join(filter(None, (self._describe_end(store, state, plan, run_id), error))) or None
        finally:
            context.close()
            for target, times in context.node_times.sum_up().items():
                store.servers.add_node_times(target, times)

    async def dispatch(
        self,
        context: RunContext,
        store: Store,
        state: ResumeState,
        items: Iterator[WorkItem],
        transition_cost: TransitionCost,
    ) -> str | None:
        """Let all targets execute the `items`, and those of `state`. Returns why that stopped early, as a message."""
        count = state.todo - len(state.unresolved)
        source: WorkSource = (
            SingleQueue(items)
            if len(self.targets) == 1
            else ShardedQueue(items, transition_cost, count=count, targets=len(self.clients))
        )
        context.work_queue = WorkQueue(state.unresolved, source)

        def make_limit(client: ComfyClient) -> ConcurrencyLimit:
            if not client.target.embedded:  # an embedded server starts without files
                name = client.target.name
                client.uploads.preload(store.servers.load_uploads(name), partial(store.servers.save_upload, name))
            return ConcurrencyLimit(self._get_concurrency(client), context.random)

        async def prepare(client: ComfyClient, server: Server) -> ConcurrencyLimit:
            await run_for_all(lambda ask: ask(client), (self.check, self.read_versions))
            await self.models.find_outdated(client.models, client.target, store)
            if self.settings.budget is not None:
                self.prices.check_bounds(self._iter_unfinished(state))
            self._register_server(client, server)
            store.servers.save_info(context.run_id, client.target.name, self.server_infos[client.target.name])
            return make_limit(client)

        targets: list[tuple[ComfyClient, ConcurrencyLimit | PendingTarget]] = [
            *((client, make_limit(client)) for client in self.clients),
            *((client, PendingTarget(reason, prepare)) for client, reason in self.pending),
        ]
        return await Scheduler(context, targets).run()

    def _make_spending(self, store: Store, state: ResumeState) -> FolderSpending | None:
        """Return what the folder has cost so far, to go on from there; None if no job of this run costs anything.

        Raises UsageError if a budget cannot be kept, because nobody knows what some jobs cost at most.
        """
        budget, prices = self.settings.budget, self.prices
        says_charges = any(is_comfy_platform(target.url) for target in self.targets)
        if not prices.has_prices and not self.pending and not says_charges and budget is None:
            return None
        prices.learn(state.work.jobs.values(), store.load_params)
        spending = self.spending_class(prices, store.charges.iter_all(), budget=budget, report=self.report)
        for item in state.unresolved:
            if item.open_job is not None:
                spending.adopt(item.open_job, item.trial)
        if budget is not None:
            is_priced = any(judge.price for judge in self.experiment.judges.values())
            spending.check_budget(self.targets, self._iter_unfinished(state), has_priced_judge=is_priced)
        return spending

    def _iter_unfinished(self, state: ResumeState) -> Iterator[Trial]:
        """Yield the trials that this run may submit; of those that share a job, the first."""
        for trial in self.plan.written():
            is_first = state.first_index[trial.digest] == trial.index
            if is_first and trial.digest not in state.done and self.may_submit(trial):
                yield trial

    def _describe_end(self, store: Store, state: ResumeState, plan: Plan, run_id: int) -> str | None:
        """Say why the run ended at its budget, if it did."""
        if self.control.reason != BUDGET or self.spending is None:
            return None
        again = (records.UNSENT, records.LOST, records.CANCELLED)
        last_jobs = {job.digest: job for job in store.jobs() if job.run == run_id}
        failed = {digest for digest, job in last_jobs.items() if may_pass(job)}
        sent = {digest for digest, job in last_jobs.items() if job.state not in again} - failed
        left = (
            (item.trial, 1 + len(state.duplicates.get(item.trial.digest, ())))
            for item in resume.iter_remaining(plan, state, self.settings, self.may_submit)
            if item.trial.digest not in sent
        )
        return describe_over_budget(self.spending, left, failures=len(failed))

    async def _finish(self, store: Store, run_id: int, stopped_by: str | None, table: TableFile) -> None:
        """Record the end of the run, measure its files, and write the table."""
        store.end_run(run_id, now=time.time(), stopped_by=stopped_by)
        changes = store.change_count()
        for problem in await measure_run(store, run_id, self.out, self.metrics, self.control):
            self.report(Notice(problem))
        await ask_judges(store, run_id, self.out, self.experiment,
                         budget=self.settings.budget, asks_refused=self.settings.retry_failed or self.settings.fresh,
                         control=self.control, report=self.report)  # fmt: skip
        table.update(has_changed=store.change_count() != changes)
        if empty := store.count_without_files(run_id):
            self.report(Notice(resume.describe_empty_trials(empty, self.settings)))

    def _summarize(self, store: Store, run_id: int, error: str | None) -> Run:
        counts = store.count_by_status(run_id)
        return Run(
            run_id=run_id, out=self.out, trials=sum(counts.values()), submitted=store.count_submitted(run_id),
            reused=store.count_reused(run_id), kept=store.count_kept(run_id),
            pictures=self.artifact_url or str(self.out / "artifacts"), stopped_by=self.control.reason, error=error,
            cost=store.charges.load_spent(run_id), spent=store.charges.load_spent(), budget=self.settings.budget,
            **counts,
        )  # fmt: skip
