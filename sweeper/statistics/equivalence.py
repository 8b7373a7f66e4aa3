"""Decide whether a mean difference is larger than chance, smaller than a margin, or neither yet.

Two null hypotheses are tested. "The difference is 0" by the t-test of `paired`. "The difference is the margin or more,
either way" by two one-sided t-tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987, 657-680):
if both are rejected at 5 %, the true difference is within the margin with 95 % confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeper.statistics.corrections import LEVEL, adjust_p_values
from sweeper.statistics.extra_packages import load_stats_package
from sweeper.statistics.factorial import POWER
from sweeper.statistics.paired import MeanDifference

EQUIVALENT, HIGHER, LOWER, UNDECIDED = "equivalent", "higher", "lower", "undecided"
_MAX_GROWTH: Final = 100  # times the present pairs: more are not proposed


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known of one difference.

    `p_difference` and `p_equivalence` are those of the two null hypotheses, corrected by Holm for all differences of
    the call; None if a single pair is all there is, or no pair differs. `more_pairs`: how many more pairs would
    probably decide; None if it is decided, or if that cannot be said.
    """

    word: str
    p_difference: float | None
    p_equivalence: float | None
    more_pairs: int | None = None


def decide_all(differences: Sequence[MeanDifference], margins: Sequence[float]) -> list[Decision]:
    """Decide each difference, in the order given. A margin of 0 cannot show equivalence.

    The chance of any false "higher" or "lower" among them is at most 5 %, and so is that of any false "equivalent". A
    difference that is larger than chance but within the margin is equivalent.
    """
    pairs = list(zip(differences, margins, strict=True))
    different = adjust_p_values([_test_zero(difference) for difference in differences])
    within = adjust_p_values([_test_margin(difference, margin) for difference, margin in pairs])
    decisions = []
    for (difference, margin), p_different, p_within in zip(pairs, different, within, strict=True):
        word, more = UNDECIDED, None
        if p_within is not None and p_within <= LEVEL:
            word = EQUIVALENT
        elif p_different is not None and p_different <= LEVEL:
            word = HIGHER if difference.mean > 0 else LOWER
        else:
            more = _count_more_pairs(difference, margin, LEVEL / len(pairs))
        decisions.append(Decision(word, p_different, p_within, more))
    return decisions


def _test_zero(difference: MeanDifference) -> float | None:
    """The p-value of "the difference is 0"; of the sign test if all pairs differ by the same, as t needs a spread."""
    if not difference.parts or not difference.mean:
        return None
    return difference.p if difference.standard_error else 2 * 0.5**difference.pairs


def _test_margin(difference: MeanDifference, margin: float) -> float | None:
    """The larger p-value of the two one-sided tests; None without a spread, from which nothing follows."""
    if not difference.parts or not difference.standard_error:
        return None
    stdtr: Any = load_stats_package("scipy.special").stdtr
    return float(stdtr(difference.df, -(margin - abs(difference.mean)) / difference.standard_error))


def _count_more_pairs(difference: MeanDifference, margin: float, alpha: float) -> int | None:
    """How many more pairs decide with 80 % power, if the difference is as large as it looks.

    New pairs are assumed to have new seeds and prompts in the same proportion.
    """
    if not difference.parts or not difference.standard_error or not difference.pairs:
        return None
    special: Any = load_stats_package("scipy.special")

    def is_enough(pairs: int) -> bool:
        growth = pairs / difference.pairs
        df, error = (difference.df + 1) * growth - 1, difference.standard_error / math.sqrt(growth)
        bound = float(special.stdtrit(df, 1 - alpha / 2))
        if 1 - float(special.nctdtr(df, abs(difference.mean) / error, bound)) >= POWER:
            return True
        bound = float(special.stdtrit(df, 1 - alpha))
        misses = sum(
            float(special.nctdtr(df, (margin + sign * abs(difference.mean)) / error, bound)) for sign in (1, -1)
        )
        return abs(difference.mean) < margin and 1 - misses >= POWER

    low, high = difference.pairs, difference.pairs * _MAX_GROWTH
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high - difference.pairs
