"""`sweeper validate`: report every mistake in experiments and templates, before anything runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import INVALID_INPUT, OK
from sweeper.cli.load_prepared import load_prepared
from sweeper.cli.node_class_source import object_info_option
from sweeper.cli.options import format_examples
from sweeper.errors import InputError, Problem, summarise_problems
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import is_space
from sweeper.running.prepare import Prepared
from sweeper.wording import count_things, join_names


@click.command(epilog=format_examples("sweeper validate experiments/*.yaml templates/*.json"))
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@options.targets
@object_info_option
@trust_check.option
@options.as_json
def command(
    files: tuple[Path, ...], *, targets: tuple[str, ...], object_info: Path | None, trust: bool, as_json: bool
) -> int:
    """Check experiments (.yaml) with all files that they name, and templates (.json, or their .slots.yaml)."""
    requested = options.to_target_list(targets)
    reports: list[dict[str, object]] = []
    for file in files:
        kind, problems, checked = _check_file(file, requested, object_info, trust=trust)
        trials, searched = (None, []) if checked is None else _list_contents(checked.plan)
        notes = [] if checked is None else checked.notes
        reports.append(
            {
                "file": str(file),
                "kind": kind,
                "valid": not problems,
                "trials": trials,
                "problems": [asdict(problem) for problem in problems],
            }
            | ({"search": searched} if searched else {})
            | ({"notes": notes} if notes else {})
        )
        if as_json:
            continue
        for problem in problems:
            for line in str(problem).splitlines():
                console.print_error(line)
        if not problems:
            contents = [] if trials is None else [count_things(trials, "trial")]
            contents += [f"a search of {join_names(searched)}"] if searched else []
            console.print_line(f"{file}: {kind} is valid" + (f", {' and '.join(contents)}" if contents else ""))
        for note in notes:
            console.warn(note)
    if as_json:
        console.print_json(reports)
    return OK if all(report["valid"] for report in reports) else INVALID_INPUT


def _check_file(
    file: Path, targets: list[str] | None, object_info: Path | None, *, trust: bool
) -> tuple[str, tuple[Problem, ...], Prepared | None]:
    """The kind of file (experiment or template), its problems to show, and the plan of a valid experiment."""
    from sweeper.regression.thresholds import check_models

    is_template = options.get_workflow_path(file).suffix.lower() == ".json"
    try:
        if is_template:
            trust_check.load_named_template(options.get_workflow_path(file))
            return "template", (), None
        checked = load_prepared(
            file, targets, object_info=object_info, extra_check=check_models, trust=trust, needs_sweep=False
        )
    except InputError as error:
        return "template" if is_template else "experiment", summarise_problems(error.problems), None
    return "experiment", (), checked


def _list_contents(plan: Plan) -> tuple[int | None, list[str]]:
    """The number of trials of the sweep, None without a sweep; and the axes of the space of the search."""
    search = plan.experiment.search
    searched = [] if search is None else [one.name for one in search.space]
    return None if is_space(plan) else len(plan), searched
