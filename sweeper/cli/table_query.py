"""Select the trials that `--where`, `--limit` and `--set` ask for."""

from __future__ import annotations

from pathlib import Path

from sweeper.cli import console
from sweeper.model.selection import Selection
from sweeper.tables import select_rows


def select_trials(results: Path, run: str | None, selection: Selection) -> frozenset[int] | None:
    """The selected trials of a run, or None for all. Prints a message if the options select nothing."""
    trials, message = select_rows.select_trials(results, run, selection)
    if message:
        console.print_status(message)
    return trials
