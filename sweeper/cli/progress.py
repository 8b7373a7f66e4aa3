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
_DIALECTS: Final = {"cloud": "Comfy Cloud's API", "comfyui": "ComfyUI"}
_FAILURES_SHOWN: Final = 20  # each failed trial is a row of the table; a screen full of them hides the rest


class Tally:
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


class Watch:
    """Receives a run's events and shows them. A context manager; `quiet` shows only what the user must know."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._tally = Tally()
        self._bar: tuple[Progress, TaskID] | None = None
        self._last_line = float("-inf")
        self._failures = 0

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
        self._tally.count(event)
        line = self._words(event)
        if line is not None:
            self._say(line)
        if self._quiet:
            return
        if isinstance(event, events.RunStarted) and event.todo and console.is_terminal(sys.stderr) and not self._bar:
            self._bar = _bar(event.todo)  # one for all runs: a second would stand below the first for ever
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, total=self._tally.total, completed=self._tally.done, counts=str(self._tally))
        elif isinstance(event, events.TrialDone):
            self._status_line()

    def _status_line(self) -> None:
        """At most one every few seconds, and always the last."""
        now = self._clock()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or self._tally.done == self._tally.total:
            self._last_line = now
            console.say(f"{self._tally.done}/{self._tally.total}: {self._tally}")

    def _say(self, line: str) -> None:
        if self._bar is not None:
            from rich.text import Text  # noqa: PLC0415 - it is loaded with the bar

            self._bar[0].console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            console.say(line)

    def _words(self, event: events.Event) -> str | None:
        """What a person should read about an event; None for what the bar tells."""
        match event:
            case events.TargetDown():
                return f"{event.target}: {event.reason}; {_prospect(event)}"
            case events.Draining():
                return _draining(event)
            case events.Noticed():
                return f"{console.paint('warning:', 'yellow')} {console.clean(event.message)}"
            case events.Cancelling():
                return f"cancelling {_jobs(event.in_flight)} of ours"
            case events.TrialDone() if event.status == FAILED:
                return self._failure(event)
        return None if self._quiet else _news(event)

    def _failure(self, event: events.TrialDone) -> str | None:
        self._failures += 1
        if self._failures > _FAILURES_SHOWN:
            return "further failures: see the table" if self._failures == _FAILURES_SHOWN + 1 else None
        said = console.clean(" ".join(f"trial {event.trial}: {event.error_type}: {event.error or ''}".split()))
        return f"{console.paint('failed:', 'red')} {said}"


def _news(event: events.Event) -> str | None:
    match event:
        case events.RunStarted(todo=0):
            return f"nothing to do: {_nothing_to_do(event)}; nothing is submitted"
        case events.RunStarted():
            before = f", {event.reused} done before" if event.reused else ""
            return f"run {event.run_id}: {event.todo} of {event.trials} trials to do{before}, into {event.out}"
        case events.ClusterReady():
            where = f", dashboard {event.dashboard}" if event.dashboard else ""
            return console.clean(f"cluster {event.address}: {event.workers} workers{where}")
        case events.TargetReady():
            server = f"{_DIALECTS.get(event.dialect, event.dialect)} {event.version}".rstrip()
            return console.clean(f"{event.target}: {server}, {event.concurrency} at a time")
        case events.TargetUp():
            return f"{event.target}: answers again, after {event.seconds:.0f} s"
        case events.Retrying():
            return console.clean(f"trial {event.trial}: again in {event.wait:.1f} s: {event.reason}")
        case events.Waiting():
            return console.clean(f"{event.target}: takes no more for {event.seconds:.1f} s: {event.reason}")
    return None


def _nothing_to_do(event: events.RunStarted) -> str:
    if event.reused == event.trials:
        return f"all {event.trials} trials were done before"
    if event.reused:
        return (
            f"{event.reused} of {event.trials} trials were done before, the others are left out by --where or --limit"
        )
    return f"--where or --limit leaves out all {event.trials} trials"


def _prospect(event: events.TargetDown) -> str:
    if event.final:
        return "no more work for it"
    limit = "" if event.patience is None else f", for up to {event.patience:g} s where no other target can go on"
    return f"asked again until it answers{limit}"


def _draining(event: events.Draining) -> str:
    why = {"interrupt": "interrupted", "max_failures": "too many failures"}.get(event.reason, event.reason)
    again = "; press Ctrl-C again to cancel" if event.reason == "interrupt" and event.in_flight else ""
    return f"{why}: nothing more is submitted, waiting for {_jobs(event.in_flight)} in flight{again}"


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _bar(total: int) -> tuple[Progress, Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    progress = Progress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[counts]}"),
        console=console.rich_console(sys.stderr),
    )
    task = progress.add_task("", total=total, counts="")
    progress.start()
    return progress, task
