"""The effects on a metric as values, and what the analyses of sweeps and of searches have in common.

`effect_words` says them in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from sweeper.answers.render import IF_GIVEN, NOT_IN_JSON, json_keys
from sweeper.statistics.codes import Numbers
from sweeper.statistics.paired import ValueComparison, ValueComparisons, excludes_zero
from sweeper.statistics.variance_shares import AxisShare, VarianceShares, adjust_p_values
from sweeper.tables.effect_axes import EffectAxis

MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
IDLE_SHARE: Final = 0.05  # of the variance: an axis that surely explains less may be left at one value
_IDLE_P: Final = 0.05  # of the F test of the whole share of such an axis, at least
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite


@dataclass(frozen=True, slots=True)
class Trend:
    """Where the fitted curve of an axis of numbers is best; highest, if the metric has no direction.

    `word` is one of those of `statistics.variance_shares`, `value` the value there, and `low` and `high` are the lowest
    and the highest number.
    """

    word: str
    value: str
    low: str = field(metadata=NOT_IN_JSON)
    high: str = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """The effect of one axis on one metric. `note` says why there are no comparisons.

    `differs`: whether two of its values do, or the slope is not 0. `idle`: whether it is known that the axis changes
    hardly anything. `whole_share` is what it explains alone and in pairs, beside all that is explained without it.
    `highest` are the value with the highest mean and those that do not differ from it, if these are at most half of
    all; `lowest` likewise. `slope`: the interval of the change for 1 more, for four or more numbers, if it has a sign
    that no two values contradict; `slope_of` is the column with these numbers, if it is another. `reach`: the smallest
    difference that twice the replicates would tell from 0. `trend` and `whole_share` are those of a search. `share` is
    None if the trials are too few.
    """

    axis: str
    note: str
    differs: bool
    idle: bool
    whole_share: AxisShare | None = field(metadata=json_keys(
        whole_share=lambda found: found and {"share": found.share, "high": found.high}))  # fmt: skip
    trend: Trend | None
    slope: tuple[float, float] | None
    reach: float | None
    highest: tuple[str, ...]
    lowest: tuple[str, ...]
    comparisons: tuple[ValueComparison, ...]
    share: AxisShare | None = field(metadata=NOT_IN_JSON)
    levels: int = field(metadata=NOT_IN_JSON)
    slope_of: str | None = field(default=None, metadata=IF_GIVEN)


@dataclass(frozen=True, slots=True)
class MetricEffects:
    """The effects on one metric, those of most variance first. `note` says why there are none.

    `maximize`: the direction of an objective of a search, otherwise None. `mean` and `standard_deviation` are those of
    the numbers, `server_noise` that of repeats of a trial, if there are any. `doubt`: how far people disagree with the
    judge whose numbers they are. `shares` are those of the axes, of the replicates and of pairs. `overlap` is the share
    that several axes explain, because trials are missing, `rest` the one that none explains.
    """

    metric: str
    trials: int
    note: str = ""
    maximize: bool | None = None
    server_noise: float | None = None
    mean: float = field(default=0.0, metadata=NOT_IN_JSON)
    standard_deviation: float = 0.0
    shares: tuple[AxisShare, ...] = ()
    overlap: float = 0.0
    rest: float | None = None
    effects: tuple[AxisEffect, ...] = ()
    doubt: str | None = field(default=None, metadata=IF_GIVEN)


def adjust_pair_shares(shares: VarianceShares) -> list[AxisShare]:
    """The shares of pairs of axes. Their p-values are corrected for all terms."""
    p_values = adjust_p_values([term.p for term in shares.terms])
    return [replace(term, p=p) for term, p in zip(shares.terms, p_values, strict=True) if len(term.axes) > 1]


def complete_metric(
    metric: MetricEffects, numbers: Numbers, shares: VarianceShares, effects: Iterable[AxisEffect],
    others: Iterable[AxisShare],
) -> MetricEffects:  # fmt: skip
    """Add the effects, those of most variance first, and the shares: of their axes, and then the others."""
    effects = sorted(effects, key=lambda effect: -effect.share.share if effect.share else 1.0)
    return replace(
        metric,
        mean=float(np.nanmean(numbers)),
        standard_deviation=float(np.nanstd(numbers)),
        shares=(*(effect.share for effect in effects if effect.share is not None), *others),
        overlap=0.0 if shares.rest is None else 1 - shares.rest - sum(term.share for term in shares.terms),
        rest=shares.rest,
        effects=tuple(effects),
    )


def make_effect(
    axis: EffectAxis, share: AxisShare | None, found: ValueComparisons, note: str = "", *, trend: Trend | None = None,
    whole: AxisShare | None = None,
) -> AxisEffect:  # fmt: skip
    """The effect of an axis. `whole`: its share alone and in pairs with others."""
    labels, slope = axis.labels, _check_slope(axis, found)
    differs = slope is not None or any(pair.differs for pair in found.pairs)
    highest, lowest = (
        () if trend is not None else tuple(labels[value] for value in _find_extremes(axis, found.pairs, sign))
        for sign in (1, -1)
    )
    idle = whole is not None and not differs and whole.p > _IDLE_P and whole.high <= IDLE_SHARE
    pairs = tuple(replace(pair, value=labels[pair.value], other=labels[pair.other]) for pair in found.pairs)
    return AxisEffect(
        axis.name, note, differs, idle, whole, trend, slope, found.reach, highest, lowest, pairs, share, len(labels),
        axis.number_column if slope else None,
    )  # fmt: skip


def _check_slope(axis: EffectAxis, found: ValueComparisons) -> tuple[float, float] | None:
    """The slope, if it has a sign, and no two values differ the other way."""
    if found.slope is None or axis.numbers is None or not excludes_zero(found.slope):
        return None
    numbers, rises = axis.numbers, found.slope[0] > 0
    against = (
        pair.differs and (pair.mean > 0) != ((numbers[pair.value] > numbers[pair.other]) == rises)
        for pair in found.pairs
    )
    return None if any(against) else found.slope


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


def _find_extremes(axis: EffectAxis, pairs: Sequence[ValueComparison], sign: int) -> tuple[int, ...]:
    """The values that do not differ from the highest one (sign 1), or the lowest (-1); empty if most do not."""
    levels = len(axis.labels)
    scores = np.zeros(levels)
    worse: set[tuple[int, int]] = set()
    for pair in pairs:
        mean = sign * pair.mean
        scores[[pair.value, pair.other]] += (mean, -mean)
        if pair.differs:
            worse.add((pair.other, pair.value) if mean > 0 else (pair.value, pair.other))
    best = int(np.argmax(scores))
    found = tuple(value for value in range(levels) if (value, best) not in worse)
    return found if 2 * len(found) <= levels else ()
