"""`sweeper search`: let an optimiser choose the trials of an experiment, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from sweeper.cli import confirm_cost, console, dask_options, options, trust_check
from sweeper.cli.commands.run import list_rates, run_and_show, show_end
from sweeper.cli.commands.view import start_view
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.options import format_examples
from sweeper.cli.progress import ProgressDisplay
from sweeper.cli.rehearsal import Rehearsal, build_run_command, rehearsal_options
from sweeper.errors import UsageError
from sweeper.model.result import Run
from sweeper.model.selection import Selection
from sweeper.running.cost_question import list_paid_targets
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.tables.results_folder import default_results_folder


@click.command(
    epilog=format_examples(
        "sweeper search experiments/search.yaml --preview", "sweeper search experiments/search.yaml --trials 100"
    )
)
@options.experiment
@options.targets
@options.run_out
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="How many trials the search may ask for in "
              "all, instead of the experiment's `trials`.")  # fmt: skip
@options.of_run
@options.settings
@rehearsal_options
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@options.view
@options.open_browser
@click.option("--preview", is_flag=True, help="Show the next points and what the search may cost. Submits nothing.")
@click.option("--confirm", is_flag=True, help="Run the best point on fresh seeds, into the folder NAME-confirm beside "
              "the results, and show its mean there: the number of the search is too good.")  # fmt: skip
@options.as_json
@options.quiet
def command(
    experiment: Path, *, targets: list[str] | None, out: Path | str | None, trials: int | None,
    values: Mapping[str, Any], rehearsal: Rehearsal | None, trust: bool, yes: bool, view: bool, open_browser: bool,
    preview: bool, confirm: bool, as_json: bool, quiet: bool, dask: str | None, dask_resources: tuple[str, ...],
    **settings: Any,
) -> int:  # fmt: skip
    """Let an optimiser choose the trials of an experiment with a `search:` section, round by round.

    The results folder is the memory: the same command goes on where an earlier one ended, and rows that a sweep of the
    same folder has already count. Needs the extra `search` (Optuna).
    """
    from sweeper.running.run_answer import answer_preview, answer_search
    from sweeper.running.search_rounds import SearchRounds, require_search, search

    rehearses, report = rehearsal is not None, None if preview else ProgressDisplay(quiet=quiet)
    _check_flags(preview=preview, confirm=confirm, shows_page=view or open_browser, rehearses=rehearses)
    selection = Selection(values=values)
    prepared = load_for_run(experiment, targets, values, trust=trust, out=out, rehearses=rehearses, report=report)
    spec = require_search(prepared.experiment)
    budget = spec.budget if settings["budget"] is None else settings["budget"]
    spec = replace(spec, trials=trials or spec.trials, budget=budget)
    prepared = replace(prepared, experiment=replace(prepared.experiment, search=spec))
    real, again = None, build_run_command(experiment, targets, out, selection, command="search")
    out = trust_check.choose_output(out)
    if confirm:
        runner = dask_options.choose_runner(dask, dask_resources)
        return _confirm(prepared, out, runner, settings, again, yes=yes, view=view, open_browser=open_browser,
                        as_json=as_json, quiet=quiet)  # fmt: skip
    if rehearsal is not None:
        real = build_run_command(experiment, targets, out, selection, command="search", trials=trials)
        whole = replace(prepared, specs=targets)
        local, out, settings = rehearsal.prepare_search(whole, spec, out, settings, quiet=quiet)
        prepared = replace(prepared, experiment=local)
    loaded, resolved = prepared.experiment, prepared.resolve_targets()
    folder = out if isinstance(out, Path) else default_results_folder(loaded.file, loaded.name)
    if preview or (not yes and list_paid_targets(prepared)):
        next_round = SearchRounds(loaded, resolved, folder, RunOptions(**settings)).preview()
        most, left = settings["max_trials"] or loaded.run.max_trials, next_round.state.trials_left
        left = next_round.unfinished + (most if left is None else min(left, most))
        if preview:
            console.print_answer(answer_preview(prepared, folder, next_round, left), as_json=as_json)
            return 0
        if next_round.plan is not None:
            confirm_cost.confirm_search(prepared, out, next_round.plan, trials=left, budget=loaded.search_budget)
    with ExitStack() as stack:
        if view:
            wait_until_stopped = stack.enter_context(start_view(folder, loaded, open_browser=open_browser))
        with ProgressDisplay(quiet=quiet, rates=list_rates(prepared), is_search=True) as display:
            result = search(
                loaded, target=prepared.specs, out=out, named=prepared.users, progress=display,
                session=dask_options.choose_session(dask, dask_resources), **settings,
            )  # fmt: skip
        facts: dict[str, Any] = {"find_idle": not quiet, "real_run": real, "confirm_command": f"{again} --confirm"}
        answer = partial(answer_search, result, **facts)
        show_end(result.run, None if result.has_finished else result.error, answer, experiment, loaded.name,
                 as_json=as_json, quiet=quiet, open_page=open_browser and not view)  # fmt: skip
        if view and result.ended_by != "interrupt":
            wait_until_stopped()
    is_complete = result.has_finished and not (result.run and (result.run.failed or result.run.cancelled))
    return get_run_exit_code(result.ended_by, ok=is_complete)


def _check_flags(*, preview: bool, confirm: bool, shows_page: bool, rehearses: bool) -> None:
    if preview and (shows_page or rehearses):
        raise UsageError("--preview submits nothing, so it goes without --view, --open and --rehearse")
    if confirm and (preview or rehearses):
        raise UsageError("--confirm runs the best point on its target, so it goes without --preview and --rehearse")


def _confirm(
    prepared: Prepared, out: Path | str | None, runner: Callable[..., Run], settings: Mapping[str, Any],
    search_command: str, *, yes: bool, **shown: Any,
) -> int:  # fmt: skip
    """Run the best points of the search on fresh seeds, and show what they reach there. Returns the exit code."""
    from sweeper.running.confirm_best import answer_confirmation, plan_confirmation

    loaded = prepared.experiment
    confirmation = plan_confirmation(
        loaded, prepared.resolve_targets(), out, RunOptions(**settings), command=search_command
    )
    plan, budget = confirmation.plan, loaded.search_budget if settings["budget"] is None else settings["budget"]
    settings = {**settings, "plan": plan, "budget": budget}
    prepared = replace(prepared, experiment=plan.experiment)
    if not yes and list_paid_targets(prepared):
        confirm_cost.confirm_plan(prepared, plan, confirmation.out, settings)
    answer = partial(answer_confirmation, confirmation)
    return run_and_show(runner, prepared, confirmation.out, answer, settings, **shown)
