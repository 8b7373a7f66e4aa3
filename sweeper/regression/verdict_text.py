"""A verdict in words, as the rows of a table, and as Markdown for a comment on a pull request."""

from __future__ import annotations

from typing import Final

from sweeper.answers.render import escape_markdown
from sweeper.regression.cases import format_cells
from sweeper.regression.verdict import DEFAULT_MARGIN, MetricVerdict, TrialPair, Verdict
from sweeper.statistics.equivalence import EQUIVALENT, HIGHER, LOWER
from sweeper.wording import count_things

MARGINS: Final = (
    f"Intervals have 95 % confidence. A margin is {DEFAULT_MARGIN:g} standard deviations of the old trials unless you "
    "give one; p-values are corrected for the number of metrics."
)


def describe_verdict(verdict: Verdict) -> str:
    """The headline: `better: new.safetensors against old.safetensors, over 40 matched pairs (prompt 10, seed 4)`."""
    matched = verdict.matched
    axes = ", ".join(f"{name} {count}" for name, count in matched.axes.items() if count > 1)
    count = f"{count_things(len(matched.cells), 'matched pair')}"
    over = f" ({axes})" if axes else ""
    axis = f"{matched.new_side.axis} " if matched.new_side.axis else ""
    return f"{verdict.word}: {axis}{matched.new_side.label} against {matched.old_side.label}, over {count}{over}"


def describe_metric(one: MetricVerdict, verdict: Verdict) -> str:
    """One sentence about a metric."""
    start, difference = f"{one.metric}: {one.word}", one.difference
    if difference is None or difference.low is None or difference.high is None or one.decision is None:
        return f"{start}. {one.note}"
    new, old = verdict.matched.new_side.label, verdict.matched.old_side.label
    if one.word == EQUIVALENT:
        return f"{start}. The difference of {difference.mean:.3g} is within the margin of {one.margin:.3g}"
    if one.decision.word in (HIGHER, LOWER):
        low, high = sorted((abs(difference.low), abs(difference.high)))
        side = "above" if difference.mean > 0 else "below"
        advice = f"; is that better? Give --maximize {one.metric} or --minimize {one.metric}"
        return f"{start}. {new} is {low:.3g} to {high:.3g} {side} {old}{'' if one.direction else advice}"
    bounds = f"{difference.low:.3g} and {difference.high:.3g}"
    text = f"{start}. The difference is between {bounds}, the margin {one.margin:.3g}"
    more = one.decision.more_pairs
    if more is None:
        return f"{text}; it is too close to the margin for any number of trials that sweeper would propose"
    return f"{text}; about {more} more matched pairs would decide, if it is as large as it looks now"


def list_metric_rows(verdict: Verdict) -> list[dict[str, str]]:
    """The rows of the table of metrics."""
    return [_make_row(one) for one in verdict.metrics]


def _make_row(one: MetricVerdict) -> dict[str, str]:
    difference, decision = one.difference, one.decision
    has_interval = difference is not None and difference.low is not None
    return {
        "metric": one.metric,
        "verdict": one.word,
        "old": "" if one.old is None else f"{one.old:.4g}",
        "new": "" if one.new is None else f"{one.new:.4g}",
        "difference": "" if difference is None else f"{difference.mean:+.3g}",
        "interval": f"{difference.low:+.3g} to {difference.high:+.3g}" if difference and has_interval else "",
        "margin": f"{one.margin:.3g}" if one.margin else "",
        "p different": "" if decision is None else _format_p(decision.p_difference),
        "p equivalent": "" if decision is None else _format_p(decision.p_equivalence),
        "pairs": "" if difference is None else str(difference.pairs),
    }


def _format_p(p: float | None) -> str:
    """A p-value with two digits."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def describe_pair(pair: TrialPair) -> str:
    """Its metrics, as `sharpness 12.3 -> 20.1`."""
    return ", ".join(f"{name} {old:.4g} -> {new:.4g}" for name, (old, new) in pair.metrics.items())


def render_markdown(verdict: Verdict) -> str:
    """One comment: the headline, the words, the table, and the pairs that differ most."""
    mark = "✅" if verdict.ok else "❌"
    rows = list_metric_rows(verdict)
    lines = [f"### {mark} {escape_markdown(describe_verdict(verdict))}", ""]
    lines += [f"- {escape_markdown(describe_metric(one, verdict))}" for one in verdict.metrics]
    lines += ["", f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
    lines += [f"| {' | '.join(map(escape_markdown, row.values()))} |" for row in rows]
    if verdict.pairs:
        old, new = (escape_markdown(side.label) for side in (verdict.matched.old_side, verdict.matched.new_side))
        lines += ["", "The pairs that differ most:", "", f"| pair | {old} -> {new} | pictures |", "| --- | --- | --- |"]
        for pair in verdict.pairs:
            pictures = ", ".join(name for row in (pair.old, pair.new) for name in row.outputs[:1])
            cells = (format_cells(pair.cells) or "-", describe_pair(pair), pictures)
            lines.append(f"| {' | '.join(map(escape_markdown, cells))} |")
    lines += ["", *(f"- {escape_markdown(note)}" for note in verdict.notes), f"- {escape_markdown(MARGINS)}"]
    return "\n".join(lines) + "\n"
