"""The effects on a metric as values, and what the analyses of sweeps and of searches have in common.

`effect_words` says them in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from sweeper.answers.render import NOT_IN_JSON
from sweeper.statistics.codes import Numbers
from sweeper.statistics.corrections import adjust_p_values
from sweeper.statistics.paired import ValueComparison, ValueComparisons, excludes_zero
from sweeper.statistics.variance_shares import TermShare, VarianceShares
from sweeper.tables.effect_axes import EffectAxis

MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
IDLE_SHARE: Final = 0.05  # of the variance: an axis that surely explains less may be left at one value
_IDLE_P: Final = 0.05  # of the F test of the whole share of such an axis, at least
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite


@dataclass(frozen=True, slots=True)
class AxisShare:
    """The share (0 to 1) of a metric's variance that an axis explains, or that two explain together.

    `low` and `high` bound its 95 % interval. Of two axes, `p` is that of the F test, corrected for all pairs of the
    metric, and `replicates` are those that are ones.
    """

    axes: tuple[str, ...]
    share: float
    low: float
    high: float
    p: float | None = field(default=None, metadata=NOT_IN_JSON)
    replicates: tuple[str, ...] = field(default=(), metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class WholeShare:
    """The share (0 to 1) of an axis alone and in pairs with others, beside all that is explained without it.

    `high` ends its 95 % interval.
    """

    share: float
    high: float


@dataclass(frozen=True, slots=True)
class Trend:
    """Where the fitted curve of an axis of numbers is best; highest, if the metric has no direction.

    `word` is one of those of `statistics.response_curve`, `value` the value there, and `low` and `high` are the lowest
    and the highest number.
    """

    word: str
    value: str
    low: str = field(metadata=NOT_IN_JSON)
    high: str = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """How much higher the mean of a value is than that of another one, in the units of the metric.

    `higher` and `lower`: in how many of the `pairs` of trials that are equal in all other axes; of a search, `pairs` is
    the number of points, and both are 0. `low` and `high` bound the interval on these prompts, with `df` degrees of
    freedom; None for a single pair. The intervals of all axes of a metric hold together with 95 % confidence, and
    `differs` says that this one excludes 0. `other_low` and `other_high` bound the interval for other prompts too; None
    if there are too few prompts to say.
    """

    value: str
    other: str
    higher: int
    lower: int
    pairs: int
    difference: float
    low: float | None
    high: float | None
    differs: bool
    df: float
    other_low: float | None
    other_high: float | None


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """The effect of one axis on one metric. `note` says why there are no comparisons.

    `differs`: whether two of its values do, or the slope is not 0. `idle`: whether it is known that the axis changes
    hardly anything, alone and in pairs with others. `highest` are the value with the highest mean and those that do not
    differ from it, if these are at most half of all; `lowest` likewise. `slope`: the interval of the change for 1 more,
    for four or more numbers, if it has a sign that no two values contradict. `reach`: the smallest difference that
    twice the replicates would tell from 0. `trend` and `whole_share` are those of a search. `share` is None if the
    trials are too few, and `levels` is the number of values.
    """

    axis: str
    note: str
    differs: bool
    idle: bool
    whole_share: WholeShare | None
    trend: Trend | None
    slope: tuple[float, float] | None
    reach: float | None
    highest: tuple[str, ...]
    lowest: tuple[str, ...]
    comparisons: tuple[ValueDifference, ...]
    share: AxisShare | None = field(metadata=NOT_IN_JSON)
    levels: int = field(metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class MetricEffects:
    """The effects on one metric, those of most variance first. `note` says why there are none.

    `maximize`: the direction of an objective of a search, otherwise None. `standard_deviation` is that of the numbers,
    `server_noise` that of repeats of a trial, if there are any. `shares` are those of the axes, of the replicates and
    of pairs. `overlap` is the share that several axes explain, because trials are missing, `rest` the one that none
    explains.
    """

    metric: str
    trials: int
    note: str = ""
    maximize: bool | None = None
    server_noise: float | None = None
    standard_deviation: float = 0.0
    shares: tuple[AxisShare, ...] = ()
    overlap: float = 0.0
    rest: float | None = None
    effects: tuple[AxisEffect, ...] = ()


@dataclass(frozen=True, slots=True)
class AxisComparisons:
    """What is found of an axis, by its index. `note`: why nothing is compared.

    `trend` and `whole` (its share alone and in pairs) are those of a search.
    """

    index: int
    found: ValueComparisons
    note: str
    trend: Trend | None = None
    whole: TermShare | None = None


def make_share(found: TermShare, axes: Sequence[EffectAxis], p: float | None = None) -> AxisShare:
    """The share of a term, which is an axis or two. `axes`: all of them."""
    of_term = [axes[index] for index in found.term]
    replicates = tuple(axis.name for axis in of_term if axis.is_replicate)
    return AxisShare(tuple(axis.name for axis in of_term), found.share, found.low, found.high, p, replicates)


def make_pair_shares(
    shares: VarianceShares | None, axes: Sequence[EffectAxis], is_wanted: Callable[[set[int]], bool]
) -> list[AxisShare]:
    """The shares of the wanted pairs of axes, by their indices. The p-values are corrected for all terms."""
    terms = () if shares is None else shares.terms
    return [
        make_share(term, axes, p)
        for term, p in zip(terms, adjust_p_values([term.p for term in terms]), strict=True)
        if len(term.term) > 1 and is_wanted({*term.term})
    ]


def complete_metric(
    metric: MetricEffects, numbers: Numbers, shares: VarianceShares | None, axes: Sequence[EffectAxis], *,
    compared: Sequence[AxisComparisons], others: Iterable[AxisShare],
) -> MetricEffects:  # fmt: skip
    """Add the effects, those of most variance first, and the shares: of their axes, and then the others."""
    effects = []
    for found in compared:
        term = get_share(shares, (found.index,))
        effects.append(_make_effect(axes[found.index], found, None if term is None else make_share(term, axes)))
    effects.sort(key=lambda effect: -effect.share.share if effect.share else 1.0)
    return replace(
        metric,
        standard_deviation=float(np.nanstd(numbers)),
        shares=(*(effect.share for effect in effects if effect.share is not None), *others),
        overlap=0.0 if shares is None else 1 - shares.rest - sum(term.share for term in shares.terms),
        rest=None if shares is None else shares.rest,
        effects=tuple(effects),
    )


def _make_effect(axis: EffectAxis, found: AxisComparisons, share: AxisShare | None) -> AxisEffect:
    labels, whole, pairs = axis.labels, found.whole, found.found.pairs
    slope = _check_slope(axis, found.found)
    differs = slope is not None or any(pair.differs for pair in pairs)
    highest, lowest = (
        () if found.trend is not None else tuple(labels[value] for value in _find_extremes(axis, pairs, sign))
        for sign in (1, -1)
    )
    idle = whole is not None and not differs and whole.p > _IDLE_P and whole.high <= IDLE_SHARE
    return AxisEffect(
        axis.name, found.note, differs, idle, None if whole is None else WholeShare(whole.share, whole.high),
        found.trend, slope, found.found.reach, highest, lowest, tuple(_name_values(pair, labels) for pair in pairs),
        share, len(labels),
    )  # fmt: skip


def _name_values(pair: ValueComparison, labels: Sequence[str]) -> ValueDifference:
    low, high = pair.interval or (None, None)
    other_low, other_high = pair.others or (None, None)
    return ValueDifference(
        labels[pair.value], labels[pair.other], pair.higher, pair.lower, pair.pairs, pair.mean, low, high, pair.differs,
        pair.df, other_low, other_high,
    )  # fmt: skip


def _check_slope(axis: EffectAxis, found: ValueComparisons) -> tuple[float, float] | None:
    """The slope, if it has a sign, and no two values differ the other way."""
    if not excludes_zero(found.slope):
        return None
    assert found.slope is not None
    numbers = [cells[0] for cells in axis.values]
    rises = found.slope[0] > 0
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


def get_share(shares: VarianceShares | None, term: tuple[int, ...]) -> TermShare | None:
    return None if shares is None else next((found for found in shares.terms if found.term == term), None)


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
