"""`sweeper costs`: show what the runs of results folders cost, by target, day, node class and axis value."""

from __future__ import annotations

from pathlib import Path

import click

from sweeper.cli import console, options
from sweeper.cli.options import complete_from, format_examples, split_names
from sweeper.errors import UsageError
from sweeper.tables.charge_rows import find_costs, format_csv


@click.command(
    epilog=format_examples(
        "sweeper costs experiments/quickstart.yaml --by prompt",
        "sweeper costs results/* --csv costs.csv",
    )
)
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RESULTS...")
@click.option("--by", multiple=True, metavar="AXIS,...", shell_complete=complete_from("columns"),
              help="Also show what each value of this axis or slot cost.")  # fmt: skip
@click.option("--csv", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE|-",
              help="Write each charge as a row of a CSV file.")  # fmt: skip
@options.as_json
def command(results: tuple[Path, ...], *, by: tuple[str, ...], csv: str | None, as_json: bool) -> None:
    """Show what all runs of results folders cost, and how much of it paid for the results in their tables.

    Each of RESULTS is a results folder, or an experiment file (for its default folder).
    """
    if as_json and csv == "-":
        raise UsageError("--json and --csv - both write to stdout; give one")
    answer = find_costs(results, split_names(by) if by else None)
    if csv is not None:
        console.write_lines(format_csv(answer.rows, split_names(by)), csv)
        if csv != "-":
            console.print_status(f"wrote {len(answer.rows)} rows to {csv}")
    console.print_answer(answer, as_json=as_json, on_stderr=csv == "-")
