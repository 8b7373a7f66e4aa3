"""The options of `sweeper compare --verdict`, what they mean, and how the verdict is printed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import make_names_option, over
from sweeper.cli.text_table import print_table
from sweeper.errors import Problem, UsageError

if TYPE_CHECKING:
    from sweeper.regression.verdict import MetricVerdict, Verdict
    from sweeper.regression.verdict_pairs import SideTrials


@dataclass(frozen=True, slots=True)
class VerdictOptions:
    """The options as given."""

    verdict: bool
    axis: str | None
    metrics: Sequence[str]
    margins: Sequence[str]
    maximize: Sequence[str]
    minimize: Sequence[str]
    over: Sequence[str]
    markdown: Path | None
    html: Path | None

    def check(self, sides: int) -> None:
        """Raise UsageError for options that do not belong together. `sides`: the number of runs on the command line."""
        if not self.verdict:
            given = [name for name, value in (
                ("--axis", self.axis), ("--metric", self.metrics), ("--margin", self.margins),
                ("--maximize", self.maximize), ("--minimize", self.minimize), ("--over", self.over),
                ("--markdown", self.markdown), ("--html", self.html)) if value]  # fmt: skip
            if given:
                raise UsageError(f"{' and '.join(given)}: this belongs to a verdict; add --verdict")
        if self.axis is None and sides == 1:
            raise UsageError("one RUN only: name a second one, or two values with --axis NAME=OLD,NEW --verdict")
        if self.axis is not None and sides == 2:
            raise UsageError("--axis compares two values within one RUN; drop the second RUN")


def verdict_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a verdict. The command gets them as one argument `options`."""

    @functools.wraps(command)
    def with_options(*args: Any, **values: Any) -> Any:
        names = VerdictOptions.__dataclass_fields__
        own = {name: values.pop(name) for name in names}
        return command(*args, options=VerdictOptions(**own), **values)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


_OPTIONS = (
    click.option("--verdict", is_flag=True, help="Judge by metrics: is the second better, worse or equivalent?"),
    click.option("--axis", metavar="NAME=OLD,NEW", help="With --verdict: compare two values of an axis of one RUN."),
    make_names_option("--metric", "metrics", "Judge only these metrics, or ran_s or cost. [default: all with numbers]"),
    click.option("--margin", "margins", multiple=True, metavar="NAME=NUMBER",
                 help="A smaller difference in this metric does not matter. [default: 0.2 standard deviations]"),
    make_names_option("--maximize", "maximize", "Higher is better in these metrics."),
    make_names_option("--minimize", "minimize", "Lower is better in these metrics."),
    over,
    click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                 help="Write the verdict as a comment for a pull request."),
    click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                 help="Write a page with the pairs that differ most, side by side, in one file."),
)  # fmt: skip


def run_verdict(sides: Sequence[SideTrials], options: VerdictOptions, *, as_json: bool) -> int:
    """Judge two sides, or one by its axis; print the verdict and write the files. Returns the exit code."""
    from sweeper.regression.verdict_page import write_verdict_page
    from sweeper.regression.verdict_text import describe_metric, describe_verdict, list_metric_rows, render_markdown

    verdict = _judge(sides, options)
    if as_json:
        console.print_json(_to_json(verdict))
    else:
        console.print_line(sanitize(describe_verdict(verdict)))
        for one in verdict.metrics:
            console.print_line(sanitize(f"  {describe_metric(one, verdict)}"))
        for note in verdict.notes:
            console.print_line(sanitize(f"note: {note}"))
        console.print_line()
        print_table(list_metric_rows(verdict), console.print_line)
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(render_markdown(verdict), encoding="utf-8")
    if options.html is not None:
        write_verdict_page(verdict, options.html)
        console.print_status(f"page {options.html}")
    return OK if verdict.ok else FAILED


def _judge(sides: Sequence[SideTrials], options: VerdictOptions) -> Verdict:
    """Judge the sides, or the one by its axis. Raises UsageError with the mistakes in all options."""
    from sweeper.regression.verdict import VerdictQuery, check_query, find_verdict
    from sweeper.regression.verdict_pairs import check_over, match_trials, split_by_axis

    margins, problems = _parse_margins(options.margins)
    query = VerdictQuery(options.metrics, margins, options.maximize, options.minimize)
    axis, equals, values = (options.axis or "").partition("=")
    axis = axis.strip()
    problems += [*check_query(sides, query), *check_over(sides, options.over, axis)]
    if options.axis is not None and not equals:
        problems.append(f"--axis {options.axis}: write NAME=OLD,NEW, such as checkpoint=a.safetensors,b.safetensors")
    elif options.axis is not None:
        try:
            sides = split_by_axis(sides[0], axis, values)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError([Problem("", 0, "", problem) for problem in problems])
    return find_verdict(match_trials(sides[0], sides[1], options.over), query)


def _parse_margins(texts: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The margin of each metric, and the mistakes."""
    margins: dict[str, float] = {}
    problems = []
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            margin = float(number)
        except ValueError:
            margin = math.nan
        if not 0 < margin < math.inf:
            problems.append(f"--margin {text}: write NAME=NUMBER with a number above 0, such as sharpness=2")
        elif margins.setdefault(name, margin) != margin:
            problems.append(f"--margin {text}: {name} has the margin {margins[name]:g} already; give one")
    return margins, problems


def _to_json(verdict: Verdict) -> dict[str, Any]:
    matched = verdict.matched
    return {
        "verdict": verdict.word,
        "old": matched.old_side.label,
        "new": matched.new_side.label,
        "matched_pairs": len(matched.cells),
        "metrics": [_metric_to_json(one) for one in verdict.metrics],
        "largest": [
            {
                "cells": dict(pair.cells),
                "metrics": {name: {"old": old, "new": new} for name, (old, new) in pair.metrics.items()},
                "old": [str(matched.old_side.folder / output) for output in pair.old.outputs if "://" not in output],
                "new": [str(matched.new_side.folder / output) for output in pair.new.outputs if "://" not in output],
            }
            for pair in verdict.pairs
        ],
        "notes": list(verdict.notes),
    }


def _metric_to_json(one: MetricVerdict) -> dict[str, Any]:
    difference, decision = one.difference, one.decision
    return {
        "metric": one.metric,
        "verdict": one.word,
        "better": {1: "higher", -1: "lower"}.get(one.direction),
        "old": one.old,
        "new": one.new,
        "difference": None if difference is None else difference.mean,
        "low": None if difference is None else difference.low,
        "high": None if difference is None else difference.high,
        "margin": one.margin or None,
        "p_different": None if decision is None else decision.p_difference,
        "p_equivalent": None if decision is None else decision.p_equivalence,
        "pairs": None if difference is None else difference.pairs,
        "more_pairs": None if decision is None else decision.more_pairs,
        "note": one.note,
    }
