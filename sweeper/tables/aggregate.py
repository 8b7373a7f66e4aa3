"""Group the rows of a table, with the mean and the deviation of each group, or make a pivot over two columns.

Pure functions on columns of `export.read_columns`. Unlike pandas, groups keep the order of the sweep, and 1, True and
"1" are three values. `RowTable` and `Pivot` are the answers of `sweeper results`, `--by` and `--pivot`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.answers.cells import format_cell, format_rounded, label_values
from sweeper.answers.parts import Line, Part, Table
from sweeper.answers.render import AS_JSON, NOT_IN_JSON
from sweeper.schemas.values import is_number

_SPREAD: Final = "mean \N{PLUS-MINUS SIGN} standard deviation of the trials; `sweeper effects` judges the differences"
COST_SUM: Final = "cost_sum"  # the column with the sum of `cost` in a group; all others are means
Columns = Mapping[str, Sequence[Any]]  # column -> its cells
Labels = Mapping[str, Mapping[Any, str]]  # column -> value -> its label
ValueOrder = Mapping[str, Sequence[Any]]  # column -> its values in order, if that is not the order of the rows
_NO_ORDER: Final[ValueOrder] = {}
_PLAIN_TYPES: Final = {str, int, float, type(None)}


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """The number of values, their mean, sample standard deviation (n - 1; None for one value), minimum and maximum."""

    n: int
    mean: float
    sd: float | None
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows with the same values in the grouping columns, by their indexes."""

    values: tuple[Any, ...]
    rows: Sequence[int]

    def get_cells(self, column: Sequence[Any]) -> list[Any]:
        return [column[index] for index in self.rows]


@dataclass(frozen=True, slots=True)
class RowTable:
    """One mapping for each trial, with the columns asked for, or all; or one for each group of trials.

    A group has its values, `trials`, `succeeded`, and of each column with numbers a NumberSummary, or None if no trial
    of the group has a number there. `cost_sum` is the sum of `cost`, in US dollars. `shown`: the columns that a person
    reads, with labels in the place of values.
    """

    rows: list[dict[str, Any]] = field(metadata=AS_JSON)
    shown: Sequence[str] = field(metadata=NOT_IN_JSON)
    rounded: Sequence[str] = field(metadata=NOT_IN_JSON)
    labels: Labels = field(default_factory=dict, metadata=NOT_IN_JSON)
    note: str = field(default="", metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """One table, and what it does not say."""
        rows = [[_to_cell(name, row[name], self.labels) for name in self.shown] for row in self.rows]
        yield Table(self.shown, rows, self.rounded)
        if self.note:
            yield Line(self.note)


@dataclass(frozen=True, slots=True)
class PivotRow:
    """The cells of a pivot for one value of `y`, one for each value of `x`; None if there is no number."""

    value: Any
    cells: tuple[NumberSummary | None, ...]


@dataclass(frozen=True, slots=True)
class Pivot:
    """The numbers of `column` for each value of the column `x` (`across`) and of the column `y` (`rows`)."""

    x: str
    y: str
    column: str
    across: tuple[Any, ...]
    rows: tuple[PivotRow, ...]
    labels: Labels = field(metadata=NOT_IN_JSON)

    def parts(self) -> Iterator[Part]:
        """The means with their standard deviations. The top left cell names the columns of both axes."""
        yield Line(f"{self.column}: mean, and \N{PLUS-MINUS SIGN} standard deviation where a cell has several trials")
        across = [format_cell(_to_cell(self.x, value, self.labels)) or "(none)" for value in self.across]
        rows = [[_to_cell(self.y, row.value, self.labels), *map(format_spread, row.cells)] for row in self.rows]
        yield Table([f"{self.y} \\ {self.x}", *across], rows)


def summarize(values: Iterable[Any]) -> NumberSummary | None:
    """Summarize the finite numbers among `values`, without True and False. None if there are none."""
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return None
    n, mean = len(numbers), math.fsum(numbers) / len(numbers)
    sd = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)) if n > 1 else None
    return NumberSummary(n, mean, sd, min(numbers), max(numbers))


def group_rows(table: Columns, names: Sequence[str], value_order: ValueOrder = _NO_ORDER) -> list[RowGroup]:
    """Group the rows by their values in the columns `names`, in the order in which the groups appear.

    If `value_order` gives an order for one of the columns, the groups are sorted: by the values of each column, and the
    columns in the order that they have in the table.
    """
    by_key: dict[tuple[Hashable, ...], list[int]] = {}
    for index, key in enumerate(zip(*(_make_keys(table[name]) for name in names), strict=True)):
        by_key.setdefault(key, []).append(index)
    groups = [RowGroup(tuple(table[name][rows[0]] for name in names), rows) for rows in by_key.values()]
    if not groups or not any(value_order.get(name) for name in names):
        return groups
    column_order = list(table)
    indexes = sorted(range(len(names)), key=lambda index: column_order.index(names[index]))
    ranks: list[dict[Hashable, int]] = []  # the rank of each value of a column
    for name, values in zip(names, zip(*(group.values for group in groups), strict=True), strict=True):
        keys = dict.fromkeys(map(_comparison_key, [*value_order.get(name, ()), *values]))
        ranks.append({key: rank for rank, key in enumerate(keys)})
    return sorted(groups, key=lambda group: [ranks[index][_comparison_key(group.values[index])] for index in indexes])


def make_groups(
    table: Columns, by: Sequence[str], columns: Sequence[str], value_order: ValueOrder = _NO_ORDER
) -> RowTable:
    """Summarize `columns` for each combination of values of `by`."""
    groups = [
        {
            **dict(zip(by, group.values, strict=True)),
            "trials": len(group.rows),
            "succeeded": group.get_cells(table["status"]).count("succeeded"),
            **{
                name: _sum_cost(group.get_cells(table["cost"]))
                if name == COST_SUM
                else summarize(group.get_cells(table[name]))
                for name in columns
            },
        }
        for group in group_rows(table, by, value_order)
    ]
    has_spread = any(isinstance(cell, NumberSummary) and cell.sd for group in groups for cell in group.values())
    note = _SPREAD if has_spread else ""
    return RowTable(groups, [*by, "trials", "succeeded", *columns], (COST_SUM,), _find_labels(table, by), note)


def _sum_cost(cells: Iterable[float | None]) -> float | None:
    costs = [cost for cost in cells if cost is not None]
    return round(math.fsum(costs), 6) if costs else None


def make_pivot(table: Columns, x: str, y: str, column: str, value_order: ValueOrder = _NO_ORDER) -> Pivot:
    """Summarize `column` for each value of `x` (across) and of `y` (down)."""
    across, down = group_rows(table, [x], value_order), group_rows(table, [y], value_order)
    cells = {
        tuple(map(_comparison_key, group.values)): summarize(group.get_cells(table[column]))
        for group in group_rows(table, [y, x])
    }
    columns = tuple(group.values[0] for group in across)
    lines = tuple(
        PivotRow(line, tuple(cells.get((_comparison_key(line), _comparison_key(value))) for value in columns))
        for line in (group.values[0] for group in down)
    )
    return Pivot(x, y, column, columns, lines, _find_labels(table, (x, y)))


def _find_labels(table: Columns, columns: Iterable[str]) -> Labels:
    return {name: label_column(table[name], table.get(f"{name}.label", ())) for name in columns}


def label_column(cells: Sequence[Any], words: Sequence[Any] = ()) -> Mapping[Any, str]:
    """The short labels of the texts among these cells. `words`: the label that a user gave each cell, or None."""
    given = {cell: word for cell, word in zip(cells, words, strict=False) if word is not None}
    values = list(given | dict.fromkeys(cell for cell in cells if isinstance(cell, str)))
    labels = label_values(values, {index: given[value] for index, value in enumerate(values) if value in given})
    return dict(zip(values, labels, strict=True))


def _to_cell(name: str, value: Any, labels: Labels) -> Any:
    if isinstance(value, NumberSummary):
        return format_spread(value)
    return to_label(value, labels[name]) if name in labels else value


def to_label(value: Any, labels: Mapping[Any, str]) -> Any:
    """The label of a value, or the value if it has none."""
    return labels.get(value, value) if isinstance(value, Hashable) else value


def format_spread(spread: NumberSummary | None) -> str:
    """`127.5 ± 3.2`: the standard deviation with two significant digits, and the mean to the same decimal place."""
    if spread is None:
        return ""
    if not spread.sd:
        return format_rounded(spread.mean)
    return f"{round_to_margin(spread.mean, spread.sd)} \N{PLUS-MINUS SIGN} {round_to_margin(spread.sd, spread.sd)}"


def round_to_margin(number: float, margin: float) -> str:
    """A number to the place of the second digit of its margin: further digits are noise."""
    if is_nothing(margin, number):
        return format_rounded(number)
    places = 1 - math.floor(math.log10(abs(margin)))
    rounded = round(number, places) + 0.0  # + 0.0: no minus before a zero
    return f"{rounded:.{places}f}" if 0 <= places <= 6 else format_rounded(rounded)


def is_nothing(margin: float, number: float) -> bool:
    """Whether a margin is 0 but for rounding."""
    return abs(margin) <= 1e-9 * abs(number)


def _make_keys(cells: Sequence[Any]) -> Iterable[Hashable]:
    """The `_comparison_key` of each cell, or an equivalent: most columns have no type that needs one."""
    return cells if set(map(type, cells)) <= _PLAIN_TYPES else map(_comparison_key, cells)


def _comparison_key(value: Any) -> Hashable:
    """A key for comparing values: 4 equals 4.0, True does not equal 1, and lists are compared by their content."""
    if isinstance(value, (list, dict)):
        return ("json", json.dumps(value, sort_keys=True))
    return (isinstance(value, bool), value)
