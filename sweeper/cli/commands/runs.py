"""`sweeper runs`: list the runs of a results folder."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.tables.results_folder import list_runs


@click.command(
    epilog=format_examples(
        "sweeper runs experiments/quickstart.yaml", "sweeper results experiments/quickstart.yaml --run 1"
    )
)
@options.results
@options.as_json
def command(results: Path, *, as_json: bool) -> None:
    """List the runs of a results folder, oldest first."""
    console.print_answer(list_runs(results), as_json=as_json)
