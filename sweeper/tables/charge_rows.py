"""What the jobs of results folders were charged, charge by charge, and its sums by target, day or any other value.

All runs of a folder count, because each was paid for. The table of a folder shows fewer jobs: no retries, no failures
that were repeated, and no results that others replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper.model.charges import KINDS, find_weakest_kind, sum_charges
from sweeper.model.money import CURRENCY, Amount
from sweeper.store import Store
from sweeper.store.job_charges import JobCharge
from sweeper.tables.aggregate import group_rows

CSV_COLUMNS = (
    "folder", "run", "trial", "target", "day", "node", "class", "low", "high", "currency", "kind", "kept",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """A charge and the first trial of its job, with the cells of the trial's axes and slots.

    `is_kept`: whether the folder's table shows a successful result of the job.
    """

    folder: Path
    job: JobCharge
    trial: int | None
    cells: Mapping[str, Any]
    is_kept: bool

    @property
    def day(self) -> str:
        """The day of the submission in UTC, as `2026-11-27`."""
        return datetime.fromtimestamp(self.job.intended, UTC).date().isoformat()

    @property
    def class_type(self) -> str | None:
        """The class of the partner node; None for a charge of the job itself."""
        return self.job.charge.class_type or None


@dataclass(frozen=True, slots=True)
class ChargeSum:
    """What some charges are together. `spent` is the sum of `kept`, `rest` and `open`.

    `kept` paid for results that a table shows, `open` is what jobs that have not ended cost at most, and `rest` paid
    for failures, for retries and for results that others replaced. `kinds` has the sum of each kind that there is, the
    surest first, and `kind` is the least sure.
    """

    jobs: int
    open_jobs: int
    spent: Amount
    kept: Amount
    rest: Amount
    open: Amount
    kinds: Mapping[str, Amount]

    @property
    def kind(self) -> str | None:
        return find_weakest_kind(self.kinds)


def load_charge_rows(folders: Iterable[Path]) -> list[ChargeRow]:
    """The charges of all runs, folder by folder, in the order of runs and trials. Raises ResultsError."""
    rows: list[ChargeRow] = []
    for folder in folders:
        with Store.open(folder, readonly=True) as store:
            jobs, trials = list(store.charges.iter_all()), store.charges.load_trials()
            result_jobs = store.list_result_jobs() if jobs else ()
        found = []
        for job in jobs:
            trial, cells = trials.get((job.run, job.digest), (None, {}))
            found.append(ChargeRow(folder, job, trial, cells, job.job in result_jobs))
        rows += sorted(found, key=lambda row: (row.job.run, -1 if row.trial is None else row.trial))
    return rows


def add_up(rows: Sequence[ChargeRow]) -> ChargeSum:
    """The sum of some charges."""
    unended = [row for row in rows if row.job.is_open]
    kinds = {kind: [row for row in rows if row.job.charge.kind == kind] for kind in KINDS}
    return ChargeSum(
        _count_jobs(rows),
        _count_jobs(unended),
        _sum_amounts(rows),
        _sum_amounts(row for row in rows if row.is_kept),
        _sum_amounts(row for row in rows if not row.is_kept and not row.job.is_open),
        _sum_amounts(unended),
        {kind: _sum_amounts(of_kind) for kind, of_kind in kinds.items() if of_kind},
    )


def _count_jobs(rows: Iterable[ChargeRow]) -> int:
    return len({(row.folder, row.job.job) for row in rows})


def _sum_amounts(rows: Iterable[ChargeRow]) -> Amount:
    return sum_charges(row.job.charge for row in rows)


def group_charges(rows: Iterable[ChargeRow], get_value: Callable[[ChargeRow], Any]) -> list[tuple[Any, ChargeSum]]:
    """The sum of the charges of each value, in the order in which the values appear."""
    groups = group_rows([{"value": get_value(row), "row": row} for row in rows], ["value"])
    return [(group.values[0], add_up([row["row"] for row in group.rows])) for group in groups]


def list_axes(rows: Iterable[ChargeRow]) -> list[str]:
    """The names of all axes and slots of the rows."""
    return list(dict.fromkeys(name for row in rows for name in row.cells))


def iter_csv_rows(rows: Iterable[ChargeRow], axes: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of `CSV_COLUMNS` and then of these axes, for each charge."""
    for row in rows:
        job, charge = row.job, row.job.charge
        amount = charge.amount.to_dict()
        yield (
            str(row.folder), job.run, row.trial, job.target, row.day, charge.node or None, row.class_type,
            amount["low"], amount["high"], CURRENCY, charge.kind, row.is_kept,
            *map(row.cells.get, axes),
        )  # fmt: skip
