"""`sweeper compare`: compare two runs case by case and axis by axis, or judge the second by its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from sweeper.answers.render import render_markdown
from sweeper.cli import console
from sweeper.cli import options as shared_options
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.options import format_examples, make_names_option
from sweeper.errors import ResultsError, UsageError
from sweeper.files import atomic_write
from sweeper.model.selection import Selection
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.select_rows import OptionErrors, select_trials

if TYPE_CHECKING:
    from sweeper.regression.verdict import Verdict, VerdictQuery
    from sweeper.regression.verdict_pairs import SideTrials

T = TypeVar("T")


@click.command(
    epilog=format_examples(
        "sweeper compare experiments/results/quickstart experiments/results/quickstart-check",
        "sweeper compare experiments/results/quickstart@1 results/quickstart@2",
        "sweeper compare results/old results/new --verdict --maximize sharpness",
        "sweeper compare experiments/quickstart.yaml --axis steps=6,20 --verdict --html verdict.html",
    )
)
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN", required=False)
@click.option("--verdict", is_flag=True, help="Judge by metrics: is the second better, worse or equivalent?")
@click.option("--axis", metavar="NAME=OLD,NEW", help="With --verdict: compare two values of an axis of one RUN.")
@make_names_option("--metric", "metric", "Judge only these metrics, or ran_s or cost. [default: all with numbers]")
@click.option("--margin", multiple=True, metavar="NAME=NUMBER", help="A smaller difference in this metric "
              "is none. [default: 0.2 standard deviations]")  # fmt: skip
@make_names_option("--maximize", "maximize", "Higher is better in these metrics.")
@make_names_option("--minimize", "minimize", "Lower is better in these metrics.")
@shared_options.over
@shared_options.where
@click.option("--markdown", type=shared_options.FILE, metavar="FILE",
              help="Write the verdict as a comment for a pull request.")  # fmt: skip
@click.option("-o", "--out", type=shared_options.FILE, metavar="FILE",
              help="Write a report in Markdown, with methods, judges and models, for a reviewer.")  # fmt: skip
@click.option("--html", type=shared_options.FILE, metavar="FILE",
              help="Write a page with the pairs that differ most, side by side, in one file.")  # fmt: skip
@shared_options.as_json
def command(
    before: str, after: str | None, *, verdict: bool, axis: str | None, metric: list[str], margin: tuple[str, ...],
    maximize: list[str], minimize: list[str], over: list[str], where: str | None, markdown: Path | None,
    out: Path | None, html: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Compare the pictures of two runs: which cases are new, gone, same or changed, and which axis values changed most.

    RUN is a results folder or an experiment file (its default folder). Add @ID for another run than the latest. A case
    with a missing or unreadable file is not compared. Exit code 1 unless all cases are the same.

    With --verdict: compare the metrics of matched trials, and say whether the second run, or the second value of an
    axis, is better, worse, equivalent or undecided. Exit code 1 unless every metric is better or equivalent.
    """
    names = [before] if after is None else [before, after]
    others = {"axis": axis, "metric": metric, "margin": margin, "maximize": maximize, "minimize": minimize,
              "over": over, "where": where, "markdown": markdown, "out": out, "html": html}  # fmt: skip
    if not verdict and (given := [f"--{name}" for name, value in others.items() if value]):
        raise UsageError(f"{' and '.join(given)}: this belongs to a verdict; add --verdict")
    if axis is None and after is None:
        raise UsageError("one RUN only: name a second one, or two values with --axis NAME=OLD,NEW --verdict")
    if axis is not None and after is not None:
        raise UsageError("--axis compares two values within one RUN; drop the second RUN")
    if verdict:
        from sweeper.regression.verdict import VerdictQuery

        errors = OptionErrors()
        query = VerdictQuery(metric, _parse_margins(margin, errors), maximize, minimize)
        found = _judge(_read_sides(names, where), query, axis, over, errors)
        if where:
            found = replace(found, notes=(f"only the trials with {where}", *found.notes))
        return _show_verdict(found, comment=markdown, report=out, page=html, as_json=as_json)
    from sweeper.regression.cases import read_run
    from sweeper.regression.compare_runs import compare_runs

    differences = compare_runs(*_read_all(names, lambda folder, run, _: read_run(folder, run)))
    console.print_answer(differences, as_json=as_json)
    return OK if differences.ok else FAILED


def _show_verdict(
    verdict: Verdict, *, comment: Path | None, report: Path | None, page: Path | None, as_json: bool
) -> int:
    """Print the verdict and write the files. Returns the exit code."""
    from sweeper.regression.verdict import write_page

    console.print_answer(verdict, as_json=as_json)
    texts = (("comment", comment, verdict.comment_parts), ("report", report, verdict.report_parts))
    for name, file, make_parts in texts:
        if file is not None:
            with atomic_write(file) as handle:
                handle.write(render_markdown(make_parts()).encode())
            console.print_status(f"{name} {file}")
    if page is not None:
        write_page(verdict, page)
        console.print_status(f"page {page}")
    return OK if verdict.ok else FAILED


def _judge(
    sides: Sequence[SideTrials], query: VerdictQuery, axis: str | None, over: Sequence[str], errors: OptionErrors
) -> Verdict:
    """Judge the sides, or the one by its axis. Raises UsageError with the mistakes in all options, and `errors`."""
    from sweeper.regression.verdict import check_query, find_verdict
    from sweeper.regression.verdict_pairs import list_axes, match_trials, split_by_axis

    name, equals, values = (axis or "").partition("=")
    name = name.strip()
    check_query(sides, query, errors)
    errors.check_over(over, list_axes(sides), [name])
    if axis is not None and not equals:
        errors.add(f"--axis {axis}", "write NAME=OLD,NEW, such as checkpoint=a.safetensors,b.safetensors")
    elif axis is not None:
        try:
            sides = split_by_axis(sides[0], name, values)
        except UsageError as error:
            errors.add("", str(error))
    errors.raise_if_any()
    return find_verdict(match_trials(sides[0], sides[1], over), query)


def _parse_margins(texts: Sequence[str], errors: OptionErrors) -> dict[str, float]:
    """The margin of each metric."""
    margins: dict[str, float] = {}
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            margin = float(number)
        except ValueError:
            margin = math.nan
        if not 0 < margin < math.inf:
            errors.add(f"--margin {text}", "write NAME=NUMBER with a number above 0, such as sharpness=2")
        elif margins.setdefault(name, margin) != margin:
            errors.add(f"--margin {text}", f"{name} has the margin {margins[name]:g} already; give one")
    return margins


def _read_sides(names: Sequence[str], where: str | None) -> list[SideTrials]:
    """The trials of the runs that `--where` selects. Raises UsageError, and ResultsError with the problems of all."""
    from sweeper.regression.verdict_pairs import read_side

    short = [Path(name).stem for name in names]
    labels = dict(zip(names, short if len(set(short)) == len(names) else names, strict=True))

    def read(folder: Path, run: str | None, name: str) -> SideTrials:
        side, (trials, message) = read_side(folder, run, labels[name]), select_trials(folder, run, Selection(where))
        if message:
            raise UsageError(f"{name}: {message}")
        return replace(side, rows=tuple(row for row in side.rows if trials is None or row.trial in trials))

    return _read_all(names, read)


def _read_all(names: Sequence[str], read: Callable[[Path, str | None, str], T]) -> list[T]:
    found, problems = [], []
    for name in names:
        folder, separator, run_id = name.rpartition("@")
        if not separator or Path(name).exists():
            folder, run_id = name, ""
        try:
            found.append(read(find_results_folder(folder), run_id or None, name))
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        raise ResultsError("\n".join(dict.fromkeys(problems)))
    return found
