"""The answer of `sweeper effects` as values, and what the analyses of sweeps and of searches have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sweeper.statistics.corrections import LEVEL
from sweeper.statistics.factorial import ValueComparison
from sweeper.statistics.paired import Numbers
from sweeper.statistics.variance_shares import TermShare, VarianceShares
from sweeper.tables.effect_axes import EffectAxes, EffectAxis

MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
IDLE_SHARE: Final = 0.05  # of the variance: an axis that surely explains less may be left at one value
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite


@dataclass(frozen=True, slots=True)
class Trend:
    """Where the fitted curve of an axis of numbers is best; highest, if the metric has no direction.

    `word` is one of those of `statistics.response_curve`, `value` the index of the value there, and `low` and `high`
    those of the lowest and the highest number.
    """

    word: str
    value: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """The effect of one axis on one metric.

    `p` is the p-value of the whole axis, and `comparisons` are (comparison, p-value), all corrected as
    `adjust_in_steps` does. `share` is None if the trials are too few, `note` says why there are no comparisons.
    `highest` are the value with the highest mean and those that are not seen to be lower, if these are at most half of
    all; `lowest` likewise. `needed`: (replicate axis, how many more of its values would settle the largest difference).

    In the results of a search, `trend` says where an axis of numbers is best, and `whole` is the share of the axis
    alone and in pairs with others, beside all that is explained without it.
    """

    axis: EffectAxis
    share: TermShare | None
    p: float | None
    comparisons: tuple[tuple[ValueComparison, float | None], ...]
    highest: tuple[int, ...] = ()
    lowest: tuple[int, ...] = ()
    needed: tuple[str, int] | None = None
    note: str = ""
    trend: Trend | None = None
    whole: TermShare | None = None

    @property
    def is_seen(self) -> bool:
        """Whether the axis has an effect; `differs` may still be false, if no two of its values are told apart."""
        return self.p is not None and self.p <= LEVEL

    @property
    def differs(self) -> bool:
        return any(p is not None and p <= LEVEL for _, p in self.comparisons)

    @property
    def is_idle(self) -> bool:
        """Whether it is known that the axis hardly matters, neither alone nor in pairs with others."""
        whole = self.whole
        return whole is not None and not self.is_seen and whole.p > LEVEL and whole.high <= IDLE_SHARE


@dataclass(frozen=True, slots=True)
class MetricEffects:
    """The effects on one metric, those of most variance first. `note` says why there are none.

    `interactions` are (two axes, their share, p-value corrected by Holm for all shares of the metric). `rest` is the
    share that no axis explains, `overlap` the one that several axes explain, because trials are missing. `spread` is
    the standard deviation of the numbers, `server_noise` that of repeats of a trial, if there are any. `maximize`: the
    direction of an objective of a search, otherwise None.
    """

    metric: str
    trials: int
    effects: tuple[AxisEffect, ...] = ()
    replicates: tuple[tuple[EffectAxis, TermShare], ...] = ()
    interactions: tuple[tuple[EffectAxis, EffectAxis, TermShare, float], ...] = ()
    rest: float | None = None
    overlap: float = 0.0
    spread: float = 0.0
    server_noise: float | None = None
    note: str = ""
    maximize: bool | None = None


@dataclass(frozen=True, slots=True)
class EffectsAnswer:
    """The answer to a query. `message` says that `--where` or `--set` select nothing.

    `points` is the number of points of a search, None in the results of a sweep.
    """

    folder: Path
    trials: int
    axes: EffectAxes
    metrics: tuple[MetricEffects, ...]
    message: str = ""
    points: int | None = None


def explain_no_analysis(cells: Sequence[Any], values: Numbers) -> str:
    if not len(values):
        other = next((cell for cell in cells if cell is not None), None)
        return "no successful trial has a value" if other is None else f"holds no numbers, but for example '{other}'"
    if len(values) == 1:
        return "only one trial has a number, and a comparison needs two"
    if float(np.ptp(values)) == 0:
        return f"is {float(values[0]):g} in all {len(values)} trials, so nothing changes it"
    if not _SMALLEST < float(np.ptp(values)) < 1 / _SMALLEST:
        return f"differs by {float(np.ptp(values)):g}, which is beyond what can be computed"
    return ""


def get_share(shares: VarianceShares | None, term: tuple[int, ...]) -> TermShare | None:
    return None if shares is None else next((one for one in shares.terms if one.term == term), None)


def find_extremes(
    levels: int, comparisons: Sequence[tuple[ValueComparison, float | None]], sign: int
) -> tuple[int, ...]:
    """The values that are not seen to be below the highest one (sign 1), or above the lowest (-1); empty if all are."""
    scores = np.zeros(levels)
    worse: set[tuple[int, int]] = set()
    for comparison, p in comparisons:
        if comparison.other is None:
            continue
        mean = sign * comparison.difference.mean
        scores[[comparison.value, comparison.other]] += (mean, -mean)
        if p is not None and p <= LEVEL:
            worse.add((comparison.other, comparison.value) if mean > 0 else (comparison.value, comparison.other))
    best = int(np.argmax(scores))
    found = tuple(value for value in range(levels) if (value, best) not in worse)
    return found if 2 * len(found) <= levels else ()
