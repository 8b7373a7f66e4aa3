"""Measures how long the steps of a node take, by the events that a server sends after each step."""

from __future__ import annotations

from dataclasses import dataclass


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
        """Note that `done` of `maximum` steps were done at `now`."""
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
