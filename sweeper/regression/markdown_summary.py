"""A check as Markdown, for a pull request or GitHub's step summary."""

from __future__ import annotations

from typing import Final

from sweeper.regression.comparison import Comparisons

_MAX_CASES: Final = 50  # cases; GitHub cuts a step summary at a megabyte, and nobody reads further


def render_markdown(found: Comparisons) -> str:
    """The verdict, the counts, and the cases that need a look."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count) or "no cases"
    lines = [f"### {'✅' if found.ok else '❌'} sweeper check: {_escape_cell(found.experiment)}", "", f"{counts}."]
    lines += [f"\n{_escape_cell(told)} ({count} cases)." for told, count in found.servers.items()]
    if not found.has_baseline:
        lines += ["", "There is no baseline: nothing was compared."]
    if found.stopped_by:
        lines += ["", f"The run ended early ({found.stopped_by}): what it did not reach was never compared."]
    bad = [one for one in found if found.is_blocking(one)]
    if bad:
        lines += ["", "| case | state | why | whose change |", "| --- | --- | --- | --- |"]
        for case in bad[:_MAX_CASES]:
            name, reason, verdict = map(_escape_cell, (case.case.name, case.reason, case.verdict))
            lines.append(f"| {name} | {case.state} | {reason} | {verdict} |")
    if len(bad) > _MAX_CASES:
        lines += ["", f"... and {len(bad) - _MAX_CASES} more."]
    return "\n".join(lines) + "\n"


def _escape_cell(text: str) -> str:
    """One line, no bar, and no mark-up that a prompt happens to spell."""
    for mark in "\\`*_{}[]<>|~#@":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split()).replace("&", "&amp;")
