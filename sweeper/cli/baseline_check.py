"""A run held against its baseline, as the page shows it: `report` asks once, the live view as the run goes on.

The one place that turns the regression suite's comparisons into the page's findings; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.cli import console
from sweeper.errors import InputError, ResultsError

if TYPE_CHECKING:
    from sweeper.model.experiment import Experiment
    from sweeper.regression.comparison import Comparisons
    from sweeper.reporting.check_findings import CheckFindings
    from sweeper.reporting.live.check_follower import CheckFunction


def check_results(folder: Path, run_id: str | None, baseline: Path | None) -> CheckFindings | None:
    """What a check of this run finds; None where nothing was ever accepted. Raises ResultsError where a baseline was
    asked for and is not there.
    """
    from sweeper.regression.check import check  # noqa: PLC0415 - each command imports what it uses

    if baseline is None and not _has_baseline(folder, run_id, None):
        return None
    try:
        found = check(folder, baseline, run=run_id)
    except InputError as error:
        if baseline is not None:
            raise
        console.warn(f"not held against its baseline: {str(error).splitlines()[0]}")
        return None
    if not found.has_baseline and baseline is not None:
        raise ResultsError(f"{baseline}: no baseline here; `{found.accept_command}` makes one")
    return _to_findings(found) if found.has_baseline else None


def make_live_check(folder: Path, run_id: str | None, experiment: Experiment | None) -> CheckFunction | None:
    """What holds trials of a run that goes on against the baseline beside its experiment; None where there is none."""
    if not _has_baseline(folder, run_id, experiment):
        return None

    def check_trials(trials: Collection[int] | None) -> CheckFindings:
        from sweeper.regression.check import check  # noqa: PLC0415 - as above

        return _to_findings(check(folder, run=run_id, trials=trials))

    return check_trials


def _has_baseline(folder: Path, run_id: str | None, experiment: Experiment | None) -> bool:
    from sweeper.regression.baseline import default_folder  # noqa: PLC0415 - as above
    from sweeper.reporting.contents import find_run_record  # noqa: PLC0415
    from sweeper.store import Store  # noqa: PLC0415

    if experiment is not None:
        return default_folder(experiment.file, experiment.name).is_dir()
    with Store.open(folder, readonly=True) as store:
        record = find_run_record(store, run_id)
    return default_folder(Path(record.file), record.experiment).is_dir()


def _to_findings(comparisons: Comparisons) -> CheckFindings:
    from sweeper.regression.comparison import STATES  # noqa: PLC0415 - as above
    from sweeper.reporting.check_findings import CheckFindings, Finding  # noqa: PLC0415

    findings = [
        Finding(
            *(one.trial, one.state, one.reason, one.case.name, one.accepted, one.metrics),
            node=one.case.node,
            position=one.case.position,
        )
        for one in comparisons
        if one.trial is not None
    ]
    gone = [one.case.name for one in comparisons if one.trial is None]
    return CheckFindings(comparisons.baseline, STATES, findings, gone)
