"""The entry points: `run`, which waits for the end of a run, and `run_async`. They resolve what the caller asks for.

The run itself is a `Session` (`sweeper.running.session`). Nothing here prints: pass `progress` to get events. Without
it, a notebook shows a bar.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from sweeper.comfy.target import Target
from sweeper.loading.load import check_targets, load
from sweeper.model.experiment import Experiment
from sweeper.model.result import FAILED, Run
from sweeper.model.target_spec import NamedTargets, TargetSpec
from sweeper.planning.plan import Plan
from sweeper.running import run_events as events
from sweeper.running.health import LaunchedServers
from sweeper.running.notify import EndNotice
from sweeper.running.prepare import complete_experiment
from sweeper.running.run_events import Event, RunCounts
from sweeper.running.session import Session
from sweeper.running.settings import RunOptions, TrialFilter, read_notify, resolve_output, resolve_settings
from sweeper.running.stop_control import StopControl, run_sync, stop_on_signals
from sweeper.store.remote_artifacts import allow_storage

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
    target: TargetSpec | Sequence[TargetSpec | Target] | None = None,
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
    launched: LaunchedServers | None = None,
    **changes: Any,
) -> Run:
    """Run an experiment, or the file of one: execute what its targets have not done yet, and give every trial a row.

    A caller trusts the file that it names: unlike the command line, this function asks for no trust (see "What a
    stranger's file can and cannot do" in sweeper/README.md).

    `target` overrides the experiment's targets. `named`: the targets of the user's targets file; names in the
    experiment override them. `environ`: where API keys are looked up (default: `os.environ`). `out`: the results
    folder (default: `results/<name>/` beside the experiment file), or a URL for the pictures, which overrides the
    experiment's `run.out`. `plan`: the experiment's plan, if the caller has it. `progress` gets the events of the run;
    without it, a notebook shows a bar; False hides the bar. `changes`: fields of RunOptions by name.
    `control.stop()` stops the run from any thread; `handle_signals` lets Ctrl-C do so, in the main thread. `session`:
    the class that executes the run (default: in this process). `launched`: the ComfyUIs that the caller ends.

    Raises UsageError or ExperimentError before anything is created or sent, UnreachableError or RefusedError if no
    target can be used at the start, and ResultsError if another run has locked the folder or it cannot be written. The
    returned Run describes later failures.
    """
    if isinstance(experiment, (str, os.PathLike)):
        experiment = load(experiment)
    report = (make_notebook_bar() if progress is None else progress) or (lambda _: None)
    experiment = complete_experiment(experiment, target, named, out, report=report)
    if plan is None:
        plan = Plan(experiment)
    options = replace(options or RunOptions(), **changes)
    session_class, control = session or Session, control or StopControl()
    output = resolve_output(out, experiment)
    if output[1] is not None:
        allow_storage(output[1], remember=True)
    opened = session_class(
        experiment=experiment,
        plan=plan,
        settings=resolve_settings(options, experiment.run, len(plan)),
        is_selected=TrialFilter(options.where, plan, options.trials),
        targets=resolve_run_targets(session_class, experiment, target, named, environ),
        output=output,
        report=report,
        control=control,
    )
    opened.launched = opened.launched if launched is None else launched
    notice = EndNotice(read_notify(options.notify, experiment.run), "run", experiment.name, output[0], report, control)
    async with stop_on_signals(control) if handle_signals else contextlib.nullcontext():
        ended = await notice.watch(opened.run(), notice.post_run)
    # A signal may have stopped it while it wrote its table.
    return replace(ended, stopped_by=control.reason) if handle_signals else ended


def resolve_run_targets(
    session: type[Session],
    experiment: Experiment,
    specs: TargetSpec | Sequence[TargetSpec | Target] | None,
    named: NamedTargets | None,
    environ: Mapping[str, str] | None,
) -> tuple[Target, ...]:
    """Resolve the targets that the caller gives in `specs`, or else the experiment's own.

    A search resolves them once for all of its rounds, so resolved targets stay as they are. Raises ExperimentError for
    those of the experiment, UsageError for the others and for keys.
    """
    given: Any = list(experiment.targets) if specs is None else specs
    if specs is None:
        check_targets(experiment, named or {})
    if given and isinstance(given, tuple) and all(isinstance(target, Target) for target in given):
        return given
    known = {**(named or {}), **experiment.named_targets}
    targets = session.resolve_targets(given, named=known, environ=os.environ if environ is None else environ)
    # A ComfyUI that sweeper starts gets no key of a judge either.
    variables = {judge.key_env for judge in experiment.judges.values() if judge.key_env is not None}
    return tuple(
        target if (launch := target.launch) is None
        else replace(target, launch=replace(launch, key_variables=launch.key_variables | variables))
        for target in targets
    )  # fmt: skip


Display = Callable[[str, str], None]  # shows HTML, or plain text where there is no HTML, in the place of the last one

_SECONDS_BETWEEN_UPDATES: Final = 0.2  # each is a message to the notebook's page
_MAX_LINES: Final = 5  # below the bar: problems


class NotebookBar:
    """Shows the events of a run as a bar. Another thread may call it; only its own thread draws, in `refresh`."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._thread = threading.get_ident()
        self._counts = RunCounts()
        self._lines: list[str] = []
        self._round = ""  # of a search
        self._lock = threading.Lock()
        self._shown = ""
        self._shown_at = float("-inf")
        self._has_ended = False

    def __call__(self, event: events.Event) -> None:
        """Count one event, and draw if this is the thread of the notebook."""
        with self._lock:
            self._counts.count(event)
            self._has_ended = isinstance(event, events.RunEnded | events.Notice)
            if isinstance(event, events.RoundPlanned):
                of = "" if event.limit is None else f" of {event.limit}"
                self._round = f"; round {event.number}, {event.asked}{of} trials before it"
            line = _describe_problem(event)
            if line is not None and line not in self._lines:
                self._lines.append(line)
        if threading.get_ident() == self._thread:
            self.refresh()

    def refresh(self) -> None:
        """Draw what has changed, at most every `_SECONDS_BETWEEN_UPDATES`; the end, and what follows it, at once."""
        now = time.monotonic()
        if now - self._shown_at < _SECONDS_BETWEEN_UPDATES and not self._has_ended:
            return
        with self._lock:
            if not self._counts.todo and not self._lines:
                return  # nothing to do: the run ends at once
            lines = [*self._lines[:_MAX_LINES], *(["…"] if len(self._lines) > _MAX_LINES else [])]
            done, total, counts = self._counts.done, self._counts.total, f"{self._counts}{self._round}"
        text = "\n".join([f"{done}/{total}: {counts}", *lines])
        if text != self._shown:
            self._shown, self._shown_at = text, now
            bar = f'<progress value="{done}" max="{max(total, 1)}" style="width:16em;vertical-align:middle"></progress>'
            problems = "".join(f"<div>⚠ {html.escape(line)}</div>" for line in lines)
            self._display(f"<div>{bar} {done}/{total}: {html.escape(counts)}</div>{problems}", text)


def make_notebook_bar() -> NotebookBar | None:
    """Return a bar for the cell that this thread executes; None outside a notebook."""
    display = _find_jupyter() or _find_marimo()
    return None if display is None else NotebookBar(display)


def _find_jupyter() -> Display | None:
    """A display below the current cell of Jupyter; None elsewhere, also in a terminal's IPython, which has no HTML."""
    module = sys.modules.get("IPython.display")
    if module is None or getattr(sys.modules["IPython"].get_ipython(), "kernel", None) is None:
        return None
    handle: Any = None

    def show(markup: str, text: str) -> None:
        nonlocal handle
        bundle = {"text/html": markup, "text/plain": text}
        if handle is None:
            handle = module.DisplayHandle()
            handle.display(bundle, raw=True)
        else:
            handle.update(bundle, raw=True)

    return show


def _find_marimo() -> Display | None:
    """A display above the output of marimo's current cell; None elsewhere, also in other threads of marimo."""
    marimo = sys.modules.get("marimo")
    if marimo is None or not getattr(marimo, "running_in_notebook", bool)():
        return None
    return lambda markup, _: marimo.output.replace(marimo.Html(markup))


def _describe_problem(event: events.Event) -> str | None:
    """The line for an event that the counts do not show; None for the others."""
    match event:
        case events.Notice():
            return event.message
        case events.TargetDown():
            return f"{event.target}: {event.reason}"
        case events.TrialDone() if event.status == FAILED:
            return f"trial {event.trial}: {event.error_type}: {event.error or ''}"
        case events.Draining(reason="interrupt") if event.in_flight:
            return "interrupted: the run waits for the jobs in flight; interrupt the cell again to cancel them"
    return None
