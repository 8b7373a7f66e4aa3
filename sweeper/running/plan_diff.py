"""`sweeper plan --diff`: compare a plan with the rows of an earlier run, whether these succeeded or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sweeper.errors import UsageError
from sweeper.model.money import NOTHING
from sweeper.model.result import Result
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical
from sweeper.running.count_plan import PlanCounter
from sweeper.running.plan_answer import CostChange, CostChanges, DifferentTrial, PlanDifferences
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder

_MAX_LISTED: Final = 1_000  # trials of each kind; the counts include all


class PlanDiff:
    """Compares the trials of a plan, added one by one, with the rows of a run."""

    def __init__(self, folder: Path, run: int | str | None, counter: PlanCounter) -> None:
        """`run` None: the latest in the folder. Raises ResultsError if there is none.

        Each trial must be added to the `counter` of the plan before it is added here.
        """
        with Store.open(folder, readonly=True) as store:
            self.run = int(run) if run is not None else store.latest_run_id()
            self._rows = list(store.results(run))
        self.folder = folder
        self._digests = {row.digest for row in self._rows}
        self._rows_by_axes: dict[bytes, list[Result]] = {}
        for row in self._rows:
            self._rows_by_axes.setdefault(encode_canonical(row.columns), []).append(row)
        self._counter = counter
        self._cost = NOTHING
        self._matched_digests: set[str] = set()
        self._changed_rows: set[int] = set()
        self._counts = {"same": 0, "new": 0, "changed": 0}
        self._new: list[DifferentTrial] = []
        self._changed: list[DifferentTrial] = []

    def add(self, trial: Trial) -> None:
        """Compare one trial of the plan."""
        prices = self._counter.prices
        if prices.has_partner_nodes and self._counter.is_distinct(trial):
            self._cost += prices.price_params(trial.params)
        if trial.digest in self._digests:
            self._matched_digests.add(trial.digest)
            self._counts["same"] += 1
            return
        row = next(iter(self._rows_by_axes.get(encode_canonical(trial.columns), ())), None)
        if row is None:
            self._counts["new"] += 1
            if len(self._new) < _MAX_LISTED:
                self._new.append(DifferentTrial(trial.index, dict(trial.columns)))
            return
        self._changed_rows.add(row.trial)
        self._counts["changed"] += 1
        if len(self._changed) < _MAX_LISTED:
            params = _diff_params(row.params, trial.params)
            self._changed.append(DifferentTrial(trial.index, dict(trial.columns), row.trial, params))

    def answer(self) -> PlanDifferences:
        """The comparison. Call it after all trials were added."""
        gone = [
            row for row in self._rows if row.digest not in self._matched_digests and row.trial not in self._changed_rows
        ]
        listed = tuple(DifferentTrial(row.trial, dict(row.columns)) for row in gone[:_MAX_LISTED])
        return PlanDifferences(
            results=str(self.folder),
            run=self.run,
            **self._counts,
            gone=len(gone),
            cost=self._compute_cost(),
            trials={"changed": tuple(self._changed), "new": tuple(self._new), "gone": listed},
        )

    def _compute_cost(self) -> CostChanges | None:
        """The costs at today's prices. Each job takes the mean time of earlier jobs."""
        prices = self._counter.prices
        jobs = {row.digest: row for row in self._rows}
        before, now = prices.price_mean_jobs(len(jobs)), prices.price_mean_jobs(self._counter.distinct_count)
        if not prices.has_partner_nodes and before is None:
            return None
        nodes = sum((prices.price_params(row.params) for row in jobs.values()), NOTHING)
        time = None if before is None or now is None else CostChange(before, now)
        return CostChanges(CostChange(nodes, self._cost), time)


def resolve_diff_run(reference: str, out: Path) -> tuple[Path, str | None]:
    """The folder and run that `--diff` names: the number of a run in `out`, or another results folder (latest run)."""
    if reference.isdecimal() and not Path(reference).exists():
        if not out.is_dir():
            raise UsageError(f"--diff {reference}: {out} holds no results yet; you can also give a results folder")
        return out, reference
    return find_results_folder(reference), None


def _diff_params(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Slot -> (earlier value, current value) where they differ."""
    names = dict.fromkeys([*current, *earlier])
    return {
        name: (earlier.get(name), current.get(name))
        for name in names
        if (name in earlier) != (name in current)
        or encode_canonical(earlier.get(name)) != encode_canonical(current.get(name))
    }
