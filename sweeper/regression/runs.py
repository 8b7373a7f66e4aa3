"""Two runs held against each other: which cases are new, gone, the same, changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.regression.cases import Case, Observed, Shown
from sweeper.regression.matching import Match, distance, match, side_by_side

STATES = ("changed", "gone", "new", "same")


@dataclass(frozen=True, slots=True)
class Difference:
    """One case in two runs: `state` is `changed`, `gone` (in the first only), `new` (in the second only) or `same`."""

    case: Case
    state: str
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    before: Path | None = None
    after: Path | None = None


def compare_runs(one: Observed, other: Observed) -> tuple[Difference, ...]:
    """Every case of either run, what changed first. Raises ImageError for a picture that cannot be read."""
    before = {shown.case.key: shown for row in one.rows for shown in row.shown}
    after = {shown.case.key: shown for row in other.rows for shown in row.shown}
    both = [(before[key], after[key]) for key in before if key in after]
    found = [_difference(*pair) for pair in zip(both, side_by_side(_matched, both), strict=True)]
    found += [Difference(shown.case, "gone", before=shown.path) for key, shown in before.items() if key not in after]
    found += [Difference(shown.case, "new", after=shown.path) for key, shown in after.items() if key not in before]
    return tuple(sorted(found, key=lambda item: (STATES.index(item.state), -distance(item.metrics))))


def _matched(pair: tuple[Shown, Shown]) -> Match:
    return match(pair[0].path, pair[1].path, {})


def _difference(pair: tuple[Shown, Shown], found: Match) -> Difference:
    metrics: dict[str, Any] = dict(found.metrics)
    state = "same" if found.passes else "changed"
    return Difference(pair[0].case, state, found.reason, metrics, pair[0].path, pair[1].path)
