"""What a check found, as the page shows it: a state and a reason for each trial, and the accepted pictures.

Comparing is the regression suite's affair; here its findings become columns of the page's data. A trial with several
outputs bears the state that needs a look first.
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
NO_CASE_COMPARED: Final = "no case of it was compared"
ACCEPTED_FOLDER: Final = "accepted"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of one output: `state` and `reason` in the check's own words, `measures` by name, the picture
    that was accepted, and the case's name, by which `sweeper accept --cases` knows it. `node` and `position`: which
    output it is of.
    """

    trial: int
    state: str
    reason: str
    case: str
    accepted: Path | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    node: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class CheckFindings:
    """The findings of a check. `order`: its states, those that need a look first. `gone`: the names of accepted cases
    that no trial makes any more.
    """

    baseline: Path
    state_order: Sequence[str]
    findings: Sequence[Finding]
    missing_cases: Sequence[str] = ()

    def group_by_trial(self) -> dict[int, list[Finding]]:
        """The findings of each trial, the one that needs a look first before the others."""
        found: dict[int, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda one: self.state_order.index(one.state)):
            found.setdefault(finding.trial, []).append(finding)
        return found


def build_check_data(
    rows: Sequence[Result], checked: CheckFindings, file_indices: Mapping[Path, int]
) -> dict[str, Any]:
    """What the page knows of a check; `places` are those of the accepted pictures among its files."""
    found = checked.group_by_trial()
    first = [next(iter(found.get(row.trial, ())), None) for row in rows]
    states, of = encode_values(one.state if one is not None else NOT_COMPARED for one in first)
    reasons, why = encode_values(
        replace_surrogates(one.reason) if one is not None else NO_CASE_COMPARED for one in first
    )
    names = sorted({name for one in first if one is not None for name in one.measures})
    return {
        "baseline": str(checked.baseline),
        "gone": list_missing_cases(checked),
        "columns": [
            {"name": "check", "role": "check", "values": states, "of": of},
            {"name": "check_reason", "role": "check", "values": reasons, "of": why},
        ],
        "measures": [
            {
                "name": f"check_{name}",
                "of": [None if one is None else _drop_infinite(one.measures.get(name)) for one in first],
            }
            for name in names
        ],
        "accepted": [
            [
                {"file": file_indices[path], "at": at}
                for path, at in _list_accepted(found.get(row.trial, ()))
                if path in file_indices
            ]
            for row in rows
        ],
        "cases": [[replace_surrogates(one.case) for one in found.get(row.trial, ())] for row in rows],
    }


def list_missing_cases(checked: CheckFindings) -> list[str]:
    """What the page is told of cases that have no row: it names them."""
    return [replace_surrogates(name) for name in checked.missing_cases]


def build_row_check(findings: Sequence[Finding], names: Mapping[Path, str]) -> dict[str, Any]:
    """What a check says of one row, for a page that has the rest already; `names`: those of the accepted pictures."""
    first = findings[0] if findings else None
    measures = (
        {} if first is None else {f"check_{name}": _drop_infinite(value) for name, value in first.measures.items()}
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
    """An accepted picture among the page's files, under a name of its own in the folder `accepted`."""
    kind = MEDIA_TYPES.get(path.suffix.lower(), "other").partition("/")[0]
    return {"kind": kind, "was": path.name, "path": f"{ACCEPTED_FOLDER}/{name}", "accepted": True}


def _list_accepted(findings: Iterable[Finding]) -> list[tuple[Path, list[Any]]]:
    """The pictures accepted for these, each with the [node, position] of the output that it is of."""
    return [(one.accepted, [one.node, one.position]) for one in findings if one.accepted is not None]


def find_accepted_pictures(checked: CheckFindings | None) -> list[Path]:
    """The accepted pictures that there are, each once."""
    if checked is None:
        return []
    return [path for path in dict.fromkeys(path for path, _ in _list_accepted(checked.findings)) if path.is_file()]


def _drop_infinite(value: float | None) -> float | None:
    """JSON has no infinity; the psnr of equal pictures is left out."""
    return value if value is not None and abs(value) != float("inf") else None
