"""`sweeper plan --diff`: a plan held against the rows of an earlier run, by the identity of the work.

A trial is *same* when the run has its digest, *changed* when the run has another work under the same axis values, and
*new* otherwise; a row of the run that is neither is *gone*. What became of the rows is `sweeper results`' affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.errors import UsageError
from sweeper.model.workflow import encode_canonical
from sweeper.store import Store

if TYPE_CHECKING:
    from sweeper.model.result import Result
    from sweeper.model.trial import Trial

MAX_LISTED: Final = 1_000  # of each kind; the counts are of all


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """One row of the run, as far as it matters here."""

    trial: int
    columns: Mapping[str, Any]
    params: Mapping[str, Any]
    digest: str


class PlanDiff:
    """Sees the trials of a plan pass, one by one, and tells what they are beside the rows of a run."""

    def __init__(self, folder: Path, run: int | str | None) -> None:
        """`run` None: the latest of the folder. Raises ResultsError when there is none."""
        with Store.open(folder, readonly=True) as store:
            self.run = int(run) if run is not None else store.latest_run_id()
            rows = [_to_earlier_trial(row) for row in store.results(run)]
        self.folder = folder
        self._rows = rows
        self._digests = {row.digest for row in rows}
        self._rows_by_axes: dict[bytes, list[EarlierTrial]] = {}
        for row in rows:
            self._rows_by_axes.setdefault(encode_canonical(row.columns), []).append(row)
        self._matched_digests: set[str] = set()
        self._changed_rows: set[int] = set()
        self.counts = {"same": 0, "new": 0, "changed": 0, "gone": 0}
        self._new: list[dict[str, Any]] = []
        self._changed: list[dict[str, Any]] = []

    def add(self, trial: Trial) -> None:
        """Count one trial of the plan."""
        if trial.digest in self._digests:
            self._matched_digests.add(trial.digest)
            self.counts["same"] += 1
            return
        place = next(iter(self._rows_by_axes.get(encode_canonical(trial.columns), ())), None)
        if place is None:
            self.counts["new"] += 1
            if len(self._new) < MAX_LISTED:
                self._new.append({"trial": trial.index, "axes": dict(trial.columns)})
            return
        self._changed_rows.add(place.trial)
        self.counts["changed"] += 1
        if len(self._changed) < MAX_LISTED:
            self._changed.append(
                {
                    "trial": trial.index,
                    "was": place.trial,
                    "axes": dict(trial.columns),
                    "params": _diff_params(place.params, trial.params),
                }
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the counts, and up to `LISTED` trials of each kind but the same ones."""
        gone = [
            row for row in self._rows if row.digest not in self._matched_digests and row.trial not in self._changed_rows
        ]
        self.counts["gone"] = len(gone)
        return {
            "results": str(self.folder),
            "run": self.run,
            **self.counts,
            "trials": {
                "new": self._new,
                "changed": self._changed,
                "gone": [{"trial": row.trial, "axes": dict(row.columns)} for row in gone[:MAX_LISTED]],
            },
        }


def resolve_diff_run(reference: str, out: Path) -> tuple[Path, str | None]:
    """The folder and run that `--diff` means: a run's number in the experiment's folder, or a folder's latest run."""
    from sweeper.tables.dataframe import find_results_folder  # noqa: PLC0415

    if reference.isdecimal() and not Path(reference).exists():
        if not out.is_dir():
            raise UsageError(
                f"--diff {reference}: there are no results in {out} yet; a folder of results can be given too"
            )
        return out, reference
    return find_results_folder(reference), None


def _to_earlier_trial(row: Result) -> EarlierTrial:
    return EarlierTrial(row.trial, row.columns, row.params, row.digest)


def _diff_params(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Slot -> [earlier value, value now] where they differ; a slot that one of the two lacks is null there."""
    names = dict.fromkeys([*current, *earlier])
    return {
        name: [earlier.get(name), current.get(name)]
        for name in names
        if (name in earlier) != (name in current)
        or encode_canonical(earlier.get(name)) != encode_canonical(current.get(name))
    }
