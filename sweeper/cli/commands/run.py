"""`sweeper run`: run a sweep. Prints progress on stderr, and a summary or one JSON object on stdout."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from sweeper.cli import console, dask_options, options, spending, trust_check
from sweeper.cli.checked_plan import load_for_run
from sweeper.cli.commands.plan import show_dry_run
from sweeper.cli.commands.view import start_view
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.open_page import open_in_browser, write_checked_report
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.cli.rehearsal import Rehearsal, build_real_command, rehearsal_options
from sweeper.cli.run_cost import describe_run_cost, format_run_cost
from sweeper.cli.targets_file import load_named_targets
from sweeper.errors import SweeperError, UsageError
from sweeper.model.experiment import Experiment
from sweeper.model.money import TargetPrice, parse_usd
from sweeper.model.result import FAILED, Run
from sweeper.model.selection import Selection
from sweeper.model.target_spec import EMBEDDED, parse_target
from sweeper.running.settings import RunOptions
from sweeper.store import Store
from sweeper.store.experiment_path import display_path
from sweeper.tables.results_folder import REHEARSAL, default_results_folder

REPORT_PAGE: Final = Path("report", "index.html")  # of a results folder
_MAX_ERROR_TYPES: Final = 5  # shown in the summary


def _parse_max_failures(ctx: click.Context, param: click.Parameter, value: str | None) -> int | float | None:
    """Parse `3` or `10%`, as in the experiment's `max_failures`: a count, or a share from 0 to 1."""
    if value is None:
        return None
    text = value.strip()
    try:
        limit = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        message = f"{text!r} is neither a count such as 3 nor a share such as 10%"
        raise click.BadParameter(message, ctx, param) from None
    if not (0 <= limit <= 1 if isinstance(limit, float) else limit >= 0):
        raise click.BadParameter(f"{text!r} is out of range: give at least 0, or 0% to 100%", ctx, param)
    return limit


def _parse_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse `20 USD` or `20`, as in the experiment's `budget`."""
    try:
        return None if value is None else parse_usd(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(
    epilog=format_examples(
        "sweeper run experiments/quickstart.yaml",
        "sweeper run experiments/quickstart.yaml --target http://127.0.0.1:8188 --set steps=30 --limit 2",
    )
)
@options.experiment
@options.targets
@click.option(
    "-o",
    "--out",
    type=options.DirOrUrl(),
    metavar="DIR|URL",
    help="Results folder, or a URL to save the pictures to instead, such as s3://bucket/folder. "
    "[default: results/NAME beside EXPERIMENT]",
)
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs in flight per target.")
@click.option(
    "--retries", type=click.IntRange(min=0), metavar="N", help="How many more times to submit a trial that fails."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Cancel a job that runs longer than this many seconds.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds to retry a target that stops responding, if no other target can continue. [default: 300]",
)
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Reject a larger plan. [default: 10000]")
@click.option(
    "--max-failures", callback=_parse_max_failures, metavar="N|P%", help="Stop when more trials than this have failed."
)
@click.option(
    "--budget",
    callback=_parse_budget,
    metavar="USD",
    help="The most that the results folder may cost over all its runs, such as '20 USD'.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first failed trial.")
@click.option("--retry-failed", is_flag=True, help="Resubmit trials that failed in an earlier run.")
@click.option("--fresh", is_flag=True, help="Resubmit all trials, including those that succeeded.")
@click.option("--remake", is_flag=True, help="Resubmit trials that succeeded but have no files (any more).")
@options.selection
@click.option(
    "--keep-temp/--no-keep-temp", default=None, help="Also download previews (files of type temp). [default: off]"
)
@click.option(
    "--check/--no-check",
    default=True,
    help="First check every workflow against the target's node classes. [default: on]",
)
@rehearsal_options
@dask_options.dask
@dask_options.resources
@trust_check.option
@spending.option
@click.option("--view", is_flag=True, help="Show the run in a browser, until Ctrl-C.")
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
    **run_options: Any,
) -> int:
    """Run a sweep: submit the trials that are not done yet, save every picture, and write results.csv beside them.

    The same command again resumes the sweep and repeats no finished trial. Ctrl-C waits for running jobs; a second
    Ctrl-C cancels them.
    """
    if run_options["fail_fast"] and run_options["max_failures"] is not None:
        raise UsageError("--fail-fast and --max-failures both say when to stop; give one")
    requested = options.to_target_list(targets)
    overrides = selection.values
    run_options |= {"where": selection.where, "limit": selection.limit}
    if dry_run:
        given = {"--view": view, "--open": open_browser, "--remake": run_options["remake"]}
        _reject_for_dry_run(given | {"--rehearse": rehearsal is not None, "--no-check": not run_options["check"]})
        folder = out if isinstance(out, Path) else None
        show_dry_run(experiment, requested, folder, overrides, RunOptions(**run_options), trust=trust, as_json=as_json)
        return 0
    if rehearsal is None:
        loaded, real = load_for_run(experiment, requested, overrides, trust=trust, out=out), None
    else:
        real = build_real_command(experiment, targets, out, selection)
        loaded = load_for_run(experiment, [EMBEDDED], overrides, trust=trust, out=Path(REHEARSAL))
        loaded, out, run_options = rehearsal.prepare(loaded, requested, out, run_options, quiet=quiet)
        requested = [EMBEDDED]
    with ExitStack() as stack:
        if view:
            folder = out if isinstance(out, Path) else default_results_folder(loaded.file, loaded.name)
            wait_until_stopped = stack.enter_context(start_view(folder, loaded, open_browser=open_browser))
        with ProgressDisplay(quiet=quiet, rates=_list_rates(loaded, requested)) as display:
            runner = dask_options.choose_runner(dask, dask_resources)
            run = spending.confirm_before(runner, yes=yes)(
                loaded, target=requested, out=out, named=load_named_targets(), progress=display, **run_options
            )
        report = _format_report_command(run, experiment, loaded.name)
        _show_end(run, report, real, as_json=as_json, quiet=quiet, open_page=open_browser and not view)
        if view and run.stopped_by != "interrupt":
            wait_until_stopped()
    # A job that another client cancelled on the server has no result either.
    return get_run_exit_code(run.stopped_by, ok=not (run.failed or run.cancelled or run.stopped_by or run.error))


def _list_rates(experiment: Experiment, requested: list[str] | None) -> list[TargetPrice]:
    """The prices of the targets; empty if none has one. Mistakes in targets are reported elsewhere."""
    named = {**load_named_targets(), **experiment.named_targets}
    specs = experiment.targets if requested is None else requested
    prices = [parse_target(spec, named).settings.get("price") for spec in specs]
    rates = [price or TargetPrice() for price in prices]
    return rates if any(rate.has_rate for rate in rates) else []


def _reject_for_dry_run(given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(
            f"--dry-run shows the plan and submits nothing, so {' and '.join(names)} cannot be given with it"
        )


def _refresh_report(run: Run, *, create: bool) -> Path | None:
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


def _format_report_command(run: Run, experiment: Path, name: str) -> str:
    """The command that makes the page of the run: with the experiment's file if it has its default folder."""
    is_default = run.out == default_results_folder(experiment, name)
    return shlex.join(["sweeper", "report", str(experiment) if is_default else display_path(run.out)])


def _show_end(
    run: Run, report_command: str, real_command: str | None, *, as_json: bool, quiet: bool, open_page: bool
) -> None:
    """Print the summary, refresh the report, and open it if `open_page`. `real_command`: of what was rehearsed."""
    if run.error:
        console.print_error(run.error)
    cost = describe_run_cost(run)
    if not as_json and not quiet:
        _show(run, cost)
    page = _refresh_report(run, create=open_page)
    if as_json:
        real = {} if real_command is None else {"real_run": real_command}
        console.print_json(_as_json(run) | {"cost": cost, "report": None if page is None else str(page)} | real)
    elif not quiet:
        console.print_line(f"report    {f'{page} (up to date)' if page else report_command}")
        if real_command is not None:
            console.print_line(f"This was a rehearsal on sweeper's own server. The real run is: {real_command}")
    if page is not None and open_page:
        open_in_browser(page)


def _as_json(run: Run) -> dict[str, Any]:
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
        command = shlex.join(["sweeper", "results", str(run.out), "--run", str(run.run_id)])
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
