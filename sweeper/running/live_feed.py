"""Passes a run's events on, and shows what is in flight to a viewer in another process, if there is one.

Only the last word and the last picture of a trial count, so most of them are never written.
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
from sweeper.store.live_folder import LiveFolder, Sight

_BETWEEN_LOOKS: Final = 1.0  # seconds after which it is looked again whether there is a viewer
_BETWEEN_WRITES: Final = 0.25  # seconds: nobody sees more than a few pictures a second


class Showing:
    """Called with each event of a run; `then` is who else wants them."""

    def __init__(
        self,
        folder: LiveFolder,
        then: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._then = then
        self._clock = clock
        self._now = now
        self._sights: dict[int, Sight] = {}
        self._written: dict[int, float] = {}  # trial: when its last preview was written
        self._told = self._looked = float("-inf")
        self._watched = False

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        match event:
            case JobSubmitted():
                self._note(event.trial, Sight("", 0.0, 0.0))
            case JobProgress():
                before = self._sights.get(event.trial)
                number = before.preview if before is not None else 0
                self._note(event.trial, Sight(event.node, event.value, event.maximum, number))
            case JobPreview():
                self._preview(event)
            case TrialDone() | Retrying():
                self._over(event.trial)
            case RunStarted() | RunEnded():
                self._folder.clear()
            case _:
                pass
        self._then(event)

    def _note(self, trial: int, sight: Sight) -> None:
        self._sights[trial] = sight
        self._tell()

    def _preview(self, event: JobPreview) -> None:
        clock = self._clock()
        if not self._anybody() or clock - self._written.get(event.trial, float("-inf")) < _BETWEEN_WRITES:
            return
        self._written[event.trial] = clock
        self._folder.show_preview(event.trial, event.image)
        before = self._sights.get(event.trial, Sight(event.node, 0.0, 0.0))
        self._note(event.trial, replace(before, preview=before.preview + 1))

    def _over(self, trial: int) -> None:
        if self._sights.pop(trial, None) is not None and self._anybody():
            self._folder.forget(trial)
        self._written.pop(trial, None)
        self._tell()

    def _tell(self) -> None:
        clock = self._clock()
        if clock - self._told >= _BETWEEN_WRITES and self._anybody():
            self._told = clock
            self._folder.show(self._sights)

    def _anybody(self) -> bool:
        clock = self._clock()
        if clock - self._looked >= _BETWEEN_LOOKS:
            self._looked = clock
            self._watched = self._folder.watched(self._now())
        return self._watched
