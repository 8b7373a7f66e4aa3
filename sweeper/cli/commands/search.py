"""`sweeper search`: let an optimiser choose the trials of an experiment, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import confirm_cost, console, dask_options, options, run_options, trust_check
from sweeper.cli.commands.run import format_report_command, list_rates, refresh_report, run_to_json
from sweeper.cli.commands.view import start_view
from sweeper.cli.cost_text import describe_run_cost, format_cost, format_run_cost
from sweeper.cli.exit_codes import get_run_exit_code
from sweeper.cli.load_prepared import load_for_run
from sweeper.cli.open_page import open_in_browser
from sweeper.cli.options import format_examples
from sweeper.cli.plan_summary import PlanSummary
from sweeper.cli.progress import ProgressDisplay
from sweeper.cli.rehearsal import Rehearsal, build_real_command, rehearsal_options
from sweeper.cli.search_text import (
    describe_aim,
    describe_counts,
    describe_end,
    describe_idle_axes,
    describe_point,
    list_axes,
)
from sweeper.errors import UsageError
from sweeper.model.experiment import Experiment, Search
from sweeper.model.money import Amount
from sweeper.model.search_columns import SearchResult
from sweeper.model.selection import Selection
from sweeper.model.target_spec import EMBEDDED
from sweeper.running.prepare import Prepared
from sweeper.running.settings import RunOptions
from sweeper.store import Store
from sweeper.tables.results_folder import default_results_folder
from sweeper.tables.searched_points import make_best_points

_BEST: Final = 5  # points in the summary
_FINISHED: Final = ("trials", "until", "exhausted", "votes")


@click.command(
    epilog=format_examples(
        "sweeper search experiments/search.yaml --preview",
        "sweeper search experiments/search.yaml --trials 100",
    )
)
@options.experiment
@options.targets
@run_options.out
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="How many trials the search may ask for in "
              "all, instead of the experiment's `trials`.")  # fmt: skip
@run_options.limits
@options.settings
@run_options.downloads
@rehearsal_options
@dask_options.dask
@dask_options.resources
@trust_check.option
@confirm_cost.option
@run_options.view
@options.open_browser
@click.option("--preview", is_flag=True, help="Show the next points and what the search may cost. Submits nothing.")
@options.as_json
@options.quiet
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | str | None,
    trials: int | None,
    values: Mapping[str, Any],
    rehearsal: Rehearsal | None,
    trust: bool,
    yes: bool,
    view: bool,
    open_browser: bool,
    preview: bool,
    as_json: bool,
    quiet: bool,
    dask: str | None,
    dask_resources: tuple[str, ...],
    **settings: Any,
) -> int:
    """Let an optimiser choose the trials of an experiment with a `search:` section, round by round.

    The results folder is the memory: the same command goes on where an earlier one ended, and rows that a sweep of the
    same folder has already count. Needs the extra `search` (Optuna).
    """
    from sweeper.running.search_rounds import preview_search, require_search, search

    if preview and (view or open_browser or rehearsal is not None):
        raise UsageError("--preview submits nothing, so it goes without --view, --open and --rehearse")
    requested = options.to_target_list(targets)
    used = (requested if rehearsal is None else [EMBEDDED], out)
    prepared = _load(experiment, used, values, trials, settings["budget"], trust=trust)
    spec, real, out = require_search(prepared.experiment), None, trust_check.choose_output(out)
    if rehearsal is not None:
        real = build_real_command(experiment, targets, out, Selection(values=values), command="search", trials=trials)
        whole = replace(prepared, specs=requested)
        local, out, settings = rehearsal.prepare_search(whole, spec, out, settings, quiet=quiet)
        prepared = replace(prepared, experiment=local)
    loaded, resolved = prepared.experiment, prepared.resolve_targets()
    folder = out if isinstance(out, Path) else default_results_folder(loaded.file, loaded.name)
    if preview or (not yes and confirm_cost.list_paid_targets(prepared)):
        next_round = preview_search(loaded, resolved, folder, settings["concurrency"])
        left = _count_trials_left(next_round, settings["max_trials"] or loaded.run.max_trials)
        if preview:
            _show_preview(prepared, folder, next_round, left, as_json=as_json)
            return 0
        if next_round.plan is not None:
            confirm_cost.confirm_search(prepared, out, next_round.plan, trials=left, budget=_find_budget(loaded))
    with ExitStack() as stack:
        if view:
            wait_until_stopped = stack.enter_context(start_view(folder, loaded, open_browser=open_browser))
        with ProgressDisplay(quiet=quiet, rates=list_rates(prepared), is_search=True) as display:
            result = search(
                loaded, target=prepared.specs, out=out, named=prepared.users, progress=display,
                session=dask_options.choose_session(dask, dask_resources), **settings,
            )  # fmt: skip
        _show_end(result, spec, experiment, loaded.name, real, as_json=as_json, quiet=quiet,
                  open_page=open_browser and not view)  # fmt: skip
        if view and result.ended_by != "interrupt":
            wait_until_stopped()
    return _choose_exit_code(result, spec)


def _choose_exit_code(result: SearchResult, search: Search) -> int:
    run = result.run
    is_complete = _has_finished(result, search) and (run is None or not (run.failed or run.cancelled))
    return get_run_exit_code(result.ended_by, ok=is_complete)


def _has_finished(result: SearchResult, search: Search) -> bool:
    """Whether the search ended as its section says, which may be at its budget."""
    if result.ended_by == "budget":
        return search.budget is not None
    return result.ended_by in _FINISHED and (result.run is None or result.run.error is None)


def _load(
    experiment: Path, used: tuple[list[str] | None, Any], values: Mapping[str, Any], trials: int | None,
    budget: Decimal | None, *, trust: bool,
) -> Prepared:  # fmt: skip
    """The experiment with the options of the command. `used`: its targets and results folder, as far as given."""
    from sweeper.running.search_rounds import require_search

    prepared = load_for_run(experiment, used[0], values, trust=trust, out=used[1])
    search = require_search(prepared.experiment)
    search = replace(search, trials=trials or search.trials, budget=search.budget if budget is None else budget)
    return replace(prepared, experiment=replace(prepared.experiment, search=search))


def _count_trials_left(preview: Any, most: int) -> int:
    """How many trials may still run, of which a search without a limit may have `most`."""
    left = preview.state.trials_left
    return int(preview.unfinished + (most if left is None else min(left, most)))


def _find_budget(experiment: Experiment) -> Decimal | None:
    assert experiment.search is not None
    return min([one for one in (experiment.search.budget, experiment.run.budget) if one is not None], default=None)


def _show_preview(prepared: Prepared, out: Path, preview: Any, left: int, *, as_json: bool) -> None:
    experiment = prepared.experiment
    search, state = experiment.search, preview.state
    assert search is not None
    summary: dict[str, Any] = {"targets": [], "cost": None, "jobs": 0, "warnings": []}
    if preview.plan is not None:
        checked = replace(prepared, plans=(preview.plan,)).check_targets()
        counted = PlanSummary(checked, out, RunOptions())
        counted.add_all()
        summary = counted.to_dict()
    whole = confirm_cost.estimate_search_cost(summary, left)
    points = [point for batch in preview.batches for point in batch.points]
    described = [state.describe_values(point) for point in points]
    if as_json:
        console.print_json(
            {
                "name": experiment.name, "out": str(out), "targets": summary["targets"],
                "asked": state.asked, "trials": search.trials, "left": left, "batch": preview.batch,
                "unfinished": preview.unfinished, "unmeasured": preview.unmeasured, "ended_by": preview.ended_by,
                "votes_needed": preview.votes_needed,
                "best": make_best_points(state.describe_best(_BEST), search.objectives),
                "points": described, "round_jobs": summary["jobs"], "round_cost": summary["cost"],
                "cost": None if whole is None else whole.to_dict(), "warnings": summary["warnings"],
            }
        )  # fmt: skip
        return
    on = f" on {', '.join(summary['targets'])}" if summary["targets"] else ""
    console.print_line(f"{experiment.name}: search of {experiment.template.file}{on}")
    console.print_line(describe_aim(search))
    console.print_line()
    axes = list(list_axes(search))
    widths = [max(len(axis[column]) for axis in axes) for column in (0, 1)]
    for name, count, text in axes:
        console.print_line(sanitize(f"  {name:<{widths[0]}}  {count:>{widths[1]}}  {text}"))
    console.print_line()
    for label, text in _describe_preview(search, preview, left):
        console.print_line(sanitize(f"{label:<10} {text}"))
    for label, text, _ in format_cost(summary):
        console.print_line(sanitize(f"{label:<10} {text} (next round)"))
    if whole is not None:
        budget = _find_budget(experiment)
        limit = "" if budget is None else f", but never more than {Amount.exactly(budget)} in this folder"
        console.print_line(f"{'in all':<10} {whole} for {left} trials at the same price{limit}")
    if described:
        console.print_line()
        console.print_line("The next points:")
        console.print_table(list(described[0]), [list(values.values()) for values in described])
    for warning in summary["warnings"]:
        console.warn(warning)


def _describe_preview(search: Search, preview: Any, left: int) -> list[tuple[str, str]]:
    state, lines = preview.state, []
    if state.points:
        lines.append(("so far", f"{len(state.points)} points, {state.asked} trials asked for"))
    if (best := next(iter(state.describe_best(_BEST)), None)) is not None:
        lines.append(("best", describe_point(best, [objective.metric for objective in search.objectives])))
    if preview.unmeasured:
        lines.append(("unmeasured", f"the pictures of {preview.unmeasured} trials of other runs are measured first"))
    if preview.unfinished:
        lines.append(("unfinished", f"{preview.unfinished} trials of an interrupted round run first"))
    lines.append(("left", f"at most {left} trials, {preview.batch} points in a round"))
    if preview.ended_by is not None:
        end = SearchResult(None, preview.ended_by, 0, 0, state.asked, votes_needed=preview.votes_needed)
        lines.append(("waits" if preview.votes_needed else "ended", describe_end(end, search)))
    return lines


def _show_end(
    result: SearchResult, search: Search, experiment: Path, name: str, real_command: str | None, *, as_json: bool,
    quiet: bool, open_page: bool,
) -> None:  # fmt: skip
    """Print the summary, refresh the report, and open it if `open_page`. `real_command`: of what was rehearsed."""
    run = result.run
    if result.error and not _has_finished(result, search):
        console.print_error(result.error)
    cost = None if run is None else describe_run_cost(run)
    idle = {} if run is None or quiet else _find_idle_axes(run.out)
    if not as_json and not quiet:
        _show_summary(result, search, idle, cost)
    page = None if run is None else refresh_report(run, create=open_page)
    if as_json:
        console.print_json(
            {
                "ended_by": result.ended_by, "error": result.error, "rounds": result.rounds, "points": result.points,
                "trials": result.trials, "best": make_best_points(result.best, search.objectives),
                "idle_axes": idle, "run": None if run is None else run_to_json(run), "cost": cost,
                "report": None if page is None else str(page), "votes_needed": result.votes_needed,
                **({} if real_command is None else {"real_run": real_command}),
            }
        )  # fmt: skip
    elif not quiet and run is not None:
        report = format_report_command(run, experiment, name)
        console.print_line(f"report    {f'{page} (up to date)' if page else report}")
        _print_next_steps(report.split(maxsplit=2)[2], result.votes_needed)
        if real_command is not None:
            console.print_line(f"This was a rehearsal on sweeper's own server. The real search is: {real_command}")
    if page is not None and open_page:
        open_in_browser(page)


def _print_next_steps(results: str, votes_needed: int) -> None:
    """Print the commands to run next. `results`: the argument for the shell."""
    console.print_line(f"best      sweeper results {results} --best 5")
    if votes_needed:
        console.print_line(f"vote      sweeper vote {results} --open")
        console.print_line("then      the same `sweeper search` again: it goes on by these votes")


def _show_summary(
    result: SearchResult, search: Search, idle: Mapping[str, float], cost: Mapping[str, Any] | None
) -> None:
    console.print_line(f"{describe_counts(result)}; {describe_end(result, search)}")
    if result.best:
        console.print_line()
        console.print_parts(make_best_points(result.best, search.objectives).parts())
        console.print_line()
    if idle:
        console.print_line(sanitize(describe_idle_axes(idle)))
    if result.run is not None:
        console.print_line(f"table     {result.run.out / 'results.csv'}")
    if cost is not None:
        console.print_line(f"cost      {format_run_cost(cost)}")


def _find_idle_axes(results: Path) -> dict[str, float]:
    """The axes that hardly matter, and what share (0 to 1) of the differences between points each explains at most."""
    from sweeper.tables.search_effects import find_idle_axes

    with Store.open(results, readonly=True) as store:
        return find_idle_axes(list(store.results()), store.layout())
