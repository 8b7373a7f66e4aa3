"""Which value of each axis to take, by the answers of `sweeper effects` and `sweeper votes`: what the page decides by.

Of each value, its mean over matched trials and how it compares with the best one. The bars of two values of which one
is surely better do not overlap: each is half as long as the intervals of the differences (Hochberg, Weiss & Hart,
Journal of the American Statistical Association 77, 1982, 767-772).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sweeper.answers.cells import map_labels
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.statistics.paired import ValueComparison
from sweeper.tables.effect_answer import (
    AxisEffect,
    EffectsAnswer,
    MetricEffects,
    describe_estimate,
    describe_facts,
    describe_interactions,
    format_share,
)
from sweeper.tables.effect_axes import EffectAxis
from sweeper.tables.vote_tally import ValueRanking

BEST, EQUAL, WORSE, UNDECIDED = "best", "equal", "worse", "undecided"
COST_COLUMNS: Final = {"cost": "cost", "ran_s": "time"}  # what a value can cost, with a word for it
_MARGIN: Final = 0.2  # standard deviations among the trials of a prompt and seed: such a difference is none
_CHEAPER: Final = 0.95  # of the costs of the best value, at most
_MOST_MORE: Final = 4  # times as many seeds as there are; a difference that needs more is hardly worth them
_FIRST_MORE: Final = 2  # seeds, where nothing is repeated and no interval is known


@dataclass(frozen=True, slots=True)
class ValueEstimate:
    """A value by its cells, its mean with the ends of its bar (None if unknown), a verdict, and its words.

    `votes`: such as `7 of 11`, if people voted.
    """

    cells: tuple[Any, ...]
    mean: float
    low: float | None
    high: float | None
    verdict: str
    text: str
    votes: str = ""


@dataclass(frozen=True, slots=True)
class AxisChoice:
    """An axis, or several that vary together, and what is known of it.

    `chosen` is the index of the value to take: the best, or an equal one that costs less. Without values, the axis has
    too many, or belongs to a search that fits a curve.
    """

    columns: tuple[str, ...]
    text: str
    values: tuple[ValueEstimate, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class MetricChoice:
    """The axes by a metric of which more is better, or less. `more_seeds` may settle what is undecided (0: none)."""

    metric: str
    maximize: bool
    axes: tuple[AxisChoice, ...]
    notes: tuple[str, ...]
    more_seeds: int


def choose_by_effects(answer: EffectsAnswer, maximize: Mapping[str, bool]) -> Iterator[MetricChoice]:
    """What to take by each metric, in both directions unless `maximize` knows which is better."""
    costs = [metric for name in COST_COLUMNS for metric in answer.metrics if metric.metric == name]
    for metric in answer.metrics:
        if metric.metric in COST_COLUMNS:
            continue
        known = metric.maximize if metric.maximize is not None else maximize.get(metric.metric)
        for direction in (True, False) if known is None else (known,):
            chosen = [_choose_value(answer, effect, metric, costs, direction) for effect in metric.effects]
            notes = [metric.note] if metric.note else describe_interactions(metric, answer)
            more = _count_more_seeds(answer, metric, chosen)
            yield MetricChoice(metric.metric, direction, tuple(chosen), tuple(notes), more)


def _choose_value(
    answer: EffectsAnswer, effect: AxisEffect, metric: MetricEffects, costs: Sequence[MetricEffects], maximize: bool
) -> AxisChoice:
    axis = next(axis for axis in answer.found.axes if axis.name == effect.axis)
    text = describe_facts(effect, metric.maximize)
    means = _compute_means(axis, effect, metric.mean)
    if len(means) < 2 or effect.trend is not None or effect.note:
        return AxisChoice(axis.columns, text, (), 0)
    best = (max if maximize else min)(means, key=lambda label: means[label])
    pairs = {pair.value if pair.other == best else pair.other: pair for pair in effect.comparisons
             if best in (pair.value, pair.other)}  # fmt: skip
    of_samples = sum(found.share for found in metric.shares if answer.replicates.issuperset(found.axes))
    margin = _MARGIN * metric.standard_deviation * math.sqrt(max(0.0, 1 - of_samples))
    verdicts = {label: _compare(pairs.get(label), best, margin, maximize) for label in means} | {best: BEST}
    savings = {label: _describe_saving(axis, costs, label, best) for label in means}
    labels = map_labels(means)
    values = []
    second = (max if maximize else min)((label for label in means if label != best), key=lambda label: means[label])
    for label, mean in means.items():
        other = second if label == best else best
        pair = pairs.get(second if label == best else label)
        verdict = f"{BEST}, {verdicts[second]}" if label == best else verdicts[label]
        words = _describe_value(pair, verdict, labels[label], labels[other], savings[label][1])
        margins = [(pair.interval[1] - pair.interval[0]) / 4 for pair in effect.comparisons
                   if label in (pair.value, pair.other) and pair.interval is not None]  # fmt: skip
        half = sum(margins) / len(margins) if margins else math.nan
        low, high = (mean - half, mean + half) if margins else (None, None)
        values.append(ValueEstimate(axis.values[axis.labels.index(label)], mean, low, high, verdicts[label], words))
    equal = [label for label in means if verdicts[label] in (BEST, EQUAL)]
    chosen = min(equal, key=lambda label: (savings[label][0], label != best))
    return AxisChoice(axis.columns, text, tuple(values), list(means).index(chosen))


def _compute_means(axis: EffectAxis, effect: AxisEffect, mean: float) -> dict[str, float]:
    """The mean of each compared value over matched trials, in the order of the axis."""
    means = dict.fromkeys(axis.labels, mean)
    for pair in effect.comparisons:
        means[pair.value] += pair.mean / len(means)
        means[pair.other] -= pair.mean / len(means)
    compared = {label for pair in effect.comparisons for label in (pair.value, pair.other)}
    return {label: value for label, value in means.items() if label in compared}


def _compare(pair: ValueComparison | None, best: str, margin: float, maximize: bool) -> str:
    """How a value compares with the best one of a pair of both."""
    if pair is None or pair.interval is None:
        return EQUAL if pair is not None and pair.mean == 0 else UNDECIDED
    if -margin <= pair.interval[0] and pair.interval[1] <= margin:
        return EQUAL
    is_best_higher = (pair.mean > 0) == (pair.value == best)
    return WORSE if pair.differs and is_best_higher == maximize else UNDECIDED


def _describe_saving(axis: EffectAxis, costs: Sequence[MetricEffects], label: str, best: str) -> tuple[float, str]:
    """What a value costs as a part of what the best one costs, and the words for that if it is surely less."""
    for metric in costs:
        effect = next((effect for effect in metric.effects if effect.axis == axis.name), None)
        means = {} if effect is None else _compute_means(axis, effect, metric.mean)
        pairs = () if effect is None else effect.comparisons
        if any({pair.value, pair.other} == {label, best} and pair.differs for pair in pairs) and means[best] > 0:
            part = means[label] / means[best]
            return part, f"{format_share(part)} of the {COST_COLUMNS[metric.metric]}" if part <= _CHEAPER else ""
    steps = dict(zip(axis.labels, axis.numbers or (), strict=False)) if "steps" in axis.name.casefold() else {}
    part = steps[label] / steps[best] if steps.get(best, 0) > 0 else 1.0
    return part, f"{format_share(part)} of the steps" if part <= _CHEAPER else ""


def _describe_value(pair: ValueComparison | None, verdict: str, label: str, other: str, saving: str) -> str:
    """How a value compares with the best one or, if it is the best, with the next."""
    by = "an unknown amount, because nothing is repeated"
    if pair is not None and pair.interval is not None:
        low, high = pair.interval if pair.mean >= 0 else (-pair.interval[1], -pair.interval[0])
        by = describe_estimate(abs(pair.mean), low, high)
    cheaper = f" for {saving}" if saving else ""
    return {
        f"{BEST}, {WORSE}": f"{label} is better than {other}, the next, by {by}",
        f"{BEST}, {EQUAL}": f"{label} is the best, and {other} is as good",
        f"{BEST}, {UNDECIDED}": f"{label} has the best mean, but {other} is not told apart from it",
        EQUAL: f"{label} is as good as {other}{cheaper}; they differ by {by}",
        UNDECIDED: f"undecided between {label}{cheaper} and {other}: they differ by {by}",
        WORSE: f"{label} is worse than {other} by {by}{cheaper}",
    }[verdict]


def _count_more_seeds(answer: EffectsAnswer, metric: MetricEffects, chosen: Sequence[AxisChoice]) -> int:
    """How many more seeds may settle the closest undecided pair of each axis, with the noise that there is."""
    seeds, wanted = answer.scope.seeds, 0
    undecided = [axis for axis in chosen if any(value.verdict == UNDECIDED for value in axis.values)]
    for axis in undecided:
        effect = next(effect for effect in metric.effects if effect.axis == " + ".join(axis.columns))
        needed = [
            math.ceil(seeds * ((pair.interval[1] - pair.interval[0]) / 2 / pair.mean) ** 2) - seeds
            for pair in effect.comparisons
            if pair.mean and pair.interval is not None
        ]
        wanted = max([wanted, *(count for count in needed if 0 < count <= _MOST_MORE * seeds)])
    return wanted or (_FIRST_MORE if undecided and seeds == 1 else 0)


def choose_by_votes(rankings: Sequence[ValueRanking]) -> MetricChoice | None:
    """What to take by the votes about settings; None without such votes."""
    axes = []
    for ranking in rankings:
        if ranking.is_point or not ranking.values:
            continue
        labels = map_labels([value.value for value in ranking.values])
        best = max(ranking.values, key=lambda value: value.share)
        worse = {pair.worse for pair in ranking.better if pair.better == best.value}
        values = []
        for value in ranking.values:
            name, counts = labels[value.value], value.counts
            verdict = BEST if value is best else WORSE if value.value in worse else UNDECIDED
            words = {
                BEST: f"{name} has the most wins", WORSE: f"{name} is worse than {labels[best.value]}{ranking.scope}",
                UNDECIDED: f"undecided between {name} and {labels[best.value]}",
            }  # fmt: skip
            votes = f"{counts.won} of {counts.won + counts.tied + counts.lost + counts.bad}"
            values.append(ValueEstimate(value.cells, value.share, value.low, value.high, verdict,
                                        words[verdict], votes))  # fmt: skip
        text = "" if worse else "no value is surely better than the others"
        axes.append(AxisChoice(ranking.columns, text, tuple(values), ranking.values.index(best)))
    return MetricChoice(VOTES_METRIC, True, tuple(axes), (), 0) if axes else None
