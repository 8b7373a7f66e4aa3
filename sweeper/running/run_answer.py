"""The answers of `sweeper run` and `sweeper search`: what has become of the trials, what a search would do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sweeper.answers.cells import format_cell
from sweeper.answers.parts import Fact, Facts, Line, Part, Table, Warn
from sweeper.answers.render import IF_GIVEN, INLINE, NOT_IN_JSON
from sweeper.errors import SweeperError
from sweeper.model.experiment import Search
from sweeper.model.html_display import HtmlDisplay
from sweeper.model.money import AT_LEAST, CURRENCY, NOTHING, Amount, to_usd
from sweeper.model.result import FAILED, MAX_COMPARED, Run
from sweeper.model.search_columns import VOTES_METRIC, SearchedPoint
from sweeper.planning.plan_outline import PlanCost, list_values
from sweeper.running.count_plan import answer_plan
from sweeper.running.prepare import Prepared
from sweeper.store import Store
from sweeper.tables.searched_points import BestPoints, describe_values
from sweeper.wording import count_things, join_command, join_names

if TYPE_CHECKING:
    from sweeper.planning.searching.search_plan import PointBatch, SearchPlan
    from sweeper.planning.searching.search_state import SearchState
    from sweeper.tables.effect_axes import EqualPictures

_MAX_ERROR_TYPES: Final = 5
_BEST: Final = 5
_ENDINGS: Final = {
    "trials": "that is the limit; `trials:` or --trials allows more",
    "until": "no trial was better for {patience} trials",
    "exhausted": "every allowed point of the space was tried",
    "budget": "no further trial fits into the budget",
    "votes": "it needs about {votes} to go on",
    "interrupt": "interrupted; the same command goes on",
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """What the jobs of a run cost, and those of all runs of its folder, of a budget in US dollars, if there is one.

    A job that has not ended counts as the most that it may cost. `kind` is the least sure kind of charge.
    """

    currency: str = CURRENCY
    run: Amount
    kind: str | None
    folder: Amount
    budget: float | None

    def __str__(self) -> str:
        text = f"{self.run} in this run" + (f" ({self.kind})" if self.kind else "")
        if self.folder != self.run or self.budget is not None:
            text += f", {self.folder} in this folder"
        return text if self.budget is None else f"{text} of a budget of {Amount.exactly(self.budget)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswer:
    """A run (see `Run`), its cost, None without costs and without a budget, and the page of its folder, if written.

    `real_run`: the command of the run that this one rehearsed. `equal_pictures`: what changed no picture.
    """

    run: Run = field(metadata=INLINE)
    cost: RunCost | None = None
    report: Path | None = None
    real_run: str | None = field(default=None, metadata=IF_GIVEN)
    equal_pictures: Sequence[EqualPictures] | None = field(default=None, metadata=IF_GIVEN)
    report_command: str = field(default="", metadata=NOT_IN_JSON)  # makes the page
    # The most common failures: number of trials, error type, and the message of one of them.
    list_failures: Callable[[], Sequence[tuple[int, str, str]]] = field(default=tuple, metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The counts, the most common failures, and where the results are."""
        run = self.run
        names = ("trials", "submitted", "reused", "succeeded", "failed", "cancelled", "pending")
        yield Table(names, [[getattr(run, name) for name in names]])
        failures = self.list_failures() if run.failed else ()
        if failures:
            yield Table(("failed", "error_type", "error"), failures)
            yield Line("Add --retry-failed to submit these again.")
        if run.kept:
            count = sum(run.kept.values())
            rows = "1 row of results.csv is" if count == 1 else f"{count} rows of results.csv are"
            command = join_command(["sweeper", "results", str(run.out), "--run", str(run.run_id)])
            yield Line(f"{rows} from earlier runs on {' and '.join(run.kept)}; `{command}` shows this run alone")
        yield Facts([Fact("pictures", run.pictures), *list_run_facts(run, self.cost, self.report, self.report_command)])
        yield from (Warn(str(found)) for found in self.equal_pictures or ())
        if self.real_run is not None:
            yield Line(f"This was a rehearsal on sweeper's own server. The real run is: {self.real_run}")


def list_run_facts(run: Run, cost: RunCost | None, report: Path | None, report_command: str) -> Iterator[Fact]:
    """Where the table of a run is, what it cost, and its page, or the command that makes it."""
    yield Fact("table", str(run.out / "results.csv"))
    if cost is not None:
        yield Fact("cost", str(cost))
    page = f"{report} (up to date)" if report else report_command
    if page:
        yield Fact("report", page)


def answer_run(run: Run, **shown: Any) -> RunAnswer:
    """Answer what has become of a run. `shown`: other fields of the answer."""
    # What sweeper's own server draws in a rehearsal says little about the real server.
    equal = None if shown.get("real_run") or run.trials > MAX_COMPARED else _read(run, _load_equal_pictures)
    return RunAnswer(
        run=run, cost=load_run_cost(run), list_failures=lambda: _list_failures(run), equal_pictures=equal, **shown
    )


def _load_equal_pictures(store: Store) -> Sequence[EqualPictures] | None:
    if not store.has_equal_pixels():
        return None
    from sweeper.tables.effect_axes import find_equal_pictures

    return find_equal_pictures(list(store.results()), store.layout(), store.load_pixel_hashes()) or None


def load_run_cost(run: Run) -> RunCost | None:
    """What a run cost; None for a run without costs and without a budget."""
    if run.spent == NOTHING and run.budget is None:
        return None
    cost = _read(run, lambda store: store.charges.load_whole_cost(run.run_id))
    return RunCost(
        run=run.cost,
        kind=None if cost is None else cost.kind.removesuffix(AT_LEAST),
        folder=run.spent,
        budget=None if run.budget is None else to_usd(run.budget),
    )


def _list_failures(run: Run) -> list[tuple[int, str, str]]:
    messages: dict[str, list[str]] = {}
    for row in _read(run, lambda store: list(store.results(run.run_id))) or ():
        if row.status == FAILED:
            messages.setdefault(row.error_type or "", []).append(row.error or "")
    counted = sorted(((len(found), kind, found[0]) for kind, found in messages.items()), key=lambda row: -row[0])
    return counted[:_MAX_ERROR_TYPES]


def _read(run: Run, read: Callable[[Store], _T]) -> _T | None:
    """What the folder of a run has; None if it cannot be read any more, as that of an old notebook."""
    try:
        with Store.open(run.out, readonly=True) as store:
            return read(store)
    except (SweeperError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class SearchResult(HtmlDisplay):
    """The summary of a search.

    `run`: the summary of its run, None if there was nothing to run. `ended_by`: `trials`, `until`, `exhausted` (no
    point is left), `votes` (the round waits for votes), or what stopped the run, such as `budget` or `interrupt`.
    `rounds`, `points` and `trials` count what the search asked for, with earlier runs of it. `best`: the five best
    points; with several objectives, all points that no other beats, the best in the first objective first. `error`: why
    the search ended early, for people. `votes_needed`: about so many votes let it go on. `search`: what it looked for.
    """

    run: Run | None
    ended_by: str
    rounds: int
    points: int
    trials: int
    best: tuple[SearchedPoint, ...] = field(default=(), metadata=NOT_IN_JSON)  # an answer has it by metric
    error: str | None = None
    votes_needed: int = 0
    search: Search = field(kw_only=True, repr=False, metadata=NOT_IN_JSON)

    @property
    def has_finished(self) -> bool:
        """Whether the search came to an end that it was asked for, or waits for votes."""
        if self.ended_by == "budget":
            return self.search.budget is not None
        is_end = self.ended_by in ("trials", "until", "exhausted", "votes")
        return is_end and (self.run is None or self.run.error is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAnswer:
    """A search (see `SearchResult`), its run, what that cost, and the page of its folder if it was written.

    `idle_axes`: the axes that change hardly anything, with the share (0 to 1) of the differences between points that
    each explains at most. `real_run`: the command of the search that this one rehearsed. `confirm_command`: the one
    that runs the best point on fresh seeds.
    """

    result: SearchResult = field(metadata=INLINE)
    best: BestPoints
    idle_axes: Mapping[str, float]
    cost: RunCost | None
    report: Path | None = None
    real_run: str | None = field(default=None, metadata=IF_GIVEN)
    report_command: str = field(default="", metadata=NOT_IN_JSON)  # makes the page; its last word is the results
    confirm_command: str = field(default="sweeper search EXPERIMENT --confirm", metadata=NOT_IN_JSON)

    @property
    def is_too_good(self) -> bool:
        """Whether the best number was chosen, and can be measured again on fresh seeds."""
        numbers = [aim for aim in self.result.search.objectives if aim.metric != VOTES_METRIC]
        return bool(self.best.points and numbers) and self.real_run is None

    def parts(self) -> Iterator[Part]:
        """Why it ended, the best points, where the results are, and what to do next."""
        result, run = self.result, self.result.run
        trials, points = count_things(result.trials, "trial"), count_things(result.points, "point")
        rounds, end = count_things(result.rounds, "round"), _describe_end(result)
        yield Line(f"{trials} of {points} in {rounds}; {end}")
        if self.best.points:
            yield from self.best.parts()
        if self.is_too_good:
            yield Line(
                "The best number is too good, because its point was chosen for it: by 1.7 to 2.2 standard errors in "
                f"simulations. To measure it on fresh seeds: {self.confirm_command}"
            )
        if self.idle_axes:
            found = join_names(f"{name} (at most {share:.0%})" for name, share in self.idle_axes.items())
            yield Line(f"hardly any of the differences between points is due to {found}; fix these axes")
        if run is not None:
            yield Facts([*list_run_facts(run, self.cost, self.report, self.report_command), *self._list_next()])
        if run is not None and self.real_run is not None:
            yield Line(f"This was a rehearsal on sweeper's own server. The real search is: {self.real_run}")

    def _list_next(self) -> Iterator[Fact]:
        if self.report_command:
            results = self.report_command.split(maxsplit=2)[2]
            yield Fact("best", f"sweeper results {results} --best 5")
            if self.is_too_good:
                yield Fact("confirm", self.confirm_command)
            if self.result.votes_needed:
                yield Fact("vote", f"sweeper vote {results} --open")
                yield Fact("then", "the same `sweeper search` again: it goes on by these votes")


def answer_search(result: SearchResult, *, find_idle: bool = True, **shown: Any) -> SearchAnswer:
    """Answer what a search found. `shown`: other fields of the answer.

    `find_idle`: whether to find the axes that change hardly anything, which takes a moment and scipy.
    """
    run, idle_axes = result.run, {}
    if find_idle and run is not None:
        from sweeper.tables.effects import find_idle_axes

        with Store.open(run.out, readonly=True) as store:
            idle_axes = find_idle_axes(list(store.results()), store.layout())
    return SearchAnswer(
        result=result,
        best=BestPoints(result.best),
        idle_axes=idle_axes,
        cost=None if run is None else load_run_cost(run),
        **shown,
    )


@dataclass(frozen=True, slots=True)
class SearchPreview:
    """What a search would do next.

    `state`: what is known. `batches`: the trials of the next round. `unfinished`: trials of earlier rounds that an
    interrupted run left; `unmeasured`: trials of other runs whose metrics are measured first. Without them, the next
    round is not known yet. `ended_by`: why it would ask for nothing. `plan`: the trials that would run next, None if
    there are none. `batch`: how many points a round has. `votes_needed`: about so many votes let it go on.
    """

    state: SearchState = field(metadata=NOT_IN_JSON)
    batches: Sequence[PointBatch] = field(metadata=NOT_IN_JSON)
    unfinished: int
    unmeasured: int
    ended_by: str | None
    plan: SearchPlan | None = field(metadata=NOT_IN_JSON)
    batch: int
    votes_needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewAnswer:
    """What a search would do next (see `SearchPreview`) in the folder `out` on `targets`.

    It asked for `asked` trials of at most `trials` (None: no limit), and for at most `left` more. `points` are those of
    the next round, which has `round_jobs` jobs; `cost` is what all trials that are left cost at its price. `best`: the
    best points so far.
    """

    preview: SearchPreview = field(metadata=INLINE)
    name: str
    out: str
    targets: Sequence[str]
    asked: int
    trials: int | None
    left: int
    best: BestPoints
    points: tuple[Mapping[str, Any], ...]
    round_jobs: int
    round_cost: PlanCost | None
    cost: Amount | None
    warnings: Sequence[str]
    template: str | None = field(metadata=NOT_IN_JSON)
    round_price: str = field(metadata=NOT_IN_JSON)  # in words
    budget: Decimal | None = field(metadata=NOT_IN_JSON)  # in US dollars

    def parts(self) -> Iterator[Part]:
        """The aim, the space, what is known, what comes next and costs, and the next points."""
        on = f" on {', '.join(self.targets)}" if self.targets else ""
        yield Line(f"{self.name}: search of {self.template}{on}")
        yield Line(_describe_aim(self.preview.state.search))
        yield Facts(list(_list_space(self.preview.state.search)))
        yield Facts(list(self._list_state()))
        if self.points:
            yield Line("The next points:")
            yield Table(list(self.points[0]), [list(point.values()) for point in self.points])
        yield from map(Warn, self.warnings)

    def _list_state(self) -> Iterator[Fact]:
        preview, state = self.preview, self.preview.state
        if state.points:
            yield Fact("so far", f"{len(state.points)} points, {self.asked} trials asked for")
        for best in self.best.points[:1]:
            yield Fact("best", describe_point(best, self.best.points))
        if preview.unmeasured:
            yield Fact("unmeasured", f"the pictures of {preview.unmeasured} trials of other runs are measured first")
        if preview.unfinished:
            yield Fact("unfinished", f"{preview.unfinished} trials of an interrupted round run first")
        yield Fact("left", f"at most {self.left} trials, {preview.batch} points in a round")
        if preview.ended_by is not None:
            needed = preview.votes_needed
            end = SearchResult(None, preview.ended_by, 0, 0, self.asked, votes_needed=needed, search=state.search)
            yield Fact("waits" if needed else "ended", _describe_end(end))
        if self.round_price:
            yield Fact("cost", f"{self.round_price} (next round)")
        if self.cost is not None:
            limit = "" if self.budget is None else f", but never more than {Amount.exactly(self.budget)} in this folder"
            yield Fact("in all", f"{self.cost} for {self.left} trials at the same price{limit}")


def answer_preview(prepared: Prepared, out: Path, preview: SearchPreview, left: int) -> PreviewAnswer:
    """Answer what a search would do next. `left`: how many trials it may still ask for. Raises ExperimentError."""
    experiment, state = prepared.experiment, preview.state
    search = state.search
    round_plan = None
    if preview.plan is not None:
        round_plan = answer_plan(replace(prepared, plans=(preview.plan,)).check_targets(), out)
    return PreviewAnswer(
        preview=preview,
        name=experiment.name,
        out=str(out),
        targets=() if round_plan is None else round_plan.targets,
        asked=state.asked,
        trials=search.trials,
        left=left,
        best=BestPoints(state.describe_best(_BEST)),
        points=tuple(state.describe_values(point) for batch in preview.batches for point in batch.points),
        round_jobs=0 if round_plan is None else round_plan.jobs,
        round_cost=None if round_plan is None else round_plan.cost,
        cost=None if round_plan is None else round_plan.estimate_cost(left),
        warnings=() if round_plan is None else round_plan.warnings,
        template=experiment.template.file,
        round_price="" if round_plan is None else round_plan.describe_cost(),
        budget=experiment.search_budget,
    )


def describe_point(point: SearchedPoint, among: Iterable[SearchedPoint] = ()) -> str:
    """`sharpness 344.7 at cfg 5.51, steps 20`. A long text has the words that tell it from those of other points."""
    found = " and ".join(f"{name} {format_cell(value, rounded=True)}" for name, value in point.objectives.items())
    return f"{found} at {describe_values(point.values, [other.values for other in among])}"


def _describe_end(result: SearchResult) -> str:
    """Why the search ended, and what to do next."""
    search = result.search
    if result.ended_by == "trials" and search.trials is not None and result.trials < search.trials:
        return f"{count_things(search.trials - result.trials, 'trial')} left, too few for another point"
    if result.ended_by in _ENDINGS:
        votes = count_things(result.votes_needed, "vote")
        return _ENDINGS[result.ended_by].format(trials=result.trials, patience=search.patience, votes=votes)
    return "ended early" if result.error is not None else f"stopped: {result.ended_by}"


def _describe_aim(search: Search) -> str:
    """`maximize sharpness over prompt (2) x seed (2): 4 trials of each point`."""
    aims = [f"{'maximize' if aim.maximize else 'minimize'} {aim.metric}" for aim in search.objectives]
    if not search.over:
        return join_names(aims)
    over = " x ".join(f"{axis.name} ({len(axis.options)})" for axis in search.over)
    count = prod(len(axis.options) for axis in search.over)
    early = " at most, fewer of points that are clearly worse" if search.stop_early else ""
    return f"{join_names(aims)} over {over}: {count_things(count, 'trial')} of each point{early}"


def _list_space(search: Search) -> Iterator[Fact]:
    """The range of each axis, or its number of values and the first of them."""
    for axis in search.space:
        if axis.numbers is None:
            yield from list_values(axis.name, [option.cell for option in axis.axis.options])
        else:
            kind = "integers, " if axis.numbers.is_integer else ""
            scale = ", log scale" if axis.numbers.is_log else ""
            low, high = format_cell(axis.numbers.low), format_cell(axis.numbers.high)
            yield Fact(axis.name, f"{kind}{low} to {high}{scale}")
