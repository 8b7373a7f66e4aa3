"""The answer of `sweeper effects`: what changes a metric, by how much, and how sure that is, as values and in words.

`effects` analyses sweeps and searches. What makes values of its statistics is here, because both share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np

from sweeper.answers.cells import format_rounded, map_labels
from sweeper.answers.parts import Heading, Item, Line, Part, Table
from sweeper.answers.render import IF_GIVEN, INLINE, NOT_IN_JSON, json_keys
from sweeper.statistics.codes import LEVEL, Numbers
from sweeper.statistics.paired import Interval, ValueComparison, ValueComparisons, excludes_zero
from sweeper.statistics.variance_shares import ENDS, INSIDE, RISING, AxisShare, VarianceShares, adjust_p_values
from sweeper.tables.aggregate import is_nothing, round_to_margin
from sweeper.tables.effect_axes import PROMPTS, SEEDS, EffectAxes, EffectAxis
from sweeper.wording import count_things

MAX_VALUES: Final = 30  # of an axis, because each pair of values is compared
IDLE_SHARE: Final = 0.05  # of the variance: an axis that surely explains less may be left at one value
_IDLE_P: Final = 0.05  # of the F test of the whole share of such an axis, at least
_SMALLEST: Final = 1e-50  # the fourth power of a smaller number may be 0, and of its inverse infinite
_MAX_PAIRS: Final = 10  # of an axis in a table
_MAX_NAMED: Final = 4  # values in a sentence
_SMALL_SHARE: Final = 0.005  # of the variance: not worth a sentence

Records = Sequence[Mapping[str, str]]
Labels = Mapping[str, str]  # by the text of a value


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


# --- the words


@dataclass(frozen=True, slots=True)
class ReplicateScope:
    """The numbers of prompts and of seeds over which values are compared; 1 if they do not vary."""

    prompts: int
    seeds: int

    @staticmethod
    def of(axes: Iterable[EffectAxis]) -> ReplicateScope:
        """The scope of trials with these axes."""
        replicates = [(axis.kind, len(set(axis.codes.tolist())) or len(axis.values)) for axis in axes]
        return ReplicateScope(
            *(math.prod(count for kind, count in replicates if kind == own) for own in (PROMPTS, SEEDS))
        )

    @property
    def on_these(self) -> str:
        return f" on these {self.prompts} prompts" if self.prompts > 1 else ""

    @property
    def few(self) -> str:
        """Why a difference that all pairs have may be chance."""
        if self.seeds > 1:
            return f"with {self.seeds} seeds "
        return f"with {self.prompts} prompts " if self.prompts > 1 else ""

    @property
    def more(self) -> str:
        """As many replicates as there are."""
        if self.seeds > 1:
            return f"{self.seeds} more seeds"
        return f"{self.prompts} more prompts" if self.prompts > 1 else "twice as many trials"


DOUBT: Final = "by a judge that the votes of people do not confirm"  # whose numbers they are


@dataclass(frozen=True, slots=True)
class EffectsAnswer:
    """What each axis changes in each metric, in `trials` that succeeded.

    `points` is the number of points of a search, None in the results of a sweep. `message` says that `--where` or
    `--set` select nothing.
    """

    folder: Path
    trials: int
    points: int | None
    message: str
    found: EffectAxes = field(metadata=INLINE)
    metrics: tuple[MetricEffects, ...]

    @property
    def scope(self) -> ReplicateScope:
        """For what the differences hold."""
        return ReplicateScope.of(self.found.axes)

    @property
    def replicates(self) -> frozenset[str]:
        return frozenset(axis.name for axis in self.found.axes if axis.is_replicate)

    def parts(self) -> Iterator[Part]:
        """What the trials are, then for each metric the words and the tables."""
        yield Line(_describe_trials(self))
        for note in self.found.notes:
            yield Line(f"note: {note}")
        for metric in self.metrics:
            yield Heading(metric.metric)
            yield from map(Item, _describe_metric(metric, self))
            counted = "higher in" if self.points is None else "points"
            for rows in (_list_shares(metric), _list_comparisons(metric, counted)):
                if rows:
                    yield Table.from_records(rows)


def describe_effects(answer: EffectsAnswer) -> dict[str, list[str]]:
    """The words of the answer without the tables: those of each metric, each with what the trials are."""
    trials = [_describe_trials(answer), *answer.found.notes]
    return {metric.metric: [*_describe_metric(metric, answer), *trials] for metric in answer.metrics}


def _describe_trials(answer: EffectsAnswer) -> str:
    if answer.message:
        return answer.message
    replicates = [f"{axis.name} ({len(axis.values)})" for axis in answer.found.axes if axis.is_replicate]
    if answer.points is not None:
        over = f"; each number is the mean of a point over {' and '.join(replicates)}" if replicates else ""
        return f"{count_things(answer.trials, 'trial')} of {count_things(answer.points, 'point')} succeeded{over}"
    over = (
        f"differences are over {' and '.join(replicates)}"
        if replicates
        else "nothing is repeated with other seeds or prompts, so the other axes take their place"
    )
    return f"{count_things(answer.trials, 'trial')} succeeded; {over}"


def _describe_metric(metric: MetricEffects, answer: EffectsAnswer) -> Iterator[str]:
    if metric.doubt is not None:
        yield f"{DOUBT}: {metric.doubt}"
    if metric.note:
        yield metric.note
        return
    for effect in metric.effects:
        facts = [fact for fact in _list_facts(effect, metric.maximize, answer.scope) if fact]
        if " + " in effect.axis and effect.differs:
            facts.append(f"{' and '.join(effect.axis.split(' + '))} cannot be separated")
        if effect.share and effect.differs:
            facts.append(f"{format_share(effect.share.share)} of the variance")
        more = f"; select some, or call it a replicate: --over {effect.axis}" if effect.levels > MAX_VALUES else ""
        yield f"{effect.axis} {effect.note}{more}" if effect.note else f"{effect.axis}: {'; '.join(facts)}"
    yield from describe_interactions(metric, answer)
    if metric.rest is None:
        yield "there are too few trials, or too many values, to share out the variance"
    if metric.server_noise is not None:
        noise, spread = (
            format_rounded(float(f"{number:.2g}")) for number in (metric.server_noise, metric.standard_deviation)
        )
        yield (
            f"the server's own noise is {noise}, the standard deviation between repeats of one trial; that of all "
            f"trials is {spread}"
        )


def describe_interactions(metric: MetricEffects, answer: EffectsAnswer) -> list[str]:
    """A sentence for each pair of axes of which one changes what the other does."""
    replicates = answer.replicates
    return [
        _describe_interaction(share, replicates)
        for share in metric.shares
        if len(share.axes) > 1 and share.p <= LEVEL and share.share >= _SMALL_SHARE and not replicates >= {*share.axes}
    ]


def _describe_interaction(found: AxisShare, replicates: AbstractSet[str]) -> str:
    share = f"{format_share(found.share)} of the variance"
    for axis, other in permutations(found.axes):
        if other in replicates:
            return f"what {axis} changes differs from {other} to {other}: {share}"
    return f"{' and '.join(found.axes)} act together: {share}; what one changes depends on the other"


def _list_facts(effect: AxisEffect, maximize: bool | None, scope: ReplicateScope) -> Iterator[str]:
    """What is known of an axis without a note: the largest difference that is one, or the largest that was seen."""
    pairs = [found for found in effect.comparisons if found.differs] or effect.comparisons
    largest, labels = max(pairs, key=lambda found: abs(found.mean), default=None), _label_values(effect)
    whole = "" if effect.whole_share is None else f"{format_share(effect.whole_share.high)} of the variance"
    if effect.idle:
        yield f"hardly changes it; it explains at most {whole}"
    elif whole and not effect.differs:
        yield describe_difference(largest, scope, labels) if largest is not None else ""
        yield f"it explains at most {whole}"
    elif largest is None or not any(found.mean or found.interval not in {None, (0, 0)} for found in effect.comparisons):
        yield "changes nothing: each difference is 0"
    else:
        if effect.slope is not None:
            yield _describe_slope(*effect.slope, effect.slope_of)
        yield describe_difference(largest, scope, labels)
        if not effect.differs and effect.levels > 2:
            yield f"no two of its {effect.levels} values are told apart"
        if effect.trend is not None:
            yield _describe_trend(effect.trend, maximize)
        yield _describe_extremes(effect, maximize, labels)
        if not effect.differs and effect.reach is not None:
            least = round_to_margin(effect.reach, effect.reach)
            yield f"with {scope.more}, differences above {least} would be told apart"


def describe_facts(effect: AxisEffect, maximize: bool | None) -> str:
    """What is known of an axis beside its largest difference: its slope, where it is best, that it changes nothing."""
    if effect.note:
        return effect.note
    if effect.idle:
        return "hardly changes it"
    facts = [_describe_slope(*effect.slope, effect.slope_of)] if effect.slope is not None else []
    facts += [_describe_trend(effect.trend, maximize)] if effect.trend is not None and effect.differs else []
    return "; ".join(facts) or ("" if effect.differs else "no two values are told apart")


def _label_values(effect: AxisEffect) -> Labels:
    compared = (value for pair in effect.comparisons for value in (pair.value, pair.other))
    return map_labels((*compared, *effect.highest, *effect.lowest))


def describe_difference(
    found: ValueComparison, scope: ReplicateScope, labels: Labels | None = None, *, is_sure: bool | None = None
) -> str:
    """The fact, the estimate, and for what they hold, such as `9 is higher than 3 in 18 of 18 pairs, by 11 (10 to 12)`.

    The value with the higher mean comes first. `labels`: those of all values of the axis. `is_sure`: whether it is told
    as a difference, which is by default that the interval excludes 0.
    """
    labels = labels or map_labels((found.value, found.other))
    if found.mean < 0:
        interval, others = (ends and (-ends[1], -ends[0]) for ends in (found.interval, found.others))
        found = replace(found, value=found.other, other=found.value, higher=found.lower, lower=found.higher,
                        mean=-found.mean, interval=interval, others=others)  # fmt: skip
    count = f" in {found.higher} of {found.pairs} pairs" if found.higher or found.lower else ""
    fact, link = f"{labels[found.value]} is higher than {labels[found.other]}{count}", ", by "
    if not found.mean:
        fact, link = f"{labels[found.value]} and {labels[found.other]} are equal on average", ": "
    if found.interval is None:
        return f"{fact}{link}{format_rounded(found.mean)}; run more seeds or prompts to see how sure that is"
    estimate, is_sure = describe_estimate(found.mean, *found.interval), found.differs if is_sure is None else is_sure
    if not is_sure and count and found.higher == found.pairs:
        return f"{fact}; {scope.few}that may still be chance: {estimate}"
    text = f"{fact}{link}{estimate}{scope.on_these}"
    if not is_sure or found.others is None:
        return text
    if found.others == found.interval:
        return f"{text} and for other prompts"
    few = "" if excludes_zero(found.others) else ", too few prompts to say"
    return f"{text}; for other prompts: {_format_interval(found.others)}{few}"


def describe_estimate(mean: float, low: float, high: float) -> str:
    """`11.3 (10.1 to 12.5)`: a mean and its interval, to the digits that the interval allows."""
    margin = (high - low) / 2
    if is_nothing(margin, mean):
        return format_rounded(mean)
    return f"{round_to_margin(mean, margin)} ({_format_interval((low, high))})"


def _describe_slope(low: float, high: float, column: str | None) -> str:
    least, most = sorted((abs(low), abs(high)))
    by = format_rounded(most) if is_nothing(most - least, least) else _format_interval((least, most))
    return f"{'rises' if low > 0 else 'falls'} with {column or 'it'}, by {by} for 1 more"


def _describe_trend(trend: Trend, maximize: bool | None) -> str:
    """Where the fitted curve is best, or of a metric without a direction, where it is highest."""
    top, bottom = ("highest", "lowest") if maximize is None else ("best", "worst")
    if trend.word in (INSIDE, ENDS):
        return f"{top if trend.word == INSIDE else bottom} near {trend.value}, of {trend.low} to {trend.high}"
    return f"{top} at {trend.value}, the {'highest' if trend.word == RISING else 'lowest'} value tried"


def _describe_extremes(effect: AxisEffect, maximize: bool | None, labels: Labels) -> str:
    """Which values are highest and lowest, as far as the differences that are seen allow it."""
    if effect.levels < 3:
        return ""
    words = ("highest", "lowest") if maximize is None else ("best", "worst") if maximize else ("worst", "best")
    return ", ".join(
        f"{word} {' or '.join(map(labels.__getitem__, values))}"
        for word, values in zip(words, (effect.highest, effect.lowest), strict=True)
        if values and len(values) <= _MAX_NAMED
    )


def _list_shares(metric: MetricEffects) -> Records:
    """The table of shares: of each axis, each replicate, each pair, and the rest."""
    rows = [
        {
            "explained by": " x ".join(found.axes),
            "of the variance": format_share(found.share),
            "from": format_share(found.low),
            "to": format_share(found.high),
        }
        for found in metric.shares
    ]
    for name, part in (("(axes that overlap)", metric.overlap), ("(unexplained)", metric.rest)):
        if part is not None and abs(part) >= _SMALL_SHARE:
            rows.append({"explained by": name, "of the variance": format_share(part), "from": "", "to": ""})
    return rows


def _list_comparisons(metric: MetricEffects, counted: str) -> Records:
    """The pairs of values; of an axis with many, those with its highest value, or those that differ most."""
    rows = []
    for effect in metric.effects:
        shown, labels = effect.comparisons, _label_values(effect)
        if len(shown) > _MAX_PAIRS:
            named = [pair for pair in shown if {pair.value, pair.other} & set(effect.highest[:1])]
            shown = tuple(named or sorted(shown, key=lambda pair: -abs(pair.mean))[:_MAX_PAIRS])
        rows += [{"axis": effect.axis, **_format_row(found, counted, labels)} for found in shown]
    return rows


def _format_row(found: ValueComparison, counted: str, labels: Labels) -> dict[str, str]:
    margin = found.mean if found.interval is None else (found.interval[1] - found.interval[0]) / 2
    return {
        "value": labels[found.value],
        "against": labels[found.other],
        counted: f"{found.higher} of {found.pairs}" if found.higher or found.lower else str(found.pairs),
        "difference": round_to_margin(found.mean, margin),
        "interval": _format_interval(found.interval),
        "other prompts": _format_interval(found.others),
        "differs": "yes" if found.differs else "",
    }


def _format_interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    margin = (interval[1] - interval[0]) / 2
    return " to ".join(round_to_margin(end, margin) for end in interval)


def format_share(share: float) -> str:
    """A share (0 to 1) as per cent, such as `56 %`; a small one with a decimal."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.095 else f"{share:.1%}".replace("%", " %")
