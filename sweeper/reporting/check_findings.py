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
from sweeper.reporting.contents import MEDIA
from sweeper.reporting.dataset import coded
from sweeper.tables.export import whole_text

NEVER: Final = "not compared"
UNASKED: Final = "no case of it was compared"
ACCEPTED: Final = "accepted"


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
class Checked:
    """The findings of a check. `order`: its states, those that need a look first. `gone`: the names of accepted cases
    that no trial makes any more.
    """

    baseline: Path
    order: Sequence[str]
    findings: Sequence[Finding]
    gone: Sequence[str] = ()

    def by_trial(self) -> dict[int, list[Finding]]:
        """The findings of each trial, the one that needs a look first before the others."""
        found: dict[int, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda one: self.order.index(one.state)):
            found.setdefault(finding.trial, []).append(finding)
        return found


def check_data(rows: Sequence[Result], checked: Checked, places: Mapping[Path, int]) -> dict[str, Any]:
    """What the page knows of a check; `places` are those of the accepted pictures among its files."""
    found = checked.by_trial()
    first = [next(iter(found.get(row.trial, ())), None) for row in rows]
    states, of = coded(one.state if one is not None else NEVER for one in first)
    reasons, why = coded(whole_text(one.reason) if one is not None else UNASKED for one in first)
    names = sorted({name for one in first if one is not None for name in one.measures})
    return {
        "baseline": str(checked.baseline),
        "gone": gone_names(checked),
        "columns": [
            {"name": "check", "role": "check", "values": states, "of": of},
            {"name": "check_reason", "role": "check", "values": reasons, "of": why},
        ],
        "measures": [
            {"name": f"check_{name}", "of": [None if one is None else _finite(one.measures.get(name)) for one in first]}
            for name in names
        ],
        "accepted": [
            [{"file": places[path], "at": at} for path, at in _accepted(found.get(row.trial, ())) if path in places]
            for row in rows
        ],
        "cases": [[whole_text(one.case) for one in found.get(row.trial, ())] for row in rows],
    }


def gone_names(checked: Checked) -> list[str]:
    """What the page is told of cases that have no row: it names them."""
    return [whole_text(name) for name in checked.gone]


def row_check(findings: Sequence[Finding], names: Mapping[Path, str]) -> dict[str, Any]:
    """What a check says of one row, for a page that has the rest already; `names`: those of the accepted pictures."""
    first = findings[0] if findings else None
    measures = {} if first is None else {f"check_{name}": _finite(value) for name, value in first.measures.items()}
    return {
        "state": NEVER if first is None else first.state,
        "reason": UNASKED if first is None else whole_text(first.reason),
        "measures": measures,
        "accepted": [
            {"file": accepted_entry(path, names[path]), "at": at} for path, at in _accepted(findings) if path in names
        ],
        "cases": [whole_text(one.case) for one in findings],
    }


def accepted_entry(path: Path, name: str) -> dict[str, Any]:
    """An accepted picture among the page's files, under a name of its own in the folder `accepted`."""
    kind = MEDIA.get(path.suffix.lower(), "other").partition("/")[0]
    return {"kind": kind, "was": path.name, "path": f"{ACCEPTED}/{name}", "accepted": True}


def _accepted(findings: Iterable[Finding]) -> list[tuple[Path, list[Any]]]:
    """The pictures accepted for these, each with the [node, position] of the output that it is of."""
    return [(one.accepted, [one.node, one.position]) for one in findings if one.accepted is not None]


def accepted_pictures(checked: Checked | None) -> list[Path]:
    """The accepted pictures that there are, each once."""
    if checked is None:
        return []
    return [path for path in dict.fromkeys(path for path, _ in _accepted(checked.findings)) if path.is_file()]


def _finite(value: float | None) -> float | None:
    """JSON has no infinity; the psnr of equal pictures is left out."""
    return value if value is not None and abs(value) != float("inf") else None
