"""`sweeper search --confirm`: run the best points of a search once more, on seeds that the search did not use.

The best of many numbers is too good: by 1.7 to 2.2 standard errors in 99 % of simulated searches, because it was chosen
for its noise, too. Trials that had no part in the choice have no such bias. They are a sweep with a results folder of
its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from sweeper.answers.cells import format_rounded
from sweeper.answers.parts import Facts, Line, Part
from sweeper.answers.render import INLINE, NOT_IN_JSON
from sweeper.comfy.target import Target
from sweeper.errors import UsageError
from sweeper.loading.trust import check_default_folder
from sweeper.model.axis_values import Option
from sweeper.model.experiment import Axis, Experiment, Search
from sweeper.model.result import SUCCEEDED, Result, Run
from sweeper.model.search_columns import VOTES_METRIC, adjust_means, get_number
from sweeper.model.slot_values import SlotSchema, ValueRefusedError
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import Point, SearchSpace
from sweeper.planning.searching.search_state import SearchState
from sweeper.running.run_answer import RunCost, list_run_facts, load_run_cost
from sweeper.running.search_rounds import SearchRounds, require_search
from sweeper.running.settings import RunOptions, resolve_output
from sweeper.statistics.paired import compute_studentized_range
from sweeper.store import Store
from sweeper.store.remote_artifacts import is_url
from sweeper.tables.effect_answer import describe_estimate
from sweeper.tables.effect_axes import find_kind
from sweeper.tables.searched_points import describe_values
from sweeper.wording import count_things, join_command

CONFIRM: Final = "confirm"  # the results folder of a search, with this at the end of its name
_FEWEST_TRIALS: Final = 8  # of a point
_FEWEST_SEEDS: Final = 4  # with 2 or 3, the interval of their mean is so wide that it says little
_LARGEST_SEED: Final = 2**31 - 1  # some partner nodes take no larger ones
_DRAWS: Final = 100  # for each seed, until the slot takes one that is new
_LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The trials of the best `points` of a search on fresh seeds, and the results folder `out` of their run.

    `space`: that of the search, over the axes of seeds, with fresh ones, and what else the search is over.
    """

    space: SearchSpace
    seed_axes: tuple[str, ...]
    points: tuple[Point, ...]
    plan: Plan
    out: Path


def plan_confirmation(
    experiment: Experiment, targets: Sequence[Target], out: Path | str | None = None, options: RunOptions | None = None,
    *, command: str | None = None,
) -> Confirmation:  # fmt: skip
    """Plan the trials that confirm the best point of a search, or with several objectives all points of its front.

    `targets`, `out` and `options` are those of the search; `command` runs it, for messages. The seeds follow from the
    search alone, so the same call plans the same trials. Raises UsageError if the search has no best point yet, only
    votes say what is better, or nothing in the workflow is named like a seed; otherwise as `search_async` does.
    """
    search = require_search(experiment)
    if all(objective.metric == VOTES_METRIC for objective in search.objectives):
        raise UsageError(
            "--confirm needs a number of each trial, and votes compare points with each other; write another metric "
            "beside `votes`, or sweep the best points over new seeds and vote on that sweep"
        )
    folder, url = resolve_output(out, experiment)
    state, _ = SearchRounds(experiment, targets, folder, options or RunOptions()).load_known()
    best = state.describe_best(1)
    if not best:
        command = command or join_command(["sweeper", "search", str(experiment.file)])
        raise UsageError(f"no point in {folder} can be confirmed yet; run the search first: {command}")
    point_of_rows = {tuple(known.rows): known.point for known in state.points.values()}
    points = tuple(point_of_rows[found.trials] for found in best)
    over, seed_axes = _renew_seeds(experiment, search)
    space = SearchSpace(experiment, replace(search, over=over))
    if not any(space.find_allowed(points)):
        message = "is true for no fresh seed of the best point, so it cannot be confirmed; let it read no seed"
        raise experiment.make_error((*search.path, "where"), message)
    block = replace(space.make_block(points, range(len(space.combinations))), where=search.where)
    run = replace(experiment.run, out=url)
    plan = Plan(replace(experiment, blocks=(block,), search=None, run=run))
    if folder.name in ("", ".."):
        folder = folder.resolve()
    folder = folder.with_name(f"{folder.name}-{CONFIRM}")
    if out is None or is_url(str(out)):
        check_default_folder(folder, experiment.file)
    return Confirmation(space, seed_axes, points, plan, folder)


def _renew_seeds(experiment: Experiment, search: Search) -> tuple[tuple[Axis, ...], tuple[str, ...]]:
    """Return the axes of `over` with fresh seeds in the place of those of the search, and the names of these axes."""
    own = [axis for axis in search.over if find_kind(axis.name, [option.value for option in axis.options]) == "seed"]
    others = [axis for axis in search.over if axis not in own]
    axes = own or [_find_seed_slot(experiment, search)]
    besides = math.prod(len(axis.options) for axis in [*others, *axes[1:]])
    fewest = max(-(-_FEWEST_TRIALS // besides), _FEWEST_SEEDS)
    counts = [max(len(axes[0].options), fewest), *(len(axis.options) for axis in axes[1:])]
    fresh = {
        axis.name: _draw_seeds(experiment, axis, count, search.seed) for axis, count in zip(axes, counts, strict=True)
    }
    kept = search.over if own else (*search.over, *axes)
    return tuple(fresh.get(axis.name, axis) for axis in kept), tuple(fresh)


def _find_seed_slot(experiment: Experiment, search: Search) -> Axis:
    """The slot of a seed that was the same in all trials, as an axis of this one value. Raises UsageError."""
    axes = [axis for dimension in search.block.dimensions for axis in dimension]
    taken = {axis.name for axis in axes} | {name for axis in axes for option in axis.options for name in option.sets}
    values = {name: experiment.params.get(name, slot.default) for name, slot in experiment.template.slots.items()}
    found = [
        name
        for name, value in values.items()
        if find_kind(name, [value]) == "seed" and name not in taken and name not in experiment.derive
    ]
    if not found:
        raise UsageError(
            "--confirm needs other seeds, but neither an axis of `search.over` nor a free slot of "
            f"{experiment.template.file} is named like a seed; make a slot of the sampler's seed, and write "
            "`over: {seed: {seeds: 4}}`"
        )
    name = min(found, key=lambda name: name != "seed")
    return Axis(name, (Option(values[name]),), (*search.path, "over"))


def _draw_seeds(experiment: Experiment, axis: Axis, count: int, seed: int) -> Axis:
    """An axis of `count` seeds that are not among those of `axis`. Raises UsageError if its slot takes too few."""
    slot = experiment.template.slots.get(axis.name)
    schema = slot.schema if slot is not None else SlotSchema(None)
    low, high = max(schema.rules.get("minimum", 0), 0), min(schema.rules.get("maximum", _LARGEST_SEED), _LARGEST_SEED)
    draw = random.Random(f"{experiment.name}\n{axis.name}\n{CONFIRM}\n{seed}")
    used = {option.value for option in axis.options}
    fresh: list[Any] = []
    for _ in range(_DRAWS * count):
        if len(fresh) == count:
            break
        try:
            value = schema.normalise(math.ceil(low) + math.floor(draw.random() * (high - low + 1)))
        except ValueRefusedError:
            continue
        if value not in used:
            used.add(value)
            fresh.append(value)
    if len(fresh) < count:
        message = f"the slot takes too few seeds that the search did not use; --confirm needs {count}"
        raise UsageError(f"{experiment.file}: {axis.name}: {message}")
    return Axis(axis.name, tuple(map(Option, fresh)), axis.path)


@dataclass(frozen=True, slots=True)
class FreshMean:
    """A mean over fresh seeds, and its 95 % interval; None with less than two seeds."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ConfirmedPoint:
    """A point: its values by axis, and its objectives by metric, on `seeds` fresh seeds (None: no number).

    `succeeded` of its `trials` succeeded.
    """

    values: Mapping[str, Any]
    objectives: Mapping[str, FreshMean | None]
    seeds: int
    trials: int
    succeeded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmAnswer:
    """The best points of a search on fresh seeds, the run of these trials (see `Run`), and what it cost.

    `over`: the number of values of each other axis of `over`. `report`: the page of the folder if it was written.
    """

    run: Run = field(metadata=INLINE)
    points: tuple[ConfirmedPoint, ...]
    over: Mapping[str, int]
    cost: RunCost | None = None
    report: Path | None = None
    scope: str = field(default="", metadata=NOT_IN_JSON)  # of the means besides the seeds, in words
    report_command: str = field(default="", metadata=NOT_IN_JSON)  # makes the page

    def parts(self) -> Iterator[Part]:
        """A sentence for each point, what is missing, and where the results are."""
        run = self.run
        for point in self.points:
            yield Line(_describe_point(point, self.points, self.scope))
        if run.failed:
            these = "this again" if run.failed == 1 else "these again"
            yield Line(
                f"{run.failed} of {count_things(run.trials, 'trial')} failed; add --retry-failed to submit {these}"
            )
        if missing := run.cancelled + run.pending:
            yield Line(f"{missing} of {count_things(run.trials, 'trial')} did not run; the same command goes on")
        yield Facts(list(list_run_facts(run, self.cost, self.report, self.report_command)))


def _describe_point(point: ConfirmedPoint, among: Sequence[ConfirmedPoint], scope: str) -> str:
    """`sharpness 331 (318 to 344) on 8 fresh seeds and these 2 prompts, at cfg 5.51, steps 20`."""
    means = " and ".join(f"{name} {_describe_mean(mean)}" for name, mean in point.objectives.items())
    values = describe_values(point.values, [other.values for other in among])
    return f"{means} on {count_things(point.seeds, 'fresh seed')}{scope}, at {values}"


def _describe_mean(found: FreshMean | None) -> str:
    if found is None:
        return "unknown"
    if found.low is None or found.high is None:
        return f"{format_rounded(found.mean)} (too few trials to see how sure that is)"
    return describe_estimate(found.mean, found.low, found.high)


def answer_confirmation(confirmation: Confirmation, run: Run, **shown: Any) -> ConfirmAnswer:
    """Answer what a run of these trials found. `shown`: other fields of the answer."""
    with Store.open(run.out, readonly=True) as store:
        rows = list(store.results(run.run_id))
    others = [axis for axis in confirmation.space.search.over if axis.name not in confirmation.seed_axes]
    return ConfirmAnswer(
        run=run,
        points=confirm_points(confirmation, rows),
        over={axis.name: len(axis.options) for axis in others},
        scope="".join(_describe_axis(axis) for axis in others if len(axis.options) > 1),
        cost=load_run_cost(run),
        **shown,
    )


def _describe_axis(axis: Axis) -> str:
    count, kind = len(axis.options), find_kind(axis.name, [option.value for option in axis.options])
    return f" and these {count} prompts" if kind == "prompt" else f" and {count} values of {axis.name}"


def confirm_points(confirmation: Confirmation, rows: Sequence[Result]) -> tuple[ConfirmedPoint, ...]:
    """Return what the rows of a confirmation's plan say about each of its points."""
    space = confirmation.space
    found: dict[Point, list[tuple[Result, tuple[int, ...]]]] = {point: [] for point in confirmation.points}
    for row in rows:
        cell = space.read_cell(row.params, row.columns)
        if cell is not None and cell[0] in found:
            found[cell[0]].append((row, space.combinations[cell[1]]))
    return tuple(_confirm_point(confirmation, point, cells) for point, cells in found.items())


def _confirm_point(
    confirmation: Confirmation, point: Point, cells: Sequence[tuple[Result, tuple[int, ...]]]
) -> ConfirmedPoint:
    search = confirmation.space.search
    is_seed = [axis.name in confirmation.seed_axes for axis in search.over]
    seeds = [tuple(compress(options, is_seed)) for _, options in cells]
    objectives: dict[str, FreshMean | None] = {}
    for objective in search.objectives:
        if objective.metric != VOTES_METRIC:
            # If trials are missing, the mean of a seed is adjusted for how its prompts did on the other seeds.
            means = adjust_means(
                (seed, tuple(compress(options, map(not_, is_seed))), number)
                for seed, (row, options) in zip(seeds, cells, strict=True)
                if (number := get_number(row, objective.metric)) is not None
            )
            objectives[objective.metric] = _average([*means.values()])
    succeeded = [seed for seed, (row, _) in zip(seeds, cells, strict=True) if row.status == SUCCEEDED]
    values = SearchState(confirmation.space).describe_values(point)
    return ConfirmedPoint(values, objectives, len(set(succeeded)), len(cells), len(succeeded))


def _average(means: Sequence[float]) -> FreshMean | None:
    """The mean of the means of seeds, with Student's t."""
    if not means:
        return None
    centre, count = mean(means), len(means)
    if count == 1:
        return FreshMean(centre, None, None)
    margin = compute_studentized_range(_LEVEL, 2, count - 1) * stdev(means) / math.sqrt(2 * count)
    return FreshMean(centre, centre - margin, centre + margin)
