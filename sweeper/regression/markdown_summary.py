"""A check as Markdown, for a pull request or GitHub's step summary."""

from __future__ import annotations

from typing import Final

from sweeper.regression.comparison import Comparisons

_SHOWN: Final = 50  # cases; GitHub cuts a step summary at a megabyte, and nobody reads further


def markdown(found: Comparisons) -> str:
    """The verdict, the counts, and the cases that need a look."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count) or "no cases"
    lines = [f"### {'✅' if found.ok else '❌'} sweeper check: {_cell(found.experiment)}", "", f"{counts}."]
    lines += [f"\n{_cell(told)} ({count} cases)." for told, count in found.servers.items()]
    if not found.has_baseline:
        lines += ["", "There is no baseline: nothing was compared."]
    if found.stopped_by:
        lines += ["", f"The run ended early ({found.stopped_by}): what it did not reach was never compared."]
    bad = [one for one in found if found.bad(one)]
    if bad:
        lines += ["", "| case | state | why | whose change |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(one.case.name)} | {one.state} | {_cell(one.reason)} | {_cell(one.verdict)} |"
            for one in bad[:_SHOWN]
        ]
    if len(bad) > _SHOWN:
        lines += ["", f"... and {len(bad) - _SHOWN} more."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """One line, no bar, and no mark-up that a prompt happens to spell."""
    for mark in "\\`*_{}[]<>|~#@":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split()).replace("&", "&amp;")
