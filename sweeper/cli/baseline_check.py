"""Compare a run with its baseline for the HTML page: once for `report` and `check`, again and again for `view`.

Turns the regression suite's comparisons into the page's findings, so that neither package has to import the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Final

from sweeper.cli import console
from sweeper.errors import InputError, ResultsError
from sweeper.images.file_types import TEXT_TYPES
from sweeper.model.experiment import Experiment
from sweeper.regression.baseline import default_folder
from sweeper.regression.check import check
from sweeper.regression.comparison import STATES, Comparison, Comparisons
from sweeper.reporting.check_findings import CheckFindings, Finding
from sweeper.reporting.contents import find_run_record
from sweeper.reporting.live.check_follower import CheckFunction
from sweeper.reporting.write_report import write_report
from sweeper.store import Store

_MAX_LINES: Final = 400  # of the difference of two texts


def check_results(
    folder: Path, run_id: str | None, baseline: Path | None, trials: Collection[int] | None = None
) -> CheckFindings | None:
    """Compare a run, or only some `trials` of it, with its baseline. `baseline` None: the experiment's default folder.

    Returns None if nothing was ever accepted in the default folder. Raises ResultsError if a folder was given that
    holds no baseline.
    """
    if baseline is None and not _has_baseline(folder, run_id, None):
        return None
    try:
        comparisons = check(folder, baseline, run=run_id, trials=trials)
    except InputError as error:
        if baseline is not None:
            raise
        console.warn(f"not compared with its baseline: {str(error).splitlines()[0]}")
        return None
    if not comparisons.has_baseline and baseline is not None:
        raise ResultsError(f"{baseline}: no baseline here; `{comparisons.accept_command}` makes one")
    return _to_findings(comparisons) if comparisons.has_baseline else None


def make_live_check(folder: Path, run_id: str | None, experiment: Experiment | None) -> CheckFunction | None:
    """A function that compares some trials of an unfinished run with the default baseline; None if there is none."""
    if not _has_baseline(folder, run_id, experiment):
        return None

    def check_trials(trials: Collection[int] | None) -> CheckFindings:
        return _to_findings(check(folder, run=run_id, trials=trials))

    return check_trials


def _has_baseline(folder: Path, run_id: str | None, experiment: Experiment | None) -> bool:
    if experiment is not None:
        return default_folder(experiment.file, experiment.name).is_dir()
    with Store.open(folder, readonly=True) as store:
        record = find_run_record(store, run_id)
    return default_folder(Path(record.file), record.experiment).is_dir()


def write_review(comparisons: Comparisons, out: Path) -> None:
    """Write the page of a check: the report of its run, which opens on the cases that are not the same.

    Raises ResultsError if the folder cannot be written.
    """
    trials = {comparison.trial for comparison in comparisons if comparison.trial is not None}
    run = None if comparisons.run is None else str(comparisons.run)
    checked = _to_findings(comparisons, is_review=True)
    write_report(comparisons.results, out, run=run, checked=checked, trials=trials or None)


def _to_findings(comparisons: Comparisons, *, is_review: bool = False) -> CheckFindings:
    findings = [
        Finding(
            item.trial, item.state, item.reason, item.case.name, item.accepted, item.metrics, item.case.node,
            item.case.position, item.verdict, item.severity, _compare_texts(item) if is_review else "",
        )
        for item in comparisons
        if item.trial is not None
    ]  # fmt: skip
    missing_cases = [item.case.name for item in comparisons if item.trial is None]
    return CheckFindings(
        comparisons.baseline, STATES, findings, missing_cases, comparisons.list_notes(), is_review=is_review,
        accept_command=comparisons.accept_command,
    )  # fmt: skip


def _compare_texts(comparison: Comparison) -> str:
    """The lines in which two texts differ, as a unified diff; empty for other files."""
    accepted, now = comparison.accepted, comparison.now
    if accepted is None or now is None or now.suffix[1:].lower() not in TEXT_TYPES:
        return ""
    if not accepted.is_file() or not now.is_file():
        return ""
    before, after = (path.read_text("utf-8", "replace").splitlines() for path in (accepted, now))
    return "\n".join(islice(difflib.unified_diff(before, after, "accepted", "now", lineterm=""), _MAX_LINES))
