"""What all jobs of a results folder cost, in all its runs, and whether another one fits into the budget.

A job that has not ended counts with what it costs at most. This mirrors the table `charges` of the store in memory, so
that nothing is added up anew before each submission.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sweeper.errors import SweeperError
from sweeper.model.charges import OF_JOB, Charge, sum_charges
from sweeper.model.money import NOTHING, Amount
from sweeper.running.async_tools import cancel_when
from sweeper.running.run_events import CostChanged
from sweeper.store import records

if TYPE_CHECKING:
    from sweeper.model.trial import Trial
    from sweeper.running.job_prices import JobPrices, JobUsage
    from sweeper.running.run_events import Event
    from sweeper.store.job_charges import JobCharge
    from sweeper.store.records import JobRecord

_FREE_STATES: Final = (records.UNSENT, records.REJECTED)
_ROUNDING: Final = 1e-9  # US dollars


class OverBudgetError(SweeperError):
    """A job does not fit into the budget, and no job in flight may still end cheaper than expected."""


class FolderSpending:
    """The amounts of all jobs, by `prices`, and the `budget` for them in US dollars, None without a limit.

    `earlier`: the charges that the store has. `report` gets the new sum after each job. `on_end()` is called then, too,
    because other jobs may fit into the budget now.
    """

    def __init__(
        self,
        prices: JobPrices,
        earlier: Iterable[JobCharge] = (),
        *,
        budget: float | None = None,
        report: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.prices, self.budget = prices, budget
        self.on_end: Callable[[], None] = lambda: None
        self._report = report
        self._amounts: dict[str, Amount] = {}  # by job id
        self._unbounded: set[str] = set()  # the jobs whose amount has no upper bound
        self._in_flight: set[str] = set()  # the jobs that this run submits or follows now, if they cost something
        self._low = self._high = 0.0
        self._changed = asyncio.Event()
        self.unbounded_charges: list[JobCharge] = []  # of earlier runs
        for one in earlier:
            amount = prices.bound(one.charge)
            self._replace(one.job, self._amounts.get(one.job, NOTHING) + amount)
            if math.isinf(amount.high):
                self.unbounded_charges.append(one)

    @property
    def spent(self) -> Amount:
        """The sum of all jobs."""
        return Amount(self._low, math.inf if self._unbounded else self._high)

    def report(self) -> None:
        """Report the sum."""
        self._report(CostChanged(self.spent, self.budget))

    # --- the life of a job

    async def wait_until_fits(self, target: str, trial: Trial, stopped: asyncio.Event) -> None:
        """Wait until a job of a target fits into the budget, or the run stops. Record its intent at once.

        Waits while jobs in flight may end cheaper than expected. Raises OverBudgetError if there is none.
        """
        while not self.fits(target, trial) and not stopped.is_set():
            if not self._in_flight:
                raise OverBudgetError("the next job does not fit into the budget")
            await cancel_when(stopped.wait(), self._changed.wait())

    def count_affordable(self, target: str, trial: Trial) -> float:
        """Return how many jobs like this one fit into the budget; infinite if they cost nothing or there is none."""
        most = sum_charges(self.prices.price_at_most(target, trial)).high
        if self.budget is None or not most:
            return math.inf
        if not self.fits(target, trial):
            return 0
        return max(1, (self.budget + _ROUNDING - self.spent.high) // most)

    def fits(self, target: str, trial: Trial) -> bool:
        """Whether a job of a target fits into the budget, with all others at what they cost at most.

        If nothing shows yet how long a job takes, one at a time may take what is left of the budget and more.
        """
        charges = self.prices.price_at_most(target, trial) if self.budget is not None else ()
        most = sum_charges(charges)
        if self.budget is None or not most.high:
            return True
        left = self.budget + _ROUNDING - self.spent.high
        if most.high <= left:
            return True
        if self.prices.is_time_known(target) or self._in_flight:
            return False
        least = sum(charge.amount.low if charge.node == OF_JOB else charge.amount.high for charge in charges)
        return left > 2 * _ROUNDING and least <= left

    def record_intent(self, job: JobRecord, trial: Trial) -> tuple[Charge, ...]:
        """Count a job that is about to be submitted. Returns what it costs at most, for the store."""
        charges = self.prices.price_at_most(job.target, trial)
        if charges:
            self._replace(job.id, sum_charges(charges))
            self.follow(job)
        return charges

    def adopt(self, job: JobRecord, trial: Trial) -> None:
        """Count an open job of an earlier run with what it costs at most, unless its charges are known."""
        if job.id not in self._amounts:
            self._replace(job.id, sum_charges(self.prices.price_at_most(job.target, trial)))

    def follow(self, job: JobRecord) -> None:
        """Note that this run follows an open job to its end."""
        if job.id in self._amounts:
            self._in_flight.add(job.id)

    def leave(self, job_id: str) -> None:
        """Note that this run does not follow a job at the moment, so that nothing waits for its end."""
        self._in_flight.discard(job_id)
        self._wake()

    def record_end(self, job: JobRecord, trial: Trial, usage: JobUsage, now: float) -> tuple[Charge, ...] | None:
        """Count a job by what it cost. Returns its charges for the store; None: those of its intent.

        `job`: with its final state and times. `now`: seconds since 1970.
        """
        if job.state in _FREE_STATES or (job.state == records.LOST and job.prompt_id is None):
            charges: tuple[Charge, ...] | None = ()
        else:
            charges = self.prices.price_ended(job, trial, usage, now - job.intended)
        if charges is not None and (charges or job.id in self._amounts):
            self._replace(job.id, sum_charges(charges))
            self.report()
        self.leave(job.id)
        self.on_end()
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

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
