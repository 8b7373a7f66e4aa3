"""Forwards a run's events, and writes the trials in flight to files for a viewer in another process, if there is one.

A viewer needs only the latest step and preview of each trial, so most of them are never written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sweeper.running.run_events import (
    Event,
    JobPreview,
    JobProgress,
    JobSubmitted,
    Retrying,
    RunEnded,
    RunStarted,
    TrialDone,
)
from sweeper.store.live_folder import LiveFolder, TrialProgress

_VIEWER_CHECK_INTERVAL: Final = 1.0  # seconds between two checks whether there is a viewer
_WRITE_INTERVAL: Final = 0.25  # seconds: people see no more than a few pictures a second


class LiveFeed:
    """Called with each event of a run, which it passes on to `forward`.

    `clock` (monotonic) and `now` (since 1970) return seconds.
    """

    def __init__(
        self,
        folder: LiveFolder,
        forward: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._forward = forward
        self._clock = clock
        self._now = now
        self._progress: dict[int, TrialProgress] = {}
        self._preview_written_at: dict[int, float] = {}  # by trial, on `clock`
        self._last_write = self._last_viewer_check = float("-inf")
        self._viewer_seen = False

    def __call__(self, event: Event) -> None:
        match event:
            case JobSubmitted():
                self._update(event.trial, TrialProgress("", 0.0, 0.0))
            case JobProgress():
                previous = self._progress.get(event.trial)
                previews = previous.preview if previous is not None else 0
                self._update(event.trial, TrialProgress(event.node, event.value, event.maximum, previews))
            case JobPreview():
                self._write_preview(event)
            case TrialDone() | Retrying():
                self._remove_trial(event.trial)
            case RunStarted() | RunEnded():
                self._folder.clear()
            case _:
                pass
        self._forward(event)

    def _update(self, trial: int, progress: TrialProgress) -> None:
        self._progress[trial] = progress
        self._write_progress()

    def _write_preview(self, event: JobPreview) -> None:
        clock = self._clock()
        if not self.has_viewer() or clock - self._preview_written_at.get(event.trial, float("-inf")) < _WRITE_INTERVAL:
            return
        self._preview_written_at[event.trial] = clock
        self._folder.write_preview(event.trial, event.image)
        previous = self._progress.get(event.trial, TrialProgress(event.node, 0.0, 0.0))
        self._update(event.trial, replace(previous, preview=previous.preview + 1))

    def _remove_trial(self, trial: int) -> None:
        if self._progress.pop(trial, None) is not None and self.has_viewer():
            self._folder.remove_preview(trial)
        self._preview_written_at.pop(trial, None)
        self._write_progress()

    def _write_progress(self) -> None:
        clock = self._clock()
        if clock - self._last_write >= _WRITE_INTERVAL and self.has_viewer():
            self._last_write = clock
            self._folder.write_progress(self._progress)

    def has_viewer(self) -> bool:
        clock = self._clock()
        if clock - self._last_viewer_check >= _VIEWER_CHECK_INTERVAL:
            self._last_viewer_check = clock
            self._viewer_seen = self._folder.has_viewer(self._now())
        return self._viewer_seen
