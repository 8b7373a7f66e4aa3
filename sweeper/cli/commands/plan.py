"""`sweeper plan`: show what a run would do. Submits nothing; at most queries servers for their node classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.export_workflows import WorkflowFolder
from sweeper.cli.load_prepared import load_prepared
from sweeper.cli.options import format_examples
from sweeper.cli.rehearsal import build_run_command
from sweeper.errors import UsageError
from sweeper.model.selection import Selection
from sweeper.model.shell_words import join_command
from sweeper.model.trial import Trial
from sweeper.planning.plan import Plan
from sweeper.running.count_plan import PlanCounter, PlanDiff, answer_plan, resolve_diff_run
from sweeper.running.plan_answer import PlanAnswer, WrittenWorkflows
from sweeper.running.settings import RunOptions
from sweeper.tables.export import CSV_DIALECTS, encode_text, format_delimited

_CHUNK: Final = 4096  # trials
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
    type=options.FOLDER,
    metavar="DIR",
    help="Write each distinct workflow as a file that ComfyUI accepts.",
)
@click.option(
    "--diff",
    metavar="RUN|RESULTS",
    help="Compare the plan with a run: its number (see `sweeper runs`), or a results folder (its latest run).",
)
@options.object_info
@trust_check.option
@options.as_json
def command(
    experiment: Path, *, targets: list[str] | None, out: Path | None, selection: Selection, jsonl: str | None,
    csv: str | None, workflows: Path | None, diff: str | None, object_info: Path | None, trust: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what a run would do: axes, number of trials, order, new and done trials. Submits nothing.

    --where and --limit mean what they mean for `run`; --jsonl, --csv and --workflows then write only these trials.
    """
    if [jsonl, csv].count("-") + as_json > 1:
        raise UsageError("--json, --jsonl - and --csv - all write to stdout; give one")
    if diff is not None and (selection.where, selection.limit) != (None, None):
        raise UsageError("--diff compares the whole plan with a run; drop --where and --limit")
    run_options = RunOptions(where=selection.where, limit=selection.limit)
    prepared = load_prepared(experiment, targets, overrides=selection.values, object_info=object_info, trust=trust)
    plan = prepared.plan
    counter = PlanCounter(prepared, out, run_options)
    plan_diff = PlanDiff(*resolve_diff_run(diff, counter.out), counter) if diff is not None else None
    folder = WorkflowFolder(plan, workflows) if workflows is not None else None
    consumers = [consumer.add for consumer in (plan_diff, folder) if consumer is not None]
    trials = counter.iter_selected()
    if selection.limit is None:
        consumers.insert(0, counter.add)
    else:
        counter.add_all()
        trials = counter.iter_limited()
    with ExitStack() as files:
        outputs = [None if file is None else console.open_output(file, files) for file in (jsonl, csv)]
        _stream_trials(plan, trials, consumers, *outputs)
    answer = counter.answer()
    look = join_command(["sweeper", "report", str(out or experiment)]) if answer.done else None
    following = build_run_command(experiment, targets, out, selection) if answer.jobs else look
    answer = replace(answer, diff=None if plan_diff is None else plan_diff.answer(), next=following)
    if folder is not None:
        written = WrittenWorkflows(str(workflows), folder.written_count, folder.unchanged_count)
        unrelated = f"{workflows} holds {folder.unrelated_count} workflows that do not belong to this plan"
        warnings = (*answer.warnings, *[unrelated] * bool(folder.unrelated_count))
        answer = replace(answer, workflows=written, warnings=warnings)
    _print_plan(answer, as_json=as_json, on_stderr="-" in (jsonl, csv))


def show_dry_run(
    experiment: Path, targets: list[str] | None, out: Path | None, overrides: Mapping[str, Any],
    run_options: RunOptions, *, trust: bool, as_json: bool,
) -> None:  # fmt: skip
    """For `sweeper run --dry-run`: show the plan of a run with these options."""
    prepared = load_prepared(
        experiment, targets, overrides=overrides, trust=trust, out=out, keep_temp=run_options.keep_temp
    )
    _print_plan(answer_plan(prepared, out, run_options), as_json=as_json)


def _print_plan(answer: PlanAnswer, *, as_json: bool, on_stderr: bool = False) -> None:
    console.print_answer(answer, as_json=as_json, on_stderr=on_stderr)
    for warning in answer.warnings if as_json else ():
        console.warn(warning)


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
        csv.writelines(map(encode_text, format_delimited(("index", *axes, *slots, "digest"), [], dialect)))
    for trials in iter(lambda: list(itertools.islice(trials_of_plan, _CHUNK)), []):
        for consume in consumers:
            for trial in trials:
                consume(trial)
        if jsonl is not None:
            jsonl.writelines(encode_text(_to_json_line(trial)) for trial in trials)
        if csv is not None:
            rows = [
                (trial.index, *map(trial.columns.get, axes), *map(trial.params.get, slots), trial.digest)
                for trial in trials
            ]
            _, text = format_delimited((), [list(zip(*rows, strict=True))], dialect)  # the header is already written
            csv.write(encode_text(text))


def _to_json_line(trial: Trial) -> str:
    values = {"index": trial.index, "axes": dict(trial.axes), "params": dict(trial.params), "digest": trial.digest}
    return json.dumps(values, ensure_ascii=False) + "\n"
