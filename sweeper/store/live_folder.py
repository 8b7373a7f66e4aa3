"""The folder through which a run shows what it is at to whoever looks on: `<results>/live/`.

A viewer keeps the file `watched` young; a run that sees it puts the progress and the last preview of each trial in
flight beside it, and takes them away when the trial is over. Nothing depends on it, and a run that nobody watches
writes nothing. The truth about trials is in the store; when to write is the run's affair (`sweeper.running.live_feed`),
how to show it the viewer's (`sweeper.reporting.live`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = "live"
_VIEWER_FILE: Final = "watched"
_PROGRESS_FILE: Final = "progress.json"
_VIEWER_TIMEOUT: Final = 15.0  # seconds: a viewer that was killed is forgotten after that


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """What is seen of a trial in flight: its node at step `value` of `maximum` (0 of 0: it began), and the number of
    its last preview, 0 where there is none yet.
    """

    node: str
    value: float
    maximum: float
    preview: int = 0


class LiveFolder:
    """Both ends of the folder. Every method leaves quietly when the folder cannot be used: it is only for looking."""

    def __init__(self, results: Path) -> None:
        self._path = results / FOLDER

    # --- the viewer's end

    def announce_viewer(self) -> None:
        """Say that somebody looks on; to be said again every few seconds."""
        with contextlib.suppress(OSError):
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / _VIEWER_FILE).touch()

    def remove_viewer(self) -> None:
        """Nobody looks on any more (another viewer says so again by itself)."""
        with contextlib.suppress(OSError):
            (self._path / _VIEWER_FILE).unlink(missing_ok=True)
            self._path.rmdir()  # only when it is empty: a run that still writes cleans up itself

    def read_progress(self) -> dict[int, TrialProgress]:
        """Every trial in flight that the run told something of, by its index."""
        try:
            told = json.loads((self._path / _PROGRESS_FILE).read_text("utf-8"))
            return {
                int(trial): TrialProgress(str(node), float(value), float(maximum), int(preview))
                for trial, (node, value, maximum, preview) in told.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # not there yet, or not any more

    def read_preview(self, trial: int) -> bytes | None:
        """The last preview of a trial, as the server sent it."""
        try:
            return (self._path / _preview_name(trial)).read_bytes()
        except OSError:
            return None

    # --- the run's end

    def has_viewer(self, now: float) -> bool:
        """Whether somebody looks on; `now` in seconds since 1970."""
        try:
            return now - (self._path / _VIEWER_FILE).stat().st_mtime < _VIEWER_TIMEOUT
        except OSError:
            return False

    def write_progress(self, progress: Mapping[int, TrialProgress]) -> None:
        """Tell what is in flight."""
        text = json.dumps({str(trial): [s.node, s.value, s.maximum, s.preview] for trial, s in progress.items()})
        self._write(_PROGRESS_FILE, text.encode())

    def write_preview(self, trial: int, image: bytes) -> None:
        self._write(_preview_name(trial), image)

    def remove_preview(self, trial: int) -> None:
        """The trial is over: its artifacts are what there is to see."""
        with contextlib.suppress(OSError):
            (self._path / _preview_name(trial)).unlink(missing_ok=True)

    def clear(self) -> None:
        """The run is over: take away everything that a run writes, that of a killed one too."""
        with contextlib.suppress(OSError):
            for path in self._path.iterdir():
                if path.name != _VIEWER_FILE:
                    path.unlink(missing_ok=True)
            self._path.rmdir()

    def _write(self, name: str, data: bytes) -> None:
        part = self._path / f".{name}.part"
        with contextlib.suppress(OSError):
            part.write_bytes(data)
            part.replace(self._path / name)


def _preview_name(trial: int) -> str:
    return f"{trial}.preview"
