"""`sweeper check`: run an experiment again and compare it with its baseline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.answers.render import render_markdown
from sweeper.cli import confirm_cost, console, dask_options, options, trust_check
from sweeper.cli.commands.export import select_trials
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.files import atomic_write
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.selection import Selection

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparisons


@click.command(
    epilog=format_examples(
        "sweeper check experiments/quickstart.yaml",
        "sweeper check experiments/quickstart.yaml --junit check.xml --html check --attribute",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-target cloud  # each case is a test",
        "pytest --sweeper experiments/quickstart.yaml --sweeper-accept-new    # or --sweeper-accept",
    )
)
@options.experiment
@options.baseline
@options.targets
@click.option("-o", "--out", type=options.FOLDER, metavar="DIR",
              help="Results folder of the new run. [default: results/NAME-check beside EXPERIMENT]")  # fmt: skip
@click.option("--junit", type=options.FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--html", type=options.FOLDER, metavar="DIR",
              help="Write the page of the run, opened on what is not the same as accepted.")  # fmt: skip
@click.option("--summary", type=options.FILE, metavar="FILE",
              help="Write Markdown; appends if FILE is $GITHUB_STEP_SUMMARY.")  # fmt: skip
@click.option("--allow-new", is_flag=True, help="Do not fail on cases that have no accepted picture yet.")
@click.option(
    "--attribute",
    is_flag=True,
    help="Also run the accepted workflows of changed cases, to show whether the server or you changed them.",
)
@options.selection
@options.notify
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@options.as_json
@options.quiet
def command(
    experiment: Path,
    *,
    baseline: Path | None,
    targets: list[str] | None,
    out: Path | None,
    junit: Path | None,
    html: Path | None,
    summary: Path | None,
    selection: Selection,
    trust: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **check_options: Any,
) -> int:
    """Run an experiment again and compare every picture with the accepted one: by bytes, by pixels, then by `checks`.

    EXPERIMENT may be a results folder instead. Then nothing is run, and options that only apply to a run are rejected.
    Exit code 1 if a case changed, failed, is new, is missing or could not be compared.
    """
    from sweeper.regression.check import check, reject_for_folder

    runs = check_options["attribute"] or not experiment.is_dir()
    if experiment.is_dir():
        ignored: dict[str, Any] = {"--out": out}
        if not runs:
            ignored |= {"--target": targets, "--dask": dask, "--dask-resource": dask_resources}
        reject_for_folder(experiment, [name for name, value in ignored.items() if value])
        check_options["trials"] = select_trials(experiment, None, selection)
    else:
        check_options |= {"where": selection.where, "limit": selection.limit}
    runner = dask_options.choose_runner(dask, dask_resources) if runs else None
    if runner is not None:
        runner = confirm_cost.confirm_before(runner, yes=yes)
        runner = trust_check.require_trust_before(runner, trust=trust, targets=targets)
    prepared = None if experiment.is_dir() else load_for_run(experiment, targets, selection.values, trust=trust)
    with ProgressDisplay(quiet=quiet, shows_error=True) as display:
        comparisons = check(
            experiment if prepared is None else prepared.experiment, baseline, target=targets, out=out,
            named=load_named_targets() if prepared is None else prepared.users,
            progress=display, runner=runner, **check_options,
        )  # fmt: skip
    _write_reports(comparisons, junit, html, summary)
    if as_json or not quiet or comparisons.counts["same"] < len(comparisons):
        console.print_answer(comparisons, as_json=as_json)
    if not comparisons.has_baseline:
        console.print_error(f"{comparisons.baseline}: there is no baseline; `{comparisons.accept_command}` makes one")
    return get_run_exit_code(comparisons.stopped_by, ok=comparisons.ok)


def _write_reports(
    comparisons: Comparisons, junit_file: Path | None, html_folder: Path | None, summary_file: Path | None
) -> None:
    from sweeper.regression.comparison import to_junit_xml
    from sweeper.reporting.write_report import write_review

    if junit_file is not None:
        with atomic_write(junit_file) as file:
            file.write(to_junit_xml(comparisons.suites))
    if html_folder is not None:
        write_review(comparisons, html_folder)
    if summary_file is not None:
        summary_file.parent.mkdir(parents=True, exist_ok=True)
        shared = os.environ.get("GITHUB_STEP_SUMMARY")  # all steps of a job append to that file
        mode = "a" if shared and Path(shared) == summary_file else "w"
        with summary_file.open(mode, encoding="utf-8") as stream:
            stream.write(render_markdown(comparisons.summary_parts()))
