"""Compares the trials of a live run with the baseline as they finish.

Comparing pictures is slow, so it has a thread of its own. The thread rests between comparisons, because a run in the
same process needs CPU time too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.errors import SweeperError
from sweeper.model.result import Result
from sweeper.reporting.check_findings import (
    CheckFindings,
    Finding,
    build_accepted_entry,
    build_check_data,
    build_row_check,
    find_accepted_pictures,
    list_missing_cases,
)

_REST_FACTOR: Final = 4  # rests this many times as long as the last comparison took

CheckFunction = Callable[[Collection[int] | None], CheckFindings]
"""Compares these trials with the baseline; None: all, and finds missing cases. Raises SweeperError."""


@dataclass
class CheckState:
    """The findings so far, by trial; empty until the first check has finished."""

    checked: CheckFindings
    findings: dict[int, list[Finding]] = field(default_factory=dict)
    file_names: dict[Path, str] = field(default_factory=dict)  # of the accepted files, in requests

    def merge(self, checked: CheckFindings, *, is_full: bool) -> set[int]:
        """Merge the findings of a check, and return the trials whose findings may have changed."""
        gone = checked.missing_cases if is_full else self.checked.missing_cases
        self.checked = CheckFindings(checked.baseline, checked.state_order, (), gone)
        findings, before = checked.group_by_trial(), set(self.findings) if is_full else set()
        if is_full:
            self.findings.clear()
        self.findings.update(findings)
        self.file_names.update({path: _make_file_name(path) for path in find_accepted_pictures(checked)})
        return set(findings) | before

    def find_file(self, name: str) -> Path | None:
        """The accepted file with this name, or None."""
        return next((path for path, file_name in self.file_names.items() if file_name == name), None)

    def build_data(self, rows: Sequence[Result], files: list[dict[str, Any]]) -> dict[str, Any]:
        """Build the page's `check`, and add the accepted files to `files`."""
        findings = [finding for row in rows for finding in self.findings.get(row.trial, ())]
        checked = CheckFindings(self.checked.baseline, self.checked.state_order, findings, self.checked.missing_cases)
        indices = {path: len(files) + index for index, path in enumerate(self.file_names)}
        files += [build_accepted_entry(path, name) for path, name in self.file_names.items()]
        return build_check_data(rows, checked, indices)

    def list_missing_cases(self) -> list[str]:
        return list_missing_cases(self.checked)

    def build_row(self, trial: int) -> dict[str, Any]:
        return build_row_check(self.findings.get(trial, ()), self.file_names)


def _make_file_name(path: Path) -> str:
    """A name that changes when the file is replaced, because browsers cache it forever."""
    stat = path.stat()
    text = f"{path}|{stat.st_mtime_ns}|{stat.st_size}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20] + path.suffix.lower()


class CheckThread:
    """Runs the check in a thread, and calls `on_result(generation, findings, is_full, problem)` after each check."""

    def __init__(
        self, check: CheckFunction, on_result: Callable[[int, CheckFindings | None, bool, str | None], None]
    ) -> None:
        self._check = check
        self._on_result = on_result
        self._wake = threading.Condition()
        self._generation = 0
        self._check_all = False
        self._trials: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper-view-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current comparison; does not wait for it."""
        self._stopping.set()
        with self._wake:
            self._wake.notify()

    def request(self, generation: int, trials: Iterable[int] | None) -> None:
        """Ask for trials to be compared soon; None: all trials, for a page that has to reload."""
        with self._wake:
            if trials is None:
                self._generation, self._check_all, self._trials = generation, True, set()
            else:
                self._trials.update(trials)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._check_all or self._trials or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                generation, is_full, trials = self._generation, self._check_all, self._trials
                self._check_all, self._trials = False, set()
            start = time.monotonic()
            try:
                self._on_result(generation, self._check(None if is_full else trials), is_full, None)
            except (SweeperError, OSError) as error:  # an OSError: an accepted file may be replaced at this moment
                problem = f"cannot be compared with the baseline: {str(error).splitlines()[0]}"
                self._on_result(generation, None, is_full, problem)
            self._stopping.wait(_REST_FACTOR * (time.monotonic() - start))
