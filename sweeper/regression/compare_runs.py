"""Compare two runs: which cases are new, gone, changed or the same, and which values of an axis they have."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Final

from sweeper.answers.cells import format_cell
from sweeper.answers.parts import Line, Part, Table
from sweeper.answers.render import IF_GIVEN, json_keys
from sweeper.errors import ImageError
from sweeper.regression.cases import Case, OutputFile, RunCases
from sweeper.regression.comparison import NOT_COMPARED
from sweeper.regression.match_files import distance, map_parallel, match_files

STATES: Final = ("changed", NOT_COMPARED, "gone", "new", "same")


@dataclass(frozen=True, slots=True)
class CaseDifference:
    """One case in two runs. In JSON, `case` is its name.

    `state` is `changed`, `gone` (only in the first run), `new` (only in the second), `same`, or `not compared` if a
    file is missing or unreadable, with the `reason`. `metrics` are the measures, if there was anything to measure.
    """

    case: Case = field(metadata=json_keys(case=attrgetter("name")))
    state: str
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AxisValue:
    """The cases of both runs with one value of an axis. `label`: its label, if it has one.

    `counts` are by state; in JSON, each state is a field, and `cases` is their sum. `mae` is the mean absolute error,
    0-255, over the changed cases that could be measured; None if there are none.
    """

    axis: str
    value: Any
    label: str | None = field(metadata=IF_GIVEN)
    counts: Counter[str] = field(
        metadata=json_keys(cases=lambda counts: counts.total(), **{state: itemgetter(state) for state in STATES})
    )
    mae: float | None

    def rank(self) -> tuple[float, float]:
        """The value with most changes comes first."""
        return self.counts["same"] / self.counts.total(), -(self.mae or 0.0)

    def format(self, *, ambiguous: bool = False) -> Any:
        """The label, or the value. `ambiguous`: the two runs use this label for different values."""
        if self.label is None:
            return self.value
        return f"{self.label} ({format_cell(self.value)})" if ambiguous else self.label


@dataclass(frozen=True, slots=True)
class RunDifferences:
    """The answer of `sweeper compare`: how many cases have each state, the axes with several values, and the cases.

    The axis value with most changes comes first, and so does the case that changed most.
    """

    counts: dict[str, int]
    axes: tuple[AxisValue, ...]
    cases: tuple[CaseDifference, ...]

    @property
    def ok(self) -> bool:
        """Whether there are cases, and all are the same."""
        return bool(self.cases) and self.counts["same"] == len(self.cases)

    def parts(self) -> Iterator[Part]:
        """The cases that are not the same, the axes, what all changed cases share, and the counts."""
        rows = [(item.case.name, item.state, item.reason) for item in self.cases if item.state != "same"]
        if rows:
            yield Table(("case", "state", "why"), rows)
            if self.axes:
                yield self._tabulate_axes()
            changed = self.counts["changed"]
            for value in self.axes:
                if changed and value.counts["changed"] == changed:
                    yield Line(f"every changed case has {value.axis} = {format_cell(value.format())}")
        counts = self.counts.items()  # 0 not compared is no news
        yield Line(", ".join(f"{count} {state}" for state, count in counts if count or state != NOT_COMPARED))

    def _tabulate_axes(self) -> Table:
        labels = Counter((value.axis, value.label) for value in self.axes)
        rows = [
            (
                *(value.axis, value.format(ambiguous=labels[value.axis, value.label] > 1), value.counts.total()),
                *(value.counts[state] for state in ("changed", "new", "gone")),
                None if value.mae is None else float(f"{value.mae:.3g}"),
            )
            for value in self.axes
        ]
        return Table(("axis", "value", "cases", "changed", "new", "gone", "mae of 255"), rows)


def compare_runs(old_run: RunCases, new_run: RunCases) -> RunDifferences:
    """Compare every case of two runs."""
    before, after = old_run.outputs, new_run.outputs
    differing = [key for key in before if key in after and before[key].sha256 != after[key].sha256]
    old_run.fetch(before[key] for key in differing)
    new_run.fetch(after[key] for key in differing)
    pairs = [(before[key], after[key]) for key in before if key in after]
    cases = map_parallel(lambda pair: _compare_case(old_run, new_run, *pair), pairs)
    cases += [CaseDifference(old.case, "gone") for key, old in before.items() if key not in after]
    cases += [CaseDifference(new.case, "new") for key, new in after.items() if key not in before]
    cases.sort(key=lambda item: (STATES.index(item.state), -distance(item.metrics)))
    counts = Counter(item.state for item in cases)
    return RunDifferences({state: counts[state] for state in STATES}, _group_by_axis(cases), tuple(cases))


def _compare_case(old_run: RunCases, new_run: RunCases, before: OutputFile, after: OutputFile) -> CaseDifference:
    if before.sha256 == after.sha256 and before.url and after.url:  # neither was downloaded, and neither needs to be
        return CaseDifference(before.case, "same")
    missing = [text for text in (old_run.describe_missing(before), new_run.describe_missing(after)) if text]
    if missing:
        return CaseDifference(before.case, NOT_COMPARED, "; ".join(missing))
    try:
        match = match_files(before.path, after.path, {})
    except ImageError as error:
        return CaseDifference(before.case, NOT_COMPARED, str(error))
    return CaseDifference(before.case, "same" if match.passes else "changed", match.reason, dict(match.metrics))


def _group_by_axis(differences: Iterable[CaseDifference]) -> tuple[AxisValue, ...]:
    """Group by axis and value, without axes that have a single value."""
    groups: dict[str, dict[str, list[CaseDifference]]] = {}
    for difference in differences:
        for axis, value in difference.case.cells.items():
            if not axis.endswith(".label"):
                groups.setdefault(axis, {}).setdefault(json.dumps(value, sort_keys=True), []).append(difference)
    return tuple(
        value
        for axis, values in groups.items()
        if len(values) > 1
        for value in sorted((_summarize(axis, members) for members in values.values()), key=AxisValue.rank)
    )


def _summarize(axis: str, members: Sequence[CaseDifference]) -> AxisValue:
    cells = members[-1].case.cells
    errors = [item.metrics["mae"] for item in members if item.state == "changed" and "mae" in item.metrics]
    mean = math.fsum(errors) / len(errors) if errors else None
    return AxisValue(axis, cells[axis], cells.get(f"{axis}.label"), Counter(item.state for item in members), mean)
