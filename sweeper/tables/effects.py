"""What matters in a results folder: for each metric, the share of the variance of each axis, and differences of values.

The statistics are in `sweeper.statistics`; its README explains them. Importing this module loads pandas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.selection import EVERYTHING, Selection
from sweeper.statistics.corrections import LEVEL, adjust_in_steps, adjust_p_values
from sweeper.statistics.factorial import Factor, Factorial, ValueComparison, count_needed_values
from sweeper.statistics.paired import Codes, Numbers, renumber
from sweeper.statistics.variance_shares import TermShare, VarianceModel, VarianceShares
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.tables.aggregate import is_number
from sweeper.tables.effect_axes import EffectAxes, EffectAxis, find_effect_axes, list_axis_columns
from sweeper.tables.result_rows import list_outcome_columns
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors, RowFilter, select_results, select_trials
from sweeper.tables.server_noise import measure_server_noise

_MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
_MOST_PROPOSED: Final = 10  # seeds in all, or three times the present ones: a difference that needs more is hardly seen
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite
_ARGUMENT_NAMES: Final = {"metric": "metrics", "axis": "axes", "over": "over"}  # of `effects`
_NUMBER_COLUMNS: Final = ("ran_s", "queued_s", "cost", "attempts")


@dataclass(frozen=True, slots=True)
class EffectQuery:
    """What a user asks. Nothing named means: all metrics, all axes, over seeds and prompts."""

    metrics: Sequence[str] = ()
    axes: Sequence[str] = ()
    over: Sequence[str] = ()
    selection: Selection = EVERYTHING
    run: str | None = None


@dataclass(frozen=True, slots=True)
class AxisEffect:
    """The effect of one axis on one metric.

    `p` is the p-value of the whole axis, and `comparisons` are (comparison, p-value), all corrected as
    `adjust_in_steps` does. `share` is None if the trials are too few, `note` says why there are no comparisons.
    `highest` are the value with the highest mean and those that are not seen to be lower, if these are at most half of
    all; `lowest` likewise. `needed`: (replicate axis, how many more of its values would settle the largest difference).
    """

    axis: EffectAxis
    share: TermShare | None
    p: float | None
    comparisons: tuple[tuple[ValueComparison, float | None], ...]
    highest: tuple[int, ...] = ()
    lowest: tuple[int, ...] = ()
    needed: tuple[str, int] | None = None
    note: str = ""

    @property
    def is_seen(self) -> bool:
        """Whether the axis has an effect; `differs` may still be false, if no two of its values are told apart."""
        return self.p is not None and self.p <= LEVEL

    @property
    def differs(self) -> bool:
        return any(p is not None and p <= LEVEL for _, p in self.comparisons)


@dataclass(frozen=True, slots=True)
class MetricEffects:
    """The effects on one metric, those of most variance first. `note` says why there are none.

    `interactions` are (two axes, their share, p-value corrected by Holm for all shares of the metric). `rest` is the
    share that no axis explains, `overlap` the one that several axes explain, because trials are missing. `spread` is
    the standard deviation of the numbers, `server_noise` that of repeats of a trial, if there are any.
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


@dataclass(frozen=True, slots=True)
class EffectsAnswer:
    """The answer to a query. `message` says that `--where` or `--set` select nothing."""

    folder: Path
    trials: int
    axes: EffectAxes
    metrics: tuple[MetricEffects, ...]
    message: str = ""


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
    - `value`, `other`: the values as text; `other` is None for the mean of all other values
    - `difference`, `low`, `high`: the mean over matched trials, and its 95 % interval
    - `p`, `p_holm`: the p-value, and corrected: within the axis, and for the number of axes
    - `pairs`, `df`: how many pairs of trials were compared, and the degrees of freedom
    - `share`, `share_low`, `share_high`: the part of the metric's variance that the axis explains, 0 to 1

    Raises UsageError for an unknown name or without the extra `stats`, and ResultsError.
    """
    query = EffectQuery(metrics, axes, over, Selection(where))
    answer = analyse_effects(results, query)
    columns = (
        "metric", "axis", "value", "other", "difference", "low", "high", "p", "p_holm", "pairs", "df", "share",
        "share_low", "share_high",
    )  # fmt: skip
    rows = [
        (metric.metric, *_to_row(effect, comparison, p))
        for metric in answer.metrics
        for effect in metric.effects
        for comparison, p in effect.comparisons
    ]
    return pd.DataFrame(rows, columns=list(columns))


def _to_row(effect: AxisEffect, comparison: ValueComparison, p_holm: float | None) -> tuple[Any, ...]:
    labels, found, share = effect.axis.labels, comparison.difference, effect.share
    other = None if comparison.other is None else labels[comparison.other]
    shares = (None,) * 3 if share is None else (share.share, share.low, share.high)
    numbers = (found.mean, found.low, found.high, found.p, p_holm, found.pairs, found.df)
    return (effect.axis.name, labels[comparison.value], other, *numbers, *shares)


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
        rows = list(store.results(query.run))
    _check_query(query, layout, option_names)
    trials, message = select_trials(folder, query.run, query.selection)
    done = [row.trial for row in rows if row.status == SUCCEEDED and (trials is None or row.trial in trials)]
    layout, rows = select_results(layout, rows, frozenset(done))
    found = find_effect_axes(rows, layout, query.axes, query.over)
    names = query.metrics or [name for name in layout.metrics if _holds_numbers(rows, name)] or ["ran_s"]
    names = [] if message else names
    analysis = _Analysis(rows, found, query.axes)
    noise = measure_server_noise(folder, names)
    metrics = tuple(
        replace(analysis.analyse(name, _read_numbers(name, rows, layout)), server_noise=noise.get(name))
        for name in names
    )
    return EffectsAnswer(folder, len(rows), found, metrics, message)


def _check_query(query: EffectQuery, layout: TableLayout, option_names: Mapping[str, str]) -> None:
    errors = OptionErrors()
    axes, outcome = list_axis_columns(layout), list_outcome_columns(layout)
    metrics = [*layout.metrics, *(name for name in _NUMBER_COLUMNS if name in outcome)]
    errors.check_columns(option_names["metric"], query.metrics, metrics, ("metric", "metrics"))
    errors.check_columns(option_names["axis"], query.axes, axes, ("axis", "axes"))
    errors.check_columns(option_names["over"], query.over, axes, ("axis", "axes"))
    RowFilter(query.selection, layout, errors)  # adds the mistakes in `--where` and `--set`
    for name in set(query.axes) & set(query.over):
        errors.add(option_names["over"], f"'{name}' is also in {option_names['axis']}; a replicate is not compared")
    errors.raise_if_any()


def _holds_numbers(rows: Sequence[Result], name: str) -> bool:
    return any(is_number(row.metrics.get(name)) for row in rows)


def _read_numbers(name: str, rows: Sequence[Result], layout: TableLayout) -> list[Any]:
    if name in layout.metrics:
        return [row.metrics.get(name) for row in rows]
    return [getattr(row, name) for row in rows]


class _Analysis:
    """The trials of a folder as a factorial; of trials with equal axes, it takes the mean."""

    def __init__(self, rows: Sequence[Result], axes: EffectAxes, requested: Sequence[str]) -> None:
        self._axes = axes
        codes = [axis.codes for axis in axes.axes]
        self._cells: Codes = renumber(*codes) if codes else np.zeros(len(rows), dtype=np.int64)
        first = np.unique(self._cells, return_index=True)[1]
        self._factors = [
            Factor(axis.name, axis.codes[first], len(axis.values), axis.is_replicate) for axis in axes.axes
        ]
        self._factorial = Factorial(self._factors)
        self._models: dict[bytes, VarianceModel] = {}  # by the trials that have a number
        self._compared = [
            index
            for index, axis in enumerate(axes.axes)
            if not axis.is_replicate and (not requested or set(requested) & set(axis.columns))
        ]

    def analyse(self, name: str, cells: Sequence[Any]) -> MetricEffects:
        known = np.array([is_number(cell) for cell in cells], dtype=bool)
        count = int(known.sum())
        values = np.array([cell if ok else np.nan for cell, ok in zip(cells, known, strict=True)], dtype=float)
        if note := _explain_no_analysis(cells, values[known]):
            return MetricEffects(name, count, note=note)
        sums = np.bincount(self._cells[known], values[known], minlength=self._cells.max() + 1)
        counts = np.bincount(self._cells[known], minlength=self._cells.max() + 1)
        numbers = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        if not self._compared:
            return MetricEffects(name, count, note="there is no axis to compare: each has one value, or is a replicate")
        shares = self._share_out(numbers)
        return MetricEffects(
            name,
            count,
            self._find_effects(numbers, shares),
            tuple((self._axes.axes[i], s) for i in self._factorial.replicates if (s := _get_share(shares, (i,)))),
            tuple(self._find_interactions(shares)),
            None if shares is None else shares.rest,
            0.0 if shares is None else 1 - shares.rest - sum(term.share for term in shares.terms),
            float(np.nanstd(numbers)),
        )

    def _share_out(self, numbers: Numbers) -> VarianceShares | None:
        known = np.isfinite(numbers)
        if (key := known.tobytes()) not in self._models:
            self._models[key] = VarianceModel([replace(factor, codes=factor.codes[known]) for factor in self._factors])
        return self._models[key].share_out(numbers[known])

    def _find_effects(self, numbers: Numbers, shares: VarianceShares | None) -> tuple[AxisEffect, ...]:
        compared = {
            index: self._factorial.compare(index, numbers) if self._factors[index].levels <= _MAX_VALUES else []
            for index in self._compared
        }
        terms = {index: _get_share(shares, (index,)) for index in compared}
        axes, adjusted = adjust_in_steps(
            [None if term is None else term.p for term in terms.values()],
            [[comparison.difference.p for comparison in found] for found in compared.values()],
        )
        effects = [
            self._describe(index, p, tuple(zip(found, p_values, strict=True)), terms[index])
            for (index, found), p, p_values in zip(compared.items(), axes, adjusted, strict=True)
        ]
        return tuple(sorted(effects, key=lambda effect: -effect.share.share if effect.share else 1.0))

    def _describe(
        self, index: int, p: float | None, comparisons: tuple[tuple[ValueComparison, float | None], ...],
        share: TermShare | None,
    ) -> AxisEffect:  # fmt: skip
        axis = self._axes.axes[index]
        note = ""
        if len(axis.values) > _MAX_VALUES:
            note = (f"has {len(axis.values)} values, too many to compare each pair (at most {_MAX_VALUES}); select "
                    f"some, or call it a replicate: --over {axis.columns[0]}")  # fmt: skip
        elif not comparisons:
            note = "cannot be judged, because no two trials differ in it alone"
        highest, lowest = (_find_extremes(len(axis.values), comparisons, sign) for sign in (1, -1))
        effect = AxisEffect(axis, share, p, comparisons, highest, lowest, None, note)
        return effect if effect.differs else replace(effect, needed=self._count_needed(comparisons))

    def _count_needed(self, comparisons: Sequence[tuple[ValueComparison, float | None]]) -> tuple[str, int] | None:
        """The replicate axis of which the fewest more values would settle the largest difference, and how many."""
        pairs = [found for found, _ in comparisons if found.other is not None]
        if not pairs:
            return None
        largest = max(pairs, key=lambda found: abs(found.difference.mean)).difference
        options = []
        for position, index in enumerate(self._factorial.replicates):
            present = largest.levels[position]
            needed = count_needed_values(largest, position, LEVEL / len(comparisons), max(3 * present, _MOST_PROPOSED))
            if needed is not None:
                options.append((needed - present, self._axes.axes[index].name))
        return min(((name, more) for more, name in options), key=lambda option: option[1], default=None)

    def _find_interactions(
        self, shares: VarianceShares | None
    ) -> list[tuple[EffectAxis, EffectAxis, TermShare, float]]:
        terms = () if shares is None else shares.terms
        adjusted = adjust_p_values([term.p for term in terms])
        return [
            (self._axes.axes[term.term[0]], self._axes.axes[term.term[1]], term, p)
            for term, p in sorted(zip(terms, adjusted, strict=True), key=lambda pair: -pair[0].share)
            if len(term.term) > 1
            and p is not None
            and (set(term.term) & set(self._compared) or set(term.term) <= set(self._factorial.replicates))
        ]


def _explain_no_analysis(cells: Sequence[Any], values: Numbers) -> str:
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


def _get_share(shares: VarianceShares | None, term: tuple[int, ...]) -> TermShare | None:
    return None if shares is None else next((one for one in shares.terms if one.term == term), None)


def _find_extremes(
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
