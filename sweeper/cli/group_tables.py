"""`sweeper results --by` and `--pivot`: print groups and pivots as tables or as JSON.

`table_query` selects the rows; `tables.aggregate` computes means and standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sweeper.answers.cells import format_cell, format_rounded
from sweeper.cli import console
from sweeper.cli.table_query import sort_rows
from sweeper.tables.aggregate import NumberSummary, Pivot, RowGroup, ValueOrder, group_rows
from sweeper.tables.select_rows import Rows

COST_SUM: Final = "cost_sum"  # the column with the sum of `cost`; all others are means
Labels = Mapping[str, Mapping[Any, Any]]


def make_group_rows(rows: Rows, by: Sequence[str], columns: Sequence[str], value_order: ValueOrder) -> Rows:
    """Make one row for each group of rows with the same values of `by`.

    It has these values, the number of trials, the number of those that succeeded, and a cell for each of `columns`: a
    NumberSummary, or for `COST_SUM` the sum in US dollars. A cell is None if no trial of the group has a number there.
    """
    return [
        {
            **dict(zip(by, group.values, strict=True)),
            "trials": len(group.rows),
            "succeeded": sum(row["status"] == "succeeded" for row in group.rows),
            **{name: _sum_cost(group) if name == COST_SUM else group.summarize(name) for name in columns},
        }
        for group in group_rows(rows, by, value_order)
    ]


def _sum_cost(group: RowGroup) -> float | None:
    costs = [row["cost"] for row in group.rows if row["cost"] is not None]
    return round(math.fsum(costs), 6) if costs else None


def sort_groups(groups: Rows, sorts: Sequence[str]) -> Rows:
    """Sort groups by their values, their counts, or the mean of a column."""
    sortable = [{**{name: _to_mean(value) for name, value in group.items()}, "": group} for group in groups]
    return [row[""] for row in sort_rows(sortable, sorts)]


def _to_mean(value: Any) -> Any:
    return value.mean if isinstance(value, NumberSummary) else value


def print_groups(groups: Rows, by: Sequence[str], columns: Sequence[str], labels: Labels) -> None:
    headers = [*by, "trials", "succeeded", *columns]
    rows = [[_to_cell(name, group[name], labels) for name in headers] for group in groups]
    console.print_table(headers, rows, rounded=(COST_SUM,))


def groups_to_json(groups: Rows) -> list[dict[str, Any]]:
    return [{name: _to_json(value) for name, value in group.items()} for group in groups]


def print_pivot(pivot: Pivot, x: str, y: str, column: str, labels: Labels) -> None:
    """Print the means with their standard deviations. The top left cell names the columns of both axes."""
    across = [format_cell(_to_cell(x, value, labels)) or "(none)" for value in pivot.across]
    console.print_line(f"{column}: mean, and \N{PLUS-MINUS SIGN} standard deviation where a cell has several trials")
    rows = [
        [_to_cell(y, value, labels), *map(format_spread, cells)]
        for value, cells in zip(pivot.down, pivot.cells, strict=True)
    ]
    console.print_table([f"{y} \\ {x}", *across], rows)


def pivot_to_json(pivot: Pivot, x: str, y: str, column: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "column": column,
        "across": list(pivot.across),
        "rows": [
            {"value": value, "cells": [_to_json(cell) for cell in cells]}
            for value, cells in zip(pivot.down, pivot.cells, strict=True)
        ],
    }


def format_spread(spread: NumberSummary | None) -> str:
    """`127.5 ± 3.2`: the standard deviation with two significant digits, and the mean to the same decimal place."""
    if spread is None:
        return ""
    if not spread.sd:
        return format_rounded(spread.mean)
    places = 1 - math.floor(math.log10(spread.sd))
    if places > 6:
        return f"{format_rounded(spread.mean)} \N{PLUS-MINUS SIGN} {spread.sd:.2g}"
    places = max(places, 0)
    return f"{spread.mean:.{places}f} \N{PLUS-MINUS SIGN} {spread.sd:.{places}f}"


def find_labels(rows: Rows, names: Sequence[str], columns: Sequence[str]) -> Labels:
    """For each of `columns` with a `.label` column: value -> label."""
    return {
        name: {row[name]: row[f"{name}.label"] for row in rows if row[f"{name}.label"] is not None}
        for name in columns
        if f"{name}.label" in names
    }


def _to_cell(name: str, value: Any, labels: Labels) -> Any:
    if isinstance(value, NumberSummary) or (value is None and name not in labels):
        return format_spread(value)
    return labels.get(name, {}).get(value, value)


def _to_json(value: Any) -> Any:
    return asdict(value) if isinstance(value, NumberSummary) else value
