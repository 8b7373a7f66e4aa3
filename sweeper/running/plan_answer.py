"""The answer of `sweeper plan`: what a run would do, and how that differs from an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from sweeper.answers.cells import format_cell, label_values, map_labels
from sweeper.answers.parts import Fact, Facts, Heading, Item, Line, Part, Table, Warn
from sweeper.answers.render import IF_GIVEN, INLINE, NOT_IN_JSON
from sweeper.model.money import CURRENCY, NOTHING, Amount
from sweeper.planning.plan import OrderReport
from sweeper.planning.plan_outline import PlanCost, PlanOutline
from sweeper.wording import count_things

if TYPE_CHECKING:
    from sweeper.tables.effect_axes import EqualPictures

_MAX_ROWS: Final = 10  # rows of each kind of difference
_DIFFERS: Final = "what differs"


@dataclass(frozen=True, slots=True)
class MeanSeconds:
    """The mean, the shortest and the longest time, in seconds."""

    mean_s: float
    min_s: float
    max_s: float

    def format_spread(self) -> str:
        """` (5.0 s to 2 min 0 s)`."""
        return f" ({_format_duration(self.min_s)} to {_format_duration(self.max_s)})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long the new jobs take one after another: by `by_jobs` earlier jobs, each of which took `job`.

    `scaled`: how many of the new ones have another size than all of these; `unseen`: other model files.
    """

    total: MeanSeconds = field(metadata=INLINE)
    by_jobs: int
    job: MeanSeconds
    scaled: int = 0
    unseen: int = 0


@dataclass(frozen=True, slots=True)
class WrittenWorkflows:
    """The folder that `--workflows` filled: how many files were written, and how many were there already."""

    dir: str
    written: int
    same: int


@dataclass(frozen=True, slots=True)
class DifferentTrial:
    """A trial of the plan or the run, and its axis values.

    A changed one has the number of the row that it `was`, and by slot the earlier and the current value, None where one
    of the two has no such slot.
    """

    trial: int
    axes: Mapping[str, Any]
    was: int | None = field(default=None, metadata=IF_GIVEN)
    params: Mapping[str, tuple[Any, Any]] | None = field(default=None, metadata=IF_GIVEN)


@dataclass(frozen=True, slots=True)
class CostChange:
    """What the run would cost today, and what the plan costs."""

    run: Amount
    plan: Amount

    def describe(self, what: str) -> str:
        """`0.06 USD -> 0.12 USD for partner nodes (+0.06 USD)`."""
        before, now = self.run, self.plan
        if before == now:
            return f"{now} for {what}, as before"
        change = ""
        if before.low == before.high and now.low == now.high:
            difference = abs(now.low - before.low)
            change = f" ({'+' if now.low > before.low else '-'}{Amount(difference, difference)})"
        return f"{before} -> {now} for {what}{change}"


@dataclass(frozen=True, slots=True)
class CostChanges:
    """The cost of the partner nodes, and in `time` that of GPU time; None if it or its price is not known."""

    nodes: CostChange = field(metadata=INLINE)
    time: CostChange | None
    currency: str = CURRENCY

    def __str__(self) -> str:
        has_nodes = self.time is None or {self.nodes.run, self.nodes.plan} != {NOTHING}
        texts = [self.nodes.describe("partner nodes")] if has_nodes else []
        return "; ".join([*texts, *([] if self.time is None else [self.time.describe("GPU time")])])


@dataclass(frozen=True, slots=True)
class PlanDifferences:
    """How a plan differs from `run` in the folder `results`: the number of trials of each kind, and the trials.

    A trial is `same` if the run has its digest, `changed` if the run has another digest for the same axis values, and
    `new` otherwise. A row of the run that matches no trial is `gone`. `cost` is None if nothing has a price. `trials`
    has by kind the first 1,000 that are changed, new or gone.
    """

    results: str
    run: int
    same: int
    new: int
    changed: int
    gone: int
    cost: CostChanges | None
    trials: Mapping[str, tuple[DifferentTrial, ...]]

    def parts(self) -> Iterator[Part]:
        """The counts, the change of the cost, and a table of the first trials of each kind."""
        yield Heading(f"against run {self.run} in {self.results}:")
        yield Facts(
            [
                Fact("same", self.same, "the same work"),
                Fact("new", self.new, "not in the run"),
                Fact("changed", self.changed, "the same axis values, different work"),
                Fact("gone", self.gone, "in the run, no longer in the plan"),
                *([] if self.cost is None else [Fact("cost", str(self.cost))]),
            ]
        )
        shown = [(kind, trial) for kind, trials in self.trials.items() for trial in trials[:_MAX_ROWS]]
        names = dict.fromkeys(name for _, trial in shown for name in trial.axes)
        labels = {name: map_labels(format_cell(trial.axes.get(name)) for _, trial in shown) for name in names}
        rows = [_make_row(kind, trial, labels) for kind, trial in shown]
        if rows:
            yield Table.from_records(rows, last=_DIFFERS)
        hidden = sum(max(0, count - _MAX_ROWS) for count in (self.changed, self.new, self.gone))
        if hidden:
            yield Item(f"and {hidden} more; --json lists them")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAnswer:
    """What a run would do in the results folder `out` on `targets`.

    `where` and `limit` are the options. `selected` counts the trials that `where` selects; `new`, `done` and `failed`
    are these by what the folder has for them. `open` are those of the new ones that were submitted earlier, with an
    unknown outcome, `stale` those that were done with other model files, and `stale_files` says with which. `done_on`
    counts the done ones by the target that made them. `duplicates` equal another trial. `jobs`: how many jobs the run
    submits or looks for. `estimate_s`: their mean time in seconds; None if no earlier job succeeded. `cost` is None if
    nothing has a price. `equal_pictures`: what changed no picture among the trials that are done. `next`: the command
    that runs the plan or, if it is done, shows the results.
    """

    outline: PlanOutline = field(metadata=INLINE)
    out: str
    targets: tuple[str, ...]
    order: OrderReport
    selected: int
    new: int
    done: int
    failed: int
    open: int
    stale: int
    stale_files: str
    done_on: Mapping[str, int]
    duplicates: int
    where: str | None
    limit: int | None
    jobs: int
    estimate_s: float | None
    estimate: Estimate | None
    cost: PlanCost | None
    warnings: tuple[str, ...]
    has_classes: bool = field(metadata=NOT_IN_JSON)  # whether the node classes of a target are known
    on: str = field(metadata=NOT_IN_JSON)  # the targets, those of a group by its name
    equal_pictures: Sequence[EqualPictures] | None = field(default=None, metadata=IF_GIVEN)
    diff: PlanDifferences | None = field(default=None, metadata=IF_GIVEN)
    workflows: WrittenWorkflows | None = field(default=None, metadata=IF_GIVEN)
    next: str | None = field(default=None, metadata=IF_GIVEN)

    def parts(self) -> Iterator[Part]:
        """The axes, the counts, the order, the time and the cost; then the cost by axis, and the differences."""
        yield self.outline.format_title(f" on {self.on}" if self.on else "")
        yield from self.outline.list_axes()
        yield Facts([*self.outline.list_filters(), *self._list_work(), *self._list_order(), *self._list_rest()])
        if self.stale:
            advice = "a run makes them again, --keep-stale keeps their results"
            yield Line(f"{self.stale} stale: {self.stale_files}; {advice}")
        if self.cost is not None:
            yield from self.cost.parts()
        if self.diff is not None:
            yield from self.diff.parts()
        if self.next is not None:
            yield Line(f"next: {self.next}")
        yield from map(Warn, (*self.warnings, *map(str, self.equal_pictures or ())))

    def _list_work(self) -> Iterator[Fact]:
        yield Fact("trials", self.outline.count)
        if self.where is not None:
            yield Fact("selected", self.selected, f"(by --where: {self.where})")
        if self.duplicates:
            yield Fact("duplicates", self.duplicates, "(equal to another trial; run once)")
        made = f"in {self.out}"
        if not {*self.done_on} <= {*self.targets} or len(self.targets) != 1:  # else each was made on the only target
            counts = sorted(self.done_on.items(), key=lambda item: -item[1])
            made += f": {', '.join(f'{count} on {target}' for target, count in counts)}"
        yield Fact("done", self.done, f"({made})" if self.done else "")
        if self.failed:
            yield Fact("failed", self.failed, "(in an earlier run; --retry-failed resubmits them)")
        jobs = f"({count_things(self.jobs, 'job')})" if self.jobs != self.new else ""
        yield Fact("new", self.new, jobs if self.limit is None else f"(submits {self.jobs}, by --limit)")
        if self.open:
            yield Fact("open", self.open, "(submitted earlier, outcome unknown; checked before submitting)")

    def _list_order(self) -> Iterator[Fact]:
        order = self.order
        by = ", by measured node times" if order.measured else ""
        if order.caching != "classic":
            by += f", for a server with the cache {order.caching!r}"
        for number, axes in enumerate(order.axes, 1):
            label = "order" if len(order.axes) == 1 else f"order {number}"
            yield Fact(label, " > ".join(axes) or "a single trial", f"({order.mode}, outermost first{by})")
        if order.why_written:
            yield Fact("", f"the written order, because {order.why_written}")
        if order.saved > 0:
            saved = f"runs {order.executions} nodes instead of {order.written} in written order"
            yield Fact("", f"{saved}: {order.saved} saved")

    def _list_rest(self) -> Iterator[Fact]:
        estimate = self.estimate
        if self.jobs and estimate is None:
            yield Fact("estimate", "unknown: no job has run yet")
        elif self.jobs and estimate is not None:
            job = estimate.job
            yield Fact("estimate", f"{self.describe_time()} for one job at a time")
            each = f"{_format_duration(job.mean_s)} each{job.format_spread() if estimate.by_jobs > 1 else ''}"
            yield Fact("", f"from {count_things(estimate.by_jobs, 'earlier job')}: {each}")
            if estimate.scaled:
                what = "scaled to their pixels, frames, steps and batch, because no earlier job had these"
                yield Fact("", f"{count_things(estimate.scaled, 'job')} {what}")
            if estimate.unseen:
                what = "of model files that no earlier job had: a guess"
                yield Fact("", f"{count_things(estimate.unseen, 'job')} {what}")
        if self.cost is not None:
            yield Fact("cost", self.describe_cost())
        if self.workflows is not None:
            same = f"  ({self.workflows.same} unchanged)" if self.workflows.same else ""
            yield Fact("workflows", self.workflows.written + self.workflows.same, f"in {self.workflows.dir}{same}")

    def describe_time(self) -> str:
        """How long the jobs take one after another. Empty if nobody knows, or if there are none."""
        if not self.jobs or self.estimate is None:
            return ""
        total = self.estimate.total
        return _format_duration(total.mean_s) + (total.format_spread() if total.max_s > total.min_s else "")

    def describe_cost(self) -> str:
        """What the plan costs, and what is left to pay. Empty if nothing has a price."""
        if self.cost is None:
            return ""
        left = self.cost.left
        if self.limit is not None:
            return f"{self.cost}; {left} for the jobs of this run (at most {self.limit})"
        if self.done:
            done = f"{self.done} of {self.selected} done"
            return f"{self.cost}; {'nothing' if left == NOTHING else left} left to pay ({done})"
        return str(self.cost)

    def estimate_cost(self, jobs: int) -> Amount | None:
        """What so many jobs cost if they cost what those of the run do. None if these have no price."""
        return None if self.cost is None or not self.jobs else self.cost.left.scale(Fraction(jobs, self.jobs))


def _make_row(kind: str, trial: DifferentTrial, labels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """One row of the table. The trial number is the plan's, or the run's if the row is gone."""
    cells = {"": kind, "trial": trial.trial}
    cells |= {name: labels[name][format_cell(value)] for name, value in trial.axes.items()}
    if trial.params is not None:
        params = [f"{name} {' -> '.join(label_values(values))}" for name, values in trial.params.items()]
        cells[_DIFFERS] = ", ".join(params) or "the workflow or an input file"
    return cells


def _format_duration(seconds: float) -> str:
    """`5.0 s`, `2 min 0 s`, `2 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
