"""What the axes of a results folder change in each metric: shares of the variance, and differences of values.

The statistics are in `sweeper.statistics`; its README explains them. Importing this module loads pandas.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sweeper.answers.render import to_json
from sweeper.model.result import REPEAT_COLUMN, SUCCEEDED, Result
from sweeper.model.search_columns import ROUND
from sweeper.model.selection import EVERYTHING, Selection
from sweeper.schemas.values import is_number
from sweeper.statistics.codes import LEVEL, Codes, Numbers, Replicates, renumber
from sweeper.statistics.paired import ValueComparisons, compare_means, compare_values
from sweeper.statistics.variance_shares import Factor, VarianceModel, VarianceShares
from sweeper.store import FILE_NAME, Store
from sweeper.store.records import TableLayout
from sweeper.tables.effect_answer import (
    MAX_VALUES,
    AxisEffect,
    MetricEffects,
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
    list_axis_columns,
    make_replicates,
)
from sweeper.tables.effect_words import EffectsAnswer
from sweeper.tables.equal_pictures import find_equal_pictures
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.search_effects import SearchAnalysis, find_search_axes
from sweeper.tables.select_rows import OptionErrors, RowFilter, select_results, select_trials
from sweeper.tables.vote_tally import find_agreements
from sweeper.wording import join_names

_ARGUMENT_NAMES: Final = {"metric": "metrics", "axis": "axes", "over": "over"}  # of `effects`
_MOST_VALUES: Final = 2000  # of all axes: to share out the variance among more takes a minute and 1 GB
_LARGEST: Final = 1e100  # the square of a larger number may be infinite
_NUMBER_COLUMNS: Final = ("ran_s", "queued_s", "cost", "attempts")

_Repeat = tuple[str, str, float]  # a trial, a metric, and its number in one of several repeats of the trial


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


def analyse_effects(
    results: str | os.PathLike[str], query: EffectQuery, option_names: Mapping[str, str] = _ARGUMENT_NAMES
) -> EffectsAnswer:
    """Analyse the successful trials of a results folder.

    `option_names` are the names of the options for metrics, axes and replicates in messages. Raises UsageError with all
    mistakes in the query, and ResultsError.
    """
    folder = find_results_folder(results)
    with Store.open(folder, readonly=True) as store:
        layout = store.layout(query.run)
        rows, hashes = list(store.results(query.run)), store.load_pixel_hashes()
        agreements = find_agreements(store, layout.measured_metrics)
    _check_query(query, layout, option_names)
    trials, message = select_trials(folder, query.run, query.selection)
    done = [row.trial for row in rows if row.status == SUCCEEDED and (trials is None or row.trial in trials)]
    layout, rows = select_results(layout, rows, frozenset(done))
    names = [] if message else _choose_metrics(query, rows, layout)
    noise = _measure_server_noise(folder.with_name(f"{folder.name}-calibrate"), names)
    points = None
    if layout.search is None:
        found = find_effect_axes(rows, layout, query.axes, query.over)
        analysis = _Analysis(rows, found, query.axes)
        metrics = [analysis.analyse(name, _read_numbers(name, rows, layout)) for name in names]
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


def _check_query(query: EffectQuery, layout: TableLayout, option_names: Mapping[str, str]) -> None:
    errors = OptionErrors()
    search = layout.search
    axes = list_axis_columns(layout, layout.extras) if search is None else list(search.space)
    numbers = [name for name in layout.metrics if search is None or name != ROUND]
    metrics = [*numbers, *_NUMBER_COLUMNS]
    errors.check_columns(option_names["metric"], query.metrics, metrics, ("metric", "metrics"))
    errors.check_columns(option_names["axis"], query.axes, axes, ("axis", "axes"))
    if search is None:
        errors.check_columns(option_names["over"], query.over, axes, ("axis", "axes"))
    elif query.over:
        what = f"are means over {join_names(search.over)}" if search.over else "have no replicates"
        errors.add(option_names["over"], f"belongs to sweeps; the results of this search {what}; leave it out")
    RowFilter(query.selection, layout, errors)  # adds the mistakes in `--where` and `--set`
    for name in set(query.axes) & set(query.over):
        errors.add(option_names["over"], f"'{name}' is also in {option_names['axis']}; a replicate is not compared")
    errors.raise_if_any()


def _read_numbers(name: str, rows: Sequence[Result], layout: TableLayout) -> list[Any]:
    if name in layout.metrics:
        return [row.metrics.get(name) for row in rows]
    return [getattr(row, name) for row in rows]


def _measure_server_noise(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """The standard deviation between repeats of a trial for each metric that has any. Raises ResultsError.

    `folder`: the default results folder of `sweeper calibrate`, if it is there.
    """
    if not (folder / FILE_NAME).is_file():
        return {}
    with Store.open(folder, readonly=True) as store:
        numbers = list(_iter_calibrated(store, names))
    table = pd.DataFrame(numbers, columns=["trial", "metric", "number"]).astype({"number": float})
    repeats = table[table["number"].abs() < _LARGEST].groupby(["metric", "trial"], sort=False)["number"]
    spread = pd.DataFrame({"df": repeats.count() - 1, "squares": repeats.var() * (repeats.count() - 1)})
    sums = spread[spread["df"] > 0].groupby("metric").sum()
    return {str(name): math.sqrt(square) for name, square in (sums["squares"] / sums["df"]).items()}


def _iter_calibrated(store: Store, names: Sequence[str]) -> Iterator[_Repeat]:
    for row in store.results():
        trial = json.dumps({name: cell for name, cell in row.columns.items() if name != REPEAT_COLUMN})
        for name in names:
            value = row.ran_s if name == "ran_s" else row.metrics.get(name)
            if value is not None and is_number(value):
                yield trial, name, value


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
