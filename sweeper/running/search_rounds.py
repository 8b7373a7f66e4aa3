"""A search: rounds of trials, each an ordinary run, whose points Optuna chooses by the results of earlier rounds.

The rows of the results folder, of all runs, are the memory, and there is no other record. Each step is computed from
them, so a search that was interrupted anywhere continues where it was, with the points that it would ask for anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sweeper.comfy.target import Target
from sweeper.errors import UnreachableError, UsageError
from sweeper.loading.load import load
from sweeper.model.experiment import Experiment, Search
from sweeper.model.result import FAILED, PENDING, SUCCEEDED, Result, Run
from sweeper.model.search_columns import ROUND
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.planning.searching.search_plan import Point, PointBatch, SearchPlan, SearchSpace
from sweeper.planning.searching.search_state import EXHAUSTED, LOOKS, TRIALS, UNTIL, SearchState, group_points
from sweeper.running.done_work import DoneRule
from sweeper.running.health import LaunchedServers
from sweeper.running.notify import EndNotice
from sweeper.running.prepare import complete_experiment
from sweeper.running.run import resolve_run_targets, run_async, wait_for_run
from sweeper.running.run_answer import SearchPreview, SearchResult
from sweeper.running.run_events import Event, Notice, RoundPlanned, TrialDone
from sweeper.running.session import Session
from sweeper.running.settings import RunOptions, read_notify, resolve_output
from sweeper.running.stop_control import INTERRUPT, StopControl, stop_on_signals
from sweeper.store import Store
from sweeper.store.records import ENDED_STATES
from sweeper.wording import format_install

VOTES: Final = "votes"  # why a search ends for now: people have to vote first
MAX_TRIALS: Final = "max_trials"  # why a search ends: the table has as many rows as it may have
FAILING: Final = "failing"  # why a search ends: no trial of the first points succeeded
_HOPELESS: Final = 8  # failed trials without a success that end a search
_RETRY_SECONDS: Final = 5.0
_BEST: Final = 5  # points in the summary of a search with one objective
_VOTED_BATCH: Final = 8  # points of a round that people vote on, at least: about 20 votes
_DEFAULT_CONCURRENCY: Final = 2  # of a server that says nothing; the embedded server has one for each core


def search(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    **rest: Any,
) -> SearchResult:
    """Search the space of an experiment's `search` section, and wait for the end. The arguments are those of `run`.

    Continues an earlier search of the same results folder. Raises what `run` raises.
    """
    return wait_for_run(search_async, experiment, target, out, **rest)


async def search_async(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    options: RunOptions | None = None,
    progress: Callable[[Event], None] | Literal[False] | None = None,
    control: StopControl | None = None,
    named: NamedTargets | None = None,
    environ: Mapping[str, str] | None = None,
    handle_signals: bool = False,
    session: type[Session] | None = None,
    **changes: Any,
) -> SearchResult:
    """Search as `search` does, inside an event loop. The arguments are those of `run_async`."""
    loaded = experiment if isinstance(experiment, Experiment) else load(experiment)
    loaded = complete_experiment(loaded, target, named, out, report=progress or (lambda _: None))
    spec = require_search(loaded)
    control = control or StopControl()
    given = replace(options or RunOptions(), **changes)
    if given.where is not None or given.limit is not None:
        raise UsageError("a search has no --where and --limit; write `where` and `trials` under `search:`")
    address = read_notify(given.notify, loaded.run)
    # Its rounds post nothing, because the search does.
    given = replace(given, budget=loaded.search_budget if given.budget is None else given.budget, notify="")
    targets = resolve_run_targets(session or Session, loaded, target, named, environ)
    rounds = SearchRounds(loaded, targets, resolve_output(out, loaded)[0], given)
    patience = loaded.run.patience if given.patience is None else given.patience
    failed = 0

    def report(event: Event) -> None:
        nonlocal failed
        failed += isinstance(event, TrialDone) and event.status == FAILED
        if progress:
            progress(event)

    async def run_round(plan: SearchPlan, extends: int | None) -> Run:
        limit = _limit_failures(given, loaded, spec.trials or len(plan), failed)
        # Trials that fail in this call are not retried by its next round.
        retries = given.retry_failed and extends is None
        round_options = replace(given, extends=extends, max_failures=limit, retry_failed=retries)
        deadline = time.monotonic() + (0 if extends is None else patience)
        while True:
            try:
                return await run_async(
                    loaded, targets, out, plan=plan, options=round_options, progress=report, control=control,
                    session=session, launched=launched,
                )  # fmt: skip
            except UnreachableError as error:  # between two rounds; within one, the run has the same patience
                if time.monotonic() >= deadline:
                    raise
                report(Notice(f"{error}; sweeper retries it for {deadline - time.monotonic():.0f} s"))
                await control.run_unless_stopped(asyncio.sleep(_RETRY_SECONDS))

    notice = EndNotice(address, "search", loaded.name, rounds.out, report, control)
    signals = stop_on_signals(control) if handle_signals else contextlib.nullcontext()
    servers = LaunchedServers(rounds.out, patience, report, is_shared=True)
    async with signals, contextlib.aclosing(servers) as launched:
        searched = rounds.run(run_round, control, report, given.max_trials or loaded.run.max_trials)
        return await notice.watch(searched, notice.post_search)


def require_search(experiment: Experiment) -> Search:
    """Return the search of an experiment. Raises ExperimentError if it has none, UsageError without Optuna."""
    if experiment.search is None:
        message = "has no `search:`; write what to maximize, the space and an end, or use `sweeper run`"
        raise experiment.make_error((), message)
    if find_spec("optuna") is None:
        raise UsageError(f"sweeper searches with optuna, which is not installed; run: {format_install('optuna')}")
    if experiment.search.method == "gp" and find_spec("torch") is None:
        raise UsageError(
            f"search.method: gp needs PyTorch, which is not installed; run: {format_install('torch')}, or use "
            "`method: auto`, which needs only Optuna"
        )
    return experiment.search


def _limit_failures(options: RunOptions, experiment: Experiment, trials: int, failed: int) -> int | None:
    """Return how many trials of a round may fail, if `failed` of the search have failed already; None: any number.

    A share counts of all `trials` of the search, because a round has too few.
    """
    allowed = experiment.run.max_failures if options.max_failures is None else options.max_failures
    if isinstance(allowed, float):
        allowed = int(allowed * trials)
    return None if allowed is None else max(allowed - failed, 0)


def count_parallel_jobs(targets: Sequence[Target], concurrency: int | None) -> int:
    """Return how many jobs the targets run at once, as far as that is known before they respond."""
    cores = min(4, os.cpu_count() or 1)
    defaults = [cores if target.embedded else target.concurrency or _DEFAULT_CONCURRENCY for target in targets]
    return sum(concurrency or default for default in defaults)


@dataclass(slots=True)
class _Step:
    """What to do next: run these batches, or end for a reason."""

    batches: Sequence[PointBatch] = ()
    ended_by: str | None = None
    error: str | None = None
    votes_needed: int = 0


class SearchRounds:
    """The rounds of one call of `search_async`. `out`: the results folder. Its methods raise as `search_async` does."""

    def __init__(self, experiment: Experiment, targets: Sequence[Target], out: Path, options: RunOptions) -> None:
        search = require_search(experiment)
        self.space = SearchSpace(experiment, search)
        self.search, self.out = search, out
        is_per_target = experiment.run.per_target if options.per_target is None else options.per_target
        self.rule = DoneRule(tuple(target.name for target in targets), per_target=is_per_target)
        self.batch = search.batch or max(
            count_parallel_jobs(targets, options.concurrency or experiment.run.concurrency),
            _VOTED_BATCH if search.is_by_votes else 1,
        )
        self.votes_needed = 0
        self.batches: list[PointBatch] = []
        self.run_id: int | None = None  # of the record that the rounds of this call extend
        self.newest: int | None = None  # the last run of the folder whose trials are in the batches

    async def run(
        self, run_round: Callable[..., Any], control: StopControl, report: Callable[[Event], None], most: int
    ) -> SearchResult:
        """Run rounds until the search ends, with `most` rows in the table."""
        latest: Run | None = None
        while True:
            if self._load_changes():
                self.run_id = None
            state = SearchState(self.space)
            if self.batches:
                plan = SearchPlan(self.space, self.batches)
                latest = await run_round(plan, self.run_id)
                self.run_id = self.newest = latest.run_id
                with Store.open(self.out, readonly=not self.search.is_by_votes) as store:
                    self.votes_needed = self._count_votes(store, self.run_id)
                    state = SearchState(self.space, plan, list(store.results(self.run_id)))
            if latest is not None and latest.stopped_by is not None:
                return _summarize(state, latest, _Step(ended_by=latest.stopped_by, error=latest.error))
            step = self._limit_rows(await asyncio.to_thread(self._choose_step, state), most)
            if step.ended_by is None and control.stopping:
                step = _Step(ended_by=control.reason or INTERRUPT)
            if step.ended_by is not None:
                return _summarize(state, latest, step)
            report(self._describe_round(state, step.batches))
            self.batches += step.batches

    def _limit_rows(self, step: _Step, most: int) -> _Step:
        """End the search if the next round would give the table more rows than `max_trials` allows."""
        rows = sum(batch.count for batch in (*self.batches, *step.batches))
        if not step.batches or rows <= most:
            return step
        message = f"with another round the table would have {rows} trials, more than max_trials allows ({most})"
        return _Step(ended_by=MAX_TRIALS, error=f"{message}; --max-trials {rows} lifts the limit")

    def load_known(self) -> tuple[SearchState, int]:
        """Return what is known, and how many trials of earlier rounds are unfinished."""
        if not self._load_changes() or not self.batches:
            return SearchState(self.space), 0
        plan = SearchPlan(self.space, self.batches)
        with Store.open(self.out, readonly=True) as store:
            rows = load_rows(plan, store)
            self.votes_needed = self._count_votes(store)
        return SearchState(self.space, plan, rows), sum(row.status == PENDING for row in rows)

    def preview(self) -> SearchPreview:
        """Return what the search would do next. Submits nothing."""
        state, unfinished = self.load_known()
        unmeasured = state.succeeded if state.list_unmeasured() not in ([], [VOTES]) else 0
        step = _Step() if unfinished or unmeasured else self._choose_step(state)
        batches = self.batches if unfinished else step.batches
        plan_of_step = SearchPlan(self.space, batches) if batches else None
        return SearchPreview(
            state, step.batches, unfinished, unmeasured, step.ended_by, plan_of_step, self.batch, step.votes_needed
        )

    def _load_changes(self) -> bool:
        """Load the batches if the folder has runs that they lack: before the first round, or of another process."""
        if not Store.exists(self.out):
            return False
        with Store.open(self.out, readonly=True) as store:
            newest = max((run.id for run in store.runs()), default=None)
            if newest == self.newest:
                return False
            self.newest, self.batches = newest, load_batches(self.space, store, self.rule)
        return True

    def _count_votes(self, store: Store, run_id: int | None = None) -> int:
        """Return about how many votes the rows of a run, by default the latest, lack for a search by votes to go on.

        With a run, bring the metric of votes up to date, too: what the store has may be that of another table.
        """
        if not self.search.is_by_votes:
            return 0
        from sweeper.tables.vote_pictures import VotePictures, count_votes_needed, write_metric  # noqa: PLC0415 - pandas

        pictures, votes = VotePictures(store, run_id=run_id), store.votes.load()
        if run_id is not None:
            write_metric(store, pictures, votes)
        return count_votes_needed(pictures, votes) or 0

    def _choose_step(self, state: SearchState) -> _Step:
        if (problem := self._find_problem(state)) is not None:
            return problem
        if state.has_lost_patience():
            return _Step(ended_by=UNTIL)
        if stage := state.find_next_stage(_find_worse):
            return _Step(stage)
        left = state.trials_left
        count = self.batch if left is None else min(self.batch, left // len(self.space.combinations))
        if count == 0:
            return _Step(ended_by=TRIALS)
        from sweeper.planning.searching.proposals import Proposer  # noqa: PLC0415 - `require_search` has found Optuna

        tried = {point: known.objectives for point, known in state.points.items()}
        points = Proposer(self.space).propose(tried, count)
        if not points and not state.points:
            message = "no point of the space was found for which this is true"
            raise self.space.experiment.make_error(("search", "where"), message)
        return _Step(state.make_round(points)) if points else _Step(ended_by=EXHAUSTED)

    def _find_problem(self, state: SearchState) -> _Step | None:
        if state.failed >= _HOPELESS and not state.succeeded:
            message = f"all {state.failed} trials failed, so there is nothing to learn from"
            return _Step(ended_by=FAILING, error=f"{message}; remove the cause, and add --retry-failed")
        if self.votes_needed:
            return _Step(ended_by=VOTES, votes_needed=self.votes_needed)
        if unmeasured := state.list_unmeasured():
            names = " and ".join(f"'{name}'" for name in unmeasured)
            message = f"the trials succeeded, but have no number in the column {names}, which the search needs"
            return _Step(ended_by=FAILING, error=message)
        is_bounded = self.search.trials is not None or self.search.patience is not None
        if state.rounds and state.succeeded and not is_bounded:
            with Store.open(self.out, readonly=True) as store:
                has_cost = store.charges.load_spent().at_most > 0
            if not has_cost:
                message = "the trials so far have no known cost, so the budget does not end the search"
                return _Step(ended_by=FAILING, error=f"{message}; state the `price` of the target, or add --trials N")
        return None

    def _describe_round(self, state: SearchState, batches: Sequence[PointBatch]) -> RoundPlanned:
        return RoundPlanned(
            number=batches[-1].round,
            points=len({point for batch in batches for point in batch.points} - state.points.keys()),
            trials=sum(batch.count for batch in batches),
            asked=state.asked,
            limit=self.search.trials,
            best=next(iter(state.describe_best(1)), None),
        )


def _find_worse(tables: Sequence[Sequence[Sequence[float]]], maximize: Sequence[bool]) -> Sequence[int]:
    from sweeper.statistics.paired import find_clearly_worse  # noqa: PLC0415 - it imports SciPy

    return find_clearly_worse([np.array(table) for table in tables], maximize, looks=LOOKS)


def _summarize(state: SearchState, run: Run | None, step: _Step) -> SearchResult:
    return SearchResult(
        run=run,
        ended_by=step.ended_by or INTERRUPT,
        rounds=state.rounds,
        points=sum(point.round > 0 for point in state.points.values()),
        trials=state.asked,
        best=state.describe_best(_BEST),
        error=step.error,
        votes_needed=step.votes_needed,
        search=state.search,
    )


def load_batches(space: SearchSpace, store: Store, rule: DoneRule) -> list[PointBatch]:
    """Return what the search asked for earlier, and what other runs have done of its space, as batches.

    A row counts if the experiment would make the same workflow of its point today, so that a changed template, space
    or `where` leaves out what no longer belongs to it. Rows of other runs count if `rule` counts their jobs as ended;
    they are round 0.
    """
    found: dict[tuple[Point, int], dict[str, tuple[int, int]]] = {}  # by cell and digest: the round, and its first row
    ended = {digest for digest, job in rule.find(store).jobs.items() if job.state in ENDED_STATES}
    for row, (digest, params, columns) in enumerate(store.iter_trials()):
        asked = columns.get(ROUND, 0) if isinstance(columns.get(ROUND, 0), int) else 0
        if not asked and digest not in ended:
            continue
        if (cell := space.read_cell(params, columns)) is not None:
            rows = found.setdefault(cell, {})
            if digest not in rows or rows[digest][0] < asked:
                rows[digest] = asked, row
    points = list(dict.fromkeys(point for point, _ in found))
    allowed = dict(zip(points, space.find_allowed(points), strict=True))
    possible = [(0, point, combination) for point, combination in found if combination in allowed[point]]
    if not possible:
        return []
    plan = SearchPlan(space, group_points(possible))
    cells = [
        (found[point, combination][trial.digest], point, combination)
        for (_, point, combination), trial in zip(plan.iter_cells(), plan.written(), strict=True)
        if trial.digest in found[point, combination]
    ]
    cells.sort(key=lambda cell: cell[0][1])
    return group_points([(asked, point, combination) for (asked, _), point, combination in cells])


def load_rows(plan: SearchPlan, store: Store) -> list[Result]:
    """Return a row for each trial of a plan, with the best result that any run has for it."""
    found: dict[str, Result] = {}
    for run in store.runs():
        for row in store.results(run.id):
            known = found.get(row.digest)
            if known is None or known.status != SUCCEEDED or row.status == SUCCEEDED:
                found[row.digest] = row
    return [
        replace(found[trial.digest], trial=trial.index, columns=trial.columns, params=trial.params)
        if trial.digest in found
        else Result(trial.index, trial.columns, trial.params, trial.digest)
        for trial in plan.written()
    ]
