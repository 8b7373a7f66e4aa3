"""`sweeper run`: run a sweep. Prints progress on stderr, and a summary or one JSON object on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.parts import Answer
from sweeper.cli import confirm_cost, console, dask_options, options, trust_check
from sweeper.cli.commands.plan import show_dry_run
from sweeper.cli.commands.view import start_view
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.open_page import open_in_browser, write_checked_report
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.cli.rehearsal import Rehearsal, build_run_command, rehearsal_options
from sweeper.cli.wait_for_signal import catch_stop_signals
from sweeper.errors import SweeperError, UsageError
from sweeper.model.axis_values import match_models
from sweeper.model.experiment import select_listed_models
from sweeper.model.model_facts import ModelFacts
from sweeper.model.money import TargetPrice
from sweeper.model.result import Run
from sweeper.model.selection import Selection
from sweeper.model.target_spec import expand_groups, parse_target
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.running.stop_control import run_sync
from sweeper.store.containment import display_path
from sweeper.tables.results_folder import default_results_folder
from sweeper.wording import join_command

_FIRST_ROUND: Final = ("fresh", "remake", "remake_stale", "retry_failed", "retry_unknown")  # for earlier results
_LOOK_SECONDS: Final = 3.0  # between two looks for new files
_Models = dict[tuple[str, str], Any]  # by target and `folder/name`, the size and the time
_Counts = Callable[[str, str, ModelFacts], bool]
REPORT_PAGE: Final = Path("report", "index.html")  # of a results folder


@click.command(
    epilog=format_examples(
        "sweeper run experiments/quickstart.yaml",
        "sweeper run experiments/quickstart.yaml --target http://127.0.0.1:8188 --set steps=30 --limit 2",
    )
)
@options.experiment
@options.targets
@options.run_out
@options.of_run
@click.option("--fresh", is_flag=True, help="Resubmit all trials, including those that succeeded.")
@click.option("--remake", is_flag=True, help="Resubmit trials that succeeded but have no files (any more).")
@options.selection
@rehearsal_options
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@options.view
@options.open_browser
@click.option("--follow", is_flag=True, help="Stay after the last trial, and run what is new in the experiment's model "
              "files and lists, until Ctrl-C.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what the run would do, as `sweeper plan` does. Submits nothing.")
@options.as_json
@options.quiet
def command(
    experiment: Path, *, targets: list[str] | None, out: Path | str | None, selection: Selection,
    rehearsal: Rehearsal | None, trust: bool, yes: bool, view: bool, open_browser: bool, follow: bool,
    dry_run: bool, as_json: bool, quiet: bool, dask: str | None, dask_resources: tuple[str, ...], **settings: Any,
) -> int:  # fmt: skip
    """Run a sweep: submit the trials that are not done yet, save every picture, and write results.csv beside them.

    The same command again resumes the sweep and repeats no finished trial. Ctrl-C waits for running jobs; a second
    Ctrl-C cancels them.
    """
    from sweeper.running.run_answer import answer_run

    overrides = selection.values
    settings |= {"where": selection.where, "limit": selection.limit}
    if dry_run:
        given = {"--view": view, "--open": open_browser, "--remake": settings["remake"], "--follow": follow}
        _reject_for_dry_run(given | {"--rehearse": rehearsal is not None, "--no-check": not settings["check"]})
        folder = out if isinstance(out, Path) else None
        show_dry_run(experiment, targets, folder, overrides, RunOptions(**settings), trust=trust, as_json=as_json)
        return 0
    real, display = None, None if follow else ProgressDisplay(quiet=quiet)
    if follow and rehearsal is not None:
        raise UsageError("--rehearse runs once, before there is anything new; drop --follow")
    load = partial(load_for_run, experiment, targets, overrides, trust=trust, out=out, report=display)
    prepared = load(rehearses=rehearsal is not None)
    out = trust_check.choose_output(out)
    if rehearsal is not None:
        real = build_run_command(experiment, targets, out, selection)
        whole = replace(prepared, specs=targets)
        loaded, out, settings = rehearsal.prepare(whole, out, settings, quiet=quiet)
        prepared = replace(prepared, experiment=loaded)
    runner = confirm_cost.confirm_before(dask_options.choose_runner(dask, dask_resources), yes=yes)
    answer = partial(answer_run, real_run=real)
    rounds = follow_files(prepared, lambda counts: load(counts=counts), quiet=quiet) if follow else None
    return run_and_show(runner, prepared, out, answer, settings, view=view, open_browser=open_browser,
                        as_json=as_json, quiet=quiet, rounds=rounds)  # fmt: skip


def run_and_show(
    runner: Callable[..., Run], prepared: Prepared, out: Path | str | None, answer: Callable[..., Answer],
    settings: Mapping[str, Any], *, view: bool, open_browser: bool, as_json: bool, quiet: bool,
    rounds: Iterable[Prepared] | None = None,
) -> int:  # fmt: skip
    """Run an experiment, show its progress and its answer, and return the exit code.

    `answer` gets the run, and what `show_end` gives. `rounds`: run these, until one is stopped, in place of `prepared`.
    """
    loaded, run, is_ok = prepared.experiment, None, True
    with ExitStack() as stack:
        if view:
            folder = out if isinstance(out, Path) else default_results_folder(loaded.file, loaded.name)
            wait_until_stopped = stack.enter_context(start_view(folder, loaded, open_browser=open_browser))
        for each in rounds or (prepared,):
            options_of_run = settings if run is None else {**settings, **dict.fromkeys(_FIRST_ROUND, False)}
            with ProgressDisplay(quiet=quiet, rates=list_rates(each)) as display:
                run = runner(each.experiment, target=each.specs, out=out, named=each.users, progress=display,
                             **options_of_run)  # fmt: skip
            show_end(run, run.error, partial(answer, run), loaded.file, loaded.name,
                     as_json=as_json, quiet=quiet, open_page=open_browser and not view)  # fmt: skip
            # A job that another client cancelled on the server has no result either.
            is_ok = is_ok and not (run.failed or run.cancelled or run.stopped_by or run.error)
            if run.stopped_by or run.error:
                break
        if view and rounds is None and run is not None and run.stopped_by != "interrupt":
            wait_until_stopped()
    return get_run_exit_code(None if run is None else run.stopped_by, ok=is_ok)


def list_rates(prepared: Prepared) -> list[TargetPrice]:
    """The prices of the targets; empty if none has one. Mistakes in targets are reported elsewhere."""
    specs = prepared.experiment.targets if prepared.specs is None else prepared.specs
    used = expand_groups(specs, prepared.named)
    prices = [parse_target(target.spec, prepared.named).settings.get("price") for target in used]
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


def show_end(
    run: Run | None, error: str | None, make_answer: Callable[..., Answer], experiment: Path, name: str, *,
    as_json: bool, quiet: bool, open_page: bool,
) -> None:  # fmt: skip
    """Print the error, refresh the report, print the answer, and open the report if `open_page`.

    `make_answer` gets the page of the report, and the command that makes it.
    """
    if error:
        console.print_error(error)
    page = None if run is None else refresh_report(run, create=open_page)
    if as_json or not quiet:
        report_command = ""
        if run is not None:
            is_default = run.out == default_results_folder(experiment, name)
            report_command = join_command(
                ["sweeper", "report", str(experiment) if is_default else display_path(run.out)]
            )
        console.print_answer(make_answer(report=page, report_command=report_command), as_json=as_json)
    if page is not None and open_page:
        open_in_browser(page)


# --- --follow


def follow_files(prepared: Prepared, load: Callable[[_Counts], Prepared], *, quiet: bool) -> Iterator[Prepared]:
    """Yield the experiment for a run now, and again whenever there is something new. Ends with Ctrl-C.

    A model file counts when two looks find it with the same size and time, of which the argument of `load` knows. Local
    files count when all of them rest. Raises UsageError if there is nothing to watch, and if the experiment itself
    changes, because the user may have trusted the earlier one.
    """
    if not (prepared.experiment.look() or select_listed_models(prepared.experiment.overrides)):
        raise UsageError("--follow: nothing in this experiment can become new: no models, files, lines, csv or jsonl")
    for target in prepared.iter_targets() if select_listed_models(prepared.experiment.overrides) else ():
        if target.launch is not None:
            message = f"--follow: {target.name} runs only during a run, so it cannot be asked for new files in between"
            raise UsageError(f"{message}; start it yourself, and give its URL as --target")
    document, done, status = _read_document(prepared), None, ""
    while (found := _wait_for_change(prepared, done, status)) is not None:
        local, models = done = found
        status = ""
        if any(size is None for size, _ in models.values()):
            console.warn("the server tells no sizes, so a file counts when it was listed twice")
        try:
            latest = load(partial(_has_rested, models))
        except SweeperError as error:  # somebody is still editing a list
            console.print_error(str(error))
            continue
        if _read_document(latest) != document:
            raise UsageError(f"{latest.experiment.file} has changed, so this run of it ends; start it again")
        if latest.experiment.look() == local:
            yield (prepared := latest)
            status = "" if quiet else "waiting for new files; Ctrl-C ends it"
        else:
            done = None


def _has_rested(models: _Models, target: str, name: str, facts: ModelFacts) -> bool:
    return models.get((target, name)) == (facts.size, facts.placed)


def _wait_for_change(prepared: Prepared, done: Any, status: str) -> tuple[Any, _Models] | None:
    """Print a status, look until something rests that is not `done`, and return it; None after Ctrl-C."""
    before: tuple[Any, _Models] | None = None
    with catch_stop_signals() as wait:
        if status:
            console.print_status(status)
        while True:
            looked = _look(prepared)
            if looked is not None and before is not None:
                models = {key: facts for key, facts in looked[1].items() if before[1].get(key) == facts}
                has_rested = looked[0] == before[0] and (models or not looked[1])
                if has_rested and (looked[0], models) != done:
                    return looked[0], models
            before, end = looked or before, time.monotonic() + _LOOK_SECONDS
            if wait(lambda end=end: time.monotonic() > end):
                return None


def _look(prepared: Prepared) -> tuple[Any, _Models] | None:
    """The local files and the model files that the experiment names; None as long as a target does not respond."""
    patterns = select_listed_models(prepared.experiment.overrides)
    folders = {pattern.partition("/")[0] for pattern in patterns}
    models: _Models = {}
    try:
        if patterns:
            listings, silent = run_sync(lambda: prepared.list_model_files(folders, may_send_keys=True))
            for target, listing in listings.items():
                for pattern in patterns if not silent else ():
                    folder = pattern.partition("/")[0]
                    found = {name: listing[folder][name] for name in match_models(listing[folder], pattern)}
                    models |= {(target, f"{folder}/{name}"): (of.size, of.placed) for name, of in found.items()}
        return (prepared.experiment.look(), models) if models or not patterns else None
    except SweeperError:
        return None


def _read_document(prepared: Prepared) -> Any:
    return None if prepared.experiment.source is None else prepared.experiment.source.value
