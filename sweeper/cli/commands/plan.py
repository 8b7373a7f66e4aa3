"""`sweeper plan`: what a run would do. Nothing is submitted; a server is asked for its node classes at most."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from sweeper.cli import console, options
from sweeper.cli.node_class_source import object_info_option
from sweeper.cli.options import format_examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan

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
@options.settings
@click.option(
    "--jsonl", type=_file_or_stdout, metavar="FILE|-", help="Stream every trial as JSON lines, in written order."
)
@click.option("--csv", type=_file_or_stdout, metavar="FILE|-", help="Stream every trial as CSV, in written order.")
@click.option(
    "--workflows",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each distinct workflow as a file that ComfyUI accepts.",
)
@click.option(
    "--diff",
    metavar="RUN|RESULTS",
    help="Hold the plan against a run: its number (see `sweeper runs`), or the latest of a results folder.",
)
@object_info_option
@options.as_json
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | None,
    settings: tuple[str, ...],
    jsonl: str | None,
    csv: str | None,
    workflows: Path | None,
    diff: str | None,
    object_info: Path | None,
    as_json: bool,
) -> None:
    """Show what a run would do: axes, number of trials, order, what is new and what is done. Submits nothing."""
    from sweeper.cli.checked_plan import load_checked_plan  # noqa: PLC0415
    from sweeper.cli.export_workflows import WorkflowFolder  # noqa: PLC0415
    from sweeper.cli.plan_diff import PlanDiff, resolve_diff_run  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.plan_summary import PlanSummary  # noqa: PLC0415
    from sweeper.cli.plan_text import show_plan  # noqa: PLC0415

    if [jsonl, csv].count("-") + as_json > 1:
        raise UsageError("only one of --json, --jsonl - and --csv - can have stdout")
    listed = options.to_target_list(targets)
    overrides = options.parse_settings(settings)
    planned, notes = load_checked_plan(experiment, listed, overrides=overrides, object_info=object_info)
    foresight = PlanSummary(planned, listed, out, notes=notes)
    difference = PlanDiff(*resolve_diff_run(diff, foresight.out)) if diff is not None else None
    folder = WorkflowFolder(planned, workflows) if workflows is not None else None
    with ExitStack() as files:
        watchers = [one.add for one in (foresight, difference, folder) if one is not None]
        _stream_trials(planned, watchers, _open_output(jsonl, files), _open_output(csv, files))
    summary = foresight.to_dict()
    if difference is not None:
        summary["diff"] = difference.to_dict()
    if folder is not None:
        summary["workflows"] = {"dir": str(workflows), "written": folder.written_count, "same": folder.unchanged_count}
        if folder.unrelated_count:
            summary["warnings"].append(
                f"{workflows} holds {folder.unrelated_count} workflows that are not of this plan"
            )
    if as_json:
        console.print_json(summary)
    else:
        show_plan(planned, summary, console.print_line if "-" not in (jsonl, csv) else console.print_status)
    for warning in summary["warnings"]:
        console.warn(warning)


def _open_output(file: str | None, files: ExitStack) -> BinaryIO | None:
    from sweeper.tables.export import atomic_write  # noqa: PLC0415

    if file is None:
        return None
    if file == "-":
        return sys.stdout.buffer
    return files.enter_context(atomic_write(Path(file)))


def _stream_trials(
    plan: Plan, consumers: Sequence[Callable[[Trial], None]], jsonl: BinaryIO | None, csv: BinaryIO | None
) -> None:
    """One walk over the plan, however many want to see it."""
    from sweeper.tables.export import CSV_DIALECTS, encode_line, format_delimited  # noqa: PLC0415

    axes = plan.axis_columns
    slots = [name for name in plan.slot_names if name not in axes]
    dialect = CSV_DIALECTS["csv"]
    if csv is not None:
        csv.writelines(map(encode_line, format_delimited(("index", *axes, *slots, "digest"), [], dialect)))
    for trials in _iter_chunks(plan.written()):
        for see in consumers:
            for trial in trials:
                see(trial)
        if jsonl is not None:
            jsonl.writelines(encode_line(_to_json_line(trial)) for trial in trials)
        if csv is not None:
            rows = [(one.index, *map(one.columns.get, axes), *map(one.params.get, slots), one.digest) for one in trials]
            lines = format_delimited((), [list(zip(*rows, strict=True))], dialect)
            next(lines)  # the headings are written already
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
    shown = {"index": trial.index, "axes": dict(trial.axes), "params": dict(trial.params), "digest": trial.digest}
    return json.dumps(shown, ensure_ascii=False) + "\n"
