"""The plan of a search so far: a sequence of batches, to which each round adds one. Earlier trials keep their index."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Final

from sweeper.model.axis_values import Option
from sweeper.model.experiment import Axis, Block, Experiment, NumberRange, Search, SpaceAxis
from sweeper.model.node_classes import NodeInfo
from sweeper.model.search_columns import ROUND, SearchColumns
from sweeper.model.slot_values import SlotSchema
from sweeper.model.template import MISSING
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical
from sweeper.planning.compatibility import Compatibility
from sweeper.planning.grid import Grid, map_axis_columns
from sweeper.planning.plan import Plan
from sweeper.planning.trial_filters import filter_points
from sweeper.schemas.values import is_number

Point = tuple[int | float, ...]  # for each axis of the space: the index of an option, or a number of a range
Vector = Sequence[float]  # for each axis of the space: a number from 0 to 1
_ANY_VALUE: Final = SlotSchema(None)
_MAX_LISTED: Final = 100_000  # points of a finite space


class SearchSpace:
    """The space of an experiment's search."""

    def __init__(self, experiment: Experiment, search: Search) -> None:
        self.experiment, self.search = experiment, search
        self.axes: tuple[SpaceAxis, ...] = search.space
        self.combinations = _spread([len(axis.options) for axis in search.over])
        self._readers = [_AxisReader(item.axis, item.numbers) for item in self.axes]
        self._over_readers = [_AxisReader(axis, None) for axis in search.over]
        self._combination_indexes: dict[tuple[float | None, ...], int] = {
            options: index for index, options in enumerate(self.combinations)
        }

    @cached_property
    def size(self) -> int | None:
        """The number of points; None if a range has so many numbers that nobody counts them."""
        return math.prod(found.stop - found.start for found in self._ranges) if self._ranges is not None else None

    @cached_property
    def _ranges(self) -> list[range] | None:
        """The indexes of the options, or the integers, of each axis; None if one has other numbers."""
        if any(item.numbers is not None and not item.numbers.is_integer for item in self.axes):
            return None
        ends = [(item.numbers.low, item.numbers.high) if item.numbers is not None else (0, len(item.axis.options) - 1)
                for item in self.axes]  # fmt: skip
        return [range(int(low), int(high) + 1) for low, high in ends]

    def list_points(self) -> Iterator[Point]:
        if self._ranges is not None and self.size is not None and self.size <= _MAX_LISTED:
            yield from itertools.product(*self._ranges)

    def is_ordered(self, index: int) -> bool:
        """Whether the values of an axis have an order in which near values are alike: numbers that go up or down."""
        if self.axes[index].numbers is not None:
            return True
        values = [option.value for option in self.axes[index].axis.options]
        if not all(is_number(value) for value in values):  # of files, the first of the numbers in their names
            values = [next(iter(option.extra.values()), None) for option in self.axes[index].axis.options]
        are_numbers = all(is_number(value) for value in values)
        return are_numbers and (values == sorted(values) or values == sorted(values, reverse=True))

    def from_vector(self, vector: Vector) -> Point:
        return tuple([_pick(axis, share) for axis, share in zip(self.axes, vector, strict=True)])

    def measure_distance(self, this: Point, other: Point) -> float:
        """Return how far two points are apart: differences as shares of each axis, 1 for other values without order."""
        total = 0.0
        for index, (first, second) in enumerate(zip(this, other, strict=True)):
            if self.is_ordered(index):
                total += (self._to_share(index, first) - self._to_share(index, second)) ** 2
            else:
                total += first != second
        return math.sqrt(total)

    def _to_share(self, index: int, value: float) -> float:
        numbers = self.axes[index].numbers
        if numbers is None:
            return value / max(len(self.axes[index].axis.options) - 1, 1)
        if numbers.is_log:
            return math.log(value / numbers.low) / math.log(numbers.high / numbers.low)
        return (value - numbers.low) / (numbers.high - numbers.low)

    def make_block(self, points: Sequence[Point], combinations: Sequence[int]) -> Block:
        """Return the trials of these points on these combinations as a block: two groups of axes that vary together."""
        search, slots = self.search, self.experiment.template.slots
        columns = []
        for index, item in enumerate(self.axes):
            schema = slots[item.name].schema if item.name in slots else _ANY_VALUE
            if item.numbers is None:
                options = [item.axis.options[int(point[index])] for point in points]
            else:
                options = [Option(schema.normalise(point[index])) for point in points]
            columns.append(Axis(item.name, tuple(options), item.axis.path))
        chosen = [self.combinations[index] for index in combinations]
        over = [
            Axis(axis.name, tuple([axis.options[options[index]] for options in chosen]), axis.path)
            for index, axis in enumerate(search.over)
        ]
        return Block(tuple(tuple(group) for group in (columns, over) if group), path=search.path)

    def find_allowed(self, points: Sequence[Point]) -> list[tuple[int, ...]]:
        """Return for each point the indexes of the combinations for which `where` is true. Raises ExperimentError."""
        every = tuple(range(len(self.combinations)))
        if self.search.where is None or not points:
            return [every] * len(points)
        block = self.make_block(points, every)
        block = Block(block.dimensions, where=self.search.where, path=block.path)
        kept, _ = filter_points(Grid(self.experiment, block.dimensions, {}), block)
        if kept is None:
            return [every] * len(points)
        allowed: list[list[int]] = [[] for _ in points]
        for position in kept:
            allowed[position // len(every)].append(position % len(every))
        return [tuple(indexes) for indexes in allowed]

    def read_cell(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[Point, int] | None:
        """Return the point and the index of the combination of a row; None if the space does not have both."""
        values = [reader.read(params, columns) for reader in self._readers]
        options = tuple(reader.read(params, columns) for reader in self._over_readers)
        point = tuple(value for value in values if value is not None)
        combination = self._combination_indexes.get(options)
        return None if combination is None or len(point) < len(values) else (point, combination)


class _AxisReader:
    """Finds out which option of an axis, or which number of a range, made a row."""

    def __init__(self, axis: Axis, numbers: NumberRange | None) -> None:
        self._name, self._numbers = axis.name, numbers
        self._options: dict[bytes, int] = {}
        given = [{**option.sets, **({} if option.value is MISSING else {axis.name: option.value})} for option in
                 axis.options]  # fmt: skip
        self._names = tuple(dict.fromkeys(name for values in given for name in values))
        for index, values in enumerate(given):
            self._options.setdefault(self._encode(values), index)

    def _encode(self, values: Mapping[str, Any]) -> bytes:
        return encode_canonical([values.get(name) for name in self._names])

    def read(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> int | float | None:
        if self._numbers is None:
            return self._options.get(self._encode({**columns, **params}))
        number = params.get(self._name, columns.get(self._name))
        return number if is_number(number) and self._numbers.low <= number <= self._numbers.high else None


def _spread(sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return all combinations of indexes, in an order in which the first few have as many different values as can be.

    So a point that is stopped early was tried on different prompts and seeds, and not on one prompt only.
    """
    left = dict.fromkeys(itertools.product(*map(range, sizes)))
    used = [[0] * size for size in sizes]
    ordered: list[tuple[int, ...]] = []
    while left:
        chosen = min(left, key=lambda options: sum(used[axis][option] for axis, option in enumerate(options)))
        del left[chosen]
        ordered.append(chosen)
        for axis, option in enumerate(chosen):
            used[axis][option] += 1
    return tuple(ordered)


def _pick(item: SpaceAxis, share: float) -> int | float:
    numbers = item.numbers
    if numbers is None:
        return min(int(share * len(item.axis.options)), len(item.axis.options) - 1)
    if numbers.is_log:
        return numbers.round(numbers.low * (numbers.high / numbers.low) ** share)
    if numbers.is_integer:
        return numbers.round(numbers.low - 0.5 + share * (numbers.high - numbers.low + 1))
    return numbers.round(numbers.low + share * (numbers.high - numbers.low))


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points that are tried on the same combinations of `over`, by their indexes. `round` 0: done before the search."""

    round: int
    points: tuple[Point, ...]
    combinations: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.points) * len(self.combinations)


def plan_space(experiment: Experiment, search: Search) -> Plan:
    """Return the product of all options of a search, which serves to check them and is too large to run.

    Raises ExperimentError if a rule fails.
    """
    return Plan(replace(experiment, blocks=(search.block,)))


def make_search_columns(search: Search) -> SearchColumns:
    space, over = (tuple(axis.name for axis in axes) for axes in (search.space, search.over))
    return SearchColumns(search.objectives, space, over, search.stop_early)


def is_space(plan: Plan) -> bool:
    search = plan.experiment.search
    return search is not None and plan.experiment.blocks == (search.block,)


class SearchPlan(Plan):
    """The trials of some batches, in their order. Raises ExperimentError without batches, or if a rule fails."""

    def __init__(self, space: SearchSpace, batches: Sequence[PointBatch]) -> None:
        self.space, self.batches = space, tuple(batches)
        blocks = tuple(space.make_block(batch.points, batch.combinations) for batch in batches)
        super().__init__(replace(space.experiment, blocks=blocks, search=None))

    def __iter__(self) -> Iterator[Trial]:
        yield from self._iter_batches([part.order for part in self.parts])

    def written(self) -> Iterator[Trial]:
        """Yield the trials batch by batch, point by point."""
        yield from self._iter_batches([part.written for part in self.parts])

    def _iter_batches(self, orders: Sequence[tuple[int, ...]]) -> Iterator[Trial]:
        for part, batch, order in zip(self.parts, self.batches, orders, strict=True):
            for trial in part.iter_trials(order):
                yield replace(trial, columns={**trial.columns, ROUND: batch.round})

    def iter_cells(self) -> Iterator[tuple[int, Point, int]]:
        """Yield the round, the point and the combination of each trial in written order."""
        for batch in self.batches:
            for point in batch.points:
                for combination in batch.combinations:
                    yield batch.round, point, combination

    def fit(self, nodes: NodeInfo) -> Compatibility:
        """Check the whole space against the node classes of a server, so that no later round fails; then the trials."""
        found = plan_space(self.space.experiment, self.space.search).fit(nodes)
        return found if found.problems else super().fit(nodes)

    @property
    def search_columns(self) -> SearchColumns:
        return make_search_columns(self.space.search)

    @cached_property
    def axis_sizes(self) -> Mapping[str, int]:
        """The number of values of each axis in the whole space, so that files have like names in all rounds."""
        search = self.space.search
        sizes = {item.name: len(item.axis.options) for item in search.space}  # the two ends of a range
        return sizes | {axis.name: len(axis.options) for axis in search.over}

    @cached_property
    def value_order(self) -> Mapping[str, tuple[int, ...]]:
        """The first trial of each value of an axis column: numbers of a range go up, options are as written."""
        axes = [*(item.axis for item in self.space.axes), *self.space.search.over]
        first_of: dict[str, dict[float, int]] = {axis.name: {} for axis in axes}
        for trial, (_, point, combination) in enumerate(self.iter_cells()):
            values = (*point, *self.space.combinations[combination])
            for firsts, value in zip(first_of.values(), values, strict=True):
                firsts.setdefault(value, trial)
        orders = {name: tuple(firsts[value] for value in sorted(firsts)) for name, firsts in first_of.items()}
        changed = {name: order for name, order in orders.items() if list(order) != sorted(order)}
        return {column: changed[name] for column in self.axis_columns if (name := self._axis_of[column]) in changed}

    @cached_property
    def together(self) -> tuple[tuple[str, str], ...]:
        """The pairs of columns that show the same axis: its values, their labels, and groups of choices."""
        pairs = combinations(self.axis_columns, 2)
        return tuple(pair for pair in pairs if self._axis_of[pair[0]] == self._axis_of[pair[1]])

    @cached_property
    def _axis_of(self) -> Mapping[str, str]:
        return map_axis_columns(self.experiment)
