"""Select and sort the rows that options such as `--where` and `--sort` ask for.

Rows are mappings as `tables.export.to_records` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.cli import console
from sweeper.model.selection import Selection
from sweeper.tables import select_rows
from sweeper.tables.select_rows import Rows


def select_trials(results: Path, run: str | None, selection: Selection) -> frozenset[int] | None:
    """The selected trials of a run, or None for all. Prints a message if the options select nothing."""
    trials, message = select_rows.select_trials(results, run, selection)
    if message:
        console.print_status(message)
    return trials


def sort_rows(rows: Rows, sorts: Iterable[str]) -> Rows:
    """Sort by each column of `sorts`; the first is the primary key, and `-name` sorts in descending order.

    Rows without a value come last either way.
    """
    for sort in reversed(list(sorts)):
        name = sort.removeprefix("-")
        with_value = [row for row in rows if row[name] is not None]
        with_value.sort(key=lambda row: _to_sort_key(row[name]), reverse=sort.startswith("-"))
        rows = with_value + [row for row in rows if row[name] is None]
    return rows


def _to_sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers sort before texts, because the two cannot be compared with each other."""
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))
