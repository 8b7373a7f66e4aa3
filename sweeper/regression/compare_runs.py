"""Compare two runs: which cases are new, gone, changed or the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sweeper.errors import ImageError
from sweeper.regression.cases import Case, OutputFile, RunCases
from sweeper.regression.comparison import NOT_COMPARED
from sweeper.regression.match_files import distance, map_parallel, match_files

STATES: Final = ("changed", NOT_COMPARED, "gone", "new", "same")


@dataclass(frozen=True, slots=True)
class CaseDifference:
    """One case in two runs.

    `state` is `changed`, `gone` (only in the first run), `new` (only in the second), `same`, or `not compared` if a
    file is missing or unreadable, with the `reason`.
    """

    case: Case
    state: str
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    before: Path | None = None
    after: Path | None = None


def compare_runs(old_run: RunCases, new_run: RunCases) -> tuple[CaseDifference, ...]:
    """Compare every case of two runs, with the greatest changes first."""
    before = {output.case.key: output for row in old_run.rows for output in row.outputs}
    after = {output.case.key: output for row in new_run.rows for output in row.outputs}
    differing = [key for key in before if key in after and before[key].sha256 != after[key].sha256]
    old_run.fetch(before[key] for key in differing)
    new_run.fetch(after[key] for key in differing)
    pairs = [(before[key], after[key]) for key in before if key in after]
    items = map_parallel(lambda pair: _compare_case(old_run, new_run, *pair), pairs)
    items += [CaseDifference(old.case, "gone", before=old.path) for key, old in before.items() if key not in after]
    items += [CaseDifference(new.case, "new", after=new.path) for key, new in after.items() if key not in before]
    return tuple(sorted(items, key=lambda item: (STATES.index(item.state), -distance(item.metrics))))


def _compare_case(old_run: RunCases, new_run: RunCases, before: OutputFile, after: OutputFile) -> CaseDifference:
    if before.sha256 == after.sha256 and before.url and after.url:  # neither was downloaded, and neither needs to be
        return CaseDifference(before.case, "same", before=before.path, after=after.path)
    missing = [text for text in (old_run.describe_missing(before), new_run.describe_missing(after)) if text]
    if missing:
        return CaseDifference(before.case, NOT_COMPARED, "; ".join(missing), {}, before.path, after.path)
    try:
        match = match_files(before.path, after.path, {})
    except ImageError as error:
        return CaseDifference(before.case, NOT_COMPARED, str(error), {}, before.path, after.path)
    state = "same" if match.passes else "changed"
    return CaseDifference(before.case, state, match.reason, dict(match.metrics), before.path, after.path)
