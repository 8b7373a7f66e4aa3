"""Show the progress of a run on stderr: a bar on a terminal, a status line every few seconds otherwise.

Only displays events; it decides nothing, and a run does the same without it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from sweeper.answers.cells import sanitize
from sweeper.cli import console
from sweeper.model.money import TargetPrice
from sweeper.model.result import FAILED
from sweeper.model.target_spec import EMBEDDED
from sweeper.running import run_events as events
from sweeper.running.run_events import RunCounts
from sweeper.wording import count_things

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES: Final = 5.0
_SERVER_NAMES: Final = {
    EMBEDDED: "sweeper's own server", "cloud": "Comfy Cloud's API", "comfyui": "ComfyUI", "v2": "Comfy API v2",
    "runpod": "RunPod",
}  # fmt: skip
_HOW_TO_STOP_WAITING: Final = (
    "the run now waits only for {}, which does not respond; to go on without it, press Ctrl-C and run the command "
    "again with other targets (--target): finished trials stay done, unless --per-target; a smaller --patience waits "
    "less"
)
_MAX_FAILURES_SHOWN: Final = 20  # the table has all of them; a screen full of failures hides the rest


@dataclass(slots=True)
class ProgressDisplay:
    """Shows a run's events: call it with each, inside its `with` block. `quiet` leaves only problems.

    `rates` are the prices of the targets, if they have any. `shows_error`: also why a run ended early. `is_search`: the
    runs are the rounds of a search.
    """

    quiet: bool = False
    shows_error: bool = False
    clock: Callable[[], float] = time.monotonic
    rates: Sequence[TargetPrice] = ()
    is_search: bool = False
    _counts: RunCounts = field(init=False)
    _bar: Progress | None = None
    _last_line_at: float = float("-inf")
    _failure_count: int = 0
    _notices: set[str] = field(default_factory=set)
    _last_waiting: str = ""

    def __post_init__(self) -> None:
        self._counts = RunCounts(self.rates)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()  # leaves it on the screen as it is
            self._bar = None

    def __call__(self, event: events.Event) -> None:
        is_first_wait = isinstance(event, events.WaitingForTarget) and not self._counts.awaited
        self._counts.count(event)
        if is_first_wait and self._counts.awaited and not self.quiet:
            self._print_line(_HOW_TO_STOP_WAITING.format(*self._counts.awaited))
        line = None if self._repeats_earlier_round(event) else self._describe_event(event)
        if line is not None:
            self._print_line(line)
        if self.quiet:
            return
        if isinstance(event, events.RunStarted | events.RunEnded) and self._counts.todo:
            for group in self._counts.describe_groups():
                self._print_line(sanitize(group))
        if isinstance(event, events.RunStarted) and event.todo and console.is_terminal(sys.stderr) and not self._bar:
            # One bar for all runs, or the first would stay on the screen.
            self._bar = _start_bar(shows_time=not event.sizes_differ)
        if self._bar is not None:
            counts = self._counts
            self._bar.update(
                self._bar.task_ids[0], total=counts.total, completed=counts.done, counts=sanitize(str(counts))
            )
        elif isinstance(event, events.TrialDone) or self._describe_waits() != self._last_waiting:
            self._show_status_line()

    def _repeats_earlier_round(self, event: events.Event) -> bool:
        """Whether a round of a search says again what an earlier one said."""
        if not self.is_search:
            return False
        match event:
            case events.RunStarted():  # nothing to do: an earlier search is only read
                return self._counts.runs > 1 or event.todo == 0
            case events.TargetReady():
                return self._counts.runs > 0
            case events.Notice():
                is_known = event.message in self._notices
                self._notices.add(event.message)
                return is_known
        return False

    def _describe_waits(self) -> str:
        return self._counts.describe_waiting() + self._counts.describe_awaited()

    def _show_status_line(self) -> None:
        """Print the counts, at most every few seconds, and always when all trials have ended."""
        now = self.clock()
        if now - self._last_line_at >= _SECONDS_BETWEEN_LINES or self._counts.done == self._counts.total:
            self._last_line_at, self._last_waiting = now, self._describe_waits()
            console.print_status(f"{self._counts.done}/{self._counts.total}: {sanitize(str(self._counts))}")

    def _print_line(self, line: str) -> None:
        if self._bar is None:
            console.print_status(line)
            return
        from rich.text import Text

        self._bar.console.print(Text.from_ansi(line), soft_wrap=True)  # above the bar

    def _describe_event(self, event: events.Event) -> str | None:
        """The line that reports an event; None if the counts show it, or if the display is quiet."""
        match event:
            case events.TargetDown():
                return f"{event.target}: {event.reason}; {_describe_retry(event)}"
            case events.Draining():
                return _describe_draining(event)
            case events.Notice():
                return f"{console.paint('warning:', 'yellow')} {sanitize(event.message)}"
            case events.RunEnded() if self.shows_error and event.run.error is not None:
                return f"{console.paint('error:', 'red')} {sanitize(event.run.error)}"
            case events.Cancelling():
                return f"cancelling {count_things(event.in_flight, 'job')}"
            case events.TrialDone() if event.status == FAILED:
                return self._describe_failure(event)
        return None if self.quiet else _describe_routine_event(event)

    def _describe_failure(self, event: events.TrialDone) -> str | None:
        """The line for a failed trial; None once enough failures were shown."""
        self._failure_count += 1
        if self._failure_count > _MAX_FAILURES_SHOWN:
            return "more trials failed: see the table" if self._failure_count == _MAX_FAILURES_SHOWN + 1 else None
        message = sanitize(" ".join(f"trial {event.trial}: {event.error_type}: {event.error or ''}".split()))
        return f"{console.paint('failed:', 'red')} {message}"


def _describe_round(event: events.RoundPlanned) -> str:
    """The line that announces a round of a search: what it asks for, and the best so far."""
    trials = count_things(event.trials, "trial" if event.points else "more trial")
    points = count_things(event.points, "new point") if event.points else "points asked for earlier"
    of = "" if event.limit is None else f" of {event.limit}"
    text = f"round {event.number}: {trials} of {points} ({event.asked}{of} done)"
    from sweeper.running.run_answer import describe_point

    return text if event.best is None else f"{text}; best {describe_point(event.best)}"


def _start_bar(*, shows_time: bool) -> Progress:
    """Draw a bar on stderr. rich is imported only here, when the first bar is drawn."""
    from rich import progress
    from rich.console import Console

    time_left = progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    bar = progress.Progress(
        progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(),
        time_left if shows_time else progress.TextColumn("time left unknown (sizes differ)"),
        progress.TextColumn("{task.fields[counts]}"),
        console=Console(file=sys.stderr, no_color=not console.is_colour_enabled(sys.stderr), highlight=False),
    )
    bar.add_task("", counts="")
    bar.start()
    return bar


def _describe_routine_event(event: events.Event) -> str | None:
    """The line for an event that is not a problem; None if it needs no line."""
    match event:
        case events.RunStarted():
            return _describe_start(event)
        case events.ClusterReady():
            where = f", dashboard {event.dashboard}" if event.dashboard else ""
            return sanitize(f"cluster {event.address}: {event.workers} workers{where}")
        case events.RoundPlanned():
            return sanitize(_describe_round(event))
        case events.JudgeAsked():
            pictures = f"{event.pictures} pictures" if event.pictures > 1 else "a picture"
            times = f", {event.repeats} times each" if event.repeats > 1 else ""
            return sanitize(f"{event.metric}: asking {event.model} at {event.host} about {pictures}{times}")
        case events.TargetReady(group=None):
            is_own = event.target.rpartition(": ")[2] == EMBEDDED  # `WORKER: embedded` on a cluster
            dialect = EMBEDDED if is_own else event.dialect
            server = f"{_SERVER_NAMES.get(dialect, dialect)} {event.version}".rstrip()
            return sanitize(f"{event.target}: {server}, {event.concurrency} at a time")
        case events.TargetStarting():
            return sanitize(f"{event.target}: starting ComfyUI ({event.seconds:.0f} s): {event.line}")
        case events.TargetUp():
            return f"{event.target}: responds again after {event.seconds:.0f} s"
        case events.Retrying():
            return sanitize(f"trial {event.trial}: retrying in {event.wait:.1f} s: {event.reason}")
        case events.TargetBusy():
            return sanitize(f"{event.target}: busy, retrying in {event.seconds:.1f} s: {event.reason}")
    return None


def _describe_start(event: events.RunStarted) -> str:
    if event.todo:
        reused = f", {event.reused} already done" if event.reused else ""
        return f"run {event.run_id}: {event.todo} of {event.trials} trials to do{reused}, into {event.out}"
    return f"nothing to do: {_describe_nothing_to_do(event)}"


def _describe_nothing_to_do(event: events.RunStarted) -> str:
    if event.reused == event.trials:
        if not event.failed:
            return f"all {event.trials} trials are already done"
        counts = f"{event.reused - event.failed} succeeded, {event.failed} failed"
        return f"all {event.trials} trials have ended: {counts}; --retry-failed runs those again"
    if event.reused:
        return f"{event.reused} of {event.trials} trials are already done; --where or --limit excludes the others"
    return f"--where or --limit excludes all {event.trials} trials"


def _describe_retry(event: events.TargetDown) -> str:
    if event.final:
        return "it gets no more trials"
    limit = "" if event.patience is None else f", for up to {event.patience:g} s if no other target can continue"
    return f"retrying until it responds{limit}"


def _describe_draining(event: events.Draining) -> str:
    reasons = {"interrupt": "interrupted", "max_failures": "too many failures", "budget": "no job fits into the budget"}
    why = reasons.get(event.reason, event.reason)
    again = "; press Ctrl-C again to cancel" if event.reason == "interrupt" and event.in_flight else ""
    return f"{why}: submitting no more, waiting for {count_things(event.in_flight, 'job')} in flight{again}"
