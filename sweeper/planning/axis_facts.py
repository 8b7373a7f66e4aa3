"""What an experiment says of its axes and the rows of its table do not: the order of their values, which axes are one.

The table has a row for each trial. Where `exclude`, `where` or `sample` drop some, values may appear in its rows in
another order than the written one, and two axes may look like partners in a zip. Where this is kept, and who shows it,
is not decided here.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any, Final, Protocol

from sweeper.planning.columns import Column
from sweeper.planning.grid import Grid

_MAX_VALUES: Final = (
    10_000  # values of an axis: nobody looks for a place among more, and a store must not fill with seeds
)
_NEVER: Final = sys.maxsize  # the trial of a value that none has


class BlockPart(Protocol):
    """A piece of the plan: a product, and the written positions that are trials of it (None: all)."""

    @property
    def grid(self) -> Grid: ...
    @property
    def kept_positions(self) -> array[int] | None: ...
    @property
    def count(self) -> int: ...
    @property
    def is_product(self) -> bool: ...


def find_value_order(parts: Sequence[BlockPart]) -> dict[str, tuple[int, ...]]:
    """For each column of an axis whose values appear in the rows in another order than the written one: by index, the
    first trial of each value, in written order. That of several blocks is the order of the blocks.
    """
    if all(part.kept_positions is None for part in parts):
        return {}  # products, one after the other: values appear as they were written
    starts = [sum(part.count for part in parts[:place]) for place in range(len(parts))]
    firsts = [_find_first_trials(part, start) for part, start in zip(parts, starts, strict=True)]
    found: dict[str, tuple[int, ...]] = {}
    for name in parts[0].grid.columns:
        cells = (
            cell
            for part, start, first in zip(parts, starts, firsts, strict=True)
            for cell in _iter_cells(part, part.grid.columns[name], first, start)
        )
        if order := _find_order(cells):
            found[name] = order
    return found


def find_linked_axes(parts: Sequence[BlockPart]) -> tuple[tuple[str, str], ...]:
    """The pairs of columns that hang on the same dimension wherever both are swept: the axes of a zip, a bundle and a
    slot that it sets (swept by itself in another block), choices and their groups, values and their labels.
    """
    found: dict[tuple[str, str], bool] = {}
    for part in parts:
        swept = {name: column.dimensions for name, column in part.grid.columns.items() if column.dimensions}
        for pair in combinations(swept, 2) if part.is_product else ():
            found[pair] = found.get(pair, True) and swept[pair[0]] == swept[pair[1]]
    return tuple(pair for pair, one in found.items() if one)


def _find_first_trials(part: BlockPart, start: int) -> list[dict[int, int]]:
    """For each dimension the first trial of each option, by its place; an option without a trial is not there."""
    sizes = part.grid.sizes
    if part.kept_positions is None:
        strides = [prod(sizes[place + 1 :]) for place in range(len(sizes))]
        return [
            {option: start + option * stride for option in range(size)}
            for size, stride in zip(sizes, strides, strict=True)
        ]
    found: list[dict[int, int]] = [{} for _ in sizes]
    for index, position in enumerate(part.kept_positions, start):
        for place, option in enumerate(part.grid.to_coordinates(position)):
            found[place].setdefault(option, index)
    return found


def _iter_cells(
    part: BlockPart, column: Column, first_trials: Sequence[Mapping[int, int]], start: int
) -> Iterator[tuple[Hashable, int]]:
    """Each value of a column as it was written, and the first trial that has it."""
    at = [0] * len(part.grid.sizes)
    if not column.dimensions:
        yield _to_key(column.get(at)), start if part.count else _NEVER
    for place in column.dimensions:  # one: no axis is computed from others
        for option in range(part.grid.sizes[place]):
            at[place] = option
            yield _to_key(column.get(at)), first_trials[place].get(option, _NEVER)


def _find_order(cells: Iterable[tuple[Hashable, int]]) -> tuple[int, ...]:
    """The first trials of the values that have one; empty where they are in the order of the rows, or too many."""
    first: dict[Hashable, int] = {}
    for key, index in cells:
        first[key] = min(index, first.get(key, _NEVER))
    found = [index for index in first.values() if index != _NEVER]
    return tuple(found) if len(found) <= _MAX_VALUES and found != sorted(found) else ()


def _to_key(value: Any) -> Hashable:
    """1, 1.0 and true are three."""
    if isinstance(value, (list, dict)):
        return ("json", json.dumps(value, sort_keys=True))
    return (type(value), value)
