"""The counts of a run, for those who show its progress: a terminal, a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sweeper.model.money import CURRENCY, NOTHING, TargetPrice, format_usd
from sweeper.model.result import FAILED, SUCCEEDED
from sweeper.planning.pricing import LearntTimes, price_time
from sweeper.running import run_events as events


class RunCounts:
    """The counts of a run, from its events. A trial is under way until its files are downloaded.

    `rates` are the prices of its targets, to forecast what the time of the other jobs costs.
    """

    def __init__(self, rates: Sequence[TargetPrice] = ()) -> None:
        self._rates = rates
        self._seconds: list[float] = []  # of each job that succeeded
        self.cost: events.CostChanged | None = None  # the latest
        self.runs = 0
        self.todo = 0
        self.statuses: Counter[str] = Counter()
        self.in_flight: set[int] = set()
        self.waiting: dict[int, events.JobQueued] = {}  # the latest of each trial whose job waits on its server
        self.awaited: dict[str, float] = {}  # by target for which the run can only wait: the seconds left

    def count(self, event: events.Event) -> None:
        """Update the counts with one event."""
        match event:
            case events.RunStarted():  # also starts a second run, such as that of `check --attribute`
                self.todo = event.todo
                self.runs += 1
                self.statuses.clear()
                self.in_flight.clear()
                self.waiting.clear()
                self.awaited.clear()
            case events.WaitingForTarget(seconds=None) | events.TargetUp() | events.TargetDown():
                self.awaited.pop(event.target, None)
            case events.WaitingForTarget(seconds=float(seconds)):
                self.awaited[event.target] = seconds
            case events.Draining():
                self.awaited.clear()
            case events.CostChanged():
                self.cost = event
            case events.JobSubmitted():
                self.in_flight.add(event.trial)
            case events.JobQueued() | events.JobProgress():
                self._count_waiting(event)
            case events.Retrying():
                self._end_job(event.trial)
            case events.TrialDone():
                self._end_trial(event)

    def _count_waiting(self, event: events.JobQueued | events.JobProgress) -> None:
        if isinstance(event, events.JobQueued) and event.reason:
            self.waiting[event.trial] = event
        else:
            self.waiting.pop(event.trial, None)

    def _end_trial(self, event: events.TrialDone) -> None:
        self._end_job(event.trial)
        self.statuses[event.status] += 1
        if event.status == SUCCEEDED and event.seconds is not None:
            self._seconds.append(event.seconds)

    def _end_job(self, trial: int) -> None:
        self.in_flight.discard(trial)
        self.waiting.pop(trial, None)

    @property
    def done(self) -> int:
        """Trials that ended. Trials that share one job count separately."""
        return sum(self.statuses.values())

    @property
    def total(self) -> int:
        return max(self.todo, self.done + len(self.in_flight))

    @property
    def queued(self) -> int:
        return self.total - self.done - len(self.in_flight)

    def describe_waiting(self) -> str:
        """Why jobs wait on their servers: ` (1 waiting there: concurrency limit, position 3)`; empty if none does."""
        reasons = Counter(event.reason for event in self.waiting.values())
        positions = [event.position for event in self.waiting.values() if event.position is not None]
        texts = [f"{count} waiting there: {reason.replace('_', ' ')}" for reason, count in sorted(reasons.items())]
        first = f", position {min(positions)}" if positions else ""
        return f" ({'; '.join(texts)}{first})" if texts else ""

    def describe_awaited(self) -> str:
        """For which targets the run waits, and how long it still does; empty if it can go on."""
        if not self.awaited:
            return ""
        targets = " and ".join(self.awaited)
        return f"waiting only for {targets}, {max(self.awaited.values()):.0f} s left"

    def describe_cost(self) -> str:
        """What the jobs that have not ended cost on the targets: `; 4.30-6.10 USD of GPU left`; empty if unknown."""
        left = self.total - self.done
        if not self._rates or not left:
            return ""
        if not any(rate.per_second for rate in self._rates):
            return f"; {price_time(self._rates, left, None)} of jobs left"
        seconds = LearntTimes(jobs=self._seconds).estimate_seconds(left)
        return f"; {price_time(self._rates, left, seconds)} of GPU left" if seconds is not None else ""

    def describe_spent(self) -> str:
        """What the results folder has cost: `; 12.10 of 20.00 USD spent`; empty if nothing in it costs anything."""
        if self.cost is None or self.cost.spent == NOTHING:
            return ""
        spent, budget = self.cost.spent, self.cost.budget
        if budget is None or spent.high is None:
            return f"; {spent} spent"
        return f"; {format_usd(spent.high)} of {format_usd(budget)} {CURRENCY} spent"

    def __str__(self) -> str:
        awaited = self.describe_awaited()
        return (
            f"{self.statuses[SUCCEEDED]} done, {self.statuses[FAILED]} failed, "
            f"{len(self.in_flight)} under way{self.describe_waiting()}, {self.queued} queued"
            f"{self.describe_cost()}{self.describe_spent()}{awaited and f'; {awaited}'}"
        )
