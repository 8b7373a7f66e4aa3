"""`sweeper compare`: two runs, case by case and axis by axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import examples

if TYPE_CHECKING:
    from sweeper.regression.by_axis import AxisValue
    from sweeper.regression.cases import Observed
    from sweeper.regression.compare_runs import Difference


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
    """Compare the pictures of two runs: which cases are new, gone, the same, changed, and which values of which axis
    changed most. A case with a file that is absent or cannot be read is not compared. Exit code 1 unless all are the
    same.

    RUN is a results folder or an experiment file (its default folder), with @ID for another run than the latest.
    """
    from sweeper.regression.by_axis import by_axis  # noqa: PLC0415 - each command imports what it uses
    from sweeper.regression.compare_runs import STATES, compare_runs  # noqa: PLC0415
    from sweeper.regression.comparison import NOT_COMPARED  # noqa: PLC0415

    found = compare_runs(*_both(before, after))
    counts = Counter(one.state for one in found)
    axes = by_axis(found)
    if as_json:
        console.out_json(
            {
                "counts": {state: counts[state] for state in STATES},
                "axes": [_axis_json(one) for one in axes],
                "cases": [
                    {"case": one.case.name, "state": one.state, "reason": one.reason, "metrics": _finite(one.metrics)}
                    for one in found
                ],
            }
        )
    else:
        _print(found, axes)
        told = (state for state in STATES if counts[state] or state != NOT_COMPARED)  # which is seldom
        console.out(", ".join(f"{counts[state]} {state}" for state in told))
    return OK if counts["same"] == len(found) and found else FAILED


def _print(found: Sequence[Difference], axes: Sequence[AxisValue]) -> None:
    rows = [(one.case.name, one.state, one.reason) for one in found if one.state != "same"]
    if not rows:
        return
    console.table(("case", "state", "why"), rows)
    console.out()
    if axes:
        labels = Counter((one.axis, one.label) for one in axes)
        console.table(
            ("axis", "value", "cases", "changed", "new", "gone", "mae of 255"),
            [_axis_row(one, twice=labels[one.axis, one.label] > 1) for one in axes],
        )
        console.out()
    from sweeper.regression.by_axis import confined  # noqa: PLC0415 - as above

    changed = sum(one.state == "changed" for one in found)
    for one in confined(axes, changed):
        console.out(f"every changed case has {one.axis} = {console.cell_text(_shown(one))}")


def _axis_row(one: AxisValue, *, twice: bool) -> tuple[Any, ...]:
    counts = (one.counts.get(state, 0) for state in ("changed", "new", "gone"))
    return one.axis, _shown(one, twice=twice), one.cases, *counts, None if one.mae is None else float(f"{one.mae:.3g}")


def _shown(one: AxisValue, *, twice: bool = False) -> Any:
    """The label, and the value behind it where the two runs mean different things by it."""
    if one.label is None:
        return one.value
    return f"{one.label} ({console.cell_text(one.value)})" if twice else one.label


def _axis_json(one: AxisValue) -> dict[str, Any]:
    from sweeper.regression.compare_runs import STATES  # noqa: PLC0415 - as above

    label = {} if one.label is None else {"label": one.label}
    counts = {state: one.counts.get(state, 0) for state in STATES}
    return {"axis": one.axis, "value": one.value, **label, "cases": one.cases, **counts, "mae": one.mae}


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity, and the PSNR of equal pictures is one."""
    return {name: None if value == float("inf") else value for name, value in metrics.items()}


def _both(before: str, after: str) -> tuple[Observed, Observed]:
    """Both runs. Raises with what is wrong with either of them."""
    from sweeper.errors import ResultsError  # noqa: PLC0415 - as above

    found, wrong = [], []
    for name in (before, after):
        try:
            found.append(_observed(name))
        except ResultsError as error:
            wrong.append(str(error))
    if wrong:
        raise ResultsError("\n".join(dict.fromkeys(wrong)))
    return found[0], found[1]


def _observed(name: str) -> Observed:
    from sweeper.regression.cases import observe  # noqa: PLC0415 - as above
    from sweeper.tables.dataframe import results_folder  # noqa: PLC0415

    folder, at, run = name.rpartition("@")
    if not at or Path(name).exists():
        folder, run = name, ""
    return observe(results_folder(folder), run or None)
