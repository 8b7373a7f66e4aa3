"""Facts about the axes that the rows of the table cannot show: the order of values, and which axes vary together.

If `exclude`, `where` or `sample` drop trials, values may appear in the rows in another order than the written one, and
two axes may look as if a zip linked them.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, combinations
from math import prod
from typing import Any, Final, Protocol

from sweeper.planning.columns import Column
from sweeper.planning.grid import Grid

_MAX_VALUES: Final = 10_000  # of an axis; a longer order is of no use, and it would fill the store with seeds
_NEVER: Final = sys.maxsize  # the first trial of a value that no trial has


class BlockPart(Protocol):
    """A part of the plan: a product, and the written positions of its trials (None: all)."""

    @property
    def grid(self) -> Grid: ...
    @property
    def kept_positions(self) -> array[int] | None: ...
    @property
    def count(self) -> int: ...
    @property
    def is_product(self) -> bool: ...


def find_value_order(parts: Sequence[BlockPart]) -> dict[str, tuple[int, ...]]:
    """Return the written order of the values of each axis column, if the rows have them in another order.

    The order is given by the index of the first trial of each value. Blocks follow each other.
    """
    if all(part.kept_positions is None for part in parts):
        return {}  # in complete products, values appear in written order
    starts = [0, *accumulate(part.count for part in parts)][:-1]
    firsts = [_find_first_trials(part, start) for part, start in zip(parts, starts, strict=True)]
    orders: dict[str, tuple[int, ...]] = {}
    for name in parts[0].grid.columns:
        cells = (
            cell
            for part, start, first in zip(parts, starts, firsts, strict=True)
            for cell in _iter_cells(part, part.grid.columns[name], first, start)
        )
        if order := _find_order(cells):
            orders[name] = order
    return orders


def find_linked_axes(parts: Sequence[BlockPart]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of axis columns that depend on the same dimension in every block that sweeps both.

    These are the axes of a zip, a bundle and a slot that it sets (and that another block sweeps alone), choices and
    their groups, values and their labels.
    """
    are_linked: dict[tuple[str, str], bool] = {}
    for part in parts:
        swept = {name: column.dimensions for name, column in part.grid.columns.items() if column.dimensions}
        for pair in combinations(swept, 2) if part.is_product else ():
            are_linked[pair] = are_linked.get(pair, True) and swept[pair[0]] == swept[pair[1]]
    return tuple(pair for pair, linked in are_linked.items() if linked)


def _find_first_trials(part: BlockPart, start: int) -> list[dict[int, int]]:
    """Return for each dimension the first trial of each option that has one, by option index."""
    sizes = part.grid.sizes
    if part.kept_positions is None:
        strides = [prod(sizes[dimension + 1 :]) for dimension in range(len(sizes))]
        return [
            {option: start + option * stride for option in range(size)}
            for size, stride in zip(sizes, strides, strict=True)
        ]
    firsts: list[dict[int, int]] = [{} for _ in sizes]
    for index, position in enumerate(part.kept_positions, start):
        for dimension, option in enumerate(part.grid.to_coordinates(position)):
            firsts[dimension].setdefault(option, index)
    return firsts


def _iter_cells(
    part: BlockPart, column: Column, first_trials: Sequence[Mapping[int, int]], start: int
) -> Iterator[tuple[Hashable, int]]:
    """Yield each value of a column in written order, and the first trial that has it."""
    coordinates = [0] * len(part.grid.sizes)
    if not column.dimensions:
        yield _to_key(column.get(coordinates)), start if part.count else _NEVER
    for dimension in column.dimensions:  # only one, because no axis is computed from others
        for option in range(part.grid.sizes[dimension]):
            coordinates[dimension] = option
            yield _to_key(column.get(coordinates)), first_trials[dimension].get(option, _NEVER)


def _find_order(cells: Iterable[tuple[Hashable, int]]) -> tuple[int, ...]:
    """Return the first trials of the values; empty if they are in the order of the rows, or too many."""
    first: dict[Hashable, int] = {}
    for key, index in cells:
        first[key] = min(index, first.get(key, _NEVER))
    order = [index for index in first.values() if index != _NEVER]
    return tuple(order) if len(order) <= _MAX_VALUES and order != sorted(order) else ()


def _to_key(value: Any) -> Hashable:
    """Return a key that is different for 1, 1.0 and true."""
    if isinstance(value, (list, dict)):
        return ("json", json.dumps(value, sort_keys=True))
    return (type(value), value)
