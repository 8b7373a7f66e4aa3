"""What a run shows while it goes on: a bar on a terminal, a line now and then anywhere else; both on stderr.

Only shown here; what happens is the runner's business, and it would go on the same without anybody watching.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from sweeper.cli import console
from sweeper.model.result import FAILED, SUCCEEDED
from sweeper.running import run_events as events

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES: Final = 5.0
_SERVER_NAMES: Final = {"cloud": "Comfy Cloud's API", "comfyui": "ComfyUI"}
_MAX_FAILURES_SHOWN: Final = 20  # each failed trial is a row of the table; a screen full of them hides the rest


class RunCounts:
    """Counts of a run as the events tell them. Under way is also what a server is done with, and whose files come."""

    def __init__(self) -> None:
        self.todo = 0
        self.statuses: Counter[str] = Counter()
        self.in_flight: set[int] = set()

    def count(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():  # also of a second run, such as that of `check --attribute`
                self.todo = event.todo
                self.statuses.clear()
                self.in_flight.clear()
            case events.JobSubmitted():
                self.in_flight.add(event.trial)
            case events.Retrying():
                self.in_flight.discard(event.trial)
            case events.TrialDone():
                self.in_flight.discard(event.trial)
                self.statuses[event.status] += 1
            case _:
                pass

    @property
    def done(self) -> int:
        """Rows that got their words; trials that share one job count each."""
        return sum(self.statuses.values())

    @property
    def total(self) -> int:
        return max(self.todo, self.done + len(self.in_flight))

    @property
    def queued(self) -> int:
        return self.total - self.done - len(self.in_flight)

    def __str__(self) -> str:
        return (
            f"{self.statuses[SUCCEEDED]} done, {self.statuses[FAILED]} failed, {len(self.in_flight)} under way, "
            f"{self.queued} queued"
        )


class ProgressDisplay:
    """Receives a run's events and shows them. A context manager; `quiet` shows only what the user must know."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._counts = RunCounts()
        self._bar: tuple[Progress, TaskID] | None = None
        self._last_line_at = float("-inf")
        self._failure_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        self._counts.count(event)
        line = self._describe_event(event)
        if line is not None:
            self._print_line(line)
        if self._quiet:
            return
        if isinstance(event, events.RunStarted) and event.todo and console.is_terminal(sys.stderr) and not self._bar:
            self._bar = _start_bar(event.todo)  # one for all runs: a second would stand below the first for ever
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, total=self._counts.total, completed=self._counts.done, counts=str(self._counts))
        elif isinstance(event, events.TrialDone):
            self._show_status_line()

    def _show_status_line(self) -> None:
        """At most one every few seconds, and always the last."""
        now = self._clock()
        if now - self._last_line_at >= _SECONDS_BETWEEN_LINES or self._counts.done == self._counts.total:
            self._last_line_at = now
            console.print_status(f"{self._counts.done}/{self._counts.total}: {self._counts}")

    def _print_line(self, line: str) -> None:
        if self._bar is not None:
            from rich.text import Text  # noqa: PLC0415 - it is loaded with the bar

            self._bar[0].console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            console.print_status(line)

    def _describe_event(self, event: events.Event) -> str | None:
        """What a person should read about an event; None for what the bar tells."""
        match event:
            case events.TargetDown():
                return f"{event.target}: {event.reason}; {_describe_retry(event)}"
            case events.Draining():
                return _describe_draining(event)
            case events.Notice():
                return f"{console.paint('warning:', 'yellow')} {console.sanitize(event.message)}"
            case events.Cancelling():
                return f"cancelling {_format_jobs(event.in_flight)} of ours"
            case events.TrialDone() if event.status == FAILED:
                return self._describe_failure(event)
        return None if self._quiet else _describe_routine_event(event)

    def _describe_failure(self, event: events.TrialDone) -> str | None:
        self._failure_count += 1
        if self._failure_count > _MAX_FAILURES_SHOWN:
            return "further failures: see the table" if self._failure_count == _MAX_FAILURES_SHOWN + 1 else None
        said = console.sanitize(" ".join(f"trial {event.trial}: {event.error_type}: {event.error or ''}".split()))
        return f"{console.paint('failed:', 'red')} {said}"


def _describe_routine_event(event: events.Event) -> str | None:
    match event:
        case events.RunStarted(todo=0):
            return f"nothing to do: {_describe_nothing_to_do(event)}; nothing is submitted"
        case events.RunStarted():
            before = f", {event.reused} done before" if event.reused else ""
            return f"run {event.run_id}: {event.todo} of {event.trials} trials to do{before}, into {event.out}"
        case events.ClusterReady():
            where = f", dashboard {event.dashboard}" if event.dashboard else ""
            return console.sanitize(f"cluster {event.address}: {event.workers} workers{where}")
        case events.TargetReady():
            server = f"{_SERVER_NAMES.get(event.dialect, event.dialect)} {event.version}".rstrip()
            return console.sanitize(f"{event.target}: {server}, {event.concurrency} at a time")
        case events.TargetUp():
            return f"{event.target}: answers again, after {event.seconds:.0f} s"
        case events.Retrying():
            return console.sanitize(f"trial {event.trial}: again in {event.wait:.1f} s: {event.reason}")
        case events.TargetBusy():
            return console.sanitize(f"{event.target}: takes no more for {event.seconds:.1f} s: {event.reason}")
    return None


def _describe_nothing_to_do(event: events.RunStarted) -> str:
    if event.reused == event.trials:
        return f"all {event.trials} trials were done before"
    if event.reused:
        return (
            f"{event.reused} of {event.trials} trials were done before, the others are left out by --where or --limit"
        )
    return f"--where or --limit leaves out all {event.trials} trials"


def _describe_retry(event: events.TargetDown) -> str:
    if event.final:
        return "no more work for it"
    limit = "" if event.patience is None else f", for up to {event.patience:g} s where no other target can go on"
    return f"asked again until it answers{limit}"


def _describe_draining(event: events.Draining) -> str:
    why = {"interrupt": "interrupted", "max_failures": "too many failures"}.get(event.reason, event.reason)
    again = "; press Ctrl-C again to cancel" if event.reason == "interrupt" and event.in_flight else ""
    return f"{why}: nothing more is submitted, waiting for {_format_jobs(event.in_flight)} in flight{again}"


def _format_jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _start_bar(total: int) -> tuple[Progress, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    progress = Progress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[counts]}"),
        console=console.make_rich_console(sys.stderr),
    )
    task = progress.add_task("", total=total, counts="")
    progress.start()
    return progress, task
