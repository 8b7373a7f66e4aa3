"""The comparisons of a check as the page's data: a state and a reason for each trial, and the accepted files.

`sweeper.regression` compares; this module only converts. A trial with several outputs gets the most urgent state.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.images.file_types import TEXT_TYPES
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.dataset import build_column
from sweeper.tables.export import replace_surrogates

if TYPE_CHECKING:
    from sweeper.regression.comparison import Comparison

ACCEPTED_FOLDER: Final = "accepted"
_NO_CASE: Final = {"state": "not compared", "reason": "none of its cases was compared", "verdict": "", "measures": {}}
_SEVERITY: Final = "check_severity"
_MAX_LINES: Final = 400  # of the difference of two texts

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
