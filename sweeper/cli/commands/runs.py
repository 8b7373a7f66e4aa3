"""`sweeper runs`: which runs a results folder holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples


@click.command(epilog=format_examples("sweeper runs results/quickstart", "sweeper results results/quickstart --run 1"))
@options.results
@options.as_json
def command(results: Path, *, as_json: bool) -> None:
    """List the runs of a results folder, oldest first."""
    from sweeper.store import Store  # noqa: PLC0415 - each command imports what it uses
    from sweeper.tables.dataframe import find_results_folder  # noqa: PLC0415

    with Store.open(find_results_folder(results), readonly=True) as store:
        found = [
            {
                "run": record.id,
                "experiment": record.experiment,
                "file": record.file,
                "targets": list(record.targets),
                "started": _format_time(record.started),
                "ended": _format_time(record.ended),
                "stopped_by": record.stopped_by,
                "trials": record.trials,
                **store.count_by_status(record.id),
            }
            for record in store.runs()
        ]
    if as_json:
        console.print_json(found)
        return
    headers = (
        "run",
        "started",
        "ended",
        "targets",
        "trials",
        "succeeded",
        "failed",
        "cancelled",
        "pending",
        "stopped_by",
    )
    console.print_table(headers, [[_format_value(name, one[name]) for name in headers] for one in found])


def _format_time(seconds: float | None) -> str | None:
    """ISO 8601 in UTC, whole seconds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _format_value(name: str, value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if name == "ended" and value is None:
        return "(not ended)"
    return value
