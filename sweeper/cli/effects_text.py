"""The answer of `sweeper effects` in words and tables, as text for a terminal or as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sweeper.answers.cells import format_rounded, sanitize
from sweeper.cli.console import to_json_number
from sweeper.cli.text_table import print_table, shorten_cell
from sweeper.statistics.corrections import LEVEL
from sweeper.statistics.response_curve import ENDS, INSIDE, RISING
from sweeper.statistics.variance_shares import TermShare
from sweeper.tables.effect_answer import AxisEffect, EffectsAnswer, MetricEffects, Trend
from sweeper.tables.effect_axes import EffectAxis
from sweeper.tables.export import format_markdown_cell
from sweeper.wording import count_things

_MAX_PAIRS: Final = 10  # of an axis in a table; of more, only the differences from the other values are shown
_MAX_NAMED: Final = 4  # values in a sentence
_SMALL_SHARE: Final = 0.005  # of the variance: not worth a sentence

Lines = list[str]
TableRows = Sequence[Mapping[str, str]]


def render_effects(answer: EffectsAnswer, *, markdown: bool) -> str:
    """The answer: what the trials are, then for each metric the words and the tables."""
    lines = [_describe_trials(answer), *(f"note: {note}" for note in answer.axes.notes)]
    form, heading, item = (format_markdown_cell, "## ", "- ") if markdown else (sanitize, "", "  ")
    lines = [form(line) + ("  " if markdown else "") for line in lines]
    for metric in answer.metrics:
        lines += ["", heading + form(metric.metric), *(item + form(line) for line in _describe_metric(metric))]
        counted = "pairs" if answer.points is None else "points"
        for rows in (_list_shares(metric), _list_comparisons(metric, counted)):
            if rows:
                lines.append("")
                lines += _render_markdown_table(rows) if markdown else _render_table(rows)
    return "\n".join(lines) + "\n"


def describe_effects(answer: EffectsAnswer) -> dict[str, Lines]:
    """The words about each metric, without the tables. After each come those about the trials."""
    trials = [_describe_trials(answer), *answer.axes.notes]
    return {metric.metric: [*_describe_metric(metric), *trials] for metric in answer.metrics}


def _render_table(rows: TableRows) -> Lines:
    lines: Lines = []
    print_table(rows, lines.append)
    return lines


def _render_markdown_table(rows: TableRows) -> Lines:
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [names, ["---"] * len(names), *([format_markdown_cell(row[name]) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _describe_trials(answer: EffectsAnswer) -> str:
    if answer.message:
        return answer.message
    replicates = [f"{axis.name} ({len(axis.values)})" for axis in answer.axes.axes if axis.is_replicate]
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
    for one, other, share, p in metric.interactions:
        if p <= LEVEL and share.share >= _SMALL_SHARE and not (one.is_replicate and other.is_replicate):
            yield _describe_interaction(one, other, _format_share(share.share))
    if metric.rest is None:
        yield "there are too few trials to share out the variance"
    if metric.server_noise is not None:
        yield (
            f"the server's own noise is {format_rounded(float(f'{metric.server_noise:.2g}'))}, the standard deviation "
            f"between repeats of one trial; that of all trials is {format_rounded(float(f'{metric.spread:.2g}'))}"
        )


def _describe_interaction(one: EffectAxis, other: EffectAxis, share: str) -> str:
    if one.is_replicate or other.is_replicate:
        axis, replicate = (other, one) if one.is_replicate else (one, other)
        return f"what {axis.name} changes differs from {replicate.name} to {replicate.name}: {share} of the variance"
    return f"{one.name} and {other.name} act together: {share} of the variance; what one changes depends on the other"


def _describe_effect(effect: AxisEffect, maximize: bool | None) -> str:
    name = effect.axis.name
    if effect.note:
        return f"{name} {effect.note}"
    share = f"{_format_share(effect.share.share)} of the variance; " if effect.share else ""
    if effect.differs:
        where = (
            _describe_extremes(effect, maximize)
            if effect.trend is None
            else f" ({_describe_trend(effect.trend, effect.axis.labels, maximize)})"
        )
        return f"{name} matters: {share}{_describe_largest(effect)}{where}"
    if effect.is_idle and effect.whole is not None:
        return (
            f"{name}: no sign that it matters; it explains at most {_format_share(effect.whole.high)} of the variance"
        )
    bounds = [
        max(abs(low), abs(high))
        for comparison, _ in effect.comparisons
        for low, high in [(comparison.difference.low, comparison.difference.high)]
        if low is not None and high is not None and comparison.other is not None
    ]
    if not bounds:
        return (
            f"{name} cannot be judged: there is only one pair of trials for each difference; run more seeds or prompts"
        )
    if not max(bounds):
        return f"{name} changes nothing: each difference is 0"
    most = _round_to(max(bounds), max(bounds))
    if effect.whole is not None and not effect.is_seen:
        return f"{name} is not settled: it explains at most {_format_share(effect.whole.high)} of the variance"
    if effect.is_seen:
        hint = f"; {_describe_needed(*effect.needed)}" if effect.needed else ""
        return f"{name} matters: {share}which of its values differ is not settled{hint}"
    if effect.needed is None:
        return f"{name}: no difference seen (less than {most} either way)"
    needed = _describe_needed(*effect.needed)
    return f"{name} is not settled: {share}the difference may be up to {most} either way; {needed}"


def _describe_trend(trend: Trend, labels: Sequence[str], maximize: bool | None) -> str:
    """Where the fitted curve is best, or of a metric without a direction, where it is highest."""
    value, low, high = (labels[index] for index in (trend.value, trend.low, trend.high))
    top, bottom = ("highest", "lowest") if maximize is None else ("best", "worst")
    if trend.word in (INSIDE, ENDS):
        return f"{top if trend.word == INSIDE else bottom} near {value}, of {low} to {high}"
    return f"{top} at {value}, the {'highest' if trend.word == RISING else 'lowest'} value tried"


def _describe_needed(replicate: str, more: int) -> str:
    values = "values" if more != 1 else "value"
    return f"{more} more {values} of {replicate} would settle it, if it is as large as it looks now"


def _describe_largest(effect: AxisEffect) -> str:
    """The largest difference of two values that is seen, such as `9 is 34 to 52 above 5`."""
    seen = [found for found, p in effect.comparisons if p is not None and p <= LEVEL]
    largest = max(seen, key=lambda found: (found.other is not None, abs(found.difference.mean)))
    labels, difference = effect.axis.labels, largest.difference
    assert difference.low is not None
    assert difference.high is not None
    margin = (difference.high - difference.low) / 2
    upper, lower = labels[largest.value], "the others" if largest.other is None else labels[largest.other]
    low, high = difference.low, difference.high
    if difference.mean < 0:
        low, high = -high, -low
        if largest.other is None:
            return f"{upper} is {_round_to(low, margin)} to {_round_to(high, margin)} below the others"
        upper, lower = lower, upper
    if _is_nothing(margin, low):
        return f"{_quote(upper)} is {format_rounded(low)} above {_quote(lower)}"
    return f"{_quote(upper)} is {_round_to(low, margin)} to {_round_to(high, margin)} above {_quote(lower)}"


def _describe_extremes(effect: AxisEffect, maximize: bool | None) -> str:
    """Which values are highest and lowest, as far as the differences that are seen allow it."""
    if len(effect.axis.labels) < 3:
        return ""
    words = ("highest", "lowest") if maximize is None else ("best", "worst") if maximize else ("worst", "best")
    texts = [
        f"{word} {' or '.join(_quote(effect.axis.labels[value]) for value in values)}"
        for word, values in zip(words, (effect.highest, effect.lowest), strict=True)
        if values and len(values) <= _MAX_NAMED
    ]
    return f" ({', '.join(texts)})" if texts else ""


def _quote(label: str) -> str:
    return shorten_cell(label)


def _list_shares(metric: MetricEffects) -> TableRows:
    """The table of shares: of each axis, each replicate, each pair, and the rest."""
    terms = [(effect.axis.name, effect.share) for effect in metric.effects]
    terms += [(axis.name, share) for axis, share in metric.replicates]
    terms += [(f"{one.name} x {other.name}", share) for one, other, share, _ in metric.interactions]
    rows = [
        {
            "explained by": name,
            "of the variance": _format_share(share.share),
            "from": _format_share(share.low),
            "to": _format_share(share.high),
        }
        for name, share in terms
        if share is not None
    ]
    for name, part in (("(axes that overlap)", metric.overlap), ("(unexplained)", metric.rest)):
        if part is not None and abs(part) >= _SMALL_SHARE:
            rows.append({"explained by": name, "of the variance": _format_share(part), "from": "", "to": ""})
    return rows


def _list_comparisons(metric: MetricEffects, counted: str) -> TableRows:
    rows = []
    for effect in metric.effects:
        pairs = sum(comparison.other is not None for comparison, _ in effect.comparisons)
        for comparison, p in effect.comparisons:
            if comparison.other is not None and pairs > _MAX_PAIRS:
                continue
            found, labels = comparison.difference, effect.axis.labels
            margin = found.mean if found.low is None or found.high is None else (found.high - found.low) / 2
            rows.append(
                {
                    "axis": effect.axis.name,
                    "value": shorten_cell(labels[comparison.value]),
                    "against": "the others" if comparison.other is None else shorten_cell(labels[comparison.other]),
                    "difference": _round_to(found.mean, margin),
                    "low": "" if found.low is None else _round_to(found.low, margin),
                    "high": "" if found.high is None else _round_to(found.high, margin),
                    "p (Holm)": "" if p is None else _format_p(p),
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


def effects_to_json(answer: EffectsAnswer) -> dict[str, Any]:
    """The answer for programs: everything that the tables show, without rounding, and all pairs."""
    return {
        "folder": str(answer.folder),
        "trials": answer.trials,
        "points": answer.points,
        "message": answer.message,
        "axes": [
            {"axis": axis.name, "columns": axis.columns, "values": axis.values, "replicate": axis.is_replicate}
            for axis in answer.axes.axes
        ],
        "constant": answer.axes.constant,
        "notes": answer.axes.notes,
        "metrics": [_metric_to_json(metric) for metric in answer.metrics],
    }


def _metric_to_json(metric: MetricEffects) -> dict[str, Any]:
    shares: list[tuple[tuple[EffectAxis, ...], TermShare]] = [
        *(((effect.axis,), effect.share) for effect in metric.effects if effect.share),
        *(((axis,), share) for axis, share in metric.replicates),
        *(((one, other), share) for one, other, share, _ in metric.interactions),
    ]
    return {
        "metric": metric.metric,
        "trials": metric.trials,
        "note": metric.note,
        "maximize": metric.maximize,
        "server_noise": metric.server_noise,
        "standard_deviation": metric.spread,
        "shares": [
            {
                "axes": [axis.name for axis in axes],
                "share": share.share,
                "low": share.low,
                "high": share.high,
                "p": share.p,
                "df": share.df,
                "f": to_json_number(share.f),
                "error_df": share.error_df,
            }
            for axes, share in shares
        ],
        "overlap": metric.overlap,
        "rest": metric.rest,
        "effects": [_effect_to_json(effect) for effect in metric.effects],
    }


def _effect_to_json(effect: AxisEffect) -> dict[str, Any]:
    labels, trend, whole = effect.axis.labels, effect.trend, effect.whole
    return {
        "axis": effect.axis.name,
        "note": effect.note,
        "seen": effect.is_seen,
        "idle": effect.is_idle,
        "whole_share": None if whole is None else {"share": whole.share, "high": whole.high, "p": whole.p},
        "trend": None if trend is None else {"word": trend.word, "value": labels[trend.value]},
        "highest": [labels[value] for value in effect.highest],
        "lowest": [labels[value] for value in effect.lowest],
        "needed": None if effect.needed is None else {"axis": effect.needed[0], "more": effect.needed[1]},
        "comparisons": [
            {
                "value": labels[comparison.value],
                "other": None if comparison.other is None else labels[comparison.other],
                "difference": comparison.difference.mean,
                "low": comparison.difference.low,
                "high": comparison.difference.high,
                "p": comparison.difference.p,
                "p_holm": p,
                "pairs": comparison.difference.pairs,
                "df": comparison.difference.df,
            }
            for comparison, p in effect.comparisons
        ],
    }
