"""What each job of a run costs: at most, before it is submitted, and by what really ran, after its end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sweeper.comfy.protocol import ReportedCharges
from sweeper.errors import UsageError
from sweeper.model.charges import ESTIMATED, MEASURED, OF_JOB, Charge, sum_charges
from sweeper.model.money import COMFY_CREDITS_PER_USD, NOTHING, Amount, TargetPrice
from sweeper.model.target_spec import is_comfy_platform
from sweeper.planning.prices import LearntTimes
from sweeper.planning.template_prices import TemplatePrices
from sweeper.store.records import SUCCEEDED, JobRecord

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.model.node_classes import NodeInfo
    from sweeper.model.trial import Trial
    from sweeper.planning.plan import Plan

_ROUNDING: Final = 0.05 / COMFY_CREDITS_PER_USD + 1e-9  # US dollars: nodes show their price in tenths of a credit
_MAX_TIMES: Final = 100  # of the latest jobs on a target, from which the time of the next one is estimated


@dataclass(frozen=True, slots=True)
class JobUsage:
    """What a server says about a job that ended.

    `executed`: the nodes that ran, so without those from its cache. `failed_node`: the one that made it fail.
    `charged`: what it charged. `sampling_s`: the seconds of all steps of its samplers. None: it does not say.
    """

    executed: frozenset[str] | None = None
    failed_node: str | None = None
    charged: ReportedCharges | None = None
    sampling_s: float | None = None


class JobPrices:
    """The prices of one run's jobs on its targets. `timeout`: the seconds that a job may run, None without a limit."""

    def __init__(self, plan: Plan, timeout: float | None) -> None:
        self._plan = plan
        self._timeout = timeout
        # By target and, for a plan that has a template for each trial, by digest.
        self._prices: dict[tuple[str, str], TemplatePrices] = {}
        self._classes: dict[str, NodeInfo | None] = {}  # by target
        self._rates: dict[str, TargetPrice] = {}
        self._without_classes: list[str] = []  # targets that may charge, and nobody knows for which nodes
        self._seconds: dict[str, deque[float]] = {}  # of the latest jobs on each target

    def add_target(self, target: Target, classes: NodeInfo | None) -> None:
        """Add a target with its node classes; None if they are not known.

        The partner nodes of the embedded server are not real, so it charges only what the `price` of its target states.
        """
        rate = target.price or TargetPrice()
        has_key = target.partner_key is not None or target.partner_key_env is not None
        is_paid = target.price is not None or has_key or is_comfy_platform(target.url)
        if classes is None and is_paid and rate.nodes is None:
            self._without_classes.append(target.name)
        self._classes[target.name] = None if target.embedded else classes
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
        for trial in self._plan.written():
            if any(self._get_prices(target, trial).has_prices for target in self._rates):
                return True
            if self._plan.get_template(trial) is self._plan.experiment.template:  # as all trials have
                return False
        return False

    def _get_prices(self, target: str, trial: Trial) -> TemplatePrices:
        template = self._plan.get_template(trial)
        key = target, "" if template is self._plan.experiment.template else trial.digest
        if key not in self._prices:
            self._prices[key] = TemplatePrices(template, self._classes[target], [self._rates[target]])
        return self._prices[key]

    def price_at_most(self, target: str, trial: Trial) -> tuple[Charge, ...]:
        """Return what a job costs at most: all its partner nodes run, and it takes long."""
        if target not in self._rates:
            return ()
        nodes = self._get_prices(target, trial).price_nodes(trial.params)
        if not self._rates[target].has_rate:
            return nodes
        return (*nodes, self._charge_time(target, self._estimate_seconds(target)))

    def forecast(self, trial: Trial) -> Amount:
        """Return what a job costs on average, from the cheapest to the dearest target."""
        found: Amount | None = None
        for target, rate in self._rates.items():
            times = self._seconds[target]
            amount = self._get_prices(target, trial).price_params(trial.params)
            if rate.has_rate:
                seconds = (0.0, math.inf) if not times else (sum(times) / len(times),) * 2
                amount += self._charge_time(target, seconds).amount
            found = amount if found is None else found.join(amount)
        return found or NOTHING

    def forecast_most(self, trial: Trial) -> Amount:
        """Return what a job costs at most, on the target that may cost most."""
        amounts = [sum_charges(self.price_at_most(target, trial)) for target in self._rates]
        return max(amounts, key=lambda amount: amount.high, default=NOTHING)

    def is_time_known(self, target: str) -> bool:
        """Whether earlier jobs show how long one takes, or it does not matter."""
        return target not in self._rates or not self._rates[target].per_second or bool(self._seconds[target])

    def bound(self, charge: Charge) -> Amount:
        """Return the amount of an earlier charge, with the upper bound that a target states by now, if it had none."""
        if not math.isinf(charge.amount.high):
            return charge.amount
        found = [rate.get_node_price(charge.class_type) for rate in self._rates.values()]
        stated = [price for price in found if price is not None]
        return Amount(charge.amount.low, max(charge.amount.low, *stated) if stated else math.inf)

    def check_bounds(self, trials: Iterable[Trial]) -> None:
        """Check that all prices of these trials have an upper bound, as a budget needs.

        Raises UsageError that says which has none, and what to do.
        """
        if self._without_classes:
            name = self._without_classes[0]
            raise UsageError(
                f"budget: {name} does not say which node classes it has, so nobody knows what its partner nodes cost; "
                "see that it answers GET /object_info, or state these prices in the target, such as "
                "`price: {nodes: {FluxProUltraImageNode: 0.06 USD}}` (`{nodes: {}}`: it has no partner nodes)"
            )
        for trial in trials if self.has_prices else ():
            for target in self._rates:
                found = self._get_prices(target, trial).find_unbounded(trial.params)
                if found is not None:
                    node, reason = found
                    raise UsageError(
                        f"budget: nobody knows what node {node.node_id} ({node.class_type}) costs at most on {target}: "
                        f"{reason}; {self.advise(node.class_type)}"
                    )

    def advise(self, class_type: str) -> str:
        """Say how to state what a node class costs at most."""
        return f"state that in the target, such as `price: {{nodes: {{{class_type}: 0.05 USD}}}}`"

    def price_ended(self, job: JobRecord, trial: Trial, usage: JobUsage, elapsed: float) -> tuple[Charge, ...] | None:
        """Return what a job cost that a server had; None if nothing is known of the prices of its target.

        `job`: with its final state and times. `elapsed`: seconds from its intent to its end, for a job whose time
        nobody knows. If nobody knows which nodes ran, all count. A node of a job that did not succeed may not have been
        charged, unless it ran to its end.
        """
        if job.target not in self._rates:
            return None
        seconds = self._find_seconds(job, elapsed)
        if job.state == SUCCEEDED:
            self._seconds[job.target].append(seconds[1])
        charged = usage.charged or ReportedCharges()
        prices = {charge.node: charge for charge in self._get_prices(job.target, trial).price_nodes(trial.params)}
        graph = self._plan.get_template(trial).graph
        measured = [
            Charge(node, str(graph[node]["class_type"]), _correct_rounding(usd, prices.pop(node, None)), MEASURED)
            for node, usd in charged.nodes.items()
            if node in graph
        ]
        if charged.whole is not None:
            rest = max(0.0, charged.whole - sum_charges(measured).high)
            return (*measured, Charge(OF_JOB, "", Amount.exactly(rest), MEASURED))
        priced = [replace(charge, amount=_find_amount(charge, job, usage)) for charge in prices.values()]
        time = (self._charge_time(job.target, seconds),) if self._rates[job.target].has_rate else ()
        return (*measured, *priced, *time)

    def _find_seconds(self, job: JobRecord, elapsed: float) -> tuple[float, float]:
        """Return how many seconds an ended job ran at least and at most."""
        if job.seconds is not None:
            return job.seconds, job.seconds
        # `elapsed` is wrong if somebody has set the clock back.
        return 0.0, min(self._estimate_seconds(job.target)[1], elapsed if elapsed > 0 else math.inf)

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


def _find_amount(charge: Charge, job: JobRecord, usage: JobUsage) -> Amount:
    """Return what a partner node of an ended job cost, by its price."""
    if usage.executed is not None and charge.node not in usage.executed:
        return NOTHING
    has_ended = usage.executed is not None and usage.failed_node not in (None, charge.node)
    return charge.amount if job.state == SUCCEEDED or has_ended else Amount(0.0, charge.amount.high)


def _correct_rounding(usd: float, priced: Charge | None) -> Amount:
    """Return what a server says that a node cost: the price of the node, if the server has only rounded it."""
    amount = Amount.exactly(usd)
    if priced is None or priced.amount.low != priced.amount.high:
        return amount
    return priced.amount if abs(priced.amount.high - usd) <= _ROUNDING else amount
