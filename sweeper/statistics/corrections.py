"""The level of all claims, and the correction of p-values for their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.05  # the chance of any false claim in a family


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family, adjusted by Holm's method (Scandinavian Journal of Statistics 6, 1979, 65-70).

    The chance of any false alarm in the family is then at most the level to which an adjusted p-value is compared.
    (statsmodels' `multipletests` does the same, but takes a second to import and collects all garbage at each call.)
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, (p, index) in enumerate(sorted((p, index) for index, p in enumerate(p_values))):
        adjusted[index] = highest = max(highest, min(1.0, p * (len(p_values) - rank)))
    return adjusted
