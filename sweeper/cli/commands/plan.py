"""`sweeper plan`: show what a run would do. Submits nothing; at most queries servers for their node classes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.load_prepared import load_prepared
from sweeper.cli.options import ARGUMENTS, format_examples
from sweeper.cli.rehearsal import build_run_command
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.selection import Selection
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_workflow
from sweeper.planning.plan import Plan
from sweeper.running.count_plan import PlanCounter, PlanDiff, answer_plan, resolve_diff_run
from sweeper.running.plan_answer import PlanAnswer, WrittenWorkflows
from sweeper.running.settings import RunOptions
from sweeper.tables.export import CSV_DIALECTS, format_delimited
from sweeper.wording import encode_text, join_command

_CHUNK: Final = 4096  # trials
_FILE_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}\.json")  # of a workflow in a folder
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
    following = _choose_next(answer, build_run_command(experiment, targets, out, selection), out or experiment)
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
    answer = answer_plan(prepared, out, run_options)
    run = [word for word in click.get_current_context().meta[ARGUMENTS] if word != "--dry-run"]
    following = _choose_next(answer, join_command(["sweeper", *run]), out or experiment)
    _print_plan(replace(answer, next=following), as_json=as_json)


def _choose_next(answer: PlanAnswer, run: str, results: Path) -> str | None:
    """The command that runs the plan, or if all of it is done the one that shows it."""
    look = join_command(["sweeper", "report", str(results)]) if answer.done else None
    return run if answer.jobs else look


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
            for trial in trials:
                facts = {"axes": dict(trial.axes), "params": dict(trial.params), "digest": trial.digest}
                jsonl.write(encode_text(json.dumps({"index": trial.index, **facts}, ensure_ascii=False) + "\n"))
        if csv is not None:
            rows = [
                (trial.index, *map(trial.columns.get, axes), *map(trial.params.get, slots), trial.digest)
                for trial in trials
            ]
            _, text = format_delimited((), [list(zip(*rows, strict=True))], dialect)  # the header is already written
            csv.write(encode_text(text))


class WorkflowFolder:
    """Writes workflows to a folder as `<index>-<first 8 digits of the digest>.json`, one file for each digest.

    `index` is that of the first trial with the digest. A run does not use these files: it sends workflows with the
    server's names of the uploaded input files. Here they keep their names from the experiment.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Raises OSError if the folder cannot be made or read."""
        self._plan = plan
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._existing_names = {path.name for path in folder.iterdir()}
        self._digests: set[int] = set()
        self.written_count = 0
        self.unchanged_count = 0

    def add(self, trial: Trial) -> None:
        """Write the trial's workflow, unless a trial with the same digest was added before.

        Raises UsageError if another file has its name.
        """
        short = int(trial.digest[:24], 16)  # 96 bits tell a million trials apart, in a third of the memory
        if short in self._digests:
            return
        self._digests.add(short)
        path = self._folder / f"{trial.index}-{trial.digest[:8]}.json"
        content = encode_workflow(self._plan.workflow(trial))
        if path.name in self._existing_names:
            self._existing_names.discard(path.name)
            if path.read_bytes() != content:
                raise UsageError(f"{path}: exists, and is not this trial's workflow; give another folder")
            self.unchanged_count += 1
            return
        with atomic_write(path) as file:
            file.write(content)
        self.written_count += 1

    @property
    def unrelated_count(self) -> int:
        """How many workflow files in the folder do not belong to this plan, but to an earlier one."""
        return sum(1 for name in self._existing_names if _FILE_NAME.fullmatch(name))
