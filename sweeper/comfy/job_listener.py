"""Receives what a server reports about one running job, whatever kind of stream it comes from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeGuard

from sweeper.comfy.protocol import JobState, ReportedCharges, is_id


@dataclass(slots=True)
class StepTimes:
    """The steps that one node reported. Times are in monotonic seconds.

    ComfyUI reports a step when it is done, and loads models before the first one. The time from the first to the last
    report is therefore free of loading, and covers all steps but one. A node may count its steps several times, as an
    upscaler does that samples tile by tile; each count is a pass.
    """

    _seconds: float | None = 0.0  # of the passes that ended; None if one is unknown
    _first: tuple[float, float] = (0.0, 0.0)  # (steps done, when) of the first report of this pass
    _last: tuple[float, float] = (0.0, 0.0)
    _maximum: float = 0.0

    def add(self, done: float, maximum: float, now: float) -> None:
        if not 0 < done <= maximum or (done, maximum) == (self._last[0], self._maximum):
            return
        if done < self._last[0] or maximum != self._maximum:
            self._seconds = self.compute_seconds()
            self._first, self._maximum = (done, now), maximum
        self._last = (done, now)

    def compute_seconds(self) -> float | None:
        """The seconds of all steps of all passes; None if a pass has fewer than two reports."""
        if not self._maximum or self._seconds is None:
            return self._seconds
        steps = self._last[0] - self._first[0]
        if not steps:
            return None
        return self._seconds + (self._last[1] - self._first[1]) * self._maximum / steps


_MAX_NODE_STARTS: Final = 10_000  # of one job; a graph has at most a few hundred nodes, and loops repeat some
_MAX_NUMBER: Final = 1e12  # of progress; the comparison also excludes NaN, infinity and huge integers


@dataclass(slots=True)
class Listener:
    """Receives the events of one job.

    `woken`: set when polling the job is worthwhile. `on_success()`: the server reported success. `started_at`: when
    execution began, by our clock, and `running_since` in monotonic seconds. `on_progress(node, value, maximum)` and
    `on_preview(node, image)` feed the display. `node_starts`: when each node began, with "" for the end, in monotonic
    seconds.
    """

    on_progress: Callable[[str, float, float], None] | None = None
    on_preview: Callable[[str, bytes], None] | None = None
    on_success: Callable[[], None] | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float | None = None
    running_since: float | None = None
    node_starts: list[tuple[str, float]] = field(default_factory=list)
    _started_nodes: set[str] = field(default_factory=set)
    _prices: dict[str, int] = field(default_factory=dict)  # in micro-dollars, by node
    _steps: dict[str, StepTimes] = field(default_factory=dict)  # by node
    _sees_all: bool = False  # whether it got the event that the execution began, and none was lost since

    @property
    def executed_nodes(self) -> frozenset[str] | None:
        """The ids of the nodes that ran, so without those from the server's cache; None if events are missing."""
        has_ended = bool(self.node_starts) and not self.node_starts[-1][0]
        if not self._sees_all or not has_ended or len(self.node_starts) > _MAX_NODE_STARTS:
            return None
        return frozenset(self._started_nodes)

    @property
    def node_charges(self) -> ReportedCharges | None:
        return ReportedCharges(dict(self._prices)) if self._prices else None

    def handle_event(self, kind: Any, data: dict[str, Any]) -> None:
        """Handle an event of the job, unless it is an end event."""
        if self.started_at is None and kind in ("execution_start", "executing", "progress", "progress_state"):
            self.mark_started(time.time())
        self._sees_all = self._sees_all or kind == "execution_start"
        node = data.get("node")
        if kind == "executing" and is_id(node) and len(self.node_starts) < _MAX_NODE_STARTS:
            self.node_starts.append((node, time.monotonic()))
            self._started_nodes.add(node)
        for node, value, maximum in _read_progress(kind, data):
            if node in self._steps or len(self._steps) < _MAX_NODE_STARTS:
                self._steps.setdefault(node, StepTimes()).add(value, maximum, time.monotonic())
            if self.on_progress is not None:
                self.on_progress(node, value, maximum)

    def handle_price(self, node: str, micros: int) -> None:
        """Note the price that a node shows, unless the node did not begin. A later one replaces an earlier one."""
        if node in self._started_nodes:
            self._prices[node] = micros

    def lose_events(self) -> None:
        """Note that events may be missing from now on."""
        self._sees_all = False

    def handle_end(self, *, succeeded: bool) -> None:
        self.node_starts.append(("", time.monotonic()))
        self.woken.set()
        if succeeded and self.on_success is not None:
            self.on_success()

    def mark_started(self, now: float) -> None:
        """Note that execution began. `now`: seconds since 1970."""
        self.started_at, self.running_since = now, time.monotonic()

    def get_times(self, state: JobState, submitted: float | None) -> tuple[float | None, float | None]:
        """Start and end of the execution, seconds since 1970: by the server's clock, or else by ours."""
        if state.seconds is not None and submitted is not None:
            started = submitted + state.seconds[0]
            return started, started + state.seconds[1]
        if state.started is not None and state.ended is not None:
            return state.started, state.ended
        if self.started_at is None or self.running_since is None:
            return None, None
        return self.started_at, self.started_at + time.monotonic() - self.running_since

    def node_seconds(self) -> list[tuple[str, float]]:
        """(node, seconds) of each node whose beginning and end are known."""
        return [(node, end - start) for (node, start), (_, end) in pairwise(self.node_starts) if node]

    def compute_step_seconds(self, nodes: Collection[str]) -> float | None:
        """The seconds of all steps of these nodes together; None if none reported steps, or one reported too few."""
        seconds = [steps.compute_seconds() for node, steps in self._steps.items() if node in nodes]
        known = [duration for duration in seconds if duration is not None]
        return sum(known) or None if len(known) == len(seconds) else None


def find_executed(nodes: Collection[str], state: JobState, listener: Listener | None = None) -> frozenset[str] | None:
    """Which of the `nodes` of an ended job ran, at most: by its events, else by what the server says; None if unknown.

    A node that is not in the result was not reached, or its result came from the server's cache. That no node ran is
    believed of a job that left files only if the server says which results came from its cache.
    """
    executed = listener.executed_nodes if listener is not None else None
    if executed is None:
        executed = state.executed if state.state != "succeeded" else None
    if executed is not None and (executed.intersection(nodes) or not state.outputs):
        return executed.intersection(nodes)
    return None if state.cached is None else frozenset(nodes) - state.cached


def find_charged(state: JobState, listener: Listener | None = None) -> ReportedCharges | None:
    """What the server says that an ended job was charged, in its details and its events; None if it says nothing."""
    of_nodes = listener.node_charges if listener is not None else None
    if state.charged is None or of_nodes is None:
        return state.charged or of_nodes
    return ReportedCharges({**of_nodes.nodes, **state.charged.nodes}, state.charged.whole)


def _is_progress_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and -_MAX_NUMBER <= value <= _MAX_NUMBER


def _read_progress(kind: Any, data: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(node, value, maximum) from a `progress` or `executing` event; nothing from any other."""
    node = data.get("node")
    if not is_id(node):
        return []
    if kind == "executing":
        return [(node, 0.0, 0.0)]
    value, maximum = data.get("value"), data.get("max")
    if kind == "progress" and _is_progress_number(value) and _is_progress_number(maximum):
        return [(node, float(value), float(maximum))]
    return []
