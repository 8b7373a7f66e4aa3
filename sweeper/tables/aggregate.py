"""Rows of a table brought together: groups with their means and spread, and a pivot over two columns.

Pure: rows are mappings from column to value, as `formats.records` makes them, and nothing is read or printed. pandas
does the same on the frame of `sweeper.results`; here groups keep the order of the sweep, and 1, True and "1" are three.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Row = Mapping[str, Any]
ValueOrder = Mapping[str, Sequence[Any]]  # by column its values in their order, where that is not the order of the rows
_NO_ORDER: Final[ValueOrder] = {}


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """`n` numbers by their mean, sample standard deviation (n - 1; None for one number), least and greatest."""

    n: int
    mean: float
    sd: float | None
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows that have these values in the columns they were grouped by."""

    values: tuple[Any, ...]
    rows: tuple[Row, ...]

    def summarize(self, column: str) -> NumberSummary | None:
        return summarize(row[column] for row in self.rows)


@dataclass(frozen=True, slots=True)
class Pivot:
    """`cells[place in down][place in across]`: the numbers of one column there, None where there are none."""

    across: tuple[Any, ...]
    down: tuple[Any, ...]
    cells: tuple[tuple[NumberSummary | None, ...], ...]


def summarize(values: Iterable[Any]) -> NumberSummary | None:
    """Of the finite numbers among `values`; None where there is none. True and False are no numbers."""
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return None
    n, mean = len(numbers), math.fsum(numbers) / len(numbers)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)) if n > 1 else None
    return NumberSummary(n, mean, sd, min(numbers), max(numbers))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def group_rows(rows: Iterable[Row], columns: Sequence[str], value_order: ValueOrder = _NO_ORDER) -> list[RowGroup]:
    """The rows by their values in `columns`, groups in the order in which they appear; where `leading` gives another
    order of a column's values, by those of each column, the columns in the order of the rows' own.
    """
    found: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(_comparison_key(row[name]) for name in columns), []).append(row)
    groups = [RowGroup(tuple(members[0][name] for name in columns), tuple(members)) for members in found.values()]
    if not any(value_order.get(name) for name in columns):
        return groups
    own = {name: place for place, name in enumerate(groups[0].rows[0])} if groups else {}
    places = sorted(range(len(columns)), key=lambda place: own[columns[place]]) if groups else []
    ranks = [
        _rank_values([*value_order.get(name, ()), *(g.values[n] for g in groups)]) for n, name in enumerate(columns)
    ]
    return sorted(groups, key=lambda group: [ranks[place][_comparison_key(group.values[place])] for place in places])


def _rank_values(values: Iterable[Any]) -> dict[Hashable, int]:
    """The place of each value among them, by its first."""
    return {key: place for place, key in enumerate(dict.fromkeys(map(_comparison_key, values)))}


def make_pivot(rows: Sequence[Row], x: str, y: str, column: str, value_order: ValueOrder = _NO_ORDER) -> Pivot:
    """The numbers of `column` over the values of `x` across and of `y` down."""
    across, down = group_rows(rows, [x], value_order), group_rows(rows, [y], value_order)
    cells = {tuple(map(_comparison_key, group.values)): group.summarize(column) for group in group_rows(rows, [y, x])}
    lines = tuple(group.values[0] for group in down)
    columns = tuple(group.values[0] for group in across)
    numbers = tuple(
        tuple(cells.get((_comparison_key(line), _comparison_key(value))) for value in columns) for line in lines
    )
    return Pivot(columns, lines, numbers)


def _comparison_key(value: Any) -> Hashable:
    """4 and 4.0 are one value; True is not 1, and a list is compared by what it holds."""
    if isinstance(value, (list, dict)):
        return ("json", json.dumps(value, sort_keys=True))
    return (isinstance(value, bool), value)
