"""The folder `<results>/live/`, through which a run shows its progress to the live page.

A viewer touches the file `watched` every few seconds. While it does, the run writes the progress and the latest preview
of each running trial beside it, and removes them when the trial is over. Without a viewer the run writes nothing.
Nothing else depends on this folder: the store has the facts. `sweeper.running.run_events` decides when to write, and
`sweeper.reporting.live` shows the result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sweeper.errors import ResultsError
from sweeper.files import atomic_write
from sweeper.store.containment import refuse_links

FOLDER: Final = "live"
_VIEWER_FILE: Final = "watched"
_PROGRESS_FILE: Final = "progress.json"
_VIEWER_TIMEOUT: Final = 15.0  # seconds after which a viewer counts as gone


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """The progress of a running trial: its node is at step `value` of `maximum` (0 of 0 at the start).

    `preview` is the number of its latest preview, 0 if there is none yet.
    """

    node: str
    value: float
    maximum: float
    preview: int = 0


class LiveFolder:
    """Both sides of the folder. No method raises if the folder cannot be used, because it is only for display."""

    def __init__(self, results: Path) -> None:
        self._path = results / FOLDER

    # --- for the viewer

    def announce_viewer(self) -> None:
        """Tell the run that there is a viewer. Call it again every few seconds."""
        with contextlib.suppress(OSError, ResultsError):
            refuse_links(self._path, self._path / _VIEWER_FILE)
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / _VIEWER_FILE).touch()

    def remove_viewer(self) -> None:
        """Tell the run that this viewer is gone. Another viewer announces itself again."""
        with contextlib.suppress(OSError):
            (self._path / _VIEWER_FILE).unlink(missing_ok=True)
            self._path.rmdir()  # only if it is empty; otherwise the run cleans up

    def read_progress(self) -> dict[int, TrialProgress]:
        """The running trials whose progress is known, by trial index."""
        try:
            entries = json.loads((self._path / _PROGRESS_FILE).read_text("utf-8"))
            return {
                int(trial): TrialProgress(str(node), float(value), float(maximum), int(preview))
                for trial, (node, value, maximum, preview) in entries.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # not written yet, or already removed

    def read_preview(self, trial: int) -> bytes | None:
        """The latest preview of a trial: the image file that the server sent."""
        try:
            return (self._path / _preview_name(trial)).read_bytes()
        except OSError:
            return None

    # --- for the run

    def has_viewer(self, now: float) -> bool:
        try:
            return now - (self._path / _VIEWER_FILE).stat().st_mtime < _VIEWER_TIMEOUT
        except OSError:
            return False

    def write_progress(self, progress: Mapping[int, TrialProgress]) -> None:
        text = json.dumps({str(trial): [s.node, s.value, s.maximum, s.preview] for trial, s in progress.items()})
        self._write(_PROGRESS_FILE, text.encode())

    def write_preview(self, trial: int, image: bytes) -> None:
        self._write(_preview_name(trial), image)

    def remove_preview(self, trial: int) -> None:
        with contextlib.suppress(OSError):
            (self._path / _preview_name(trial)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything that this run, or an earlier one that was killed, wrote here."""
        if self._path.is_symlink():  # the files behind a link are not ours
            return
        with contextlib.suppress(OSError):
            for path in self._path.iterdir():
                if path.name != _VIEWER_FILE:
                    path.unlink(missing_ok=True)
            self._path.rmdir()

    def _write(self, name: str, data: bytes) -> None:
        with contextlib.suppress(OSError, ResultsError):
            refuse_links(self._path)
            if self._path.is_dir():  # otherwise the last viewer left
                with atomic_write(self._path / name) as file:
                    file.write(data)


def _preview_name(trial: int) -> str:
    return f"{trial}.preview"
