"""Two runs held against each other: which cases are new, gone, the same, changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sweeper.errors import ImageError
from sweeper.regression.cases import Case, OutputFile, RunCases
from sweeper.regression.comparison import NOT_COMPARED
from sweeper.regression.match_files import distance, map_parallel, match_files

STATES = ("changed", NOT_COMPARED, "gone", "new", "same")


@dataclass(frozen=True, slots=True)
class CaseDifference:
    """One case in two runs: `state` is `changed`, `gone` (in the first only), `new` (in the second only), `same`, or
    `not compared` where a file is absent or cannot be read, with the `reason`.
    """

    case: Case
    state: str
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    before: Path | None = None
    after: Path | None = None


def compare_runs(one: RunCases, other: RunCases) -> tuple[CaseDifference, ...]:
    """Every case of either run, what changed first."""
    before = {shown.case.key: shown for row in one.rows for shown in row.outputs}
    after = {shown.case.key: shown for row in other.rows for shown in row.outputs}
    differing = [key for key in before if key in after and before[key].sha256 != after[key].sha256]
    one.fetch(before[key] for key in differing)
    other.fetch(after[key] for key in differing)
    both = [(before[key], after[key]) for key in before if key in after]
    found = map_parallel(lambda pair: _compare_case(one, other, *pair), both)
    found += [
        CaseDifference(shown.case, "gone", before=shown.path) for key, shown in before.items() if key not in after
    ]
    found += [CaseDifference(shown.case, "new", after=shown.path) for key, shown in after.items() if key not in before]
    return tuple(sorted(found, key=lambda item: (STATES.index(item.state), -distance(item.metrics))))


def _compare_case(one: RunCases, other: RunCases, before: OutputFile, after: OutputFile) -> CaseDifference:
    if before.sha256 == after.sha256 and before.url and after.url:  # neither was fetched, nor needs to be
        return CaseDifference(before.case, "same", before=before.path, after=after.path)
    absent = [told for told in (one.describe_missing(before), other.describe_missing(after)) if told]
    try:
        found = match_files(before.path, after.path, {}) if not absent else None
    except ImageError as error:
        found, absent = None, [str(error)]
    if found is None:
        return CaseDifference(before.case, NOT_COMPARED, "; ".join(absent), {}, before.path, after.path)
    state = "same" if found.passes else "changed"
    return CaseDifference(before.case, state, found.reason, dict(found.metrics), before.path, after.path)
