"""What each job of a run costs: at most, before it is submitted, and by what really ran, after its end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sweeper.comfy.protocol import ReportedCharges
from sweeper.model.charges import ESTIMATED, MEASURED, OF_JOB, PRICED, Charge, sum_charges
from sweeper.model.money import NOTHING, Amount, TargetPrice
from sweeper.planning.prices import LearntTimes, PlanPrices
from sweeper.store.records import SUCCEEDED, JobRecord

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.node_classes import NodeInfo
    from sweeper.planning.plan import Plan

_MAX_TIMES: Final = 100  # of the latest jobs on a target, from which the time of the next one is estimated


@dataclass(frozen=True, slots=True)
class JobUsage:
    """What a server says about a job that ended.

    `executed`: the nodes that ran, so without those from its cache. `charged`: what it charged. None: it does not say.
    """

    executed: frozenset[str] | None = None
    charged: ReportedCharges | None = None


class JobPrices:
    """The prices of one run's jobs on its targets. `timeout`: the seconds that a job may run, None without a limit."""

    def __init__(self, plan: Plan, timeout: float | None) -> None:
        self._plan = plan
        self._timeout = timeout
        self._classes = {node: str(one["class_type"]) for node, one in plan.experiment.template.graph.items()}
        self._nodes: dict[str, PlanPrices] = {}  # by target
        self._rates: dict[str, TargetPrice] = {}
        self._seconds: dict[str, deque[float]] = {}  # of the latest jobs on each target

    def add_target(self, target: Target, classes: NodeInfo | None) -> None:
        """Add a target with its node classes; None if they are not known.

        The partner nodes of the embedded server are not real, so it charges only what the `price` of its target states.
        """
        rate = target.price or TargetPrice()
        self._nodes[target.name] = PlanPrices(self._plan, None if target.embedded else classes, [rate])
        self._rates[target.name] = rate
        self._seconds.setdefault(target.name, deque(maxlen=_MAX_TIMES))

    def learn(self, jobs: Iterable[JobRecord]) -> None:
        """Learn from the times of earlier jobs that succeeded."""
        for job in sorted(jobs, key=lambda job: job.intended):
            if job.state == SUCCEEDED and job.seconds is not None and job.target in self._seconds:
                self._seconds[job.target].append(job.seconds)

    @property
    def has_prices(self) -> bool:
        """Whether a job on any target costs something."""
        return any(prices.has_prices for prices in self._nodes.values())

    def price_at_most(self, target: str, params: Mapping[str, Any]) -> tuple[Charge, ...]:
        """Return what a job with these params costs at most: all its partner nodes run, and it takes long."""
        if target not in self._nodes or not self._nodes[target].has_prices:
            return ()
        nodes = self._nodes[target].price_nodes(params)
        if not self._rates[target].has_rate:
            return nodes
        return (*nodes, self._charge_time(target, self._estimate_seconds(target)))

    def is_time_known(self, target: str) -> bool:
        """Whether earlier jobs show how long one takes, or it does not matter."""
        return target not in self._rates or not self._rates[target].per_second or bool(self._seconds[target])

    def price_ended(
        self, job: JobRecord, params: Mapping[str, Any], usage: JobUsage, elapsed: float
    ) -> tuple[Charge, ...] | None:
        """Return what a job cost that a server had; None if nothing is known of the prices of its target.

        `job`: with its final state and times. `elapsed`: seconds from its intent to its end, for a job whose time
        nobody knows. If nobody knows which nodes ran, all count. A job that did not succeed may have been charged less.
        """
        target = job.target
        if target not in self._nodes:
            return None
        self.learn([job])
        charged = usage.charged or ReportedCharges()
        measured = tuple(
            Charge(node, self._classes.get(node, ""), Amount.exactly(usd), MEASURED)
            for node, usd in charged.nodes.items()
        )
        if charged.whole is not None:
            rest = max(0.0, charged.whole - sum_charges(measured).high)
            return (*measured, Charge(OF_JOB, "", Amount.exactly(rest), MEASURED))
        priced = self._iter_priced(job, params, usage.executed)
        others = [charge for charge in priced if charge.node not in charged.nodes]
        return (*measured, *others, *self._charge_seconds(job, elapsed))

    def _iter_priced(
        self, job: JobRecord, params: Mapping[str, Any], executed: frozenset[str] | None
    ) -> Iterator[Charge]:
        """Yield what the partner nodes of an ended job cost by their prices; nothing if they did not run."""
        for charge in self._nodes[job.target].price_nodes(params):
            amount = charge.amount
            if executed is not None and charge.node not in executed:
                amount = NOTHING
            elif job.state != SUCCEEDED:
                amount = Amount(0.0, amount.high)
            yield Charge(charge.node, charge.class_type, amount, PRICED)

    def _charge_seconds(self, job: JobRecord, elapsed: float) -> tuple[Charge, ...]:
        """Return the charge for the time of an ended job: none if time costs nothing."""
        target, seconds = job.target, job.seconds
        if not self._rates[target].has_rate:
            return ()
        if seconds is not None:
            return (self._charge_time(target, (seconds, seconds)),)
        most = self._estimate_seconds(target)[1]
        return (self._charge_time(target, (0.0, max(0.0, elapsed) if math.isinf(most) else most)),)

    def _charge_time(self, target: str, seconds: tuple[float, float]) -> Charge:
        rate = self._rates[target]
        amount = Amount.exactly(rate.per_job) + Amount.exactly(rate.per_second).scale(*seconds)
        return Charge(OF_JOB, "", amount, ESTIMATED)

    def _estimate_seconds(self, target: str) -> tuple[float, float]:
        """Return the seconds that one job takes at least and at most; at most infinite if nothing limits them."""
        limit = math.inf if self._timeout is None else self._timeout
        times = self._seconds[target]
        found = LearntTimes(jobs=times).estimate_seconds(1)
        if found is None:
            return 0.0, limit
        return min(found[0], limit), min(max(found[1], *times), limit)
