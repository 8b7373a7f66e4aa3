"""`sweeper run`: the main command. Progress goes to stderr, the summary (or one JSON object) to stdout."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper.cli import console, dask_options, options
from sweeper.cli.exit_codes import FAILED, INTERRUPTED, OK, UNREACHABLE
from sweeper.cli.options import format_examples
from sweeper.errors import ExperimentError, UsageError

if TYPE_CHECKING:
    from sweeper.model.result import Run

_MAX_ERROR_TYPES = 5  # kinds of failure that the summary tells


def _parse_max_failures(ctx: click.Context, param: click.Parameter, value: str | None) -> int | float | None:
    """`3` or `10%`: what the experiment's `max_failures` takes too."""
    if value is None:
        return None
    text = value.strip()
    try:
        budget = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        message = f"{text!r} is neither a count such as 3 nor a share such as 10%"
        raise click.BadParameter(message, ctx, param) from None
    if not (0 <= budget <= 1 if isinstance(budget, float) else budget >= 0):
        raise click.BadParameter(f"{text!r} is not at least 0, or not a share of 0% to 100%", ctx, param)
    return budget


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
    help="Results folder, or a URL where the pictures go instead, such as s3://bucket/folder. "
    "[default: results/NAME here]",
)
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs in flight per target.")
@click.option("--retries", type=click.IntRange(min=0), metavar="N", help="Submissions of a trial after the first.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds a job may run.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds to wait for a target that answers no more, where no other can go on. [default: 300]",
)
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Refuse a larger plan. [default: 10000]")
@click.option(
    "--max-failures", callback=_parse_max_failures, metavar="N|P%", help="Stop when more trials than this have failed."
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first failed trial.")
@click.option("--retry-failed", is_flag=True, help="Submit again what failed before.")
@click.option("--fresh", is_flag=True, help="Submit everything again, what succeeded too.")
@click.option("--remake", is_flag=True, help="Submit again what succeeded and has no files (any more).")
@click.option("--where", metavar="EXPR", help='Submit only the trials for which this is true, such as "steps > 4".')
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Submit at most N trials this time.")
@click.option(
    "--keep-temp/--no-keep-temp", default=None, help="Fetch previews too (files of type temp). [default: off]"
)
@click.option(
    "--check/--no-check",
    default=True,
    help="Hold every workflow against the target's node classes first. [default: on]",
)
@dask_options.dask
@dask_options.resources
@options.settings
@click.option("--view", is_flag=True, help="Show the run in a browser; goes on after its end, until Ctrl-C.")
@options.as_json
@click.option("-q", "--quiet", is_flag=True, help="Show failures only.")
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | str | None,
    settings: tuple[str, ...],
    view: bool,
    as_json: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **run_options: Any,
) -> int:
    """Run a sweep: submit what is not done yet, save every picture, and write results.csv beside them.

    The same command again resumes: what is done is not done again. Ctrl-C once waits for what runs, twice cancels it.
    """
    from sweeper.cli.checked_plan import load_checked_plan  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.progress import ProgressDisplay  # noqa: PLC0415
    from sweeper.cli.targets_file import load_named_targets, load_names_unless_given  # noqa: PLC0415
    from sweeper.loading.load import load  # noqa: PLC0415

    if run_options["fail_fast"] and run_options["max_failures"] is not None:
        raise UsageError("--fail-fast and --max-failures both say when to stop; give one")
    listed = options.to_target_list(targets)
    overrides = options.parse_settings(settings)
    try:
        loaded = load(experiment, overrides=overrides, named=load_names_unless_given(listed))
    except ExperimentError:
        load_checked_plan(experiment, listed, overrides=overrides)  # which tells these mistakes and what else is wrong
        raise
    with ExitStack() as stack:
        if view:
            from sweeper.cli.commands.view import start_view  # noqa: PLC0415

            until_told = stack.enter_context(
                start_view(out if isinstance(out, Path) else Path("results") / loaded.name, loaded)
            )
        with ProgressDisplay(quiet=quiet) as watch:
            ended = dask_options.choose_runner(dask, dask_resources)(
                loaded, target=listed, out=out, named=load_named_targets(), progress=watch, **run_options
            )
        if ended.error:
            console.print_error(ended.error)
        if as_json:
            console.print_json(_as_json(ended))
        elif not quiet:
            _show(ended)
        if view and ended.stopped_by != "interrupt":
            until_told()
    return _choose_exit_code(ended)


def _choose_exit_code(run: Run) -> int:
    if run.stopped_by == "interrupt":
        return INTERRUPTED
    if run.stopped_by in ("refused", "unreachable"):
        return UNREACHABLE
    # A job that somebody else cancelled on the server is not what was asked for either.
    return FAILED if run.failed or run.cancelled or run.stopped_by or run.error else OK


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
        "stopped_by": run.stopped_by,
        "error": run.error,
    }


def _show(run: Run) -> None:
    names = ("trials", "submitted", "reused", "succeeded", "failed", "cancelled", "pending")
    console.print_table(names, [[getattr(run, name) for name in names]])
    if run.failed:
        console.print_line()
        console.print_table(("failed", "error_type", "error"), _count_failures(run))
        console.print_line("`--retry-failed` submits these again.")
    console.print_line()
    console.print_line(f"pictures  {run.pictures}")
    console.print_line(f"table     {run.out / 'results.csv'}")


def _count_failures(run: Run) -> list[tuple[int, str, str]]:
    """The commonest failures: how many trials, what kind, and the message of one of them."""
    from sweeper.model import result  # noqa: PLC0415
    from sweeper.store import Store  # noqa: PLC0415

    kinds: Counter[str] = Counter()
    messages: dict[str, str] = {}
    with Store.open(run.out, readonly=True) as store:
        for row in store.results(run.run_id):
            if row.status == result.FAILED:
                kind = row.error_type or ""
                kinds[kind] += 1
                messages.setdefault(kind, row.error or "")
    return [(count, kind, messages[kind]) for kind, count in kinds.most_common(_MAX_ERROR_TYPES)]
