"""Compare a run with its baseline for the HTML page: once for `report`, again and again for `view`.

Turns the regression suite's comparisons into the page's findings, so that neither package has to import the other.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sweeper.cli import console
from sweeper.errors import InputError, ResultsError
from sweeper.model.experiment import Experiment
from sweeper.regression.baseline import default_folder
from sweeper.regression.check import check
from sweeper.regression.comparison import STATES, Comparisons
from sweeper.reporting.check_findings import CheckFindings, Finding
from sweeper.reporting.contents import find_run_record
from sweeper.reporting.live.check_follower import CheckFunction
from sweeper.store import Store


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


def _to_findings(comparisons: Comparisons) -> CheckFindings:
    findings = [
        Finding(
            *(
                comparison.trial,
                comparison.state,
                comparison.reason,
                comparison.case.name,
                comparison.accepted,
                comparison.metrics,
            ),
            node=comparison.case.node,
            position=comparison.case.position,
        )
        for comparison in comparisons
        if comparison.trial is not None
    ]
    missing_cases = [comparison.case.name for comparison in comparisons if comparison.trial is None]
    return CheckFindings(comparisons.baseline, STATES, findings, missing_cases)
