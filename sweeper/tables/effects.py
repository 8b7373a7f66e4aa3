"""What the axes of a results folder change in each metric: shares of the variance, and differences of values.

The statistics are in `sweeper.statistics`; its README explains them. Importing this module loads pandas.

The points of a search differ in several axes at once, so there are no pairs of trials that differ in one axis alone. A
response surface takes their place: a curve for each axis of numbers, a mean for each value of the others, and what two
axes do together. One number for each point enters it, because the trials of a point are not independent of each other.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sweeper.answers.render import to_json
from sweeper.model.result import REPEAT_COLUMN, SUCCEEDED, Result
from sweeper.model.search_columns import ROUND, Objective, SearchColumns, adjust_means, get_number
from sweeper.model.selection import EVERYTHING, Selection
from sweeper.schemas.values import is_number
from sweeper.statistics.codes import LEVEL, Codes, Numbers, Replicates, renumber
from sweeper.statistics.paired import (
    FEWEST_OF_SLOPE,
    ValueComparison,
    ValueComparisons,
    compare_means,
    compare_values,
)
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
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import (
    MAX_VALUES,
    AxisEffect,
    EffectsAnswer,
    MetricEffects,
    Trend,
    adjust_pair_shares,
    complete_metric,
    explain_no_analysis,
    make_effect,
)
from sweeper.tables.effect_axes import (
    SEEDS,
    EffectAxes,
    EffectAxis,
    find_effect_axes,
    find_equal_pictures,
    list_axis_columns,
    make_replicates,
    read_axis,
)
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors, RowFilter, select_results, select_trials
from sweeper.tables.vote_tally import find_agreements
from sweeper.wording import join_names

_MOST_VALUES: Final = 2000  # of all axes: to share out the variance among more takes a minute and 1 GB
_LARGEST: Final = 1e100  # the square of a larger number may be infinite
_LEAST_REST: Final = 5  # degrees of freedom beside the axes of a search: an F test with fewer finds hardly anything
_LEAST_REST_OF_PAIRS: Final = 10  # and beside the pairs of axes
_NUMBER_COLUMNS: Final = ("ran_s", "queued_s", "cost", "attempts")


@dataclass(frozen=True, slots=True)
class EffectQuery:
    """What a user asks. Nothing named means: all metrics, all axes, over seeds and prompts.

    `also`: metrics beside those.
    """

    metrics: Sequence[str] = ()
    axes: Sequence[str] = ()
    over: Sequence[str] = ()
    selection: Selection = EVERYTHING
    run: str | None = None
    also: Sequence[str] = ()


def effects(
    results: str | os.PathLike[str],
    *,
    metrics: Sequence[str] = (),
    axes: Sequence[str] = (),
    over: Sequence[str] = (),
    where: str | None = None,
) -> pd.DataFrame:
    """The differences between the values of the axes of a results folder, one row for each comparison.

    `over` are the replicates: axes that stand for many others, by default seeds and prompts. `where` selects trials, as
    the option of `sweeper effects` does. The columns:

    - `metric`, `axis`: axes that vary together are one, such as `width + height`
    - `value`, `other`: the values as text
    - `higher`, `lower`, `pairs`: in how many of the pairs of matched trials `value` is higher, and lower
    - `difference`, `low`, `high`: the mean over the pairs, and its interval on these prompts; those of all axes hold
      together with 95 % confidence
    - `differs`, `df`: whether the interval excludes 0, and its degrees of freedom
    - `other_low`, `other_high`: the interval for other prompts too, from three prompts on
    - `share`, `share_low`, `share_high`: the part of the metric's variance that the axis explains, 0 to 1

    Raises UsageError for an unknown name, and ResultsError.
    """
    query = EffectQuery(metrics, axes, over, Selection(where))
    answer = analyse_effects(results, query)
    columns = (
        "metric", "axis", "value", "other", "higher", "lower", "pairs", "difference", "low", "high", "differs", "df",
        "other_low", "other_high", "share", "share_low", "share_high",
    )  # fmt: skip
    rows = [
        {"metric": metric.metric, "axis": effect.axis, **to_json(found), "share": share and share.share,
         "share_low": share and share.low, "share_high": share and share.high}
        for metric in answer.metrics
        for effect in metric.effects
        for share in (effect.share,)
        for found in effect.comparisons
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(columns))


def analyse_effects(results: str | os.PathLike[str], query: EffectQuery) -> EffectsAnswer:
    """Analyse the successful trials of a results folder.

    Raises UsageError with all mistakes in the query, by the names of the command's options, and ResultsError.
    """
    folder = find_results_folder(results)
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(query.run)
        rows, hashes = list(store.results(query.run)), store.load_pixel_hashes()
        agreements = find_agreements(store, layout.measured_metrics)
    _check_query(query, layout)
    trials, message = select_trials(folder, query.run, query.selection)
    done = [row.trial for row in rows if row.status == SUCCEEDED and (trials is None or row.trial in trials)]
    layout, rows = select_results(layout, rows, frozenset(done))
    names = [] if message else _choose_metrics(query, rows, layout)
    noise = _measure_server_noise(folder.with_name(f"{folder.name}-calibrate"), names)
    points = None
    if layout.search is None:
        found = find_effect_axes(rows, layout, query.axes, query.over)
        analysis = _Analysis(rows, found, query.axes)
        columns = {name: [row.metrics.get(name, getattr(row, name, None)) for row in rows] for name in names}
        metrics = [analysis.analyse(name, cells) for name, cells in columns.items()]
        found = replace(found, notes=(*found.notes, *analysis.notes))
    else:
        found = find_search_axes(rows, layout, layout.search)
        surfaces = SearchAnalysis(rows, found, layout.search, query.axes)
        metrics, points = [surfaces.analyse(name) for name in names], surfaces.points
    equal = map(str, find_equal_pictures(rows, layout, hashes))
    found = replace(found, notes=(*found.notes, *equal))
    doubted = {name: found.describe() for name, found in agreements.items() if found.is_doubtful()}
    metrics = [
        replace(metric, server_noise=noise.get(metric.metric), doubt=doubted.get(metric.metric)) for metric in metrics
    ]
    return EffectsAnswer(folder, len(rows), points, message, found, tuple(metrics))


def _choose_metrics(query: EffectQuery, rows: Sequence[Result], layout: TableLayout) -> list[str]:
    """The metrics asked for, or all that hold numbers. Of a search, those of its objectives come first."""
    first = [] if layout.search is None else [objective.metric for objective in layout.search.objectives]
    others = [name for name in layout.measured_metrics if any(is_number(row.metrics.get(name)) for row in rows)]
    return list(dict.fromkeys([*(query.metrics or [*first, *others] or ["ran_s"]), *query.also]))


def _check_query(query: EffectQuery, layout: TableLayout) -> None:
    errors = OptionErrors()
    search = layout.search
    axes = list_axis_columns(layout, layout.extras) if search is None else list(search.space)
    numbers = [name for name in layout.metrics if search is None or name != ROUND]
    metrics = [*numbers, *_NUMBER_COLUMNS]
    errors.check_columns("--metric", query.metrics, metrics, ("metric", "metrics"))
    errors.check_columns("--axis", query.axes, axes, ("axis", "axes"))
    if search is None:
        errors.check_over(query.over, axes, query.axes)
    elif query.over:
        what = f"are means over {join_names(search.over)}" if search.over else "have no replicates"
        errors.add("--over", f"belongs to sweeps; the results of this search {what}; leave it out")
    RowFilter(query.selection, layout, errors)  # adds the mistakes in `--where` and `--set`
    errors.raise_if_any()


def _measure_server_noise(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """The standard deviation between repeats of a trial for each metric that has any. Raises ResultsError.

    `folder`: the default results folder of `sweeper calibrate`, if it is there.
    """
    if not (folder / FILE_NAME).is_file():
        return {}
    with Store.open(folder, readonly=True) as store:
        numbers = [
            (trial, name, number)
            for row in store.results()
            for trial in (json.dumps({**row.columns, REPEAT_COLUMN: None}),)
            for name in names
            if (number := get_number(row, name)) is not None
        ]
    table = pd.DataFrame(numbers, columns=["trial", "metric", "number"]).astype({"number": float})
    repeats = table[table["number"].abs() < _LARGEST].groupby(["metric", "trial"], sort=False)["number"]
    spread = pd.DataFrame({"df": repeats.count() - 1, "squares": repeats.var() * (repeats.count() - 1)})
    sums = spread[spread["df"] > 0].groupby("metric").sum()
    return {str(name): math.sqrt(square) for name, square in (sums["squares"] / sums["df"]).items()}


class _Analysis:
    """The trials of a folder as a factorial; of trials with equal axes, it takes the mean."""

    def __init__(self, rows: Sequence[Result], axes: EffectAxes, requested: Sequence[str]) -> None:
        codes = [axis.codes for axis in axes.axes]
        self._cells: Codes = renumber(*codes) if codes else np.zeros(len(rows), dtype=np.int64)
        first = np.unique(self._cells, return_index=True)[1]
        self._axes = [replace(axis, codes=axis.codes[first]) for axis in axes.axes]
        self._matched: dict[int, tuple[Codes, Replicates]] = {}  # by the axis
        self._models: dict[bytes, VarianceModel] = {}  # by the trials that have a number
        self._compared = [
            index
            for index, axis in enumerate(axes.axes)
            if not axis.is_replicate and (not requested or set(requested) & set(axis.columns))
        ]
        self._level = 1 - LEVEL / max(len(self._compared), 1)
        few = (index for index in self._compared if len(self._axes[index].values) <= MAX_VALUES)
        self._with_own_seeds = [index for index in few if _has_own_seeds(*self._match(index))]
        nested = [axis.name for axis in axes.axes if axis.is_nested]
        what = f"values of {join_names(nested)}" if nested else "seeds"
        self.notes = [
            f"each value of {self._axes[index].name} has {what} of its own, so the means of its {what} are compared"
            for index in self._with_own_seeds
        ]

    def analyse(self, name: str, cells: Sequence[Any]) -> MetricEffects:
        known = np.array([is_number(cell) for cell in cells], dtype=bool)
        count = int(known.sum())
        values = np.array([cell if ok else np.nan for cell, ok in zip(cells, known, strict=True)], dtype=float)
        if note := explain_no_analysis(cells, values[known]):
            return MetricEffects(name, count, note=note)
        numbers = pd.Series(values).groupby(self._cells).mean().to_numpy()
        if not self._compared:
            return MetricEffects(name, count, note="there is no axis to compare: each has one value, or is a replicate")
        shares = self._share_out(numbers)
        effects = [self._compare(index, numbers, shares) for index in self._compared]
        replicates, compared = {axis.name for axis in self._axes if axis.is_replicate}, {e.axis for e in effects}
        samples = [term for term in shares.terms if len(term.axes) == 1 and replicates.issuperset(term.axes)]
        pairs = [p for p in adjust_pair_shares(shares) if not compared.isdisjoint(p.axes) or replicates >= {*p.axes}]
        others = [*samples, *sorted(pairs, key=lambda found: -found.share)]
        return complete_metric(MetricEffects(name, count), numbers, shares, effects, others)

    def _share_out(self, numbers: Numbers) -> VarianceShares:
        known = np.isfinite(numbers)
        if sum(len(axis.values) for axis in self._axes) > _MOST_VALUES:
            return VarianceShares()
        if (key := known.tobytes()) not in self._models:
            factors = [Factor(axis.name, axis.codes[known], axis.is_replicate) for axis in self._axes]
            self._models[key] = VarianceModel(factors)
        return self._models[key].share_out(numbers[known])

    def _compare(self, index: int, numbers: Numbers, shares: VarianceShares) -> AxisEffect:
        axis = self._axes[index]
        share = shares.get(axis.name)
        if len(axis.values) > MAX_VALUES:
            note = f"has {len(axis.values)} values, too many to compare each pair (at most {MAX_VALUES})"
            return make_effect(axis, share, ValueComparisons(), note)
        if index in self._with_own_seeds:
            found = compare_means(self._average_seeds(axis, numbers), self._level)
        else:
            trials, replicates = self._match(index)
            table = np.where(trials < 0, np.nan, numbers[trials])
            found = compare_values(table, replicates, self._level, axis.numbers)
        note = "" if found.pairs else "cannot be judged, because no two trials differ in it alone"
        return make_effect(axis, share, found, note)

    def _match(self, index: int) -> tuple[Codes, Replicates]:
        """The trials in rows that are equal in all other axes, by row and value: an index, or -1; and these axes."""
        if index not in self._matched:
            axis = self._axes[index]
            others = [other for other in self._axes if other is not axis]
            row_of = renumber(*(other.codes for other in others)) if others else np.zeros_like(axis.codes)
            first = np.unique(row_of, return_index=True)[1]
            trials = np.full((len(first), len(axis.values)), -1)
            trials[row_of, axis.codes] = np.arange(len(axis.codes))
            others = [replace(other, codes=other.codes[first]) for other in others]
            self._matched[index] = trials, make_replicates(others, len(first))
        return self._matched[index]

    def _average_seeds(self, axis: EffectAxis, numbers: Numbers) -> list[Numbers]:
        """For each value, the mean of each of its seeds over the settings and prompts that every value has."""
        values = range(len(axis.values))
        others = [other for other in self._axes if other is not axis and other.kind != SEEDS]
        table = pd.DataFrame({"number": numbers, "value": axis.codes})
        table["cell"] = renumber(*(other.codes for other in others)) if others else 0
        seeds = [other for other in self._axes if other.kind == SEEDS]
        table["seed"] = renumber(*(other.codes for other in [each for each in seeds if each.is_nested] or seeds))
        table = table.dropna()
        means = table.pivot_table(index="cell", columns="value", values="number").reindex(columns=values)
        table["number"] -= table["cell"].map(means.mean(axis=1, skipna=False))
        by_seed = table.dropna().groupby(["value", "seed"])["number"].mean()
        return [by_seed[by_seed.index.get_level_values("value") == value].to_numpy() for value in values]


def _has_own_seeds(trials: Codes, replicates: Replicates) -> bool:
    """Whether no two values share as many as half of the seeds of either."""
    if replicates.seeds is None:
        return False
    of_values = [{*replicates.seeds[column >= 0].tolist()} for column in trials.T]
    return all(
        2 * len(own & other) < min(len(own), len(other)) and min(len(own), len(other)) > 1
        for own, other in combinations(of_values, 2)
    )


# --- the points of a search


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
        axes = [replace(axis, codes=axis.codes[firsts]) for axis in self._axes if np.ptp(axis.codes[firsts])]
        if not axes:
            return replace(metric, note="there is no axis to compare: each has one value")
        factors = list(map(_make_factor, axes))
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


def _make_factor(axis: EffectAxis) -> Factor | Curve:
    cells = [] if axis.numbers is None else [axis.numbers[code] for code in axis.codes.tolist()]
    if len(set(cells)) >= FEWEST_OF_SLOPE:
        return Curve(axis.name, np.array(cells, dtype=float))
    return Factor(axis.name, axis.codes)


class _Surface:
    """The response surface of one metric: `values` has its mean at each point, `axes` the code of each point."""

    def __init__(self, axes: Sequence[EffectAxis], factors: Sequence[Factor | Curve], values: Numbers) -> None:
        self._axes, self._factors, self._values = axes, factors, values
        self._model = VarianceModel(factors, _LEAST_REST_OF_PAIRS)
        self._fit = LinearFit([code_factor(factor) for factor in factors], values)

    def describe(self, metric: MetricEffects, requested: Sequence[str]) -> MetricEffects:
        shares = self._model.share_out(self._values)
        if shares.rest is None:
            return replace(metric, note="all points have the same mean, so no axis changes it")
        shown = [index for index, axis in enumerate(self._axes) if not requested or axis.name in requested]
        sign = -1 if metric.maximize is False else 1
        level = 1 - LEVEL / max(len(shown), 1)
        effects = [self._compare(index, sign, level, shares) for index in shown]
        names = {effect.axis for effect in effects}
        pairs = [pair for pair in adjust_pair_shares(shares) if not names.isdisjoint(pair.axes)]
        found = complete_metric(metric, self._values, shares, effects, pairs)
        return replace(found, overlap=max(0.0, found.overlap))  # the shares may add up to more than 1

    def _compare(self, index: int, sign: int, level: float, shares: VarianceShares) -> AxisEffect:
        """Compare the ends of a curve, with its turn if it has one, or each pair of other values."""
        axis, factor, trend = self._axes[index], self._factors[index], None
        if isinstance(factor, Curve):
            low, high = int(np.argmin(factor.numbers)), int(np.argmax(factor.numbers))
            word, point = self._fit.find_largest(index, sign)
            trend = Trend(word, *(axis.labels[axis.codes[place]] for place in (point, low, high)))
            pairs = [(high, low), *([(point, low), (point, high)] if word in (INSIDE, ENDS) else [])]
        else:
            firsts = np.unique(axis.codes, return_index=True)[1].tolist()
            pairs = list(combinations(firsts, 2)) if len(firsts) <= MAX_VALUES else []
        note = "" if pairs else f"has {len(axis.values)} values, too many to compare each pair (at most {MAX_VALUES})"
        share = shares.get(axis.name)
        if share is None:
            note = "cannot be separated from the other axes at these points"
        values, count = len({value for pair in pairs for value in pair}), len(self._values)
        found = []
        for first, second in pairs:
            mean, interval = self._fit.compare(index, first, second, level=level, values=values)
            value, other = int(axis.codes[first]), int(axis.codes[second])
            found.append(ValueComparison(value, other, 0, 0, count, mean, interval, self._fit.df))
        whole = self._model.share_out_whole(index, self._values)
        return make_effect(axis, share, ValueComparisons(tuple(found)), note, trend=trend, whole=whole)
