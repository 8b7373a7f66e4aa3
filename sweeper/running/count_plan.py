"""Count what a plan would do: new and done trials, an estimated time, a cost; and compare it with an earlier run.

Reads the results folder if there is one. Writes nothing and contacts no server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sweeper.comfy.target import describe_targets
from sweeper.errors import UsageError
from sweeper.model.money import NOTHING
from sweeper.model.result import MAX_COMPARED, PENDING, Result
from sweeper.model.target_spec import is_comfy_platform
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical
from sweeper.planning.job_size import JobSize, JobSizes, SizedTimes
from sweeper.planning.order import Costs, find_smallest_cache
from sweeper.planning.plan import Plan
from sweeper.planning.plan_outline import PlanCost, outline_plan
from sweeper.planning.pricing import LearntTimes, PlanPrices
from sweeper.running.done_work import DoneRule, DoneWork, describe_renaming, list_timed_jobs
from sweeper.running.node_class_cache import get_cache_mode
from sweeper.running.plan_answer import (
    CostChange,
    CostChanges,
    DifferentTrial,
    Estimate,
    MeanSeconds,
    PlanAnswer,
    PlanDifferences,
)
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions, TrialFilter
from sweeper.store import Store
from sweeper.store.records import FAILED, OPEN_STATES, REJECTED, SUCCEEDED, TableLayout
from sweeper.store.server_facts import BESIDES_NODES
from sweeper.tables.results_folder import check_owner, default_results_folder, find_results_folder

if TYPE_CHECKING:
    from sweeper.tables.effect_axes import EqualPictures

_TimedParams = list[tuple[Mapping[str, Any], float]]
_MAX_TIMED: Final = 2_000  # of the latest jobs, whose times and params are read


def answer_plan(prepared: Prepared, out: Path | None = None, options: RunOptions | None = None) -> PlanAnswer:
    """Answer what a run with these options would do. The arguments and errors are those of `PlanCounter`."""
    counter = PlanCounter(prepared, out, options or RunOptions())
    counter.add_all()
    return counter.answer()


class PlanCounter:
    """Counts which trials of a plan a results folder already holds, and what they cost.

    The caller adds the trials one by one.
    """

    def __init__(self, prepared: Prepared, out: Path | None, run_options: RunOptions) -> None:
        """`out` None: the default folder of the experiment.

        `run_options`: those of the run, as far as they select trials. Raises UsageError, ResultsError.
        """
        plan = prepared.plan
        self.notes, self._has_classes = prepared.notes, prepared.classes is not None
        self._run_options = run_options
        self._is_selected = TrialFilter(run_options.where, plan, run_options.trials)
        experiment = plan.experiment
        self.out = out or default_results_folder(experiment.file, experiment.name)
        resolved = prepared.resolve_targets()
        self.targets, self._on = [target.name for target in resolved], describe_targets(resolved)
        per_target = experiment.run.per_target if run_options.per_target is None else run_options.per_target
        given = per_target, run_options.keep_stale, run_options.remake_stale
        records = _load_records(self.out, DoneRule(tuple(self.targets), prepared.models, *given), plan)
        self._work, seconds, self._renaming, self._pictures, timed = records
        self._jobs = self._work.jobs
        self._done_on: Counter[str] = Counter()
        self._stale_digests: set[str] = set()
        self._rows: list[Result] = []  # of all selected trials, if some pictures are equal
        besides_nodes = seconds.pop(BESIDES_NODES, 0.0)
        costs = Costs(seconds, find_smallest_cache(map(get_cache_mode, resolved)))
        self.plan = plan.reordered(costs)  # the same order as the run's
        self.prices = PlanPrices(
            self.plan,
            prepared.classes,
            [target.price for target in resolved],
            LearntTimes(seconds, [each for _, each in timed], besides_nodes),
            shares_cache=len(resolved) == 1 and not any(is_comfy_platform(target.url) for target in resolved),
        )
        self._measure, self._times = JobSizes(plan.experiment.template).measure, [each for _, each in timed]
        sized = [(size, each) for params, each in timed if (size := self._measure(params)) is not None]
        self._sized = SizedTimes(sized) if sized else None
        self._sizes: tuple[Counter[JobSize], Counter[JobSize]] = (Counter(), Counter())  # distinct, pending
        # One byte for each trial: whether it is the first with its digest, and whether it is new or open too.
        self._distinct, self._pending = bytearray(len(self.plan)), bytearray(len(self.plan))
        self._digests: set[int] = set()
        names = ("selected", "new", "done", "failed", "open", "stale", "duplicates")
        self._counts: dict[str, Any] = dict.fromkeys(names, 0)
        self._new_digests = self._open_digests = 0

    def iter_selected(self) -> Iterator[Trial]:
        """The trials that `where` selects, in written order."""
        return filter(self._is_selected, self.plan.written())

    def iter_limited(self) -> Iterator[Trial]:
        """Those of the selected trials that a run with this `limit` would submit, in written order."""
        limit = self._run_options.limit
        new = (trial.digest for trial in self.plan if self._is_selected(trial) and self._is_new(trial))
        chosen: set[str] = set()
        while (limit is None or len(chosen) < limit) and (digest := next(new, None)) is not None:
            chosen.add(digest)
        return (trial for trial in self.iter_selected() if trial.digest in chosen)

    def _is_new(self, trial: Trial) -> bool:
        """Whether the run would submit the trial for the first time, or again."""
        job = self._jobs.get(trial.digest)
        if job is None or self._run_options.fresh:
            return job is None or job.state not in OPEN_STATES
        return job.state not in (SUCCEEDED, FAILED, REJECTED, *OPEN_STATES) or (
            self._run_options.retry_failed and job.state in (FAILED, REJECTED)
        )

    def add_all(self) -> None:
        for trial in self.iter_selected():
            self.add(trial)

    def add(self, trial: Trial) -> None:
        self._counts["selected"] += 1
        digest = trial.digest
        short = int(digest[:24], 16)  # 96 bits tell a million trials apart, in a third of the memory
        again = short in self._digests
        self._digests.add(short)
        self._counts["duplicates"] += again
        job = self._jobs.get(digest)
        done = job if job is not None and job.state == SUCCEEDED else None
        is_pending = not again
        if self._is_new(trial):
            self._counts["new"] += 1
            self._new_digests += not again
            if digest in self._work.stale:
                self._counts["stale"] += 1
                self._stale_digests.add(digest)
        elif job is not None and job.state in OPEN_STATES:
            self._counts["open"] += 1
            self._counts["new"] += 1
            self._open_digests += not again
        else:
            self._counts["failed" if done is None else "done"] += 1
            if done is not None:
                self._done_on[done.target] += 1
            is_pending = False
        if self._pictures is not None:
            files = () if done is None else self._pictures.files.get(done.id, ())
            status = SUCCEEDED if files else PENDING
            self._rows.append(Result(trial.index, trial.columns, trial.params, digest, status, sha256=files))
        self._distinct[trial.index] = not again
        self._pending[trial.index] = is_pending
        if self._sized is not None and not again and (size := self._measure(trial.params)) is not None:
            self._sizes[0][size] += 1
            self._sizes[1][size] += is_pending

    def _compute_cost(self) -> PlanCost | None:
        """The cost of the selected trials, and of those of them that this run submits."""
        pending = self._pending
        if self._run_options.limit is not None and self.prices.has_prices:
            pending = bytearray(len(pending))
            for trial in self.iter_limited():
                pending[trial.index] = self._distinct[trial.index]
        return self.prices.compute(self._distinct, pending, [self._compute_growth(sizes) for sizes in self._sizes])

    def _compute_growth(self, sizes: Counter[JobSize]) -> tuple[float, float]:
        """How many times as long as the earlier jobs jobs of these sizes take, at least and at most."""
        mean = sum(self._times) / len(self._times) * sizes.total() if self._sized is not None else 0.0
        if self._sized is None or not mean:
            return 1.0, 1.0
        known = [(self._sized.estimate(size), size in self._sized, count) for size, count in sizes.items()]
        least, most = (
            sum(count * (seconds[0] if is_measured else seconds[end]) for seconds, is_measured, count in known)
            for end in (1, 2)
        )
        return least / mean, most / mean

    def is_distinct(self, trial: Trial) -> bool:
        """Whether an added trial is the first with its digest."""
        return bool(self._distinct[trial.index])

    @property
    def distinct_count(self) -> int:
        """How many of the added trials differ from each other."""
        return sum(self._distinct)

    @property
    def _job_count(self) -> int:
        """How many jobs the run would submit or look for."""
        limit = self._run_options.limit
        return self._open_digests + (self._new_digests if limit is None else min(limit, self._new_digests))

    def answer(self) -> PlanAnswer:
        """The answer. Call it after all trials were added."""
        estimate, count = self._estimate(), len(self.plan)
        warnings = [*self.notes, *self._work.list_notes(self._jobs.keys())]
        if self._counts["new"] and self._renaming is not None:
            warnings.append(self._renaming)
        limit = self._run_options.max_trials or self.plan.experiment.run.max_trials
        if count > limit:
            warnings.append(f"`run` refuses more than {limit} trials; --max-trials {count} raises the limit")
        return PlanAnswer(
            outline=outline_plan(self.plan),
            out=str(self.out),
            targets=tuple(self.targets),
            on=self._on,
            order=self.plan.order,
            **self._counts,
            stale_files=self._work.describe_stale(self._stale_digests),
            done_on=dict(self._done_on),
            where=self._run_options.where,
            limit=self._run_options.limit,
            jobs=self._job_count,
            estimate_s=None if estimate is None else estimate.total.mean_s,
            estimate=estimate,
            cost=self._compute_cost(),
            warnings=tuple(warnings),
            has_classes=self._has_classes,
            equal_pictures=self._find_equal_pictures() or None,
        )

    def _find_equal_pictures(self) -> Sequence[EqualPictures]:
        """What changed no picture, among the trials of the plan that are done."""
        if self._pictures is None:
            return ()
        from sweeper.tables.effect_axes import find_equal_pictures

        plan = self.plan
        layout = TableLayout(
            plan.experiment.name, plan.axis_columns, plan.slot_names, together=plan.together, extras=plan.extras
        )
        return find_equal_pictures(self._rows, layout, self._pictures.hashes)

    def _estimate(self) -> Estimate | None:
        """The time of the new jobs by that of the earlier ones; None if no earlier job succeeded."""
        times, sizes, sized = self._times, self._sizes[1], self._sized
        if not times:
            return None
        each = (sum(times) / len(times), min(times), max(times))
        whole = [seconds * self._job_count for seconds in each]
        new = unseen = 0
        if sized is not None and sizes.total():
            share = self._job_count / sizes.total()
            found = [[seconds * count for seconds in sized.estimate(size)] for size, count in sizes.items()]
            whole = [sum(seconds) * share for seconds in zip(*found, strict=True)]
            new = sum(count for size, count in sizes.items() if size not in sized)
            unseen = sum(count for size, count in sizes.items() if not sized.is_seen(size))
        total, job = (MeanSeconds(*(round(seconds, 3) for seconds in found)) for found in (whole, each))
        return Estimate(total, len(times), job, new - unseen, unseen)


class _Pictures(NamedTuple):
    """The SHA-256 of the files of each job, and the hash of the pixels of each file."""

    files: Mapping[str, tuple[str, ...]]
    hashes: Mapping[str, str]


def _load_records(
    out: Path, rule: DoneRule, plan: Plan
) -> tuple[DoneWork, dict[str, float], str | None, _Pictures | None, _TimedParams]:
    """The jobs that count by this rule, the mean seconds of each node class on its targets, and a message.

    The message is that of `describe_renaming`. The pictures are None if no two are equal. Last come the params and the
    seconds of the latest jobs that succeeded. Raises UsageError if the results are of another experiment.
    """
    if not Store.exists(out):
        return DoneWork(), {}, describe_renaming(plan, out, None, rule), None, []
    with Store.open(out, readonly=True) as store:
        check_owner(store, plan.experiment.file, plan.experiment.name)
        renaming = describe_renaming(plan, out, store, rule)
        is_compared = len(plan) <= MAX_COMPARED and plan.search_columns is None and store.has_equal_pixels()
        pictures = _Pictures(store.load_job_hashes(), store.load_pixel_hashes()) if is_compared else None
        work = rule.find(store)
        timed = list_timed_jobs(job for job in work.jobs.values() if job.state == SUCCEEDED)[-_MAX_TIMED:]
        params = store.load_params(job.digest for job, _ in timed)
        times: _TimedParams = [(params.get(job.digest, {}), seconds) for job, seconds in timed]
        return work, store.servers.mean_node_seconds(rule.targets), renaming, pictures, times


_MAX_LISTED: Final = 1_000  # trials of each kind; the counts include all


class PlanDiff:
    """Compares the trials of a plan, added one by one, with the rows of a run, whether these succeeded or not."""

    def __init__(self, folder: Path, run: int | str | None, counter: PlanCounter) -> None:
        """`run` None: the latest in the folder. Raises ResultsError if there is none.

        Each trial must be added to the `counter` of the plan before it is added here.
        """
        with Store.open(folder, readonly=True) as store:
            self.run = int(run) if run is not None else store.latest_run_id()
            self._rows = list(store.results(run))
        self.folder = folder
        self._digests = {row.digest for row in self._rows}
        self._rows_by_axes: dict[bytes, list[Result]] = {}
        for row in self._rows:
            self._rows_by_axes.setdefault(encode_canonical(row.columns), []).append(row)
        self._counter = counter
        self._cost = NOTHING
        self._matched_digests: set[str] = set()
        self._changed_rows: set[int] = set()
        self._counts = {"same": 0, "new": 0, "changed": 0}
        self._new: list[DifferentTrial] = []
        self._changed: list[DifferentTrial] = []

    def add(self, trial: Trial) -> None:
        prices = self._counter.prices
        if prices.has_partner_nodes and self._counter.is_distinct(trial):
            self._cost += prices.price_params(trial.params)
        if trial.digest in self._digests:
            self._matched_digests.add(trial.digest)
            self._counts["same"] += 1
            return
        row = next(iter(self._rows_by_axes.get(encode_canonical(trial.columns), ())), None)
        if row is None:
            self._counts["new"] += 1
            if len(self._new) < _MAX_LISTED:
                self._new.append(DifferentTrial(trial.index, dict(trial.columns)))
            return
        self._changed_rows.add(row.trial)
        self._counts["changed"] += 1
        if len(self._changed) < _MAX_LISTED:
            params = _diff_params(row.params, trial.params)
            self._changed.append(DifferentTrial(trial.index, dict(trial.columns), row.trial, params))

    def answer(self) -> PlanDifferences:
        """The comparison. Call it after all trials were added."""
        gone = [
            row for row in self._rows if row.digest not in self._matched_digests and row.trial not in self._changed_rows
        ]
        listed = tuple(DifferentTrial(row.trial, dict(row.columns)) for row in gone[:_MAX_LISTED])
        return PlanDifferences(
            results=str(self.folder),
            run=self.run,
            **self._counts,
            gone=len(gone),
            cost=self._compute_cost(),
            trials={"changed": tuple(self._changed), "new": tuple(self._new), "gone": listed},
        )

    def _compute_cost(self) -> CostChanges | None:
        """The costs at today's prices. Each job takes the mean time of earlier jobs."""
        prices = self._counter.prices
        jobs = {row.digest: row for row in self._rows}
        before, now = prices.price_mean_jobs(len(jobs)), prices.price_mean_jobs(self._counter.distinct_count)
        if not prices.has_partner_nodes and before is None:
            return None
        nodes = sum((prices.price_params(row.params) for row in jobs.values()), NOTHING)
        time = None if before is None or now is None else CostChange(before, now)
        return CostChanges(CostChange(nodes, self._cost), time)


def resolve_diff_run(reference: str, out: Path) -> tuple[Path, str | None]:
    """The folder and run that `--diff` names: the number of a run in `out`, or another results folder (latest run)."""
    if reference.isdecimal() and not Path(reference).exists():
        if not out.is_dir():
            raise UsageError(f"--diff {reference}: {out} holds no results yet; you can also give a results folder")
        return out, reference
    return find_results_folder(reference), None


def _diff_params(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Slot -> (earlier value, current value) where they differ."""
    names = dict.fromkeys([*current, *earlier])
    return {
        name: (earlier.get(name), current.get(name))
        for name in names
        if (name in earlier) != (name in current)
        or encode_canonical(earlier.get(name)) != encode_canonical(current.get(name))
    }
