"""`sweeper check`: an experiment is run afresh and held against its baseline."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, dask_options, options
from sweeper.cli.exit_codes import FAILED, INTERRUPTED, OK, UNREACHABLE
from sweeper.cli.options import format_examples

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparisons

_MAX_ROWS = 40  # cases on the terminal; the reports hold all


def _make_file_option(name: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(name, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help=help_text)


@click.command(
    epilog=format_examples(
        "sweeper check experiments/quickstart.yaml",
        "sweeper check experiments/quickstart.yaml --junit check.xml --html check --attribute",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-target cloud  # each case is a test",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-accept-new    # or --sweeper-accept",
    )
)
@options.experiment
@click.option(
    "--baseline", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Folder of the baseline. [default: baselines/NAME beside the experiment]",
)  # fmt: skip
@options.targets
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Results folder of the fresh run. [default: results/NAME-check here]")  # fmt: skip
@_make_file_option("--junit", "Write JUnit XML.")
@click.option("--html", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write a page that shows base, now and difference.")  # fmt: skip
@_make_file_option("--summary", "Write Markdown; appended where it is GitHub's step summary.")
@click.option("--allow-new", is_flag=True, help="Cases without an accepted picture may be.")
@click.option("--attribute", is_flag=True, help="Run the accepted workflows of changed cases too: whose change is it?")
@dask_options.dask
@dask_options.resources
@options.as_json
@click.option("-q", "--quiet", is_flag=True, help="Show failures only.")
def command(
    experiment: Path,
    *,
    baseline: Path | None,
    targets: tuple[str, ...],
    out: Path | None,
    junit: Path | None,
    html: Path | None,
    summary: Path | None,
    as_json: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **check_options: Any,
) -> int:
    """Run an experiment afresh and hold every picture against the accepted one: bytes, pixels, then `checks`.

    EXPERIMENT may be a results folder instead: then nothing is run, and what only a run could heed is refused. Exit
    code 1 when a case changed, failed, is new, is missing or was never compared.
    """
    from sweeper.cli.progress import ProgressDisplay  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.targets_file import load_named_targets  # noqa: PLC0415
    from sweeper.regression.check import check, reject_for_folder  # noqa: PLC0415

    answer, runs = dask_options.choose_comparer(dask), check_options["attribute"] or not experiment.is_dir()
    if experiment.is_dir():
        of_a_run: dict[str, Any] = {"--out": out}
        if not runs:  # a cluster that stays can still look at pictures that lie at a URL
            of_a_run |= {"--target": targets, "--dask": dask and not answer, "--dask-resource": dask_resources}
        reject_for_folder(experiment, [name for name, value in of_a_run.items() if value])
    runner = dask_options.choose_runner(dask, dask_resources) if runs else None
    with ProgressDisplay(quiet=quiet) as watch:
        found = check(
            experiment, baseline, target=options.to_target_list(targets), out=out, named=load_named_targets(),
            progress=watch, runner=runner, answer=answer, **check_options,
        )  # fmt: skip
    _write_reports(found, junit, html, summary)
    if as_json:
        console.print_json(_as_json(found))
    else:
        _show(found, quiet=quiet)
    if not found.has_baseline:
        console.print_error(f"{found.baseline}: there is no baseline; `{found.accept_command}` makes one")
    if found.stopped_by == "interrupt":
        return INTERRUPTED
    if found.stopped_by in ("refused", "unreachable"):
        return UNREACHABLE
    return OK if found.ok else FAILED


def _write_reports(comparisons: Comparisons, junit: Path | None, html: Path | None, summary: Path | None) -> None:
    if junit is not None:
        from sweeper.regression.junit import to_junit_xml  # noqa: PLC0415
        from sweeper.tables.export import atomic_write  # noqa: PLC0415

        with atomic_write(junit) as file:
            file.write(to_junit_xml(comparisons))
    if html is not None:
        from sweeper.regression.html_page import write_page  # noqa: PLC0415

        write_page(comparisons, html)
    if summary is not None:
        from sweeper.regression.markdown_summary import render_markdown  # noqa: PLC0415

        summary.parent.mkdir(parents=True, exist_ok=True)
        shared = os.environ.get("GITHUB_STEP_SUMMARY")  # every step of a job adds to that file
        with summary.open("a" if shared and Path(shared) == summary else "w", encoding="utf-8") as text:
            text.write(render_markdown(comparisons))


def _show(comparisons: Comparisons, *, quiet: bool) -> None:
    bad = [one for one in comparisons if one.state != "same"]
    if bad:
        whose = any(one.verdict for one in bad)
        headers = ("case", "state", "why", *(("whose change",) if whose else ()))
        rows = [(one.case.name, one.state, one.reason, *((one.verdict,) if whose else ())) for one in bad[:_MAX_ROWS]]
        console.print_table(headers, rows)
        if len(bad) > _MAX_ROWS:
            console.print_line(f"... and {len(bad) - _MAX_ROWS} more")
        console.print_line()
    if bad or not quiet:
        counts = ", ".join(f"{count} {state}" for state, count in comparisons.counts.items() if count) or "no cases"
        console.print_line(f"{comparisons.experiment}: {counts}")
        for told, count in comparisons.servers.items():
            console.print_line(f"{told} ({count} cases)" if len(comparisons.servers) > 1 else told)


def _as_json(comparisons: Comparisons) -> dict[str, Any]:
    from sweeper.regression.junit import display_path  # noqa: PLC0415

    return {
        "experiment": comparisons.experiment,
        "ok": comparisons.ok,
        "baseline": str(comparisons.baseline),
        "results": str(comparisons.results),
        "counts": comparisons.counts,
        "stopped_by": comparisons.stopped_by,
        "servers": comparisons.servers,
        "cases": [
            {
                "case": one.case.name,
                "cells": dict(one.case.cells),
                "node": one.case.node,
                "position": one.case.position,
                "state": one.state,
                "tier": one.tier,
                "reason": one.reason,
                # JSON has no infinity: a PSNR of equal pictures is told by the tier.
                "metrics": {name: value if math.isfinite(value) else None for name, value in one.metrics.items()},
                "accepted": display_path(one.accepted) if one.accepted else None,
                "now": display_path(one.now) if one.now else None,
                "verdict": one.verdict or None,
            }
            for one in comparisons
        ],
    }
