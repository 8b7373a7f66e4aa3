"""The effects on a metric as values, and what the analyses of sweeps and of searches have in common.

`effect_words` says them in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from sweeper.answers.render import NOT_IN_JSON
from sweeper.statistics.corrections import LEVEL, adjust_in_steps, adjust_p_values
from sweeper.statistics.factorial import ValueComparison
from sweeper.statistics.paired import Numbers
from sweeper.statistics.variance_shares import TermShare, VarianceShares
from sweeper.tables.effect_axes import EffectAxis

MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
IDLE_SHARE: Final = 0.05  # of the variance: an axis that surely explains less may be left at one value
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite


@dataclass(frozen=True, slots=True)
class AxisShare:
    """The share (0 to 1) of a metric's variance that an axis explains, or that two explain together.

    `low` and `high` bound its 95 % interval. `p` is the p-value of the F test: `f` with `df` and `error_df` degrees of
    freedom. Of two axes, `p_holm` is corrected for all pairs of the metric, and `replicates` are those that are ones.
    """

    axes: tuple[str, ...]
    share: float
    low: float
    high: float
    p: float
    df: int
    f: float
    error_df: float
    p_holm: float | None = field(default=None, metadata=NOT_IN_JSON)
    replicates: tuple[str, ...] = field(default=(), metadata=NOT_IN_JSON)


@dataclass(frozen=True, slots=True)
class WholeShare:
    """The share (0 to 1) of an axis alone and in pairs with others, beside all that is explained without it.

    `high` ends its 95 % interval, `p` is the p-value of the F test.
    """

    share: float
    high: float
    p: float


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
class NeededValues:
    """How many more values of a replicate would settle the largest difference."""

    axis: str
    more: int


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """The mean difference of a value from another one, or from the mean of all others (`other` is None).

    It is in the units of the metric, over `pairs` of trials that are equal in all other axes; of a search, over points.
    `low` and `high` bound the 95 % interval, with `df` degrees of freedom. `p_holm` is corrected as `adjust_in_steps`
    does. They are None for a single pair.
    """

    value: str
    other: str | None
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    pairs: int
    df: float


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """The effect of one axis on one metric. `note` says why there are no comparisons.

    `seen`: whether the axis has an effect; `differs` may still be false, if no two of its values are told apart.
    `idle`: whether it is known that the axis hardly matters, neither alone nor in pairs with others.
    `highest` are the value with the highest mean and those that are not seen to be lower, if these are at most half of
    all; `lowest` likewise. `needed`: what would settle the largest difference. `trend` and `whole_share` are those of a
    search. `share` is None if the trials are too few, and `levels` is the number of values.
    """

    axis: str
    note: str
    seen: bool
    idle: bool
    whole_share: WholeShare | None
    trend: Trend | None
    highest: tuple[str, ...]
    lowest: tuple[str, ...]
    needed: NeededValues | None
    comparisons: tuple[ValueDifference, ...]
    share: AxisShare | None = field(metadata=NOT_IN_JSON)
    levels: int = field(metadata=NOT_IN_JSON)

    @property
    def differs(self) -> bool:
        return any(found.p_holm is not None and found.p_holm <= LEVEL for found in self.comparisons)


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
    """What is found of an axis, by its index, before the p-values are corrected. `note`: why nothing is compared.

    `trend` and `whole` (its share alone and in pairs) are those of a search.
    """

    index: int
    comparisons: Sequence[ValueComparison]
    note: str
    trend: Trend | None = None
    whole: TermShare | None = None


def make_share(found: TermShare, axes: Sequence[EffectAxis], p_holm: float | None = None) -> AxisShare:
    """The share of a term, which is an axis or two. `axes`: all of them."""
    of_term = [axes[index] for index in found.term]
    return AxisShare(
        tuple(axis.name for axis in of_term),
        *(found.share, found.low, found.high, found.p, found.df, found.f, found.error_df, p_holm),
        tuple(axis.name for axis in of_term if axis.is_replicate),
    )


def make_pair_shares(
    shares: VarianceShares | None, axes: Sequence[EffectAxis], is_wanted: Callable[[set[int]], bool]
) -> list[AxisShare]:
    """The shares of the wanted pairs of axes, by their indices. The p-values are corrected for all terms."""
    terms = () if shares is None else shares.terms
    return [
        make_share(term, axes, p)
        for term, p in zip(terms, adjust_p_values([term.p for term in terms]), strict=True)
        if len(term.term) > 1 and p is not None and is_wanted({*term.term})
    ]


def complete_metric(
    metric: MetricEffects, numbers: Numbers, shares: VarianceShares | None, axes: Sequence[EffectAxis], *,
    compared: Sequence[AxisComparisons], others: Iterable[AxisShare],
    count_needed: Callable[[Sequence[ValueComparison]], NeededValues | None] = lambda _: None,
) -> MetricEffects:  # fmt: skip
    """Add the effects, those of most variance first, and the shares: of their axes, and then the others.

    `count_needed`: what would settle the largest difference, for axes of which none is seen.
    """
    terms = [get_share(shares, (found.index,)) for found in compared]
    axis_p, value_p = adjust_in_steps(
        [None if term is None else term.p for term in terms],
        [[comparison.difference.p for comparison in found.comparisons] for found in compared],
    )
    effects = []
    for found, term, p, p_values in zip(compared, terms, axis_p, value_p, strict=True):
        share = None if term is None else make_share(term, axes)
        effect = _make_effect(axes[found.index], found, share, p, tuple(zip(found.comparisons, p_values, strict=True)))
        effects.append(effect if effect.differs else replace(effect, needed=count_needed(found.comparisons)))
    effects.sort(key=lambda effect: -effect.share.share if effect.share else 1.0)
    return replace(
        metric,
        standard_deviation=float(np.nanstd(numbers)),
        shares=(*(effect.share for effect in effects if effect.share is not None), *others),
        overlap=0.0 if shares is None else 1 - shares.rest - sum(term.share for term in shares.terms),
        rest=None if shares is None else shares.rest,
        effects=tuple(effects),
    )


def _make_effect(
    axis: EffectAxis, found: AxisComparisons, share: AxisShare | None, p: float | None,
    comparisons: Sequence[tuple[ValueComparison, float | None]],
) -> AxisEffect:  # fmt: skip
    """The effect of an axis, from its indices of values. `p` and those of the comparisons are corrected."""
    labels, whole, seen = axis.labels, found.whole, p is not None and p <= LEVEL
    highest, lowest = (
        () if found.trend is not None else tuple(labels[value] for value in _find_extremes(axis, comparisons, sign))
        for sign in (1, -1)
    )
    differences = tuple(
        ValueDifference(
            labels[compared.value], None if compared.other is None else labels[compared.other],
            mean.mean, mean.low, mean.high, mean.p, p_holm, mean.pairs, mean.df,
        )
        for compared, p_holm in comparisons
        for mean in (compared.difference,)
    )  # fmt: skip
    return AxisEffect(
        axis.name, found.note, seen, whole is not None and not seen and whole.p > LEVEL and whole.high <= IDLE_SHARE,
        None if whole is None else WholeShare(whole.share, whole.high, whole.p),
        found.trend, highest, lowest, None, differences, share, len(labels),
    )  # fmt: skip


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


def _find_extremes(
    axis: EffectAxis, comparisons: Sequence[tuple[ValueComparison, float | None]], sign: int
) -> tuple[int, ...]:
    """The values that are not seen to be below the highest one (sign 1), or above the lowest (-1); empty if all are."""
    levels = len(axis.labels)
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
