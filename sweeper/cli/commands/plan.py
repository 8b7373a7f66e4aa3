"""`sweeper plan`: show what a run would do. Submits nothing; at most queries servers for their node classes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.export_workflows import WorkflowFolder
from sweeper.cli.load_prepared import load_prepared
from sweeper.cli.node_class_source import object_info_option
from sweeper.cli.options import format_examples
from sweeper.cli.plan_diff import PlanDiff, resolve_diff_run
from sweeper.cli.plan_summary import PlanSummary
from sweeper.cli.plan_text import show_plan
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.selection import Selection
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.running.settings import RunOptions
from sweeper.tables.export import CSV_DIALECTS, encode_line, format_delimited

_file_or_stdout = click.Path(dir_okay=False, allow_dash=True)


@click.command(
    epilog=format_examples(
        "sweeper plan experiments/quickstart.yaml",
        "sweeper plan experiments/quickstart.yaml --jsonl - | head -1",
        "sweeper plan experiments/quickstart.yaml --diff 3 --workflows out/",
    )
)
@options.experiment
@options.targets
@options.out
@options.selection
@click.option(
    "--jsonl", type=_file_or_stdout, metavar="FILE|-", help="Write every trial as JSON lines, in written order."
)
@click.option("--csv", type=_file_or_stdout, metavar="FILE|-", help="Write every trial as CSV, in written order.")
@click.option(
    "--workflows",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each distinct workflow as a file that ComfyUI accepts.",
)
@click.option(
    "--diff",
    metavar="RUN|RESULTS",
    help="Compare the plan with a run: its number (see `sweeper runs`), or a results folder (its latest run).",
)
@object_info_option
@trust_check.option
@options.as_json
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | None,
    selection: Selection,
    jsonl: str | None,
    csv: str | None,
    workflows: Path | None,
    diff: str | None,
    object_info: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Show what a run would do: axes, number of trials, order, new and done trials. Submits nothing.

    --where and --limit mean what they mean for `run`; --jsonl, --csv and --workflows then write only these trials.
    """
    if [jsonl, csv].count("-") + as_json > 1:
        raise UsageError("--json, --jsonl - and --csv - all write to stdout; give one")
    if diff is not None and (selection.where, selection.limit) != (None, None):
        raise UsageError("--diff compares the whole plan with a run; drop --where and --limit")
    run_options = RunOptions(where=selection.where, limit=selection.limit)
    requested = options.to_target_list(targets)
    prepared = load_prepared(experiment, requested, overrides=selection.values, object_info=object_info, trust=trust)
    plan = prepared.plan
    plan_summary = PlanSummary(prepared, out, run_options)
    plan_diff = PlanDiff(*resolve_diff_run(diff, plan_summary.out), plan_summary) if diff is not None else None
    folder = WorkflowFolder(plan, workflows) if workflows is not None else None
    consumers = [one.add for one in (plan_diff, folder) if one is not None]
    trials = plan_summary.iter_selected()
    if selection.limit is None:
        consumers.insert(0, plan_summary.add)
    else:
        plan_summary.add_all()
        trials = plan_summary.iter_limited()
    with ExitStack() as files:
        _stream_trials(plan, trials, consumers, _open_output(jsonl, files), _open_output(csv, files))
    summary = plan_summary.to_dict()
    if plan_diff is not None:
        summary["diff"] = plan_diff.to_dict()
    if folder is not None:
        summary["workflows"] = {"dir": str(workflows), "written": folder.written_count, "same": folder.unchanged_count}
        if folder.unrelated_count:
            summary["warnings"].append(
                f"{workflows} holds {folder.unrelated_count} workflows that do not belong to this plan"
            )
    _print_plan(plan, summary, None if as_json else console.print_status if "-" in (jsonl, csv) else console.print_line)


def show_dry_run(
    experiment: Path, targets: list[str] | None, out: Path | None, overrides: Mapping[str, Any],
    run_options: RunOptions, *, trust: bool, as_json: bool,
) -> None:  # fmt: skip
    """For `sweeper run --dry-run`: show the plan of a run with these options."""
    prepared = load_prepared(
        experiment, targets, overrides=overrides, trust=trust, out=out, keep_temp=run_options.keep_temp
    )
    plan_summary = PlanSummary(prepared, out, run_options)
    plan_summary.add_all()
    _print_plan(prepared.plan, plan_summary.to_dict(), None if as_json else console.print_line)


def _print_plan(plan: Plan, summary: Mapping[str, Any], print_line: Callable[[str], None] | None) -> None:
    """Print a summary as text with `print_line`, or as JSON without, and its warnings."""
    if print_line is None:
        console.print_json(summary)
    else:
        show_plan(plan, summary, print_line)
    for warning in summary["warnings"]:
        console.warn(warning)


def _open_output(file: str | None, files: ExitStack) -> BinaryIO | None:
    """The stream of a FILE or `-` option; None if it was not given. `files` closes it."""
    if file is None:
        return None
    if file == "-":
        return sys.stdout.buffer
    return files.enter_context(atomic_write(Path(file)))


def _stream_trials(
    plan: Plan,
    trials_of_plan: Iterator[Trial],
    consumers: Sequence[Callable[[Trial], None]],
    jsonl: BinaryIO | None,
    csv: BinaryIO | None,
) -> None:
    """Iterate over these trials once, call each consumer with each, and write the two streams."""
    axes = plan.axis_columns
    slots = [name for name in plan.slot_names if name not in axes]
    dialect = CSV_DIALECTS["csv"]
    if csv is not None:
        csv.writelines(map(encode_line, format_delimited(("index", *axes, *slots, "digest"), [], dialect)))
    for trials in _iter_chunks(trials_of_plan):
        for consume in consumers:
            for trial in trials:
                consume(trial)
        if jsonl is not None:
            jsonl.writelines(encode_line(_to_json_line(trial)) for trial in trials)
        if csv is not None:
            rows = [
                (trial.index, *map(trial.columns.get, axes), *map(trial.params.get, slots), trial.digest)
                for trial in trials
            ]
            lines = format_delimited((), [list(zip(*rows, strict=True))], dialect)
            next(lines)  # skip the header, which is already written
            csv.writelines(map(encode_line, lines))


def _iter_chunks(trials: Iterator[Trial], size: int = 4096) -> Iterator[list[Trial]]:
    chunk: list[Trial] = []
    for trial in trials:
        chunk.append(trial)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _to_json_line(trial: Trial) -> str:
    values = {"index": trial.index, "axes": dict(trial.axes), "params": dict(trial.params), "digest": trial.digest}
    return json.dumps(values, ensure_ascii=False) + "\n"
