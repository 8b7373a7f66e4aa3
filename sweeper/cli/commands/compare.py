"""`sweeper compare`: compare two runs case by case and axis by axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sweeper.answers.cells import format_cell
from sweeper.cli import console
from sweeper.cli import options as shared_options
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import format_examples
from sweeper.cli.verdict_options import VerdictOptions, run_verdict, verdict_options
from sweeper.errors import ResultsError
from sweeper.tables.results_folder import find_results_folder

if TYPE_CHECKING:
    from sweeper.regression.by_axis import AxisValue
    from sweeper.regression.cases import RunCases
    from sweeper.regression.compare_runs import CaseDifference
    from sweeper.regression.verdict_pairs import SideTrials

T = TypeVar("T")


@click.command(
    epilog=format_examples(
        "sweeper compare experiments/results/quickstart experiments/results/quickstart-check",
        "sweeper compare experiments/results/quickstart@1 results/quickstart@2",
        "sweeper compare results/old results/new --verdict --maximize sharpness",
        "sweeper compare experiments/quickstart.yaml --axis steps=6,20 --verdict --html verdict.html",
    )
)
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN", required=False)
@verdict_options
@shared_options.as_json
def command(before: str, after: str | None, *, options: VerdictOptions, as_json: bool) -> int:
    """Compare the pictures of two runs: which cases are new, gone, same or changed, and which axis values changed most.

    RUN is a results folder or an experiment file (its default folder). Add @ID for another run than the latest. A case
    with a missing or unreadable file is not compared. Exit code 1 unless all cases are the same.

    With --verdict: compare the metrics of matched trials, and say whether the second run, or the second value of an
    axis, is better, worse, equivalent or undecided. Exit code 1 unless every metric is better or equivalent.
    """
    options.check(1 if after is None else 2)
    names = [before] if after is None else [before, after]
    if options.verdict:
        return run_verdict(_read_sides(names), options, as_json=as_json)
    from sweeper.regression import by_axis, compare_runs
    from sweeper.regression.comparison import NOT_COMPARED

    states = compare_runs.STATES
    differences = compare_runs.compare_runs(*_read_runs(names))
    counts = Counter(difference.state for difference in differences)
    axes = by_axis.group_by_axis(differences)
    if as_json:
        console.print_json(
            {
                "counts": {state: counts[state] for state in states},
                "axes": [_axis_to_json(axis_value, states) for axis_value in axes],
                "cases": [
                    {
                        "case": difference.case.name,
                        "state": difference.state,
                        "reason": difference.reason,
                        "metrics": {name: console.to_json_number(value) for name, value in difference.metrics.items()},
                    }
                    for difference in differences
                ],
            }
        )
    else:
        _print_differences(differences, axes, by_axis.find_suspect_values(axes, counts["changed"]))
        shown = (state for state in states if counts[state] or state != NOT_COMPARED)  # 0 not compared is no news
        console.print_line(", ".join(f"{counts[state]} {state}" for state in shown))
    return OK if differences and counts["same"] == len(differences) else FAILED


def _print_differences(
    differences: Sequence[CaseDifference], axes: Sequence[AxisValue], suspects: Iterable[AxisValue]
) -> None:
    rows = [
        (difference.case.name, difference.state, difference.reason)
        for difference in differences
        if difference.state != "same"
    ]
    if not rows:
        return
    console.print_table(("case", "state", "why"), rows)
    console.print_line()
    if axes:
        labels = Counter((axis_value.axis, axis_value.label) for axis_value in axes)
        console.print_table(
            ("axis", "value", "cases", "changed", "new", "gone", "mae of 255"),
            [
                _make_axis_row(axis_value, ambiguous=labels[axis_value.axis, axis_value.label] > 1)
                for axis_value in axes
            ],
        )
        console.print_line()
    for axis_value in suspects:
        console.print_line(f"every changed case has {axis_value.axis} = {format_cell(_format_axis_value(axis_value))}")


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
    """The label of a value, or the value. `ambiguous`: the two runs use this label for different values."""
    if axis_value.label is None:
        return axis_value.value
    return f"{axis_value.label} ({format_cell(axis_value.value)})" if ambiguous else axis_value.label


def _axis_to_json(axis_value: AxisValue, states: Sequence[str]) -> dict[str, Any]:
    label = {} if axis_value.label is None else {"label": axis_value.label}
    counts = {state: axis_value.counts.get(state, 0) for state in states}
    return {
        "axis": axis_value.axis,
        "value": axis_value.value,
        **label,
        "cases": axis_value.cases,
        **counts,
        "mae": axis_value.mae,
    }


def _read_runs(names: Sequence[str]) -> list[RunCases]:
    """The cases of the runs. Raises ResultsError with the problems of all."""
    from sweeper.regression.cases import read_run

    return _read_all(names, lambda folder, run, _: read_run(folder, run))


def _read_sides(names: Sequence[str]) -> list[SideTrials]:
    """The trials of the runs, for a verdict. Raises ResultsError with the problems of all."""
    from sweeper.regression.verdict_pairs import read_side

    short = [Path(name).stem for name in names]
    labels = dict(zip(names, short if len(set(short)) == len(names) else names, strict=True))
    return _read_all(names, lambda folder, run, name: read_side(folder, run, labels[name]))


def _read_all(names: Sequence[str], read: Callable[[Path, str | None, str], T]) -> list[T]:
    found, problems = [], []
    for name in names:
        folder, separator, run_id = name.rpartition("@")
        if not separator or Path(name).exists():
            folder, run_id = name, ""
        try:
            found.append(read(find_results_folder(folder), run_id or None, name))
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        raise ResultsError("\n".join(dict.fromkeys(problems)))
    return found
