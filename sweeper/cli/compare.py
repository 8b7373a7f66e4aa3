"""`sweeper compare`: two runs, case by case."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.cli import console, options
from sweeper.cli.failure import FAILED, OK
from sweeper.cli.options import examples

if TYPE_CHECKING:
    from sweeper.regression.cases import Observed


@click.command(
    epilog=examples(
        "sweeper compare results/quickstart results/quickstart-check",
        "sweeper compare results/quickstart@1 results/quickstart@2",
    )
)
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN")
@options.as_json
def command(before: str, after: str, *, as_json: bool) -> int:
    """Compare the pictures of two runs: which cases are new, gone, the same, changed. Exit code 1 unless all are the
    same.

    RUN is a results folder or an experiment file (its default folder), with @ID for another run than the latest.
    """
    from sweeper.regression.runs import STATES, compare_runs  # noqa: PLC0415 - each command imports what it uses

    found = compare_runs(_observed(before), _observed(after))
    counts = Counter(one.state for one in found)
    if as_json:
        console.out_json(
            {
                "counts": {state: counts[state] for state in STATES},
                "cases": [
                    {"case": one.case.name, "state": one.state, "reason": one.reason, "metrics": one.metrics}
                    for one in found
                ],
            }
        )
    else:
        rows = [(one.case.name, one.state, one.reason) for one in found if one.state != "same"]
        if rows:
            console.table(("case", "state", "why"), rows)
            console.out()
        console.out(", ".join(f"{counts[state]} {state}" for state in STATES))
    return OK if counts["same"] == len(found) and found else FAILED


def _observed(name: str) -> Observed:
    from sweeper.regression.cases import observe  # noqa: PLC0415 - as above
    from sweeper.table import results_folder  # noqa: PLC0415

    folder, at, run = name.rpartition("@")
    if not at or Path(name).exists():
        folder, run = name, ""
    return observe(results_folder(folder), run or None)
