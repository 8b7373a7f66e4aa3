"""The doors to a run: `run`, which waits, and `run_async`. What the caller asks for is settled here.

The run itself is a `Session` (`sweeper.running.session`). Nothing here prints: whoever wants to see passes `progress`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeper.model.result import Run
from sweeper.running.output_location import resolve_output
from sweeper.running.run_events import Event
from sweeper.running.session import Session
from sweeper.running.settings import RunOptions
from sweeper.running.stop_control import StopControl

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.experiment import Experiment
    from sweeper.model.target_spec import NamedTargets, TargetSpec
    from sweeper.planning.plan import Plan


def run(
    experiment: Experiment | str | os.PathLike[str],
    target: TargetSpec | Sequence[TargetSpec] | None = None,
    out: str | os.PathLike[str] | None = None,
    **rest: Any,
) -> Run:
    """Run an experiment and wait for its end; the arguments are those of `run_async`.

    Ctrl-C once stops submitting and waits for what is in flight, twice cancels it; both return a Run. Works inside a
    running event loop too (notebooks), in a thread of its own.
    """
    rest.setdefault("handle_signals", True)
    from sweeper.running.async_tools import run_sync  # noqa: PLC0415

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
    """Run an experiment, or the file of one: what is not done yet on its targets is done, every trial gets its row.

    `target` overrides the experiment's (CONTRACT.md 15); `named` is the user's targets file, which yields to the
    experiment's own names; `environ` is where keys are (default: the process's). `out`: the results folder, by default
    `results/<name>/` here; or a URL where the pictures go instead, as the experiment's `run.out`. `plan`: if it is at
    hand already. `changes`: fields of RunOptions by name. `control.stop()` stops the run from anywhere;
    `handle_signals` lets Ctrl-C do it, in the main thread. `session`: who does the work, by default this process.

    Raises UsageError or ExperimentError before anything is created or sent, UnreachableError or RefusedError where no
    target can be used at the start, ResultsError when the folder is held by another run or cannot be written. Later
    trouble is in the Run that is returned.
    """
    from sweeper.running.settings import TrialFilter, resolve_settings  # noqa: PLC0415

    if isinstance(experiment, (str, os.PathLike)):
        from sweeper.loading.load import load  # noqa: PLC0415

        experiment = load(experiment)
    if plan is None:
        from sweeper.planning.plan import plan as planned  # noqa: PLC0415

        plan = planned(experiment)
    options = replace(options or RunOptions(), **changes)
    settings = resolve_settings(options, experiment.run, len(plan))
    chosen = TrialFilter(options.where, tuple(dict.fromkeys((*plan.axis_sizes, *plan.axis_columns, *plan.slot_names))))
    session = session or Session
    opened = session(
        experiment=experiment,
        plan=plan,
        settings=settings,
        targets=_resolve_targets(session, experiment, target, named or {}, os.environ if environ is None else environ),
        output=resolve_output(out, experiment),
        report=progress or (lambda _: None),
        is_selected=chosen,
        control=control or StopControl(),
    )
    with contextlib.ExitStack() as stack:
        if handle_signals:
            from sweeper.running.stop_control import stop_on_signals  # noqa: PLC0415

            stack.enter_context(stop_on_signals(opened.control))
        return await opened.run()


def _resolve_targets(
    session: type[Session],
    experiment: Experiment,
    specs: TargetSpec | Sequence[TargetSpec] | None,
    named: NamedTargets,
    environ: Mapping[str, str],
) -> tuple[Target, ...]:
    """Those that the caller wishes for, else the experiment's own, as that kind of session has them.

    Raises ExperimentError for the experiment's own, UsageError for the others and for keys.
    """
    if specs is None:
        from sweeper.loading.load import check_targets  # noqa: PLC0415

        check_targets(experiment, named)
        specs = list(experiment.targets)
    return session.resolve_targets(specs, named={**named, **experiment.named_targets}, environ=environ)
