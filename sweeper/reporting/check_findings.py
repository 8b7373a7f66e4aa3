"""The findings of a check as the page's data: a state and a reason for each trial, and the accepted files.

`sweeper.regression` compares; this module only converts. A trial with several outputs gets the most urgent state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sweeper.model.result import Result
from sweeper.reporting.contents import MEDIA_TYPES
from sweeper.reporting.dataset import encode_values
from sweeper.tables.export import replace_surrogates

NOT_COMPARED: Final = "not compared"
NO_CASE_COMPARED: Final = "none of its cases was compared"
ACCEPTED_FOLDER: Final = "accepted"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found of one output, which `node` and `position` identify.

    `case` is the name for `sweeper accept --cases`, `accepted` the accepted file, `measures` the measured differences.
    `verdict` says whose change it is, if that was asked for, and `severity` sorts: the mean difference, 0-255, or more.
    `text_difference` are the lines in which two texts differ.
    """

    trial: int
    state: str
    reason: str
    case: str
    accepted: Path | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    node: str = ""
    position: int = 0
    verdict: str = ""
    severity: float = 0.0
    text_difference: str = ""


@dataclass(frozen=True, slots=True)
class CheckFindings:
    """The findings of a check.

    `state_order` lists its states from the most urgent on. `missing_cases` names accepted cases that no trial makes.
    `notes` are sentences about the whole check. With `is_review`, the page opens on what is not the same.
    `accept_command` makes the results of this run the baseline.
    """

    baseline: Path
    state_order: Sequence[str]
    findings: Sequence[Finding]
    missing_cases: Sequence[str] = ()
    notes: Sequence[str] = ()
    is_review: bool = False
    accept_command: str = ""

    def group_by_trial(self) -> dict[int, list[Finding]]:
        """The findings of each trial, the most urgent first."""
        by_trial: dict[int, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda finding: self.state_order.index(finding.state)):
            by_trial.setdefault(finding.trial, []).append(finding)
        return by_trial


def build_check_data(
    rows: Sequence[Result], checked: CheckFindings, file_indices: Mapping[Path, int]
) -> dict[str, Any]:
    """Build the page's `check`. `file_indices`: of the accepted files among the page's files."""
    by_trial = checked.group_by_trial()
    first = [next(iter(by_trial.get(row.trial, ())), None) for row in rows]
    states, of = encode_values(one.state if one is not None else NOT_COMPARED for one in first)
    reasons, why = encode_values(
        replace_surrogates(one.reason) if one is not None else NO_CASE_COMPARED for one in first
    )
    names = sorted({name for one in first if one is not None for name in one.measures})
    verdicts, whose = encode_values(replace_surrogates(one.verdict) if one is not None else "" for one in first)
    has_verdicts = any(verdicts)
    return {
        "baseline": str(checked.baseline),
        "gone": list_missing_cases(checked),
        "columns": [
            {"name": "check", "role": "check", "values": states, "of": of},
            {"name": "check_reason", "role": "check", "values": reasons, "of": why},
            *([{"name": "check_verdict", "role": "check", "values": verdicts, "of": whose}] if has_verdicts else []),
        ],
        "notes": list(checked.notes),
        "is_review": checked.is_review,
        "accept_command": checked.accept_command,
        "texts": [None if one is None else replace_surrogates(one.text_difference) or None for one in first],
        "measures": [
            {"name": "check_severity", "of": [None if one is None else _drop_infinite(one.severity) for one in first]},
            *(
                {
                    "name": f"check_{name}",
                    "of": [None if one is None else _drop_infinite(one.measures.get(name)) for one in first],
                }
                for name in names
            ),
        ],
        "accepted": [
            [
                {"file": file_indices[path], "at": at}
                for path, at in _list_accepted(by_trial.get(row.trial, ()))
                if path in file_indices
            ]
            for row in rows
        ],
        "cases": [[replace_surrogates(one.case) for one in by_trial.get(row.trial, ())] for row in rows],
    }


def list_missing_cases(checked: CheckFindings) -> list[str]:
    """The names of accepted cases that no trial makes, as the page shows them."""
    return [replace_surrogates(name) for name in checked.missing_cases]


def build_row_check(findings: Sequence[Finding], names: Mapping[Path, str]) -> dict[str, Any]:
    """Build the check of one row, to update a page that is already open; `names`: of the accepted files."""
    first = findings[0] if findings else None
    measures = (
        {}
        if first is None
        else {f"check_{name}": _drop_infinite(value) for name, value in first.measures.items()}
        | {"check_severity": _drop_infinite(first.severity)}
    )
    return {
        "state": NOT_COMPARED if first is None else first.state,
        "reason": NO_CASE_COMPARED if first is None else replace_surrogates(first.reason),
        "measures": measures,
        "accepted": [
            {"file": build_accepted_entry(path, names[path]), "at": at}
            for path, at in _list_accepted(findings)
            if path in names
        ],
        "cases": [replace_surrogates(one.case) for one in findings],
    }


def build_accepted_entry(path: Path, name: str) -> dict[str, Any]:
    """Build the entry of an accepted file, which is in the folder `accepted` under this name."""
    kind = MEDIA_TYPES.get(path.suffix.lower(), "other").partition("/")[0]
    return {"kind": kind, "was": path.name, "path": f"{ACCEPTED_FOLDER}/{name}", "accepted": True}


def _list_accepted(findings: Iterable[Finding]) -> list[tuple[Path, list[Any]]]:
    """The accepted files of these findings, each with the [node, position] of its output."""
    return [(one.accepted, [one.node, one.position]) for one in findings if one.accepted is not None]


def find_accepted_pictures(checked: CheckFindings | None) -> list[Path]:
    """The accepted files that exist, each once."""
    if checked is None:
        return []
    return [path for path in dict.fromkeys(path for path, _ in _list_accepted(checked.findings)) if path.is_file()]


def _drop_infinite(value: float | None) -> float | None:
    """None for infinity, which JSON does not have; the PSNR of equal pictures is infinite."""
    return value if value is not None and abs(value) != float("inf") else None
