"""What is known about the points of a search, from the rows of its table; and whether the search has ended.

Everything is computed anew from the rows, so a search that was interrupted anywhere continues as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import dropwhile
from typing import Any, Final

from sweeper.model.result import FAILED, SUCCEEDED, Result
from sweeper.model.search_columns import (
    VOTES_METRIC,
    SearchedPoint,
    dominates,
    get_number,
    make_larger_better,
    sort_points,
)
from sweeper.planning.searching.search_plan import Point, PointBatch, SearchPlan, SearchSpace

TRIALS: Final = "trials"  # why a search ends: so many rows were asked for
UNTIL: Final = "until"  # so many rows did not improve it
EXHAUSTED: Final = "exhausted"  # no point is left to try
_STAGES: Final = (4, 2, 1)  # with `stop_early`, a point gets a quarter of the combinations, then half of them, then all
LOOKS: Final = len(_STAGES) - 1  # how often a point may be stopped

# For each objective, the numbers of each point by combination (NaN: none), and whether larger is better -> the indexes
# of the points that are clearly worse.
FindWorse = Callable[[Sequence[Sequence[Sequence[float]]], Sequence[bool]], Sequence[int]]


@dataclass(slots=True)
class PointState:
    """A point and what is known about it.

    `numbers`: by combination, the values of the objectives of a successful trial (None: not measured). `objectives`:
    their means; None if a trial has no number yet, or if all failed. `rows`: the indexes of its trials.
    """

    point: Point
    round: int
    combinations: list[int] = field(default_factory=list)
    numbers: dict[int, tuple[float | None, ...]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    objectives: tuple[float, ...] | None = None

    def get_number(self, combination: int, objective: int) -> float:
        number = self.numbers[combination][objective] if combination in self.numbers else None
        return math.nan if number is None else number


class SearchState:
    """The points of a search plan with the rows of its table; without a plan, a search that has not begun."""

    def __init__(self, space: SearchSpace, plan: SearchPlan | None = None, rows: Sequence[Result] = ()) -> None:
        self.space, self.search = space, space.search
        self.points: dict[Point, PointState] = {}
        self.asked = 0  # rows that the search asked for
        self.failed = self.succeeded = 0
        if plan is not None:
            self._read(plan, rows)

    def _read(self, plan: SearchPlan, rows: Sequence[Result]) -> None:
        columns = plan.search_columns
        means = columns.compute_objectives(rows)
        for (round_number, point, combination), row in zip(plan.iter_cells(), rows, strict=True):
            state = self.points.setdefault(point, PointState(point, round_number))
            state.combinations.append(combination)
            state.rows.append(row.trial)
            self.asked += round_number > 0
            self.failed += row.status == FAILED
            self.succeeded += row.status == SUCCEEDED
            if row.status == SUCCEEDED:
                numbers = [get_number(row, objective.metric) for objective in columns.objectives]
                state.numbers[combination] = tuple(numbers)
            found = [number for number in means[columns.get_point(row)] if number is not None]
            state.objectives = tuple(found) if len(found) == len(columns.objectives) else None

    @property
    def rounds(self) -> int:
        return max((state.round for state in self.points.values()), default=0)

    @cached_property
    def _lacking(self) -> dict[Point, tuple[int, ...]]:
        """The points that were not tried on each combination that `where` allows, and the combinations they lack."""
        every = len(self.space.combinations)
        states = [state for state in self.points.values() if state.round and len(state.combinations) < every]
        allowed = self.space.find_allowed([state.point for state in states])
        lacking = {
            state.point: tuple(index for index in combinations if index not in state.combinations)
            for state, combinations in zip(states, allowed, strict=True)
        }
        return {point: combinations for point, combinations in lacking.items() if combinations}

    @cached_property
    def _comparable(self) -> list[PointState]:
        """The points whose objectives are known, in the order of the search: if there are any, the complete ones."""
        known = [state for state in self.points.values() if state.objectives is not None]
        return [state for state in known if state.point not in self._lacking] or known

    def list_unmeasured(self) -> list[str]:
        """List the objectives that no successful trial has a number of.

        Votes are missing only if trials of the search itself lack them: nobody has to vote on what was done before.
        """
        missing = []
        for index, objective in enumerate(self.search.objectives):
            states = [state for state in self.points.values() if state.round or objective.metric != VOTES_METRIC]
            found = [numbers[index] for state in states for numbers in state.numbers.values()]
            if found and all(number is None for number in found):
                missing.append(objective.metric)
        return missing

    @property
    def trials_left(self) -> int | None:
        """How many more rows the search may ask for; None without a limit."""
        return None if self.search.trials is None else max(self.search.trials - self.asked, 0)

    def count_stale(self) -> int:
        """Count the rows of the points that were asked for after the last one that improved the search.

        Points count in their order and not by the numbers of their rows, which a resumed search may give anew.
        """
        last: Point | None = None
        front: list[tuple[float, ...]] = []
        for state in self._comparable:
            values = make_larger_better(state.objectives or (), self.search.objectives)
            if not any(other == values or dominates(other, values) for other in front):
                front = [other for other in front if not dominates(values, other)] + [values]
                last = state.point
        later = dropwhile(lambda state: last is not None and state.point != last, self.points.values())
        return sum(len(state.rows) for state in later if state.round and state.point != last)

    def has_lost_patience(self) -> bool:
        patience = self.search.patience
        return patience is not None and bool(self._comparable) and self.count_stale() >= patience

    def find_next_stage(self, find_worse: FindWorse) -> list[PointBatch]:
        """Return the combinations that points of earlier rounds still lack, as far as the trials suffice.

        With `stop_early`, a point that is clearly worse gets no more, and the others get the next stage.
        """
        worse = self._find_worse(find_worse) if self.search.stop_early and self._lacking else set()
        left = self.trials_left
        batches: list[PointBatch] = []
        for point, missing in self._lacking.items():
            state = self.points[point]
            have = len(state.combinations)
            wanted = missing[: self.get_stage_end(have, have + len(missing)) - have]
            if point not in worse and (left is None or len(wanted) <= left):
                left = None if left is None else left - len(wanted)
                _append(batches, state.round, point, wanted)
        return batches

    def get_stage_end(self, have: int, count: int) -> int:
        """Return how many of `count` combinations a point has after its next stage, if it has `have` now."""
        if not self.search.stop_early:
            return count
        return next(end for part in _STAGES if (end := -(-count // part)) > have or part == 1)

    def _find_worse(self, find_worse: FindWorse) -> set[Point]:
        states = [state for state in self.points.values() if state.numbers]
        every = range(len(self.space.combinations))
        tables = [
            [[state.get_number(combination, index) for combination in every] for state in states]
            for index in range(len(self.search.objectives))
        ]
        worse = find_worse(tables, [objective.maximize for objective in self.search.objectives]) if states else ()
        return {states[index].point for index in worse}

    def make_round(self, points: Sequence[Point]) -> list[PointBatch]:
        """Return the first stage of some new points as the next round."""
        batches: list[PointBatch] = []
        for point, allowed in zip(points, self.space.find_allowed(points), strict=True):
            _append(batches, self.rounds + 1, point, allowed[: self.get_stage_end(0, len(allowed))])
        return batches

    def describe_best(self, count: int) -> tuple[SearchedPoint, ...]:
        """Return the best `count` points, best first; with several objectives, the whole front."""
        objectives = self.search.objectives
        best = sort_points(map(self._describe, self._comparable), objectives)
        return tuple(best if len(objectives) > 1 else best[:count])

    def describe_values(self, point: Point) -> dict[str, Any]:
        return {
            item.name: value if item.numbers is not None else item.axis.options[int(value)].cell
            for item, value in zip(self.space.axes, point, strict=True)
        }

    def _describe(self, state: PointState) -> SearchedPoint:
        names, values = [objective.metric for objective in self.search.objectives], self.describe_values(state.point)
        objectives = dict(zip(names, state.objectives, strict=True)) if state.objectives else {}
        return SearchedPoint(values, objectives, state.round, tuple(state.rows), len(state.numbers))


def _append(batches: list[PointBatch], round_number: int, point: Point, combinations: tuple[int, ...]) -> None:
    """Add a point to the last batch if it has the same round and combinations, else to a new one."""
    last = batches[-1] if batches else None
    if last is not None and (last.round, last.combinations) == (round_number, combinations):
        batches[-1] = PointBatch(round_number, (*last.points, point), combinations)
    else:
        batches.append(PointBatch(round_number, (point,), combinations))


def group_points(cells: Sequence[tuple[int, Point, int]]) -> list[PointBatch]:
    """Return the batches of some (round, point, combination) triples: points in order of round and first appearance.

    The round of a point is the one that asked for it first; 0 if none did.
    """
    rounds: dict[Point, int] = {}
    combinations: dict[Point, list[int]] = {}
    for round_number, point, combination in cells:
        rounds[point] = min(filter(None, (rounds.get(point, 0), round_number)), default=0)
        combinations.setdefault(point, []).append(combination)
    batches: list[PointBatch] = []
    for point in sorted(rounds, key=lambda point: rounds[point]):
        _append(batches, rounds[point], point, tuple(sorted(set(combinations[point]))))
    return batches
