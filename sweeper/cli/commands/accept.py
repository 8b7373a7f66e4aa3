"""`sweeper accept`: a run's pictures become the baseline, after showing what that changes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options
from sweeper.cli.options import examples
from sweeper.cli.table_query import true_for_none
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.regression.accept import Acceptance

_SHOWN = 40  # changes on the terminal; the counts tell the rest


@click.command(
    epilog=examples(
        "sweeper accept results/quickstart",
        'sweeper accept results/quickstart-check --where "steps > 4" --yes',
    )
)
@options.results
@click.option(
    "--baseline", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Folder of the baseline. [default: baselines/NAME beside the experiment]",
)  # fmt: skip
@click.option("--where", metavar="EXPR", help='Accept only the trials for which this is true, such as "steps > 4".')
@click.option("--cases", type=click.File(encoding="utf-8"), metavar="FILE",
              help="Accept only the cases named in this file, one a line; -: stdin.")  # fmt: skip
@click.option("--new-only", is_flag=True, help="Accept only cases that have no picture yet.")
@click.option("--add", is_flag=True, help="Where a case changed, keep its pictures and accept this one beside them.")
@options.run_id
@click.option("-y", "--yes", is_flag=True, help="Overwrite and remove without asking.")
@options.as_json
def command(
    results: Path, *, baseline: Path | None, cases: Any, run_id: str | None, yes: bool, as_json: bool, **choice: Any
) -> int:
    """Accept the pictures of a run as the baseline that `sweeper check` holds later runs to.

    Shows what changes first. Accepted pictures give way only when you say so: on a terminal it asks, elsewhere it needs
    --yes.
    """
    from sweeper.regression.accept import WRITES, acceptance  # noqa: PLC0415 - each command imports what it uses

    names = None if cases is None else [line.strip() for line in cases if line.strip()]
    found = acceptance(results, baseline, cases=names, run=run_id, **choice)
    where, trials = choice["where"], len(found.observed.rows)
    if where is not None and trials and not found.observed.chosen(where):
        console.say(true_for_none(where, trials))
    changes = [change for change in found.changes if change.kind in WRITES]
    if not as_json:
        _show(found, changes)
    for note in found.notes:
        console.warn(f"kept as it was: {note}")
    if found.overwrites and not yes:
        if as_json or not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr)):
            raise UsageError(f"{found.baseline.folder}: accepted pictures would be overwritten; --yes does it")
        click.confirm("Overwrite them?", abort=True, err=True)
    if found.writes:
        found.apply()
    if as_json:
        console.out_json(
            {
                "baseline": str(found.baseline.folder),
                "counts": found.counts,
                "changes": [{"case": one.case.name, "kind": one.kind, "reason": one.reason} for one in changes],
            }
        )
    return 0


def _show(found: Acceptance, changes: list[Any]) -> None:
    if changes:
        console.table(("case", "change", "why"), [(one.case.name, one.kind, one.reason) for one in changes[:_SHOWN]])
        if len(changes) > _SHOWN:
            console.out(f"... and {len(changes) - _SHOWN} more")
        console.out()
    counts = ", ".join(f"{count} {kind}" for kind, count in found.counts.items()) or "no pictures"
    console.out(f"{found.baseline.folder}: {counts}")
