"""The answer of `sweeper effects`, and every word of it: what matters, by how much, and how sure that is.

`effects` analyses, and `effect_answer` has the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sweeper.answers.cells import format_rounded
from sweeper.answers.parts import Heading, Item, Line, Part, Table, shorten_cell
from sweeper.answers.render import INLINE
from sweeper.statistics.corrections import LEVEL
from sweeper.statistics.response_curve import ENDS, INSIDE, RISING
from sweeper.tables.effect_answer import AxisEffect, AxisShare, MetricEffects, NeededValues, Trend
from sweeper.tables.effect_axes import EffectAxes
from sweeper.wording import count_things

_MAX_PAIRS: Final = 10  # of an axis in a table; of more, only the differences from the other values are shown
_MAX_NAMED: Final = 4  # values in a sentence
_SMALL_SHARE: Final = 0.005  # of the variance: not worth a sentence

Records = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class EffectsAnswer:
    """What matters for each metric, in `trials` that succeeded.

    `points` is the number of points of a search, None in the results of a sweep. `message` says that `--where` or
    `--set` select nothing.
    """

    folder: Path
    trials: int
    points: int | None
    message: str
    found: EffectAxes = field(metadata=INLINE)
    metrics: tuple[MetricEffects, ...]

    def parts(self) -> Iterator[Part]:
        """What the trials are, then for each metric the words and the tables."""
        yield Line(_describe_trials(self))
        for note in self.found.notes:
            yield Line(f"note: {note}")
        for metric in self.metrics:
            yield Heading(metric.metric)
            yield from map(Item, _describe_metric(metric))
            for rows in (_list_shares(metric), _list_comparisons(metric, "pairs" if self.points is None else "points")):
                if rows:
                    yield Table.from_records(rows)


def describe_effects(answer: EffectsAnswer) -> dict[str, list[str]]:
    """The words of the answer without the tables: those of each metric, each with what the trials are."""
    trials = [_describe_trials(answer), *answer.found.notes]
    return {metric.metric: [*_describe_metric(metric), *trials] for metric in answer.metrics}


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


def _describe_metric(metric: MetricEffects) -> Iterator[str]:
    if metric.note:
        yield metric.note
        return
    for effect in metric.effects:
        yield _describe_effect(effect, metric.maximize)
    for share in metric.shares:
        is_seen = share.p_holm is not None and share.p_holm <= LEVEL and share.share >= _SMALL_SHARE
        if is_seen and len(share.replicates) < len(share.axes):
            yield _describe_interaction(share)
    if metric.rest is None:
        yield "there are too few trials to share out the variance"
    if metric.server_noise is not None:
        noise, spread = (
            format_rounded(float(f"{number:.2g}")) for number in (metric.server_noise, metric.standard_deviation)
        )
        yield (
            f"the server's own noise is {noise}, the standard deviation between repeats of one trial; that of all "
            f"trials is {spread}"
        )


def _describe_interaction(found: AxisShare) -> str:
    share = f"{_format_share(found.share)} of the variance"
    for replicate in found.replicates:
        (axis,) = {*found.axes} - {replicate}
        return f"what {axis} changes differs from {replicate} to {replicate}: {share}"
    return f"{' and '.join(found.axes)} act together: {share}; what one changes depends on the other"


def _describe_effect(effect: AxisEffect, maximize: bool | None) -> str:
    name = effect.axis
    if effect.note:
        return f"{name} {effect.note}"
    share = f"{_format_share(effect.share.share)} of the variance; " if effect.share else ""
    if effect.differs:
        where = (
            _describe_extremes(effect, maximize)
            if effect.trend is None
            else f" ({_describe_trend(effect.trend, maximize)})"
        )
        return f"{name} matters: {share}{_describe_largest(effect)}{where}"
    whole = "" if effect.whole_share is None else f"{_format_share(effect.whole_share.high)} of the variance"
    if effect.idle:
        return f"{name}: no sign that it matters; it explains at most {whole}"
    bounds = [
        max(abs(found.low), abs(found.high))
        for found in effect.comparisons
        if found.low is not None and found.high is not None and found.other is not None
    ]
    if not bounds:
        return (
            f"{name} cannot be judged: there is only one pair of trials for each difference; run more seeds or prompts"
        )
    if not max(bounds):
        return f"{name} changes nothing: each difference is 0"
    most = _round_to(max(bounds), max(bounds))
    if whole and not effect.seen:
        return f"{name} is not settled: it explains at most {whole}"
    if effect.seen:
        hint = f"; {_describe_needed(effect.needed)}" if effect.needed else ""
        return f"{name} matters: {share}which of its values differ is not settled{hint}"
    if effect.needed is None:
        return f"{name}: no difference seen (less than {most} either way)"
    needed = _describe_needed(effect.needed)
    return f"{name} is not settled: {share}the difference may be up to {most} either way; {needed}"


def _describe_trend(trend: Trend, maximize: bool | None) -> str:
    """Where the fitted curve is best, or of a metric without a direction, where it is highest."""
    top, bottom = ("highest", "lowest") if maximize is None else ("best", "worst")
    if trend.word in (INSIDE, ENDS):
        return f"{top if trend.word == INSIDE else bottom} near {trend.value}, of {trend.low} to {trend.high}"
    return f"{top} at {trend.value}, the {'highest' if trend.word == RISING else 'lowest'} value tried"


def _describe_needed(needed: NeededValues) -> str:
    return (
        f"{count_things(needed.more, 'more value')} of {needed.axis} would settle it, if it is as large as it looks now"
    )


def _describe_largest(effect: AxisEffect) -> str:
    """The largest difference of two values that is seen, such as `9 is 34 to 52 above 5`."""
    seen = [found for found in effect.comparisons if found.p_holm is not None and found.p_holm <= LEVEL]
    largest = max(seen, key=lambda found: (found.other is not None, abs(found.difference)))
    low, high = largest.low, largest.high
    assert low is not None
    assert high is not None
    margin = (high - low) / 2
    upper, lower = largest.value, "the others" if largest.other is None else largest.other
    if largest.difference < 0:
        low, high = -high, -low
        if largest.other is None:
            return f"{upper} is {_round_to(low, margin)} to {_round_to(high, margin)} below the others"
        upper, lower = lower, upper
    if _is_nothing(margin, low):
        return f"{shorten_cell(upper)} is {format_rounded(low)} above {shorten_cell(lower)}"
    return f"{shorten_cell(upper)} is {_round_to(low, margin)} to {_round_to(high, margin)} above {shorten_cell(lower)}"


def _describe_extremes(effect: AxisEffect, maximize: bool | None) -> str:
    """Which values are highest and lowest, as far as the differences that are seen allow it."""
    if effect.levels < 3:
        return ""
    words = ("highest", "lowest") if maximize is None else ("best", "worst") if maximize else ("worst", "best")
    texts = [
        f"{word} {' or '.join(map(shorten_cell, values))}"
        for word, values in zip(words, (effect.highest, effect.lowest), strict=True)
        if values and len(values) <= _MAX_NAMED
    ]
    return f" ({', '.join(texts)})" if texts else ""


def _list_shares(metric: MetricEffects) -> Records:
    """The table of shares: of each axis, each replicate, each pair, and the rest."""
    rows = [
        {
            "explained by": " x ".join(found.axes),
            "of the variance": _format_share(found.share),
            "from": _format_share(found.low),
            "to": _format_share(found.high),
        }
        for found in metric.shares
    ]
    for name, part in (("(axes that overlap)", metric.overlap), ("(unexplained)", metric.rest)):
        if part is not None and abs(part) >= _SMALL_SHARE:
            rows.append({"explained by": name, "of the variance": _format_share(part), "from": "", "to": ""})
    return rows


def _list_comparisons(metric: MetricEffects, counted: str) -> Records:
    rows = []
    for effect in metric.effects:
        pairs = sum(found.other is not None for found in effect.comparisons)
        for found in effect.comparisons:
            if found.other is not None and pairs > _MAX_PAIRS:
                continue
            margin = found.difference if found.low is None or found.high is None else (found.high - found.low) / 2
            rows.append(
                {
                    "axis": effect.axis,
                    "value": shorten_cell(found.value),
                    "against": "the others" if found.other is None else shorten_cell(found.other),
                    "difference": _round_to(found.difference, margin),
                    "low": "" if found.low is None else _round_to(found.low, margin),
                    "high": "" if found.high is None else _round_to(found.high, margin),
                    "p (Holm)": "" if found.p_holm is None else _format_p(found.p_holm),
                    counted: str(found.pairs),
                }
            )
    return rows


def _round_to(number: float, margin: float) -> str:
    """A number to the place of the second digit of its margin: further digits are noise."""
    if _is_nothing(margin, number):
        return format_rounded(number)
    places = 1 - math.floor(math.log10(abs(margin)))
    rounded = round(number, places) + 0.0  # + 0.0: no minus before a zero
    return f"{rounded:.{places}f}" if 0 <= places <= 6 else format_rounded(rounded)


def _is_nothing(margin: float, number: float) -> bool:
    """Whether a margin is 0 but for rounding."""
    return abs(margin) <= 1e-9 * abs(number)


def _format_share(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.095 else f"{share:.1%}".replace("%", " %")


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
