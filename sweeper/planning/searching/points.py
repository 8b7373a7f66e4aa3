"""The points of a search's space, and the combinations of `over`: as indexes and numbers, as rows, as unit vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from sweeper.model.axis_values import Option
from sweeper.model.experiment import Experiment
from sweeper.model.search_spec import NumberRange, Search, SpaceAxis
from sweeper.model.slot_values import SlotSchema
from sweeper.model.sweep_block import Axis, Block
from sweeper.model.template import MISSING
from sweeper.model.workflow import encode_canonical
from sweeper.planning.grid import Grid
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
        self._readers = [_AxisReader(one.axis, one.numbers) for one in self.axes]
        self._over_readers = [_AxisReader(axis, None) for axis in search.over]
        self._combination_indexes: dict[tuple[float | None, ...], int] = {
            options: index for index, options in enumerate(self.combinations)
        }

    @cached_property
    def size(self) -> int | None:
        """The number of points; None if a range has so many numbers that nobody counts them."""
        sizes = [len(one.axis.options) if one.numbers is None else _count_integers(one.numbers) for one in self.axes]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def list_points(self) -> Iterator[Point]:
        """Yield all points of a finite space that is not too large; nothing of others."""
        if self.size is not None and self.size <= _MAX_LISTED:
            ranges = [
                range(len(one.axis.options))
                if one.numbers is None
                else range(int(one.numbers.low), int(one.numbers.high) + 1)
                for one in self.axes
            ]
            yield from itertools.product(*ranges)

    def is_ordered(self, index: int) -> bool:
        """Whether the values of an axis have an order in which near values are alike: numbers that go up or down."""
        if self.axes[index].numbers is not None:
            return True
        values = [option.value for option in self.axes[index].axis.options]
        are_numbers = all(is_number(value) for value in values)
        return are_numbers and (values == sorted(values) or values == sorted(values, reverse=True))

    def from_vector(self, vector: Vector) -> Point:
        """Return the point at a vector of numbers from 0 to 1."""
        return tuple([_pick(one, share) for one, share in zip(self.axes, vector, strict=True)])

    def measure_distance(self, one: Point, other: Point) -> float:
        """Return how far two points are apart: differences as shares of each axis, 1 for other values without order."""
        total = 0.0
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
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
        for index, one in enumerate(self.axes):
            schema = slots[one.name].schema if one.name in slots else _ANY_VALUE
            if one.numbers is None:
                options = [one.axis.options[int(point[index])] for point in points]
            else:
                options = [Option(schema.normalise(point[index])) for point in points]
            columns.append(Axis(one.name, tuple(options), one.axis.path))
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

    def read_point(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> Point | None:
        """Return the point of a row with these params and axis cells; None if it is outside of the space."""
        values = [reader.read(params, columns) for reader in self._readers]
        return None if None in values else tuple(value for value in values if value is not None)

    def read_combination(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> int | None:
        """Return the index of the combination of a row; None if `over` has none like it."""
        return self._combination_indexes.get(tuple(reader.read(params, columns) for reader in self._over_readers))


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


def _pick(one: SpaceAxis, share: float) -> int | float:
    numbers = one.numbers
    if numbers is None:
        return min(int(share * len(one.axis.options)), len(one.axis.options) - 1)
    if numbers.is_log:
        return numbers.round(numbers.low * (numbers.high / numbers.low) ** share)
    if numbers.is_integer:
        return numbers.round(numbers.low - 0.5 + share * (numbers.high - numbers.low + 1))
    return numbers.round(numbers.low + share * (numbers.high - numbers.low))


def _count_integers(numbers: NumberRange) -> int | None:
    return int(numbers.high - numbers.low) + 1 if numbers.is_integer else None
