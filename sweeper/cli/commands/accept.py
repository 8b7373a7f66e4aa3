"""`sweeper accept`: make a run's pictures the baseline, after showing what that changes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError


@click.command(
    epilog=format_examples(
        "sweeper accept experiments/quickstart.yaml",
        'sweeper accept experiments/results/quickstart-check --where "steps > 4" --yes',
    )
)
@options.results
@options.baseline
@options.selection
@click.option("--cases", type=click.File(encoding="utf-8"), metavar="FILE",
              help="Accept only the cases named in this file, one per line; -: stdin.")  # fmt: skip
@click.option("--new-only", is_flag=True, help="Accept only cases that have no accepted picture yet.")
@click.option("--add", is_flag=True, help="If a case changed, accept its new picture beside the accepted ones.")
@options.run_id
@click.option("-y", "--yes", is_flag=True, help="Overwrite and remove without asking.")
@options.as_json
def command(
    results: Path, *, baseline: Path | None, cases: Any, run_id: str | None, yes: bool, as_json: bool,
    **plan_options: Any,
) -> int:  # fmt: skip
    """Accept the pictures of a run as the baseline that `sweeper check` compares later runs with.

    Shows the changes first. Accepted pictures are overwritten only if you agree: on a terminal the command asks,
    elsewhere it needs --yes.
    """
    from sweeper.regression.accept import plan_acceptance

    names = None if cases is None else [line.strip() for line in cases if line.strip()]
    accept_plan = plan_acceptance(results, baseline, cases=names, run=run_id, **plan_options)
    if accept_plan.message:
        console.print_status(accept_plan.message)
    parts = tuple(accept_plan.parts())
    if not as_json:
        console.print_parts(parts)
    console.print_warnings(parts)
    if accept_plan.overwrites and not yes:
        if as_json or not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr)):
            raise UsageError(
                f"{accept_plan.baseline.folder}: accepted pictures would be overwritten; add --yes to do so"
            )
        click.confirm("Overwrite them?", abort=True, err=True)
    accept_plan.apply()
    if as_json:
        console.print_json(accept_plan)
    return 0
