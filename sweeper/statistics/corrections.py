"""Corrections for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence


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
