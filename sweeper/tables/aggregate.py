"""Group the rows of a table, with the mean and the deviation of each group, or make a pivot over two columns.

Pure functions on rows, which are mappings from column to value as `export.to_records` makes them. Unlike pandas, groups
keep the order of the sweep, and 1, True and "1" are three values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeper.schemas.values import is_number

Row = Mapping[str, Any]
ValueOrder = Mapping[str, Sequence[Any]]  # column -> its values in order, if that is not the order of the rows
_NO_ORDER: Final[ValueOrder] = {}


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """The number of values, their mean, sample standard deviation (n - 1; None for one value), minimum and maximum.

    The field names are keys of the JSON output of `sweeper results --by`.
    """

    n: int
    mean: float
    sd: float | None
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows with the same values in the grouping columns."""

    values: tuple[Any, ...]
    rows: tuple[Row, ...]

    def summarize(self, column: str) -> NumberSummary | None:
        return summarize(row[column] for row in self.rows)


@dataclass(frozen=True, slots=True)
class Pivot:
    """A pivot table: `cells[i][j]` summarizes the rows with the values `down[i]` and `across[j]`; None if empty."""

    across: tuple[Any, ...]
    down: tuple[Any, ...]
    cells: tuple[tuple[NumberSummary | None, ...], ...]


def summarize(values: Iterable[Any]) -> NumberSummary | None:
    """Summarize the finite numbers among `values`, without True and False. None if there are none."""
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return None
    n, mean = len(numbers), math.fsum(numbers) / len(numbers)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)) if n > 1 else None
    return NumberSummary(n, mean, sd, min(numbers), max(numbers))


def group_rows(rows: Iterable[Row], columns: Sequence[str], value_order: ValueOrder = _NO_ORDER) -> list[RowGroup]:
    """Group the rows by their values in `columns`, in the order in which the groups appear.

    If `value_order` gives an order for one of the columns, the groups are sorted: by the values of each column, and the
    columns in the order that they have in the rows.
    """
    by_key: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(tuple(_comparison_key(row[name]) for name in columns), []).append(row)
    groups = [RowGroup(tuple(members[0][name] for name in columns), tuple(members)) for members in by_key.values()]
    if not groups or not any(value_order.get(name) for name in columns):
        return groups
    row_order = {name: index for index, name in enumerate(groups[0].rows[0])}
    indexes = sorted(range(len(columns)), key=lambda index: row_order[columns[index]])
    ranks = [
        _rank_values([*value_order.get(name, ()), *(group.values[index] for group in groups)])
        for index, name in enumerate(columns)
    ]
    return sorted(groups, key=lambda group: [ranks[index][_comparison_key(group.values[index])] for index in indexes])


def _rank_values(values: Iterable[Any]) -> dict[Hashable, int]:
    """The rank of each value: its index among the distinct values."""
    return {key: rank for rank, key in enumerate(dict.fromkeys(map(_comparison_key, values)))}


def make_pivot(rows: Sequence[Row], x: str, y: str, column: str, value_order: ValueOrder = _NO_ORDER) -> Pivot:
    """Summarize `column` for each value of `x` (across) and of `y` (down)."""
    across, down = group_rows(rows, [x], value_order), group_rows(rows, [y], value_order)
    cells = {tuple(map(_comparison_key, group.values)): group.summarize(column) for group in group_rows(rows, [y, x])}
    lines = tuple(group.values[0] for group in down)
    columns = tuple(group.values[0] for group in across)
    numbers = tuple(
        tuple(cells.get((_comparison_key(line), _comparison_key(value))) for value in columns) for line in lines
    )
    return Pivot(columns, lines, numbers)


def _comparison_key(value: Any) -> Hashable:
    """A key for comparing values: 4 equals 4.0, True does not equal 1, and lists are compared by their content."""
    if isinstance(value, (list, dict)):
        return ("json", json.dumps(value, sort_keys=True))
    return (isinstance(value, bool), value)
