"""How a run that goes on stands against what was accepted: trials are held against the baseline as they end.

Comparing pictures takes longer than following a run, so it has a thread of its own, which rests in between: a run in
this process needs its time. What compares is given (`Check`); who is told what came of it, too.
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
    Checked,
    Finding,
    accepted_entry,
    accepted_pictures,
    check_data,
    gone_names,
    row_check,
)

_SHARE: Final = 4  # rests so many times as long as the last comparison took

Check = Callable[[Collection[int] | None], Checked]
"""Holds these trials (None: all, and what is gone) against the baseline. Raises SweeperError where it cannot."""


@dataclass
class Standing:
    """What is known of a check, by trial; empty until the first one is through."""

    checked: Checked
    found: dict[int, list[Finding]] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)  # of the accepted pictures, under which they are given out

    def take(self, checked: Checked, *, whole: bool) -> set[int]:
        """Take in what a check found, and give the trials of which something else is said now."""
        gone = checked.gone if whole else self.checked.gone
        self.checked = Checked(checked.baseline, checked.order, (), gone)
        told, before = checked.by_trial(), set(self.found) if whole else set()
        if whole:
            self.found.clear()
        self.found.update(told)
        self.names.update({path: _name(path) for path in accepted_pictures(checked)})
        return set(told) | before

    def file(self, name: str) -> Path | None:
        """The accepted picture that is given out under this name."""
        return next((path for path, own in self.names.items() if own == name), None)

    def data(self, rows: Sequence[Result], files: list[dict[str, Any]]) -> dict[str, Any]:
        """The page's `check`; the accepted pictures are added to its files."""
        findings = [one for row in rows for one in self.found.get(row.trial, ())]
        whole = Checked(self.checked.baseline, self.checked.order, findings, self.checked.gone)
        places = {path: len(files) + place for place, path in enumerate(self.names)}
        files += [accepted_entry(path, name) for path, name in self.names.items()]
        return check_data(rows, whole, places)

    def gone(self) -> list[str]:
        return gone_names(self.checked)

    def row(self, trial: int) -> dict[str, Any]:
        return row_check(self.found.get(trial, ()), self.names)


def _name(path: Path) -> str:
    """Named by what tells an accepted picture from the one that replaces it in place: a browser keeps it for ever."""
    seen = path.stat()
    text = f"{path}|{seen.st_mtime_ns}|{seen.st_size}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20] + path.suffix.lower()


class Comparer:
    """Runs the check in a thread; `told(page, checked, whole, problem)` is called after each, from that thread."""

    def __init__(self, check: Check, told: Callable[[int, Checked | None, bool, str | None], None]) -> None:
        self._check = check
        self._told = told
        self._wake = threading.Condition()
        self._page = 0
        self._whole = False
        self._trials: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sweeper-view-check", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends when the comparison that goes on is through: nothing waits for it."""
        self._over.set()
        with self._wake:
            self._wake.notify()

    def ask(self, page: int, trials: Iterable[int] | None) -> None:
        """Have trials compared soon; None: all of a page that begins anew."""
        with self._wake:
            if trials is None:
                self._page, self._whole, self._trials = page, True, set()
            else:
                self._trials.update(trials)
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._whole or self._trials or self._over.is_set())
                if self._over.is_set():
                    return
                page, whole, trials = self._page, self._whole, self._trials
                self._whole, self._trials = False, set()
            start = time.monotonic()
            try:
                self._told(page, self._check(None if whole else trials), whole, None)
            except (SweeperError, OSError) as error:  # a picture may be replaced at this very moment, too
                self._told(page, None, whole, f"not held against its baseline: {str(error).splitlines()[0]}")
            self._over.wait(_SHARE * (time.monotonic() - start))
