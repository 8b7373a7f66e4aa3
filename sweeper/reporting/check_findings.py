"""The comparisons of a check as the page's data: a state and a reason for each trial, and the accepted files.

`sweeper.regression` compares; this module converts. A trial with several outputs gets the most urgent state.

`LiveCheck` compares the trials of a live run as they finish. Comparing pictures is slow, so it has a thread of its own.
The thread rests between comparisons, because a run in the same process needs CPU time too.
"""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import SweeperError
from sweeper.model.picture_size import TEXT_TYPES
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.dataset import build_column
from sweeper.wording import replace_surrogates

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparison, Comparisons

ACCEPTED_FOLDER: Final = "accepted"
_NO_CASE: Final = {"state": "not compared", "reason": "none of its cases was compared", "verdict": "", "measures": {}}
_SEVERITY: Final = "check_severity"
_MAX_LINES: Final = 400  # of the difference of two texts
_ACCEPTABLE: Final = ("changed", "new")  # states of `sweeper.regression`
_REST_FACTOR: Final = 4  # rests this many times as long as the last comparison took

TrialComparisons = Mapping[int, Sequence["Comparison"]]
"""The comparisons of each trial, the most urgent first."""


def group_by_trial(comparisons: Iterable[Comparison]) -> dict[int, list[Comparison]]:
    """Group comparisons, which come in the order of their urgency; without accepted cases that no trial makes."""
    by_trial: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.trial is not None:
            by_trial.setdefault(comparison.trial, []).append(comparison)
    return by_trial


def list_missing_cases(comparisons: Iterable[Comparison]) -> list[str]:
    """The names of accepted cases that no trial makes."""
    return [replace_surrogates(comparison.case.name) for comparison in comparisons if comparison.trial is None]


def build_check_data(
    trials: Sequence[int], compared: TrialComparisons, accepted: Iterable[Path], start: int, *,
    with_texts: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Build what the page's `check` says of these trials. Among the page's files, the accepted ones begin at `start`.

    `with_texts`: also the lines in which two texts differ.
    """
    indices = {path: index for index, path in enumerate(accepted, start)}
    found = [build_row_check(compared.get(trial, ()), indices) for trial in trials]
    measures = sorted({name for row in found for name in row["measures"]} - {_SEVERITY})
    columns = {"check": "state", "check_reason": "reason", "check_verdict": "verdict"}
    if not any(row["verdict"] for row in found):
        del columns["check_verdict"]
    return {
        "columns": [build_column(name, "check", [row[key] for row in found]) for name, key in columns.items()],
        "texts": [_compare_texts(compared.get(trial, ())) if with_texts else None for trial in trials],
        "measures": [
            {"name": name, "of": [row["measures"].get(name) for row in found]} for name in (_SEVERITY, *measures)
        ],
        "accepted": [row["accepted"] for row in found],
        "cases": [row["cases"] for row in found],
    }


def build_row_check(comparisons: Sequence[Comparison], files: Mapping[Path, Any]) -> dict[str, Any]:
    """Build the check of a row from its comparisons. `files`: what stands for an accepted file."""
    if not comparisons:
        return _NO_CASE | {"accepted": [], "cases": []}
    first = comparisons[0]
    measures = {f"check_{name}": value for name, value in first.metrics.items()} | {_SEVERITY: first.severity}
    return {
        "state": first.state,
        "reason": replace_surrogates(first.reason),
        "verdict": replace_surrogates(first.verdict),
        # JSON has no infinity, which the PSNR of equal pictures is.
        "measures": {name: value if abs(value) != float("inf") else None for name, value in measures.items()},
        "accepted": [
            {"file": files[path], "at": [comparison.case.node, comparison.case.position]}
            for comparison in comparisons
            if (path := comparison.accepted) is not None and path in files
        ],
        "cases": [replace_surrogates(comparison.case.name) for comparison in comparisons],
    }


def _compare_texts(comparisons: Sequence[Comparison]) -> str | None:
    """The lines in which the texts of the first comparison differ, as a unified diff; None for other files."""
    accepted, now = (comparisons[0].accepted, comparisons[0].now) if comparisons else (None, None)
    if accepted is None or now is None or now.suffix[1:].lower() not in TEXT_TYPES:
        return None
    if not accepted.is_file() or not now.is_file():
        return None
    before, after = (path.read_text("utf-8", "replace").splitlines() for path in (accepted, now))
    lines = islice(difflib.unified_diff(before, after, "accepted", "now", lineterm=""), _MAX_LINES)
    return replace_surrogates("\n".join(lines)) or None


def build_accepted_entries(comparisons: Iterable[Comparison]) -> dict[Path, dict[str, Any]]:
    """Build the page's entry of each accepted file that exists.

    Its name in the folder `accepted` is by its content, because a file may be replaced by another one of the same size,
    and browsers cache it forever.
    """
    return {
        path: {
            "kind": MEDIA_TYPES.get(path.suffix.lower(), "other").partition("/")[0],
            "was": path.name,
            "path": f"{ACCEPTED_FOLDER}/{sha256(path.read_bytes()).hexdigest()[:20]}{path.suffix.lower()}",
            "accepted": True,
        }
        for path in dict.fromkeys(comparison.accepted for comparison in comparisons if comparison.trial is not None)
        if path is not None and path.is_file()
    }


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
