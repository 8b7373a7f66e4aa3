"""`sweeper runs`: list the runs of a results folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder


@click.command(
    epilog=format_examples(
        "sweeper runs experiments/quickstart.yaml",
        "sweeper results experiments/quickstart.yaml --run 1",
    )
)
@options.results
@options.as_json
def command(results: Path, *, as_json: bool) -> None:
    """List the runs of a results folder, oldest first."""
    with Store.open(find_results_folder(results), readonly=True) as store:
        runs = [
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
                "search": store.layout(record.id).search is not None,
            }
            for record in store.runs()
        ]
    if as_json:
        console.print_json(runs)
        return
    counts = ("trials", "succeeded", "failed", "cancelled", "pending")
    kind = ("search",) if any(run["search"] for run in runs) else ()
    headers = ("run", "started", "ended", "targets", *counts, "stopped_by", *kind)
    console.print_table(headers, [[_format_value(name, run[name]) for name in headers] for run in runs])


def _format_time(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, in whole seconds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _format_value(name: str, value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else ""
    if name == "ended" and value is None:
        return "(not ended)"
    return value
