"""What the points of a search say about the axes of its space.

The points differ in several axes at once, so there are no pairs of trials that differ in one axis alone. A response
surface takes their place: a curve for each axis of numbers, a mean for each value of the others, and what two axes do
together. One number for each point enters it, because the trials of a point are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

import numpy as np

from sweeper.model.result import Result
from sweeper.model.search_columns import Objective, SearchColumns, adjust_means, get_number
from sweeper.statistics.codes import LEVEL, Codes, Numbers
from sweeper.statistics.paired import FEWEST_OF_SLOPE, ValueComparison, ValueComparisons
from sweeper.statistics.variance_shares import (
    ENDS,
    INSIDE,
    Curve,
    Factor,
    LinearFit,
    VarianceModel,
    VarianceShares,
    code_factor,
)
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import (
    MAX_VALUES,
    AxisEffect,
    MetricEffects,
    Trend,
    adjust_pair_shares,
    complete_metric,
    explain_no_analysis,
    make_effect,
)
from sweeper.tables.effect_axes import EffectAxes, EffectAxis, read_axis

_LEAST_REST: Final = 5  # degrees of freedom beside the axes: an F test with fewer finds hardly anything
_LEAST_REST_OF_PAIRS: Final = 10  # and beside the pairs of axes


def find_search_axes(rows: Sequence[Result], layout: TableLayout, search: SearchColumns) -> EffectAxes:
    """The axes of the space and of `over` (these are the replicates) that have more than one value in these rows."""
    found = [(name, read_axis(name, rows, layout)) for name in (*search.space, *search.over)]
    axes = [replace(axis, is_replicate=name in search.over) for name, axis in found if len(axis.values) > 1]
    constant = tuple(name for name, axis in found if len(axis.values) < 2)
    notes = ("a search tries good regions more often, so shares are those of the variance among the points it tried",)
    return EffectAxes(tuple(axes), constant, notes)


def find_idle_axes(rows: Sequence[Result], layout: TableLayout) -> dict[str, float]:
    """Return the axes of a search that are known to hardly change any of its objectives, in the order of its space,
    with the share (0 to 1) that each explains at most, with 95 % confidence.

    `rows` are all rows of the table. An axis of which too little is known is not among them. Raises UsageError without
    scipy.
    """
    search = layout.search
    if search is None:
        return {}
    analysis = SearchAnalysis(rows, find_search_axes(rows, layout, search), search, ())
    found = [
        {effect.axis: effect for effect in analysis.analyse(objective.metric).effects}
        for objective in search.objectives
    ]
    return {
        name: max(effect.whole_share.high for effect in effects if effect.whole_share is not None)
        for name in search.space
        if len(effects := [effects[name] for effects in found if name in effects]) == len(found)
        and all(effect.idle for effect in effects)
    }


class SearchAnalysis:
    """The trials of a search by their points. `requested`: show only these axes, if there are any."""

    def __init__(
        self, rows: Sequence[Result], axes: EffectAxes, search: SearchColumns, requested: Sequence[str]
    ) -> None:
        self._rows, self._search, self._requested = rows, search, requested
        self._axes = [axis for axis in axes.axes if not axis.is_replicate]
        self._keys = [search.get_point(row) for row in rows]
        self._combinations = [search.get_combination(row) for row in rows]
        self._first = {key: index for index, key in reversed(list(enumerate(self._keys)))}  # the first row of a point
        self.points = len(self._first)

    def analyse(self, name: str) -> MetricEffects:
        numbers = [get_number(row, name) for row in self._rows]
        known = [number for number in numbers if number is not None]
        metric = MetricEffects(name, len(known), maximize=self._find_direction(name))
        if note := explain_no_analysis([row.metrics.get(name) for row in self._rows], np.array(known)):
            return replace(metric, note=note)
        means = adjust_means(
            (key, combination, number)
            for key, combination, number in zip(self._keys, self._combinations, numbers, strict=True)
            if number is not None
        )
        firsts = np.array([self._first[key] for key in self._first if key in means])
        values = np.array([means[key] for key in self._first if key in means])
        axes = [(axis, axis.codes[firsts]) for axis in self._axes if len(np.unique(axis.codes[firsts])) > 1]
        if not axes:
            return replace(metric, note="there is no axis to compare: each has one value")
        factors = [_make_factor(axis, codes) for axis, codes in axes]
        needed = 1 + sum(code_factor(factor).shape[1] for factor in factors) + _LEAST_REST
        if len(values) < needed:
            what = f"{len(axes)} axes" if len(axes) > 1 else "1 axis"
            return replace(metric, note=f"{len(values)} points are too few for {what} that differ at once; "
                                        f"that takes at least {needed}")  # fmt: skip
        return _Surface(axes, factors, values).describe(metric, self._requested)

    def _find_direction(self, name: str) -> bool | None:
        search = self._search
        pairs: list[tuple[str, Objective]] = list(zip(search.objective_columns, search.objectives, strict=True))
        return next((goal.maximize for column, goal in pairs if name in (column, goal.metric)), None)


def _make_factor(axis: EffectAxis, codes: Codes) -> Factor | Curve:
    cells = [] if axis.numbers is None else [axis.numbers[code] for code in codes.tolist()]
    if len(set(cells)) >= FEWEST_OF_SLOPE:
        return Curve(axis.name, np.array(cells, dtype=float))
    return Factor(axis.name, codes)


class _Surface:
    """The response surface of one metric: `values` has its mean at each point, `axes` the code of each point."""

    def __init__(
        self, axes: Sequence[tuple[EffectAxis, Codes]], factors: Sequence[Factor | Curve], values: Numbers
    ) -> None:
        self._axes, self._factors, self._values = axes, factors, values
        self._model = VarianceModel(factors, _LEAST_REST_OF_PAIRS)
        self._fit = LinearFit([code_factor(factor) for factor in factors], values)

    def describe(self, metric: MetricEffects, requested: Sequence[str]) -> MetricEffects:
        shares = self._model.share_out(self._values)
        if shares.rest is None:
            return replace(metric, note="all points have the same mean, so no axis changes it")
        shown = [i for i, (axis, _) in enumerate(self._axes) if not requested or axis.name in requested]
        sign = -1 if metric.maximize is False else 1
        level = 1 - LEVEL / max(len(shown), 1)
        effects = [self._compare(index, sign, level, shares) for index in shown]
        names = {effect.axis for effect in effects}
        pairs = [pair for pair in adjust_pair_shares(shares) if not names.isdisjoint(pair.axes)]
        found = complete_metric(metric, self._values, shares, effects, pairs)
        return replace(found, overlap=max(0.0, found.overlap))  # the shares may add up to more than 1

    def _compare(self, index: int, sign: int, level: float, shares: VarianceShares) -> AxisEffect:
        """Compare the ends of a curve, with its turn if it has one, or each pair of other values."""
        axis, codes = self._axes[index]
        factor, trend = self._factors[index], None
        if isinstance(factor, Curve):
            low, high = int(np.argmin(factor.numbers)), int(np.argmax(factor.numbers))
            word, point = self._fit.find_largest(index, sign)
            trend = Trend(word, *(axis.labels[codes[place]] for place in (point, low, high)))
            pairs = [(high, low), *([(point, low), (point, high)] if word in (INSIDE, ENDS) else [])]
        else:
            firsts: Mapping[int, int] = {code: point for point, code in reversed(list(enumerate(codes.tolist())))}
            present = sorted(firsts) if len(firsts) <= MAX_VALUES else []
            pairs = list(combinations(map(firsts.__getitem__, present), 2))
        note = "" if pairs else f"has {len(axis.values)} values, too many to compare each pair (at most {MAX_VALUES})"
        share = shares.get(axis.name)
        if share is None:
            note = "cannot be separated from the other axes at these points"
        values, count = len({value for pair in pairs for value in pair}), len(self._values)
        found = []
        for first, second in pairs:
            mean, interval = self._fit.compare(index, first, second, level=level, values=values)
            value, other = int(codes[first]), int(codes[second])
            found.append(ValueComparison(value, other, 0, 0, count, mean, interval, self._fit.df))
        whole = self._model.share_out_whole(index, self._values)
        return make_effect(axis, share, ValueComparisons(tuple(found)), note, trend=trend, whole=whole)
