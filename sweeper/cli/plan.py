"""`sweeper plan`: what a run would do. Nothing is submitted; a server is asked for its node classes at most."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sweeper.cli import console, options
from sweeper.cli.options import examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.planner import Plan
    from sweeper.trial import Trial

_stream = click.Path(dir_okay=False, allow_dash=True)


@click.command(
    epilog=examples(
        "sweeper plan experiments/quickstart.yaml", "sweeper plan experiments/quickstart.yaml --jsonl - | head -1"
    )
)
@options.experiment
@options.targets
@options.out
@options.settings
@click.option("--jsonl", type=_stream, metavar="FILE|-", help="Stream every trial as JSON lines, in written order.")
@click.option("--csv", type=_stream, metavar="FILE|-", help="Stream every trial as CSV, in written order.")
@options.as_json
def command(
    experiment: Path,
    *,
    targets: tuple[str, ...],
    out: Path | None,
    settings: tuple[str, ...],
    jsonl: str | None,
    csv: str | None,
    as_json: bool,
) -> None:
    """Show what a run would do: axes, number of trials, order, what is new and what is done. Submits nothing."""
    from sweeper.cli.fitting import checked  # noqa: PLC0415 - each command imports what it uses
    from sweeper.cli.foresight import Foresight  # noqa: PLC0415 - each command imports what it uses
    from sweeper.loading import load  # noqa: PLC0415
    from sweeper.planner import plan  # noqa: PLC0415

    if [jsonl, csv].count("-") + as_json > 1:
        raise UsageError("only one of --json, --jsonl - and --csv - can have stdout")
    loaded = load(experiment, overrides=options.parse_settings(settings))
    planned = plan(loaded)
    listed = options.listed_targets(targets)
    foresight = Foresight(planned, listed, out, notes=checked(planned, listed))
    with ExitStack() as files:
        _stream_trials(planned, foresight, _opened(jsonl, files), _opened(csv, files))
    summary = foresight.summary()
    if as_json:
        console.out_json(summary)
    else:
        _show(summary, on_stdout="-" not in (jsonl, csv))
    for warning in summary["warnings"]:
        console.warn(warning)


def _opened(file: str | None, files: ExitStack) -> BinaryIO | None:
    from sweeper.formats import replacing  # noqa: PLC0415

    if file is None:
        return None
    if file == "-":
        return sys.stdout.buffer
    return files.enter_context(replacing(Path(file)))


def _stream_trials(plan: Plan, foresight: Any, jsonl: BinaryIO | None, csv: BinaryIO | None) -> None:
    """One walk over the plan, however many want to see it."""
    from sweeper.formats import DIALECTS, delimited, encoded  # noqa: PLC0415

    axes = plan.axis_columns
    slots = [name for name in plan.slot_names if name not in axes]
    dialect = DIALECTS["csv"]
    if csv is not None:
        csv.writelines(map(encoded, delimited(("index", *axes, *slots, "digest"), [], dialect)))
    for trials in _chunks(foresight.watching(plan.written())):
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


def _show(summary: dict[str, Any], *, on_stdout: bool) -> None:
    put = console.out if on_stdout else console.say
    put(f"{summary['name']}: {summary['count']} trials")
    put()
    width = max(map(len, summary["axes"]), default=0)
    for name, size in summary["axes"].items():
        put(f"  {name:<{width}}  {size}")
    if summary["axes"]:
        put()
    put(f"new        {summary['new']}")
    put(f"done       {summary['done']}" + (f"  (in {summary['out']})" if summary["done"] else ""))
    for name in ("failed", "open", "duplicates"):
        if summary[name]:
            put(f"{name:<10} {summary[name]}{_MEANING[name]}")
    order = summary["order"]
    for axes in order["axes"]:
        put(f"order      {' > '.join(axes) or 'a single trial'}  ({order['mode']}, outermost first)")
    if order["saved"]:
        put(f"           runs {order['executions']} nodes where the written order runs {order['written']}")
    if summary["estimate_s"] is not None:
        put(f"estimate   {_duration(summary['estimate_s'])}, by the mean of earlier jobs, one at a time")


_MEANING = {
    "failed": "  (earlier; --retry-failed submits them again)",
    "open": "  (submitted earlier, outcome unknown: looked for before anything is sent)",
    "duplicates": "  (equal to another trial: done once)",
}


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
