"""What jobs cost: at most before they are submitted, by what really ran after their end, and within a budget.

A job that has not ended counts with what it costs at most. `FolderSpending` mirrors the table `charges` of the store in
memory, so that nothing is added up anew before each submission.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.comfy.protocol import ReportedCharges
from sweeper.comfy.target import Target
from sweeper.errors import SweeperError, UsageError
from sweeper.model.money import (
    COMFY_CREDITS_PER_USD,
    CURRENCY,
    ESTIMATED,
    MEASURED,
    MICROS,
    NOTHING,
    OF_JOB,
    Amount,
    Charge,
    TargetPrice,
    find_stated_price,
    format_usd,
    round_up,
    sum_charges,
)
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import is_comfy_platform
from sweeper.model.trial import Trial
from sweeper.planning.job_size import JobSize, JobSizes, scale_seconds
from sweeper.planning.plan import Plan
from sweeper.planning.pricing import LearntTimes, TemplatePrices
from sweeper.running.run_events import CostChanged, Event, Notice
from sweeper.running.stop_control import cancel_when
from sweeper.store import records
from sweeper.store.job_charges import JobCharge
from sweeper.store.records import SUCCEEDED, JobRecord
from sweeper.wording import join_command

_ROUNDING: Final = math.ceil(0.05 * MICROS / COMFY_CREDITS_PER_USD)  # nodes show their price in tenths of a credit
_MAX_TIMES: Final = 100  # of the latest jobs on a target, from which the time of the next one is estimated
_MAX_LEARNT: Final = 1_000  # of the latest jobs on all targets, from which a run learns before its first job
_FREE_STATES: Final = (records.UNSENT, records.REJECTED)


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
        self._measure = JobSizes(plan.experiment.template).measure
        self._seconds: dict[str, deque[tuple[float, JobSize | None]]] = {}  # of the latest jobs on each target

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

    def learn(self, jobs: Iterable[JobRecord], load_params: Callable[[Iterable[str]], Mapping[str, Any]]) -> None:
        """Learn the time of earlier jobs. `load_params(digests)`: the params of their trials by digest."""
        timed = [job for job in jobs if job.state == SUCCEEDED and job.seconds is not None]
        latest = sorted(timed, key=lambda job: job.intended)[-_MAX_LEARNT:]
        params = load_params(job.digest for job in latest)
        for job in latest:
            if job.target in self._seconds and job.seconds is not None:
                self._seconds[job.target].append((job.seconds, self._measure(params.get(job.digest, {}))))

    @property
    def has_prices(self) -> bool:
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
        return (*nodes, self._charge_time(target, self._estimate_seconds(target, trial)))

    def forecast(self, trial: Trial) -> Amount:
        """Return what a job costs on average, from the cheapest to the dearest target."""
        found: Amount | None = None
        for target, rate in self._rates.items():
            times = [about for about, _ in self._scale_times(target, trial)]
            seconds = (0.0, math.inf) if not times else (sum(times) / len(times),) * 2
            amount = self._get_prices(target, trial).price_params(trial.params) + rate.price_jobs(1, seconds)
            found = amount if found is None else found.join(amount)
        return found or NOTHING

    def forecast_most(self, trial: Trial) -> Amount:
        """Return what a job costs at most, on the target that may cost most."""
        amounts = [sum_charges(self.price_at_most(target, trial)) for target in self._rates]
        return max(amounts, key=lambda amount: amount.at_most, default=NOTHING)

    def is_time_known(self, target: str) -> bool:
        """Whether earlier jobs show how long one takes, or it does not matter."""
        return target not in self._rates or not self._rates[target].per_second or bool(self._seconds[target])

    def bound(self, charge: Charge) -> Amount:
        """Return the amount of an earlier charge, with the upper bound that a target states by now, if it had none."""
        stated = find_stated_price(self._rates.values(), charge.class_type)
        if charge.amount.high is not None or stated is None:
            return charge.amount
        return Amount(charge.amount.low, max(charge.amount.low, stated.high or 0))

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
        """Return what an ended job cost; None if nothing is known of the prices of its target.

        `job`: with its final state and times. `elapsed`: seconds from its intent to its end, for a job whose time
        nobody knows. If nobody knows which nodes ran, all count. A node of a job that did not succeed may not have been
        charged, unless it ran to its end.
        """
        if job.target not in self._rates:
            return None
        if job.seconds is not None:
            seconds = job.seconds, job.seconds
        else:  # `elapsed` is wrong if somebody has set the clock back
            seconds = 0.0, min(self._estimate_seconds(job.target, trial)[1], elapsed if elapsed > 0 else math.inf)
        if job.state == SUCCEEDED:
            self._seconds[job.target].append((seconds[1], self._measure(trial.params)))
        charged = usage.charged or ReportedCharges()
        prices = {charge.node: charge for charge in self._get_prices(job.target, trial).price_nodes(trial.params)}
        graph = self._plan.get_template(trial).graph
        measured = [
            Charge(node, str(graph[node]["class_type"]), _correct_rounding(micros, prices.pop(node, None)), MEASURED)
            for node, micros in charged.nodes.items()
            if node in graph
        ]
        if charged.whole is not None:
            rest = max(0, round_up(charged.whole) - sum_charges(measured).low)
            return (*measured, Charge(OF_JOB, "", Amount(rest, rest), MEASURED))
        priced = [replace(charge, amount=_find_amount(charge, job, usage)) for charge in prices.values()]
        time = (self._charge_time(job.target, seconds),) if self._rates[job.target].has_rate else ()
        return (*measured, *priced, *time)

    def _charge_time(self, target: str, seconds: tuple[float, float]) -> Charge:
        return Charge(OF_JOB, "", self._rates[target].price_jobs(1, seconds), ESTIMATED)

    def _scale_times(self, target: str, trial: Trial) -> list[tuple[float, float]]:
        """Return the seconds of the latest jobs, about and at most, as if they had been of the size of this trial."""
        size = self._measure(trial.params)
        return [
            (seconds, seconds) if size is None or known is None else scale_seconds(seconds, size.size / known.size)[::2]
            for seconds, known in self._seconds[target]
        ]

    def _estimate_seconds(self, target: str, trial: Trial) -> tuple[float, float]:
        """Return the seconds that a job takes at least and at most; at most infinite if nothing limits them."""
        limit = math.inf if self._timeout is None else self._timeout
        times = [most for _, most in self._scale_times(target, trial)]
        found = LearntTimes(jobs=times).estimate_seconds(1)
        if found is None:
            return 0.0, limit
        return min(found[0], limit), min(max(found[1], *times), limit)


def _find_amount(charge: Charge, job: JobRecord, usage: JobUsage) -> Amount:
    """Return what a partner node of an ended job cost, by its price."""
    if usage.executed is not None and charge.node not in usage.executed:
        return NOTHING
    has_ended = usage.executed is not None and usage.failed_node not in (None, charge.node)
    return charge.amount if job.state == SUCCEEDED or has_ended else Amount(0, charge.amount.high)


def _correct_rounding(micros: int, priced: Charge | None) -> Amount:
    """Return what a server says that a node cost: the price of the node, if the server has only rounded it."""
    if priced is None or priced.amount.low != priced.amount.high or abs(priced.amount.low - micros) > _ROUNDING:
        return Amount(micros, micros)
    return priced.amount


class OverBudgetError(SweeperError):
    """A job does not fit into the budget, and no job in flight may still end cheaper than expected."""


class FolderSpending:
    """The amounts of all jobs, by `prices`, and the `budget` for them in micro-dollars, None without a limit.

    `earlier`: the charges that the store has. `report` gets the new sum after each job. `on_end()` is called then, too,
    because other jobs may fit into the budget now.
    """

    def __init__(
        self,
        prices: JobPrices,
        earlier: Iterable[JobCharge] = (),
        *,
        budget: int | None = None,
        report: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.prices, self.budget = prices, budget
        self.on_end: Callable[[], None] = lambda: None
        self._report = report
        self._amounts: dict[str, Amount] = {}  # by job id
        self._unbounded: set[str] = set()  # the jobs whose amount has no upper bound
        self._in_flight: set[str] = set()  # the jobs that this run submits or follows now, if they cost something
        self._low = self._high = 0
        self._changed = asyncio.Event()
        self.unbounded_charges: list[JobCharge] = []  # of earlier runs
        for item in earlier:
            amount = prices.bound(item.charge)
            self._replace(item.job, self._amounts.get(item.job, NOTHING) + amount)
            if amount.high is None:
                self.unbounded_charges.append(item)

    @property
    def spent(self) -> Amount:
        return Amount(self._low, None if self._unbounded else self._high)

    def report(self) -> None:
        self._report(CostChanged(self.spent, self.budget))

    def check_budget(self, targets: Iterable[Target], trials: Iterable[Trial], *, has_priced_judge: bool) -> None:
        """Say what the budget does not limit. Raises UsageError if nobody knows what some jobs cost at most."""
        ended = next((charge for charge in self.unbounded_charges if not charge.is_open), None)
        if ended is not None:
            raise UsageError(
                f"budget: nobody knows what node {ended.charge.node} ({ended.charge.class_type}) cost in run "
                f"{ended.run} on {ended.target}; {self.prices.advise(ended.charge.class_type)}"
            )
        self.prices.check_bounds(trials)
        real = [target for target in targets if not target.embedded]
        unpriced = [target.name for target in real if is_comfy_platform(target.url) and target.price is None]
        if real and not self.prices.has_prices and not has_priced_judge:
            self._report(Notice("the budget limits nothing, because nothing in this run has a price"))
        elif unpriced:
            names = " and ".join(unpriced)
            self._report(
                Notice(f"the budget counts only partner nodes on {names}, because its time has no price (`price:`)")
            )

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
        most = sum_charges(self.prices.price_at_most(target, trial)).at_most
        if self.budget is None or not most:
            return math.inf
        return max(1, (self.budget - self.spent.at_most) // most) if self.fits(target, trial) else 0

    def fits(self, target: str, trial: Trial) -> bool:
        """Whether a job of a target fits into the budget, with all others at what they cost at most.

        If nothing shows yet how long a job takes, one job at a time may start although it could cost more than is left.
        """
        charges = self.prices.price_at_most(target, trial) if self.budget is not None else ()
        most = sum_charges(charges).at_most
        if self.budget is None or not most:
            return True
        left = self.budget - self.spent.at_most
        if most <= left:
            return True
        if self.prices.is_time_known(target) or self._in_flight:
            return False
        least = sum(charge.amount.low if charge.node == OF_JOB else charge.amount.at_most for charge in charges)
        return left > 0 and least <= left

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
        self._high += (amount.high or 0) - (before.high or 0)
        self._unbounded.discard(job_id)
        if amount.high is None:
            self._unbounded.add(job_id)
        if amount != NOTHING:
            self._amounts[job_id] = amount

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def describe_over_budget(spending: FolderSpending, left: Iterable[tuple[Trial, int]], *, failures: int = 0) -> str:
    """Describe the end of a run at its budget. `left`: the first trial of each job that is left, and how many it is.

    The first of them comes next. `failures`: how many of the jobs failed for a reason that may pass.
    """
    assert spending.budget is not None
    prices, spent = spending.prices, spending.spent
    total, trials, next_most = NOTHING, 0, NOTHING
    needed = spent  # with each job at what it costs at most, or the rest would not fit again
    for trial, count in left:
        most = prices.forecast_most(trial)
        next_most = next_most if trials else most
        needed += most
        total += prices.forecast(trial)
        trials += count
    if spent.high is None:
        targets = {charge.target for charge in spending.unbounded_charges}
        where = f" on {' and '.join(sorted(targets))}" if targets else ""
        return (
            f"budget: a job{where} may still run, and nobody knows what it costs at most; the same command goes on "
            "when it has ended"
        )
    are_left = "1 trial is" if trials == 1 else f"{trials} trials are"
    guess = max(2 * (spending.budget + spent.high), spent.high + 2 * total.low)  # if nothing limits the time of a job
    larger = guess if needed.high is None else needed.high
    unit = 10 ** max(len(str(larger)) - 2, 0)  # so that the sum has two significant digits
    option = join_command(["--budget", f"{format_usd(-(-larger // unit) * unit)} {CURRENCY}"])
    retry = f" and `--retry-failed`, because {failures} of them failed for a reason that may pass" if failures else ""
    return (
        f"budget: {format_usd(spent.high)} {CURRENCY} of {format_usd(spending.budget)} {CURRENCY} is spent, and the "
        f"next job may cost {'any sum' if next_most.high is None else f'{format_usd(next_most.high)} {CURRENCY}'}; "
        f"{are_left} left, for about {total}. To go on, run the same command with `{option}`{retry}"
    )
