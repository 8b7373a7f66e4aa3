"""Corrections for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from sweeper.statistics.extra_packages import load_stats_package


def adjust_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of one family, adjusted by Holm's method (Scandinavian Journal of Statistics 6, 1979, 65-70).

    The chance of any false alarm in the family is then at most the level to which an adjusted p-value is compared. A
    comparison without a p-value is not part of the family.
    """
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    adjusted = iter(load_stats_package("statsmodels.stats.multitest").multipletests(known, method="holm")[1].tolist())
    return [None if p is None else next(adjusted) for p in p_values]
