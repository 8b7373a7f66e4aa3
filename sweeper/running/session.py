"""One run, step by step: targets, results folder, lanes, table and summary. Here network and disk are put together.

How a job is carried, watched and retried is told by the modules beside this one; what the table looks like by
`sweeper.tables.dataframe`. Nothing here prints: whoever wants to see passes `report`.
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
from sweeper.planning.server_cache import CLASSIC, Caching, weakest
from sweeper.running.live_feed import Showing
from sweeper.running.output_location import folder_at
from sweeper.running.run_events import Event, Noticed, RunEnded, RunStarted, TargetReady
from sweeper.running.stop_control import UNWRITABLE, RunControl
from sweeper.store.live_folder import LiveFolder

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.protocol import Server
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.target_spec import Named, Spec
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan
    from sweeper.running.restore_files import Missing
    from sweeper.running.resume import Survey
    from sweeper.running.settings import Settings
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
        settings: Settings,
        targets: tuple[Target, ...],
        places: tuple[Path, str | None],
        report: Callable[[Event], None],
        chosen: Callable[[Trial], bool],
        control: RunControl,
    ) -> None:
        self.experiment, self.plan, self.settings, self.targets = experiment, plan, settings, targets
        (self.out, self.pictures), self.chosen = places, chosen
        self.report = Showing(LiveFolder(self.out), report)
        self.names = tuple(target.name for target in targets)
        self.control = control
        self.metrics: dict[str, Any] = {}
        self.abouts: dict[str, dict[str, Any]] = {}  # what each target says of itself
        self.late: list[tuple[ComfyClient, str]] = []  # targets that did not answer at the start, and why
        self.cachings: list[Caching] = []
        self.caching = CLASSIC  # what the targets keep of node results from one job to the next
        self.workers = 0  # of the embedded server, where there is one

    @classmethod
    def resolve(cls, specs: Spec | Sequence[Spec], *, named: Named, environ: Mapping[str, str]) -> tuple[Target, ...]:
        """The targets of a run (CONTRACT.md 15). Raises UsageError."""
        from sweeper.comfy.target import resolve_targets  # noqa: PLC0415 (httpx and websockets, only where used)

        return resolve_targets(specs, named=named, environ=environ)

    async def run(self) -> Run:
        """Every step, from the first look at the store to the table."""
        from sweeper.running.folder_lock import holding  # noqa: PLC0415
        from sweeper.running.restore_files import Missing  # noqa: PLC0415
        from sweeper.store import FILE_NAME, Store  # noqa: PLC0415

        if self.experiment.metrics:
            from sweeper.images.metrics import load_metrics  # noqa: PLC0415

            self.metrics = load_metrics(self.experiment.metrics)
        async with AsyncExitStack() as connections:
            with ExitStack() as stack:
                # A new folder is made only once a target answers; an old one is held before it is read.
                store: Store | None = None
                clients: Sequence[Any] = ()
                if (self.out / FILE_NAME).is_file():
                    stack.enter_context(holding(self.out, now=time.time()))
                    store = stack.enter_context(Store.open(self.out))
                missing = Missing(store, self.out, self.settings)
                found = self._survey(store, missing)
                if found.todo and not self.control.stopping:
                    clients = await self._connect(connections)
                    for client in clients:
                        await self.control.unless_stopped(self._check(client))
                elif missing.jobs and not self.control.stopping:
                    with contextlib.suppress(TargetError):  # told below, with the files
                        clients = await self._connect(connections)
                if store is None:
                    stack.enter_context(holding(self.out, now=time.time()))
                    made_meanwhile = (self.out / FILE_NAME).is_file()
                    store = stack.enter_context(Store.open(self.out))
                    if made_meanwhile:  # by another run, which may have done it all while we waited for the targets
                        missing = Missing(store, self.out, self.settings)
                        found = self._survey(store, missing)
                if missing.jobs and not self.control.stopping:
                    await self.control.unless_stopped(self._restore(missing, clients))
                return await self._recorded(store, found, clients if found.todo else ())

    def _survey(self, store: Store | None, missing: Missing) -> Survey:
        from sweeper.running.restore_files import made_again  # noqa: PLC0415
        from sweeper.running.resume import survey  # noqa: PLC0415

        found = survey(self.plan, store, self.names, self.settings, self.chosen, anew=missing)
        if missing.again:
            self.report(Noticed(made_again(missing.again)))
        return found

    async def _restore(self, missing: Missing, clients: Sequence[Any]) -> None:
        """Fetch files that are gone from the results folder once more, and tell of it."""
        from sweeper.running.restore_files import restore  # noqa: PLC0415

        await restore(missing, clients, self.report)

    async def _connect(self, stack: AsyncExitStack) -> Sequence[Any]:
        """Clients of the targets that answer, none when the run is stopped before. The others are `late`. Raises
        RefusedError for one that refuses us, and UnreachableError when nobody answers.
        """
        from sweeper.comfy.client import ComfyClient  # noqa: PLC0415
        from sweeper.running.health import meet  # noqa: PLC0415

        clients: list[ComfyClient] = []
        for target in self.targets:
            url = self._embedded(stack) if target.embedded else target.url
            client = await stack.enter_async_context(ComfyClient(replace(target, url=url)))
            client.pauses.told = partial(self._asked_to_wait, target.name)
            clients.append(client)
        met = await self.control.unless_stopped(meet(clients))
        if met is None:
            return ()
        self.late = met.late
        for client, server in met.servers:
            await self.control.unless_stopped(self._met(client, server))
        self.caching = weakest(self.cachings)
        return [client for client, _ in met.servers]

    def _asked_to_wait(self, target: str, seconds: float, reason: str) -> None:
        self.report(Noticed(f"{target}: asks us to wait {seconds:.0f} s: {reason}"))

    async def _met(self, client: ComfyClient, server: Server) -> None:
        """Remember what a server says of itself, and tell that it can be used."""
        from sweeper.running.node_class_cache import remember  # noqa: PLC0415

        name = client.target.name
        self.abouts[name] = await client.about()
        self.report(TargetReady(name, server.dialect, server.version, self._concurrency(client)))
        self.cachings.append(remember(client.target, server))

    async def _check(self, client: Any) -> None:
        """Hold the plan against what the target can do; see `admit`."""
        from sweeper.running.preflight import admit  # noqa: PLC0415

        await admit(client, self.plan, self.settings, self.report)

    def _embedded(self, stack: AsyncExitStack) -> str:
        from sweeper.embedded import EmbeddedServer  # noqa: PLC0415

        # One picture per core; a queue one deeper than its workers keeps them busy.
        self.workers = self.settings.concurrency or min(4, os.cpu_count() or 1)
        server = stack.enter_context(EmbeddedServer(dialect="cloud", workers=self.workers))
        url: str = server.url
        return url

    def _concurrency(self, client: ComfyClient) -> int:
        if client.target.embedded:
            return self.workers + 1
        found: int = self.settings.concurrency or client.target.concurrency or client.dialect.concurrency
        return found

    async def _recorded(self, store: Store, found: Survey, clients: Sequence[Any]) -> Run:
        from sweeper.running.resume import record  # noqa: PLC0415
        from sweeper.store.records import Layout  # noqa: PLC0415

        layout = Layout(
            self.experiment.name,
            tuple(self.plan.axis_columns),
            tuple(self.plan.slot_names),
            tuple(self.experiment.metrics),
            self.plan.value_order,
            self.plan.together,
        )
        run_id = record(self.plan, store, found, layout, names=self.names, experiment=self.experiment, now=time.time())
        for name, about in self.abouts.items():
            store.servers.keep_said(run_id, name, about)
        total = len(found.first) + sum(map(len, found.twins.values()))
        self.report(RunStarted(run_id, self.out, total, found.rows, found.reused, self.names))
        folder = folder_at(self.out, self.pictures)
        folder.sweep(work.job.id for work in found.opened if work.job is not None)
        error: str | None = None
        try:
            if clients:
                self._forget(store, found)
                error = await self._work(store, found, clients, run_id, folder)
            await self._end(store, run_id, self.control.reason)
        except BaseException as trouble:
            if full := isinstance(trouble, ResultsError):  # in mid-run, so this is how the run ended
                self.control.drain(UNWRITABLE)
                error = str(trouble)
            # What is done is in the table, and the run is known to have ended, if the disk still takes that.
            with contextlib.suppress(SweeperError, OSError):
                await self._end(store, run_id, self.control.reason or "error")
            if not full:
                raise
        ended = self._summary(store, run_id, error)
        self.report(RunEnded(ended))
        return ended

    def _forget(self, store: Store, found: Survey) -> None:
        """Jobs on servers that ended with an earlier run."""
        from sweeper.running.resume import forget_embedded  # noqa: PLC0415

        for target in self.targets:
            if target.embedded:
                forget_embedded(store, found, target.name)

    async def _work(
        self, store: Store, found: Survey, clients: Sequence[Any], run_id: int, folder: ArtifactFolder
    ) -> str | None:
        """Let every target pull its work until none is left. Returns why it stopped early, for people."""
        from sweeper.planning.order import Costs  # noqa: PLC0415
        from sweeper.planning.transition_cost import Reruns  # noqa: PLC0415
        from sweeper.running.concurrency_limit import Gate  # noqa: PLC0415
        from sweeper.running.resume import remaining  # noqa: PLC0415
        from sweeper.running.run_context import Shared  # noqa: PLC0415
        from sweeper.running.scheduler import Crew  # noqa: PLC0415
        from sweeper.running.sharding import supply  # noqa: PLC0415
        from sweeper.running.target_worker import Late  # noqa: PLC0415
        from sweeper.running.work_queue import Backlog  # noqa: PLC0415

        costs = Costs(store.servers.node_seconds(self.names), self.caching)
        plan = self.plan.reordered(costs)
        fresh = supply(
            remaining(plan, found, self.settings, self.chosen),
            Reruns(self.experiment.template, costs),
            count=found.todo - len(found.opened),
            answering=len(clients),
            targets=len(self.targets),
        )
        shared = Shared(
            plan=plan,
            experiment=self.experiment.name,
            run_id=run_id,
            store=store,
            folder=folder,
            settings=self.settings,
            control=self.control,
            backlog=Backlog(found.opened, fresh),
            report=self.report,
            names=self.names,
            twins=found.twins,
        )

        def gate(client: ComfyClient) -> Gate:
            if not client.target.embedded:  # that one is empty at every start
                name = client.target.name
                client.uploads.recall(store.servers.uploads(name), partial(store.servers.note_upload, name))
            return Gate(self._concurrency(client), shared.random)

        async def welcome(client: ComfyClient, server: Server) -> Gate:
            await self._check(client)
            await self._met(client, server)
            store.servers.keep_said(run_id, client.target.name, self.abouts[client.target.name])
            return gate(client)

        lanes: list[tuple[ComfyClient, Gate | Late]] = [(client, gate(client)) for client in clients]
        lanes += [(client, Late(reason, welcome)) for client, reason in self.late]
        try:
            return await Crew(shared, lanes).run()
        finally:
            shared.close()
            for target, times in shared.node_times.items():
                store.servers.add_node_times(target, times)

    async def _end(self, store: Store, run_id: int, stopped_by: str | None) -> None:
        store.end(run_id, now=time.time(), stopped_by=stopped_by)
        await self._write_table(store, run_id)

    async def _write_table(self, store: Store, run_id: int) -> None:
        from sweeper.running.measure_run import measure_run  # noqa: PLC0415
        from sweeper.running.restore_files import nothing_kept  # noqa: PLC0415
        from sweeper.tables.dataframe import write_csv  # noqa: PLC0415

        for problem in await measure_run(store, run_id, self.out, self.metrics, self.control):
            self.report(Noticed(problem))
        write_csv(store.results(run_id), store.layout(run_id), self.out / TABLE_NAME)
        if empty := store.without_files(run_id):
            self.report(Noticed(nothing_kept(empty, self.settings)))

    def _summary(self, store: Store, run_id: int, error: str | None) -> Run:
        counts = store.counts(run_id)
        return Run(
            run_id=run_id,
            out=self.out,
            trials=sum(counts.values()),
            submitted=store.sent(run_id),
            reused=store.reused(run_id),
            pictures=self.pictures or str(self.out / "artifacts"),
            stopped_by=self.control.reason,
            error=error,
            **counts,
        )
