"""The entry points: `run`, which waits for the end of a run, and `run_async`. They resolve what the caller asks for.

The run itself is a `Session` (`sweeper.running.session`). Nothing here prints: pass `progress` to get events.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.comfy.target import Target
from sweeper.loading.load import check_targets, load
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.planning.plan import Plan
from sweeper.planning.plan import plan as make_plan
from sweeper.running.async_tools import run_sync
from sweeper.running.output_location import resolve_output
from sweeper.running.run_events import Event, Notice
from sweeper.running.session import Session
from sweeper.running.settings import RunOptions, TrialFilter, resolve_settings
from sweeper.running.stop_control import StopControl, stop_on_signals
from sweeper.tables.results_folder import describe_older_location, is_older_location


def run(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    **rest: Any,
) -> Run:
    """Run an experiment and wait for its end. The arguments are those of `run_async`.

    Ctrl-C stops submitting and waits for the jobs in flight; a second Ctrl-C cancels them. Both return a Run. Inside
    a running event loop, as in a notebook, the run gets a thread of its own.
    """
    rest.setdefault("handle_signals", True)
    return run_sync(lambda: run_async(experiment, target, out, **rest))


async def run_async(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    plan: Plan | None = None,
    options: RunOptions | None = None,
    progress: Callable[[Event], None] | None = None,
    control: StopControl | None = None,
    named: NamedTargets | None = None,
    environ: Mapping[str, str] | None = None,
    handle_signals: bool = False,
    session: type[Session] | None = None,
    **changes: Any,
) -> Run:
    """Run an experiment, or the file of one: execute what its targets have not done yet, and give every trial a row.

    A caller trusts the file that it names: unlike the command line, this function asks for no trust (see "What a
    stranger's file can and cannot do" in sweeper/README.md).

    `target` overrides the experiment's targets. `named`: the targets of the user's targets file; names in the
    experiment override them. `environ`: where API keys are looked up (default: `os.environ`). `out`: the results
    folder (default: `results/<name>/` beside the experiment file), or a URL for the pictures, which overrides the
    experiment's `run.out`.
    `plan`: the experiment's plan, if the caller has it already. `changes`: fields of RunOptions by name.
    `control.stop()` stops the run from any thread; `handle_signals` lets Ctrl-C do so, in the main thread. `session`:
    the class that executes the run (default: in this process).

    Raises UsageError or ExperimentError before anything is created or sent, UnreachableError or RefusedError if no
    target can be used at the start, and ResultsError if another run has locked the folder or it cannot be written. The
    returned Run describes later failures.
    """
    if isinstance(experiment, (str, os.PathLike)):
        experiment = load(experiment)
    if plan is None:
        plan = make_plan(experiment)
    options = replace(options or RunOptions(), **changes)
    session_class = session or Session
    if environ is None:
        environ = os.environ
    output = resolve_output(out, experiment)
    if out is None and progress is not None and is_older_location(output[0], experiment.file):
        progress(Notice(describe_older_location(output[0], experiment.file, experiment.name)))
    opened = session_class(
        experiment=experiment,
        plan=plan,
        settings=resolve_settings(options, experiment.run, len(plan)),
        is_selected=TrialFilter(options.where, plan),
        targets=resolve_run_targets(session_class, experiment, target, named or {}, environ),
        output=output,
        report=progress or (lambda _: None),
        control=control or StopControl(),
    )
    with stop_on_signals(opened.control) if handle_signals else contextlib.nullcontext():
        return await opened.run()


def resolve_run_targets(
    session: type[Session],
    experiment: Experiment,
    specs: TargetSpec | Sequence[TargetSpec] | None,
    named: NamedTargets,
    environ: Mapping[str, str],
) -> tuple[Target, ...]:
    """Resolve the targets that the caller gives in `specs`, or else the experiment's own.

    Raises ExperimentError for those of the experiment, UsageError for the others and for keys.
    """
    if specs is None:
        check_targets(experiment, named)
        specs = list(experiment.targets)
    return session.resolve_targets(specs, named={**named, **experiment.named_targets}, environ=environ)
