"""`sweeper compare`: two runs, case by case and axis by axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, options
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import format_examples

if TYPE_CHECKING:
    from sweeper.regression.by_axis import AxisValue
    from sweeper.regression.cases import RunCases
    from sweeper.regression.compare_runs import CaseDifference


@click.command(
    epilog=format_examples(
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
    from sweeper.regression.by_axis import group_by_axis  # noqa: PLC0415 - each command imports what it uses
    from sweeper.regression.compare_runs import STATES, compare_runs  # noqa: PLC0415
    from sweeper.regression.comparison import NOT_COMPARED  # noqa: PLC0415

    found = compare_runs(*_read_runs(before, after))
    counts = Counter(one.state for one in found)
    axes = group_by_axis(found)
    if as_json:
        console.print_json(
            {
                "counts": {state: counts[state] for state in STATES},
                "axes": [_axis_to_json(one) for one in axes],
                "cases": [
                    {
                        "case": one.case.name,
                        "state": one.state,
                        "reason": one.reason,
                        "metrics": _to_json_numbers(one.metrics),
                    }
                    for one in found
                ],
            }
        )
    else:
        _print_differences(found, axes)
        told = (state for state in STATES if counts[state] or state != NOT_COMPARED)  # which is seldom
        console.print_line(", ".join(f"{counts[state]} {state}" for state in told))
    return OK if counts["same"] == len(found) and found else FAILED


def _print_differences(differences: Sequence[CaseDifference], axes: Sequence[AxisValue]) -> None:
    rows = [(one.case.name, one.state, one.reason) for one in differences if one.state != "same"]
    if not rows:
        return
    console.print_table(("case", "state", "why"), rows)
    console.print_line()
    if axes:
        labels = Counter((one.axis, one.label) for one in axes)
        console.print_table(
            ("axis", "value", "cases", "changed", "new", "gone", "mae of 255"),
            [_make_axis_row(one, ambiguous=labels[one.axis, one.label] > 1) for one in axes],
        )
        console.print_line()
    from sweeper.regression.by_axis import find_suspect_values  # noqa: PLC0415 - as above

    changed = sum(one.state == "changed" for one in differences)
    for one in find_suspect_values(axes, changed):
        console.print_line(f"every changed case has {one.axis} = {console.format_cell(_format_axis_value(one))}")


def _make_axis_row(axis_value: AxisValue, *, ambiguous: bool) -> tuple[Any, ...]:
    counts = (axis_value.counts.get(state, 0) for state in ("changed", "new", "gone"))
    return (
        axis_value.axis,
        _format_axis_value(axis_value, ambiguous=ambiguous),
        axis_value.cases,
        *counts,
        None if axis_value.mae is None else float(f"{axis_value.mae:.3g}"),
    )


def _format_axis_value(axis_value: AxisValue, *, ambiguous: bool = False) -> Any:
    """The label, and the value behind it where the two runs mean different things by it."""
    if axis_value.label is None:
        return axis_value.value
    return f"{axis_value.label} ({console.format_cell(axis_value.value)})" if ambiguous else axis_value.label


def _axis_to_json(axis_value: AxisValue) -> dict[str, Any]:
    from sweeper.regression.compare_runs import STATES  # noqa: PLC0415 - as above

    label = {} if axis_value.label is None else {"label": axis_value.label}
    counts = {state: axis_value.counts.get(state, 0) for state in STATES}
    return {
        "axis": axis_value.axis,
        "value": axis_value.value,
        **label,
        "cases": axis_value.cases,
        **counts,
        "mae": axis_value.mae,
    }


def _to_json_numbers(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity, and the PSNR of equal pictures is one."""
    return {name: None if value == float("inf") else value for name, value in metrics.items()}


def _read_runs(before: str, after: str) -> tuple[RunCases, RunCases]:
    """Both runs. Raises with what is wrong with either of them."""
    from sweeper.errors import ResultsError  # noqa: PLC0415 - as above

    found, wrong = [], []
    for name in (before, after):
        try:
            found.append(_read_named_run(name))
        except ResultsError as error:
            wrong.append(str(error))
    if wrong:
        raise ResultsError("\n".join(dict.fromkeys(wrong)))
    return found[0], found[1]


def _read_named_run(name: str) -> RunCases:
    from sweeper.regression.cases import read_run  # noqa: PLC0415 - as above
    from sweeper.tables.dataframe import find_results_folder  # noqa: PLC0415

    folder, at, run = name.rpartition("@")
    if not at or Path(name).exists():
        folder, run = name, ""
    return read_run(find_results_folder(folder), run or None)
