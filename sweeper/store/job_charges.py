"""The charges of the jobs in a results folder: what was spent, and what jobs that have not ended may cost at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sweeper.model.money import AT_LEAST, Amount, Charge, JobCost, find_weakest_kind
from sweeper.store.database import Database
from sweeper.store.records import LOST, OPEN_STATES, REJECTED, UNSENT, parse_trial

# The charges `c` of the jobs `j` that a server may have executed. It never executes what it refuses.
_OF_EXECUTED: Final = f"""
FROM charges c JOIN jobs j ON j.id = c.job
WHERE j.state NOT IN ('{UNSENT}', '{REJECTED}') AND NOT (j.state = '{LOST}' AND j.prompt_id IS NULL)
"""
# What `_to_cost` reads.
_COST: Final = "sum(coalesce(c.high, c.low)), group_concat(DISTINCT c.kind), count(*) - count(c.high)"
# With min(), SQLite takes the other columns from the same row.
_SELECT_TRIALS: Final = f"""
SELECT r.id, t.digest, min(t.idx), t.params, t.columns
FROM runs r JOIN trials t ON t.run = r.trials_of WHERE (r.id, t.digest) IN (SELECT j.run, j.digest {_OF_EXECUTED})
GROUP BY r.id, t.digest
"""  # noqa: S608 - all parts are constants
# The first job that made a file. An upsert would turn the OR REPLACE of the triggers into an error.
_FIRST_JOB: Final = "SELECT job FROM artifacts WHERE sha256 = ? ORDER BY job LIMIT 1"
_ADD: Final = f"UPDATE charges SET low = low + ?, high = high + ? WHERE node = ? AND job = ({_FIRST_JOB})"  # noqa: S608
_INSERT: Final = f"INSERT INTO charges SELECT job, ?, ?, ?, ?, ? FROM ({_FIRST_JOB})"  # noqa: S608 - all parts are constants


@dataclass(frozen=True, slots=True)
class JobCharge:
    """A charge with its job: id, run, target, digest, state, and when it was submitted in seconds since 1970."""

    charge: Charge
    job: str
    run: int
    target: str
    digest: str
    state: str
    intended: float

    @property
    def is_open(self) -> bool:
        """Whether the job has not ended, so that the amount is what it costs at most."""
        return self.state in OPEN_STATES


class JobCharges:
    """The part of `Store` about charges, on the same database. Every method may raise ResultsError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def replace(self, job_id: str, charges: Iterable[Charge]) -> None:
        """Replace the charges of a job. Call inside `transaction`, with the record that they belong to."""
        self._database.execute("DELETE FROM charges WHERE job = ?", (job_id,))
        self._database.executemany(
            "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?)", [(job_id, *_to_row(charge)) for charge in charges]
        )

    def add(self, sha256: str, charge: Charge) -> None:
        """Add a charge to that of the same node of the job that made a file."""
        amount = charge.amount
        with self._database.transaction():
            added = self._database.execute(_ADD, (amount.low, amount.high, charge.node, sha256))
            if not added.rowcount:
                self._database.execute(_INSERT, (*_to_row(charge), sha256))

    def load_spent(self, run_id: int | None = None) -> Amount:
        """The sum of all charges of all runs or of one, those of jobs that have not ended included."""
        columns = "coalesce(sum(c.low), 0), coalesce(sum(c.high), 0), count(*) - count(c.high)"
        sql = f"SELECT {columns} {_OF_EXECUTED} AND j.run = coalesce(?, j.run)"
        ((low, high, unbounded),) = self._database.query(sql, (run_id,))
        return Amount(low, None if unbounded else high)

    def load_job_costs(self) -> dict[str, JobCost]:
        """What each job of all runs cost that has ended: job id -> cost. Jobs without a charge are left out."""
        sql = f"SELECT c.job, {_COST} {_OF_EXECUTED} AND j.state NOT IN {OPEN_STATES} GROUP BY c.job"
        return {job: _to_cost(*cost) for job, *cost in self._database.query(sql)}

    def load_whole_cost(self, run_id: int | None = None) -> JobCost | None:
        """What all jobs cost together, or those of one run, as one number; None if nothing has a price.

        A job that has not ended counts with what it costs at most.
        """
        (cost,) = self._database.query(f"SELECT {_COST} {_OF_EXECUTED} AND j.run = coalesce(?, j.run)", (run_id,))
        return None if cost[1] is None else _to_cost(*cost)

    def load_trials(self) -> dict[tuple[int, str], tuple[int, dict[str, Any]]]:
        """The first trial of each charged job in its run: (run, digest) -> (trial, the cells of its slots and axes)."""
        trials = {}
        for run, digest, index, params, columns in self._database.query(_SELECT_TRIALS):
            slots, axes = parse_trial(params, columns, self._database.path.parent)
            trials[run, digest] = index, {**slots, **axes}
        return trials

    def iter_all(self) -> Iterator[JobCharge]:
        """The charges of all jobs of all runs that a server may have executed, in the order of their submission."""
        columns = "c.node, c.class_type, c.low, c.high, c.kind, j.id, j.run, j.target, j.digest, j.state, j.intended"
        order = "ORDER BY j.intended, j.attempt, c.node"
        sql = f"SELECT {columns} {_OF_EXECUTED} {order}"
        for node, class_type, low, high, kind, *job in self._database.query(sql):
            yield JobCharge(Charge(node, class_type, Amount(low, high), kind), *job)


def _to_cost(micros: int, kinds: str, unbounded: int) -> JobCost:
    return JobCost(micros, f"{find_weakest_kind(kinds.split(','))}{AT_LEAST if unbounded else ''}")


def _to_row(charge: Charge) -> tuple[Any, ...]:
    return charge.node, charge.class_type, charge.amount.low, charge.amount.high, charge.kind
