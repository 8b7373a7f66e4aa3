"""`sweeper run`: run a sweep. Prints progress on stderr, and a summary or one JSON object on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from sweeper.cli import confirm_cost, console, dask_options, options, run_options, trust_check
from sweeper.cli.commands.plan import show_dry_run
from sweeper.cli.commands.view import start_view
from sweeper.cli.cost_text import describe_run_cost, format_run_cost
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.open_page import open_in_browser, write_checked_report
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.cli.rehearsal import Rehearsal, build_real_command, rehearsal_options
from sweeper.errors import SweeperError, UsageError
from sweeper.model.money import TargetPrice
from sweeper.model.result import FAILED, Run
from sweeper.model.selection import Selection
from sweeper.model.shell_words import join_command
from sweeper.model.target_spec import EMBEDDED, parse_target
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.store import Store
from sweeper.store.experiment_path import display_path
from sweeper.tables.results_folder import default_results_folder

REPORT_PAGE: Final = Path("report", "index.html")  # of a results folder
_MAX_ERROR_TYPES: Final = 5  # shown in the summary


@click.command(
    epilog=format_examples(
        "sweeper run experiments/quickstart.yaml",
        "sweeper run experiments/quickstart.yaml --target http://127.0.0.1:8188 --set steps=30 --limit 2",
    )
)
@options.experiment
@options.targets
@run_options.out
@run_options.limits
@click.option("--fresh", is_flag=True, help="Resubmit all trials, including those that succeeded.")
@click.option("--remake", is_flag=True, help="Resubmit trials that succeeded but have no files (any more).")
@options.selection
@run_options.downloads
@rehearsal_options
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@run_options.view
@options.open_browser
@click.option("--dry-run", is_flag=True, help="Show what the run would do, as `sweeper plan` does. Submits nothing.")
@options.as_json
@options.quiet
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | str | None,
    selection: Selection,
    rehearsal: Rehearsal | None,
    trust: bool,
    yes: bool,
    view: bool,
    open_browser: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **settings: Any,
) -> int:
    """Run a sweep: submit the trials that are not done yet, save every picture, and write results.csv beside them.

    The same command again resumes the sweep and repeats no finished trial. Ctrl-C waits for running jobs; a second
    Ctrl-C cancels them.
    """
    requested = options.to_target_list(targets)
    overrides = selection.values
    settings |= {"where": selection.where, "limit": selection.limit}
    if dry_run:
        given = {"--view": view, "--open": open_browser, "--remake": settings["remake"]}
        _reject_for_dry_run(given | {"--rehearse": rehearsal is not None, "--no-check": not settings["check"]})
        folder = out if isinstance(out, Path) else None
        show_dry_run(experiment, requested, folder, overrides, RunOptions(**settings), trust=trust, as_json=as_json)
        return 0
    real = None
    prepared = load_for_run(experiment, requested if rehearsal is None else [EMBEDDED], overrides, trust=trust, out=out)
    out = trust_check.choose_output(out)
    if rehearsal is not None:
        real = build_real_command(experiment, targets, out, selection)
        whole = replace(prepared, specs=requested)
        loaded, out, settings = rehearsal.prepare(whole, out, settings, quiet=quiet)
        prepared = replace(prepared, experiment=loaded)
    loaded = prepared.experiment
    with ExitStack() as stack:
        if view:
            folder = out if isinstance(out, Path) else default_results_folder(loaded.file, loaded.name)
            wait_until_stopped = stack.enter_context(start_view(folder, loaded, open_browser=open_browser))
        with ProgressDisplay(quiet=quiet, rates=list_rates(prepared)) as display:
            runner = dask_options.choose_runner(dask, dask_resources)
            run = confirm_cost.confirm_before(runner, yes=yes)(
                loaded, target=prepared.specs, out=out, named=prepared.users, progress=display, **settings
            )
        report = format_report_command(run, experiment, loaded.name)
        _show_end(run, report, real, as_json=as_json, quiet=quiet, open_page=open_browser and not view)
        if view and run.stopped_by != "interrupt":
            wait_until_stopped()
    # A job that another client cancelled on the server has no result either.
    return get_run_exit_code(run.stopped_by, ok=not (run.failed or run.cancelled or run.stopped_by or run.error))


def list_rates(prepared: Prepared) -> list[TargetPrice]:
    """The prices of the targets; empty if none has one. Mistakes in targets are reported elsewhere."""
    specs = prepared.experiment.targets if prepared.specs is None else prepared.specs
    prices = [parse_target(spec, prepared.named).settings.get("price") for spec in specs]
    rates = [price or TargetPrice() for price in prices]
    return rates if any(rate.has_rate for rate in rates) else []


def _reject_for_dry_run(given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(
            f"--dry-run shows the plan and submits nothing, so {' and '.join(names)} cannot be given with it"
        )


def refresh_report(run: Run, *, create: bool) -> Path | None:
    """Write the page of the results folder again if it has one, or with `create`. Returns the page.

    None if there is none, if it cannot be written, which is only a warning, or if the user wants the run to end now.
    """
    if not (create or (run.out / REPORT_PAGE).is_file()) or run.stopped_by == "interrupt":
        return None
    try:
        return write_checked_report(run.out).page
    except (SweeperError, OSError, ValueError) as error:  # the run itself has ended as it has
        console.warn(f"the report is not up to date: {str(error).splitlines()[0]}")
        return None


def format_report_command(run: Run, experiment: Path, name: str) -> str:
    """The command that makes the page of the run: with the experiment's file if it has its default folder."""
    is_default = run.out == default_results_folder(experiment, name)
    return join_command(["sweeper", "report", str(experiment) if is_default else display_path(run.out)])


def _show_end(
    run: Run, report_command: str, real_command: str | None, *, as_json: bool, quiet: bool, open_page: bool
) -> None:
    """Print the summary, refresh the report, and open it if `open_page`. `real_command`: of what was rehearsed."""
    if run.error:
        console.print_error(run.error)
    cost = describe_run_cost(run)
    if not as_json and not quiet:
        _show(run, cost)
    page = refresh_report(run, create=open_page)
    if as_json:
        real = {} if real_command is None else {"real_run": real_command}
        console.print_json(run_to_json(run) | {"cost": cost, "report": None if page is None else str(page)} | real)
    elif not quiet:
        console.print_line(f"report    {f'{page} (up to date)' if page else report_command}")
        if real_command is not None:
            console.print_line(f"This was a rehearsal on sweeper's own server. The real run is: {real_command}")
    if page is not None and open_page:
        open_in_browser(page)


def run_to_json(run: Run) -> dict[str, Any]:
    """The summary of a run for --json."""
    return {
        "run": run.run_id,
        "out": str(run.out),
        "pictures": run.pictures,
        "trials": run.trials,
        "submitted": run.submitted,
        "succeeded": run.succeeded,
        "failed": run.failed,
        "cancelled": run.cancelled,
        "pending": run.pending,
        "reused": run.reused,
        "kept": dict(run.kept),
        "stopped_by": run.stopped_by,
        "error": run.error,
    }


def _show(run: Run, cost: Mapping[str, Any] | None) -> None:
    names = ("trials", "submitted", "reused", "succeeded", "failed", "cancelled", "pending")
    console.print_table(names, [[getattr(run, name) for name in names]])
    if run.failed:
        console.print_line()
        console.print_table(("failed", "error_type", "error"), _count_failures(run))
        console.print_line("Add --retry-failed to submit these again.")
    console.print_line()
    console.print_line(f"pictures  {run.pictures}")
    console.print_line(f"table     {run.out / 'results.csv'}")
    if cost is not None:
        console.print_line(f"cost      {format_run_cost(cost)}")
    if run.kept:
        count = sum(run.kept.values())
        rows = "1 row of results.csv is" if count == 1 else f"{count} rows of results.csv are"
        command = join_command(["sweeper", "results", str(run.out), "--run", str(run.run_id)])
        console.print_line(f"{rows} from earlier runs on {' and '.join(run.kept)}; `{command}` shows this run alone")


def _count_failures(run: Run) -> list[tuple[int, str, str]]:
    """The most common failures: number of trials, error type, and the message of one of them."""
    kinds: Counter[str] = Counter()
    messages: dict[str, str] = {}
    with Store.open(run.out, readonly=True) as store:
        for row in store.results(run.run_id):
            if row.status == FAILED:
                kind = row.error_type or ""
                kinds[kind] += 1
                messages.setdefault(kind, row.error or "")
    return [(count, kind, messages[kind]) for kind, count in kinds.most_common(_MAX_ERROR_TYPES)]
