"""The entry points: `run`, which waits for the end of a run, and `run_async`. They resolve what the caller asks for.

The run itself is a `Session` (`sweeper.running.session`). Nothing here prints: pass `progress` to get events. Without
it, a notebook shows a bar.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from sweeper.comfy.target import Target
from sweeper.loading.load import check_targets, load
from sweeper.model.experiment import Experiment
from sweeper.model.result import Run
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.planning.plan import Plan
from sweeper.planning.plan import plan as make_plan
from sweeper.running.async_tools import run_sync
from sweeper.running.notebook_bar import make_notebook_bar
from sweeper.running.output_location import resolve_output
from sweeper.running.run_events import Event
from sweeper.running.session import Session
from sweeper.running.settings import RunOptions, TrialFilter, resolve_settings
from sweeper.running.stop_control import StopControl, stop_on_signals
from sweeper.store.allowed_storages import allow_storage

T = TypeVar("T")


def run(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    **rest: Any,
) -> Run:
    """Run an experiment and wait for its end. The arguments are those of `run_async`.

    Ctrl-C, or interrupting the cell of a notebook, stops submitting and waits for the jobs in flight; a second time
    cancels them. Both return a Run. Inside a running event loop, as in a notebook, the run gets a thread of its own.
    """
    return wait_for_run(run_async, experiment, target, out, **rest)


def wait_for_run(function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **rest: Any) -> T:
    """Call `run_async`, or a function with the same arguments, and wait for its end as `run` does."""
    bar = make_notebook_bar() if rest.get("progress") is None else None
    control = rest.get("control") or StopControl()
    rest = {"handle_signals": True, **rest, "control": control} | ({} if bar is None else {"progress": bar})
    refresh = bar.refresh if bar is not None else lambda: None
    return run_sync(lambda: function(*arguments, **rest), refresh=refresh, interrupt=control.stop)


async def run_async(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    plan: Plan | None = None,
    options: RunOptions | None = None,
    progress: Callable[[Event], None] | Literal[False] | None = None,
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
    `plan`: the experiment's plan, if the caller has it already. `progress` gets the events of the run; without it, a
    notebook shows a bar; False hides the bar. `changes`: fields of RunOptions by name.
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
    if output[1] is not None:
        allow_storage(output[1], remember=True)
    if progress is None:
        progress = make_notebook_bar()
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
    return await (_run_until_signal(opened) if handle_signals else opened.run())


async def _run_until_signal(session: Session) -> Run:
    async with stop_on_signals(session.control):
        run = await session.run()
    return replace(run, stopped_by=session.control.reason)  # it may have been stopped while it wrote its table


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
