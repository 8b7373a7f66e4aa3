"""Compares the trials of a live run with the baseline as they finish.

Comparing pictures is slow, so it has a thread of its own. The thread rests between comparisons, because a run in the
same process needs CPU time too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import SweeperError
from sweeper.reporting.check_findings import (
    ACCEPTED_FOLDER,
    build_accepted_entries,
    build_check_data,
    build_row_check,
    group_by_trial,
    list_missing_cases,
)

_ACCEPTABLE: Final = ("changed", "new")  # states of `sweeper.regression`
_REST_FACTOR: Final = 4  # rests this many times as long as the last comparison took

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparison, Comparisons

CheckFunction = Callable[[Collection[int] | None], "Comparisons"]
"""Compares these trials with the baseline; None: all, and finds missing cases. Raises SweeperError."""


class LiveCheck:
    """The comparisons so far, and the thread that runs `check` for more. With None in its place, there are never any.

    The caller holds `lock` when it uses anything but `start` and `stop`. After each check, the thread holds it and
    calls `on_change` with the trials whose comparisons may have changed, and whether the missing cases may have.
    """

    def __init__(
        self, check: CheckFunction | None, lock: threading.Lock, on_change: Callable[[set[int], bool], None]
    ) -> None:
        self.problem: str | None = None
        self._check = check
        self._on_change = on_change
        self._wake = threading.Condition(lock)
        self._generation = 0  # grows when all trials are compared again; an earlier check then says nothing any more
        self._check_all = False
        self._trials: set[int] = set()
        self._stopping = threading.Event()
        self._baseline = Path()
        self._compared: dict[int, list[Comparison]] = {}
        self._missing_cases: list[str] = []
        self._accepted: dict[Path, dict[str, Any]] = {}  # the page's entries of the accepted files

    def start(self) -> None:
        if self._check is not None:
            threading.Thread(target=self._run, args=[self._check], name="sweeper-view-check", daemon=True).start()

    def stop(self) -> None:
        """Stop after the current comparison; does not wait for it."""
        self._stopping.set()
        with self._wake:
            self._wake.notify()

    def request(self, trials: Iterable[int] | None) -> None:
        """Ask for trials to be compared soon; None: forget all comparisons, and compare all trials."""
        if trials is None:
            self._generation += 1
            self._check_all, self._trials = True, set()
            self._compared.clear()
        else:
            self._trials.update(trials)
        self._wake.notify()

    def list_acceptable(self, trial: int) -> list[str]:
        """The cases of a trial that the last comparison found changed or new."""
        return [case.case.name for case in self._compared.get(trial, ()) if case.state in _ACCEPTABLE]

    def list_accepted(self, trial: int) -> list[str]:
        """The paths that a page has for the accepted files of a trial, as they are now; without the lock."""
        found = [] if self._check is None else [case for case in self._check({trial}) if case.trial == trial]
        files = {path: entry["path"] for path, entry in build_accepted_entries(found).items()}
        return [accepted["file"] for accepted in build_row_check(found, files)["accepted"]]

    def find_file(self, name: str) -> Path | None:
        """The accepted file with this name in requests, or None."""
        wanted = f"{ACCEPTED_FOLDER}/{name}"
        return next((path for path, entry in self._accepted.items() if entry["path"] == wanted), None)

    def build_data(self, trials: Sequence[int], start: int) -> tuple[dict[str, Any], Collection[dict[str, Any]]]:
        """Build `check` of the page's data, and the entries of the accepted files, whose indices begin at `start`."""
        if self._check is None:
            return {}, ()
        check = build_check_data(trials, self._compared, self._accepted, start)
        return {"baseline": str(self._baseline), **self.build_missing_cases(), **check}, self._accepted.values()

    def build_row(self, trial: int) -> dict[str, Any]:
        """Build `check` of a row's update."""
        return {} if self._check is None else {"check": build_row_check(self._compared.get(trial, ()), self._accepted)}

    def build_missing_cases(self) -> dict[str, Any]:
        """Build `gone` of the changes."""
        return {} if self._check is None else {"gone": self._missing_cases}

    def _run(self, check: CheckFunction) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._check_all or self._trials or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                generation, is_full, trials = self._generation, self._check_all, self._trials
                self._check_all, self._trials = False, set()
            start = time.monotonic()
            found: tuple[Comparisons, dict[Path, dict[str, Any]]] | None = None
            problem = None
            try:
                checked = check(None if is_full else trials)
                found = checked, build_accepted_entries(checked)
            except (SweeperError, OSError) as error:  # an OSError: an accepted file may be replaced at this moment
                problem = f"cannot be compared with the baseline: {str(error).splitlines()[0]}"
            with self._wake:
                if generation == self._generation:
                    self.problem = problem
                    changed = set() if found is None else self._merge(*found, is_full=is_full)
                    self._on_change(changed, is_full and found is not None)
            self._stopping.wait(_REST_FACTOR * (time.monotonic() - start))

    def _merge(self, checked: Comparisons, accepted: dict[Path, dict[str, Any]], *, is_full: bool) -> set[int]:
        """Merge the comparisons of a check, and return the trials whose comparisons may have changed."""
        self._baseline = checked.baseline
        compared, before = group_by_trial(checked), set(self._compared) if is_full else set()
        if is_full:
            self._missing_cases = list_missing_cases(checked)
            self._compared.clear()
        self._compared.update(compared)
        self._accepted.update(accepted)
        return set(compared) | before
