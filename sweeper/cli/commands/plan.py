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
from sweeper.cli.options import examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan

_stream = click.Path(dir_okay=False, allow_dash=True)


@click.command(
    epilog=examples(
        "sweeper plan experiments/quickstart.yaml",
        "sweeper plan experiments/quickstart.yaml --jsonl - | head -1",
        "sweeper plan experiments/quickstart.yaml --diff 3 --workflows out/",
    )
)
@options.experiment
@options.targets
@options.out
@options.settings
@click.option("--jsonl", type=_stream, metavar="FILE|-", help="Stream every trial as JSON lines, in written order.")
@click.option("--csv", type=_stream, metavar="FILE|-", help="Stream every trial as CSV, in written order.")
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
    from sweeper.cli.checked_plan import sound_plan  # noqa: PLC0415
    from sweeper.cli.export_workflows import WorkflowFolder  # noqa: PLC0415
    from sweeper.cli.plan_diff import Difference, compared_run  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.plan_summary import Foresight  # noqa: PLC0415
    from sweeper.cli.plan_text import show_plan  # noqa: PLC0415

    if [jsonl, csv].count("-") + as_json > 1:
        raise UsageError("only one of --json, --jsonl - and --csv - can have stdout")
    listed = options.listed_targets(targets)
    overrides = options.parse_settings(settings)
    planned, notes = sound_plan(experiment, listed, overrides=overrides, object_info=object_info)
    foresight = Foresight(planned, listed, out, notes=notes)
    difference = Difference(*compared_run(diff, foresight.out)) if diff is not None else None
    folder = WorkflowFolder(planned, workflows) if workflows is not None else None
    with ExitStack() as files:
        watchers = [one.see for one in (foresight, difference, folder) if one is not None]
        _stream_trials(planned, watchers, _opened(jsonl, files), _opened(csv, files))
    summary = foresight.summary()
    if difference is not None:
        summary["diff"] = difference.summary()
    if folder is not None:
        summary["workflows"] = {"dir": str(workflows), "written": folder.written, "same": folder.same}
        if folder.others:
            summary["warnings"].append(f"{workflows} holds {folder.others} workflows that are not of this plan")
    if as_json:
        console.out_json(summary)
    else:
        show_plan(planned, summary, console.out if "-" not in (jsonl, csv) else console.say)
    for warning in summary["warnings"]:
        console.warn(warning)


def _opened(file: str | None, files: ExitStack) -> BinaryIO | None:
    from sweeper.tables.export import replacing  # noqa: PLC0415

    if file is None:
        return None
    if file == "-":
        return sys.stdout.buffer
    return files.enter_context(replacing(Path(file)))


def _stream_trials(
    plan: Plan, watchers: Sequence[Callable[[Trial], None]], jsonl: BinaryIO | None, csv: BinaryIO | None
) -> None:
    """One walk over the plan, however many want to see it."""
    from sweeper.tables.export import DIALECTS, delimited, encoded  # noqa: PLC0415

    axes = plan.axis_columns
    slots = [name for name in plan.slot_names if name not in axes]
    dialect = DIALECTS["csv"]
    if csv is not None:
        csv.writelines(map(encoded, delimited(("index", *axes, *slots, "digest"), [], dialect)))
    for trials in _chunks(plan.written()):
        for see in watchers:
            for trial in trials:
                see(trial)
        if jsonl is not None:
            jsonl.writelines(encoded(_line(trial)) for trial in trials)
        if csv is not None:
            rows = [(one.index, *map(one.columns.get, axes), *map(one.params.get, slots), one.digest) for one in trials]
            lines = delimited((), [list(zip(*rows, strict=True))], dialect)
            next(lines)  # the headings are written already
            csv.writelines(map(encoded, lines))


def _chunks(trials: Iterator[Trial], size: int = 4096) -> Iterator[list[Trial]]:
    chunk: list[Trial] = []
    for trial in trials:
        chunk.append(trial)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _line(trial: Trial) -> str:
    shown = {"index": trial.index, "axes": dict(trial.axes), "params": dict(trial.params), "digest": trial.digest}
    return json.dumps(shown, ensure_ascii=False) + "\n"
