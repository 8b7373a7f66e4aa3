"""`sweeper accept`: make a run's pictures the baseline, after showing what that changes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.regression.accept import AcceptPlan

_MAX_ROWS = 40  # changes shown; the counts include all


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
    from sweeper.regression.accept import WRITES, plan_acceptance

    names = None if cases is None else [line.strip() for line in cases if line.strip()]
    accept_plan = plan_acceptance(results, baseline, cases=names, run=run_id, **plan_options)
    if accept_plan.message:
        console.print_status(accept_plan.message)
    changes = [change for change in accept_plan.changes if change.kind in WRITES]
    if not as_json:
        _show(accept_plan, changes)
    for note in accept_plan.notes:
        console.warn(f"not changed: {note}")
    if len(accept_plan.targets) > 1:
        made = ", ".join(f"{count} on {target}" for target, count in accept_plan.targets.items())
        console.warn(f"these pictures were made on several targets ({made}); `--run ID` accepts those of one run")
    if accept_plan.overwrites and not yes:
        if as_json or not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr)):
            raise UsageError(
                f"{accept_plan.baseline.folder}: accepted pictures would be overwritten; add --yes to do so"
            )
        click.confirm("Overwrite them?", abort=True, err=True)
    if accept_plan.writes:
        accept_plan.apply()
    if as_json:
        console.print_json(
            {
                "baseline": str(accept_plan.baseline.folder),
                "counts": accept_plan.counts,
                "targets": accept_plan.targets,
                "changes": [
                    {"case": change.case.name, "kind": change.kind, "reason": change.reason} for change in changes
                ],
            }
        )
    return 0


def _show(accept_plan: AcceptPlan, changes: list[Any]) -> None:
    if changes:
        console.print_table(
            ("case", "change", "why"),
            [(change.case.name, change.kind, change.reason) for change in changes[:_MAX_ROWS]],
        )
        if len(changes) > _MAX_ROWS:
            console.print_line(f"... and {len(changes) - _MAX_ROWS} more")
        console.print_line()
    counts = ", ".join(f"{count} {kind}" for kind, count in accept_plan.counts.items()) or "no pictures"
    console.print_line(f"{accept_plan.baseline.folder}: {counts}")
