"""What all jobs of a results folder cost, in all its runs; one that has not ended counts with what it costs at most.

It mirrors the table `charges` of the store in memory, so that nothing is added up anew before each submission.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sweeper.model.charges import Charge, sum_charges
from sweeper.model.money import NOTHING, Amount
from sweeper.running.run_events import CostChanged
from sweeper.store import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from sweeper.running.job_prices import JobPrices, JobUsage
    from sweeper.running.run_events import Event
    from sweeper.store.job_charges import JobCharge
    from sweeper.store.records import JobRecord

_FREE_STATES = (records.UNSENT, records.REJECTED)


class Spending:
    """The amounts of all jobs, by `prices`. `earlier`: the charges that the store has. `report` gets the new sums."""

    def __init__(self, prices: JobPrices, earlier: Iterable[JobCharge], report: Callable[[Event], None]) -> None:
        self.prices = prices
        self._report = report
        self._amounts: dict[str, Amount] = {}  # by job id
        self._unbounded: set[str] = set()  # the jobs whose amount has no upper bound
        self._low = self._high = 0.0
        for one in earlier:
            self._replace(one.job, self._amounts.get(one.job, NOTHING) + one.charge.amount)

    @property
    def spent(self) -> Amount:
        """The sum of all jobs."""
        return Amount(self._low, math.inf if self._unbounded else self._high)

    def record_intent(self, job: JobRecord, params: Any) -> tuple[Charge, ...]:
        """Count a job that is about to be submitted. Returns what it costs at most, for the store."""
        charges = self.prices.price_at_most(job.target, params)
        if charges:
            self._replace(job.id, sum_charges(charges))
        return charges

    def record_end(self, job: JobRecord, params: Any, usage: JobUsage, now: float) -> tuple[Charge, ...] | None:
        """Count a job by what it cost. Returns its charges for the store; None: those of its intent.

        `job`: with its final state and times. `now`: seconds since 1970.
        """
        if job.state in _FREE_STATES or (job.state == records.LOST and job.prompt_id is None):
            charges: tuple[Charge, ...] | None = ()
        else:
            charges = self.prices.price_ended(job, params, usage, now - job.intended)
        if charges is not None and (charges or job.id in self._amounts):
            self._replace(job.id, sum_charges(charges))
            self._report(CostChanged(self.spent))
        return charges

    def _replace(self, job_id: str, amount: Amount) -> None:
        before = self._amounts.pop(job_id, NOTHING)
        self._low += amount.low - before.low
        if job_id in self._unbounded:
            self._unbounded.discard(job_id)
        else:
            self._high -= before.high
        if math.isinf(amount.high):
            self._unbounded.add(job_id)
        else:
            self._high += amount.high
        if amount != NOTHING:
            self._amounts[job_id] = amount
