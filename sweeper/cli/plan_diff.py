"""`sweeper plan --diff`: compare a plan with the rows of an earlier run.

A trial is *same* if the run has its digest, *changed* if the run has another digest for the same axis values, and *new*
otherwise. A row of the run that matches no trial is *gone*. Whether rows succeeded does not matter here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.cli.plan_summary import PlanSummary
from sweeper.errors import UsageError
from sweeper.model.money import CURRENCY, NOTHING
from sweeper.model.result import Result
from sweeper.model.trial import Trial
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store
from sweeper.tables.results_folder import find_results_folder

MAX_LISTED: Final = 1_000  # trials of each kind; the counts include all


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """What a comparison needs of a row of the run: `columns` are its axis values, `params` its slot values."""

    trial: int
    columns: Mapping[str, Any]
    params: Mapping[str, Any]
    digest: str


class PlanDiff:
    """Compares the trials of a plan, added one by one, with the rows of a run."""

    def __init__(self, folder: Path, run: int | str | None, summary: PlanSummary) -> None:
        """`run` None: the latest in the folder. Raises ResultsError if there is none.

        Each trial must be added to the `summary` of the plan before it is added here.
        """
        with Store.open(folder, readonly=True) as store:
            self.run = int(run) if run is not None else store.latest_run_id()
            rows = [_to_earlier_trial(row) for row in store.results(run)]
        self.folder = folder
        self._rows = rows
        self._digests = {row.digest for row in rows}
        self._rows_by_axes: dict[bytes, list[EarlierTrial]] = {}
        for row in rows:
            self._rows_by_axes.setdefault(encode_canonical(row.columns), []).append(row)
        self._summary = summary
        self._cost = NOTHING
        self._matched_digests: set[str] = set()
        self._changed_rows: set[int] = set()
        self.counts = {"same": 0, "new": 0, "changed": 0, "gone": 0}
        self._new: list[dict[str, Any]] = []
        self._changed: list[dict[str, Any]] = []

    def add(self, trial: Trial) -> None:
        """Compare one trial of the plan."""
        prices = self._summary.prices
        if prices.has_partner_nodes and self._summary.is_distinct(trial):
            self._cost += prices.price_params(trial.params)
        if trial.digest in self._digests:
            self._matched_digests.add(trial.digest)
            self.counts["same"] += 1
            return
        row = next(iter(self._rows_by_axes.get(encode_canonical(trial.columns), ())), None)
        if row is None:
            self.counts["new"] += 1
            if len(self._new) < MAX_LISTED:
                self._new.append({"trial": trial.index, "axes": dict(trial.columns)})
            return
        self._changed_rows.add(row.trial)
        self.counts["changed"] += 1
        if len(self._changed) < MAX_LISTED:
            self._changed.append(
                {
                    "trial": trial.index,
                    "was": row.trial,
                    "axes": dict(trial.columns),
                    "params": _diff_params(row.params, trial.params),
                }
            )

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON: the counts, and up to `MAX_LISTED` new, changed and gone trials."""
        gone = [
            row for row in self._rows if row.digest not in self._matched_digests and row.trial not in self._changed_rows
        ]
        self.counts["gone"] = len(gone)
        return {
            "results": str(self.folder),
            "run": self.run,
            **self.counts,
            "cost": self._describe_cost(),
            "trials": {
                "new": self._new,
                "changed": self._changed,
                "gone": [{"trial": row.trial, "axes": dict(row.columns)} for row in gone[:MAX_LISTED]],
            },
        }

    def _describe_cost(self) -> dict[str, Any] | None:
        """What the partner nodes cost, at the same prices, in the run and in the plan, and `time` of the jobs likewise.

        Each job takes the mean time of earlier jobs. `time` is None if it or its price is not known. The result is
        None if `time` is None and the plan has no partner nodes.
        """
        prices = self._summary.prices
        jobs = {row.digest: row for row in self._rows}
        before, now = prices.price_mean_jobs(len(jobs)), prices.price_mean_jobs(self._summary.distinct_count)
        if not prices.has_partner_nodes and before is None:
            return None
        nodes = sum((prices.price_params(row.params) for row in jobs.values()), NOTHING)
        return {
            "currency": CURRENCY,
            "run": nodes.to_dict(),
            "plan": self._cost.to_dict(),
            "time": None if before is None or now is None else {"run": before.to_dict(), "plan": now.to_dict()},
        }


def resolve_diff_run(reference: str, out: Path) -> tuple[Path, str | None]:
    """The folder and run that `--diff` names: the number of a run in `out`, or another results folder (latest run)."""
    if reference.isdecimal() and not Path(reference).exists():
        if not out.is_dir():
            raise UsageError(f"--diff {reference}: {out} holds no results yet; you can also give a results folder")
        return out, reference
    return find_results_folder(reference), None


def _to_earlier_trial(row: Result) -> EarlierTrial:
    return EarlierTrial(row.trial, row.columns, row.params, row.digest)


def _diff_params(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Slot -> [earlier value, current value] where they differ; None where one of the two has no such slot."""
    names = dict.fromkeys([*current, *earlier])
    return {
        name: [earlier.get(name), current.get(name)]
        for name in names
        if (name in earlier) != (name in current)
        or encode_canonical(earlier.get(name)) != encode_canonical(current.get(name))
    }
