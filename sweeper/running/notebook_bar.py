"""The progress bar that a run shows in a notebook, below its cell: in Jupyter (with Colab and VS Code) and in marimo.

Neither is imported here: only a program that is a notebook has imported them already.
"""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from sweeper.model.result import FAILED
from sweeper.running import run_events as events
from sweeper.running.run_counts import RunCounts

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
            self._has_ended = isinstance(event, events.RunEnded)
            if isinstance(event, events.RoundPlanned):
                of = "" if event.limit is None else f" of {event.limit}"
                self._round = f"; round {event.number}, {event.asked}{of} trials before it"
            line = _describe_problem(event)
            if line is not None and line not in self._lines:
                self._lines.append(line)
        if threading.get_ident() == self._thread:
            self.refresh()

    def refresh(self) -> None:
        """Draw what has changed, at most every `_SECONDS_BETWEEN_UPDATES`; the end of a run at once."""
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
            self._display(_make_html(done, total, counts, lines), text)


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


def _make_html(done: int, total: int, counts: str, lines: list[str]) -> str:
    bar = f'<progress value="{done}" max="{max(total, 1)}" style="width:16em;vertical-align:middle"></progress>'
    problems = "".join(f"<div>⚠ {html.escape(line)}</div>" for line in lines)
    return f"<div>{bar} {done}/{total}: {html.escape(counts)}</div>{problems}"


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
