"""Write a check as Markdown, for a pull request or GitHub's step summary."""

from __future__ import annotations

from typing import Final

from sweeper.regression.comparison import Comparisons

_MAX_CASES: Final = 50  # GitHub cuts a step summary at a megabyte


def render_markdown(comparisons: Comparisons) -> str:
    """The result, the counts, and the cases that keep the check from passing."""
    counts = ", ".join(f"{count} {state}" for state, count in comparisons.counts.items() if count) or "no cases"
    lines = [
        f"### {'✅' if comparisons.ok else '❌'} sweeper check: {escape_cell(comparisons.experiment)}",
        "",
        f"{counts}.",
    ]
    lines += [f"\n{escape_cell(servers)} ({count} cases)." for servers, count in comparisons.servers.items()]
    if not comparisons.has_baseline:
        lines += ["", "There is no baseline: nothing was compared."]
    if comparisons.stopped_by:
        lines += ["", f"The run ended early ({comparisons.stopped_by}), so the remaining trials were not compared."]
    bad = [comparison for comparison in comparisons if comparisons.is_blocking(comparison)]
    if bad:
        lines += ["", "| case | state | why | verdict |", "| --- | --- | --- | --- |"]
        for comparison in bad[:_MAX_CASES]:
            texts = (comparison.case.name, comparison.reason, comparison.verdict)
            name, reason, verdict = map(escape_cell, texts)
            lines.append(f"| {name} | {comparison.state} | {reason} | {verdict} |")
    if len(bad) > _MAX_CASES:
        lines += ["", f"... and {len(bad) - _MAX_CASES} more."]
    return "\n".join(lines) + "\n"


def escape_cell(text: str) -> str:
    """One line of a table, with everything escaped that Markdown would interpret."""
    for mark in "\\`*_{}[]<>|~#@":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split()).replace("&", "&amp;")
