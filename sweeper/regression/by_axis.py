"""Summarize by axis how two runs differ: for each value, how many cases changed, appeared or disappeared, how much."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.regression.compare_runs import CaseDifference


@dataclass(frozen=True, slots=True)
class AxisValue:
    """The cases of both runs with one value of an axis.

    `counts` are by state. `mae` is the mean absolute error, 0-255, over the changed cases that could be measured; None
    if there are none.
    """

    axis: str
    value: Any
    label: str | None
    counts: Mapping[str, int]
    mae: float | None

    @property
    def cases(self) -> int:
        return sum(self.counts.values())

    @property
    def changed_share(self) -> float:
        """The share of cases that are not the same, 0-1."""
        return 1.0 - self.counts.get("same", 0) / self.cases


def group_by_axis(differences: Iterable[CaseDifference]) -> tuple[AxisValue, ...]:
    """Group by axis and value, without axes that have a single value. The value with most changes comes first."""
    groups: dict[str, dict[str, list[CaseDifference]]] = {}
    for one in differences:
        for axis, value in one.case.cells.items():
            if not axis.endswith(".label"):
                groups.setdefault(axis, {}).setdefault(json.dumps(value, sort_keys=True), []).append(one)
    return tuple(
        value
        for axis, values in groups.items()
        if len(values) > 1
        for value in sorted((_summarize(axis, members) for members in values.values()), key=_sort_key)
    )


def _summarize(axis: str, members: Sequence[CaseDifference]) -> AxisValue:
    cells = members[-1].case.cells
    errors = [one.metrics["mae"] for one in members if one.state == "changed" and "mae" in one.metrics]
    return AxisValue(
        axis,
        cells[axis],
        cells.get(f"{axis}.label"),
        Counter(one.state for one in members),
        math.fsum(errors) / len(errors) if errors else None,
    )


def _sort_key(value: AxisValue) -> tuple[float, float]:
    return (-value.changed_share, -(value.mae or 0.0))


def find_suspect_values(values: Iterable[AxisValue], changed: int) -> tuple[AxisValue, ...]:
    """The values that all `changed` cases share, one of which is probably the cause."""
    return tuple(value for value in values if changed and value.counts.get("changed", 0) == changed)
