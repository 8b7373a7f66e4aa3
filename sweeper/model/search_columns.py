"""What the table of a search shows beside its trials: the round that asked for each, and the objective of its point.

A point is one choice of values for the axes of the search's space. Its trials differ only in the axes of `over`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.workflow import encode_canonical
from sweeper.schemas.values import is_number

ROUND: Final = "round"  # 0: the trial was done before the search
OBJECTIVE: Final = "objective"
VOTES_METRIC: Final = "votes"  # the metric that is made of people's votes, in the tables of folders that have some
_ROUNDS_OF_FIT: Final = 100  # the fit converges in a few, unless hardly any two points share a combination
_TOLERANCE: Final = 1e-12  # of the largest value

PointKey = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Objective:
    """A column of numbers, which the search makes as large as possible, or as small if not `maximize`."""

    metric: str
    maximize: bool = True


@dataclass(frozen=True, slots=True)
class SearchColumns:
    """The objectives of a search, and the axis columns of its space and of `over`.

    `stop_early`: points that are clearly worse get fewer trials than others.
    """

    objectives: tuple[Objective, ...]
    space: tuple[str, ...]
    over: tuple[str, ...] = ()
    stop_early: bool = False

    @property
    def objective_columns(self) -> tuple[str, ...]:
        """The columns of the objectives: `objective`, or with several `objective.sharpness` and so on."""
        if len(self.objectives) == 1:
            return (OBJECTIVE,)
        return tuple(f"{OBJECTIVE}.{objective.metric}" for objective in self.objectives)

    @property
    def columns(self) -> tuple[str, ...]:
        return (ROUND, *self.objective_columns)

    def get_point(self, row: Result) -> PointKey:
        return tuple([encode_canonical(row.columns.get(name)) for name in self.space])

    def get_combination(self, row: Result) -> PointKey:
        return tuple([encode_canonical(row.columns.get(name)) for name in self.over])

    def compute_objectives(self, rows: Sequence[Result]) -> dict[PointKey, tuple[float | None, ...]]:
        """Return the objectives of each point: means over its trials; None where no trial has a number.

        `rows` are all rows of the table. If a point lacks some combinations of `over` that others have, the mean is
        adjusted for how the others did there: see `adjust_means`.
        """
        points = [self.get_point(row) for row in rows]
        means = []
        for objective in self.objectives:
            numbers = (get_number(row, objective.metric) for row in rows)
            cells = zip(points, map(self.get_combination, rows), numbers, strict=True)
            means.append(adjust_means((point, key, number) for point, key, number in cells if number is not None))
        return {point: tuple(mean.get(point) for mean in means) for point in dict.fromkeys(points)}


def make_larger_better(values: Sequence[float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return the values of some objectives with those negated that a search makes small."""
    return tuple(value if objective.maximize else -value for value, objective in zip(values, objectives, strict=True))


def dominates(this: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point is at least as good as the other in every objective, and better in one. Larger is better."""
    return all(a >= b for a, b in zip(this, other, strict=True)) and tuple(this) != tuple(other)


def get_number(row: Result, column: str) -> float | None:
    """Return the finite number of a successful trial in a column of metrics or of the outcome, such as `cost`."""
    if row.status != SUCCEEDED:
        return None
    value: Any = row.metrics.get(column, getattr(row, column, None))
    return float(value) if is_number(value) else None


def adjust_means(values: Iterable[tuple[Hashable, Hashable, float]]) -> dict[Hashable, float]:
    """Return the mean of each point as if it had all combinations, from (point, combination, value) triples.

    The least squares fit of `value = point + combination`, with the effects of the combinations adding up to 0. So the
    mean of a point with all combinations is the plain mean. The fit alternates between points and combinations.
    """
    cells: dict[Hashable, dict[Hashable, float]] = defaultdict(dict)
    for point, combination, value in values:
        cells[point][combination] = value
    effects: dict[Hashable, float] = dict.fromkeys([key for row in cells.values() for key in row], 0.0)
    means = _average(cells, effects)
    if all(len(row) == len(effects) for row in cells.values()):
        return means
    largest = max(abs(value) for row in cells.values() for value in row.values())
    for _ in range(_ROUNDS_OF_FIT):
        rests: dict[Hashable, list[float]] = {key: [] for key in effects}
        for point, row in cells.items():
            for key, value in row.items():
                rests[key].append(value - means[point])
        effects = {key: sum(rest) / len(rest) for key, rest in rests.items()}
        centre = sum(effects.values()) / len(effects)
        effects = {key: effect - centre for key, effect in effects.items()}
        before, means = means, _average(cells, effects)
        if all(abs(means[point] - before[point]) <= _TOLERANCE * largest for point in means):
            break
    return means


def _average(
    cells: Mapping[Hashable, Mapping[Hashable, float]], effects: Mapping[Hashable, float]
) -> dict[Hashable, float]:
    return {point: sum(value - effects[key] for key, value in row.items()) / len(row) for point, row in cells.items()}


@dataclass(frozen=True, slots=True)
class SearchedPoint:
    """A point: its values by axis, its objectives by metric, its round, and its rows in the table.

    The objectives are in the order of the search; empty unless all are known. `succeeded`: how many of these rows
    succeeded.
    """

    values: Mapping[str, Any]
    objectives: Mapping[str, float]
    round: int
    trials: tuple[int, ...]
    succeeded: int


def sort_points(points: Iterable[SearchedPoint], objectives: Sequence[Objective]) -> list[SearchedPoint]:
    """Return the points, best first; with several objectives, only the Pareto front: those that no other dominates."""
    goodness = [(make_larger_better([*point.objectives.values()], objectives), point) for point in points]
    if len(objectives) > 1:
        goodness = [entry for entry in goodness if not any(dominates(other, entry[0]) for other, _ in goodness)]
    return [point for _, point in sorted(goodness, key=lambda entry: entry[0][0], reverse=True)]
