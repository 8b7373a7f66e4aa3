"""Corrections for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.05  # a p-value counts if it is at most this after the correction of its family


def adjust_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of one family, adjusted by Holm's method (Scandinavian Journal of Statistics 6, 1979, 65-70).

    The chance of any false alarm in the family is then at most the level to which an adjusted p-value is compared. A
    comparison without a p-value is not part of the family. (statsmodels' `multipletests` does the same, but takes a
    second to import and collects all garbage at each call.)
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        adjusted[index] = highest = max(highest, min(1.0, p * (len(known) - rank)))
    return adjusted


def adjust_in_steps(
    axes: Sequence[float | None], comparisons: Sequence[Sequence[float | None]]
) -> tuple[list[float | None], list[list[float | None]]]:
    """Adjust p-values in two steps: those of whole axes, then those of the comparisons within each axis.

    `axes` are the p-values of the F tests of the axes, None where there is no such test; the smallest adjusted one of
    the axis' comparisons takes its place. The first step is Holm's method over the axes. In the second, over the
    comparisons of one axis, no p-value becomes smaller than that of its axis. So if no axis has any effect, the chance
    of any false alarm is at most the level, and an axis that has one does not pay for the comparisons of the others.
    """
    within = [adjust_p_values(found) for found in comparisons]
    tests = [
        min((p for p in found if p is not None), default=None) if axis is None else axis
        for axis, found in zip(axes, within, strict=True)
    ]
    gates = adjust_p_values(tests)
    return gates, [
        [None if p is None or gate is None else max(p, gate) for p in found]
        for gate, found in zip(gates, within, strict=True)
    ]
