"""What a plan costs: its partner nodes by the prices of their classes, its time by the price of the target.

Each price is computed once for each combination of the values that it depends on, never once for each trial. A partner
node is paid for when it runs: a server that has its result in the cache neither runs nor charges it again. Nobody knows
on which machine of Comfy Cloud a job runs, or how several targets share a plan. Then the amount is a range, from what
the cache saves at best to a payment for every job.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.model.money import NOTHING, UNKNOWN_AMOUNT, Amount, TargetPrice
from sweeper.model.node_classes import NodeInfo
from sweeper.model.node_classes.price_badge import NodePrice
from sweeper.planning.columns import merge_dimensions
from sweeper.planning.node_prices import PricedNode, StatedPrice
from sweeper.planning.order import find_dependencies
from sweeper.planning.plan import Plan, PlanPart
from sweeper.planning.run_sequence import RunSequence
from sweeper.planning.server_cache import NO_CACHE, ServerCache
from sweeper.planning.template_prices import TemplatePrices

_MAX_PRICES: Final = 2_000  # combinations of values for which one node is priced, a few seconds
_MAX_COMBINATIONS: Final = 1_000_000  # of the dimensions behind these values


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one partner node costs in a plan. `executions` are the smallest and the largest number of times it runs.

    `each` is the price of one execution, from the cheapest to the dearest. `reasons` say why the price is unknown or
    only a lower bound.
    """

    node: str
    class_type: str
    executions: tuple[int, int] = (0, 0)
    each: Amount = NOTHING
    total: Amount = NOTHING
    is_approximate: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeCost:
    """What the jobs cost on their targets. `seconds` is a range; None if no job has run or only jobs have a price."""

    seconds: tuple[float, float] | None
    amount: Amount


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What the `jobs` of a plan cost: `nodes` are priced by their classes, `time` is estimated.

    `axes` has for each axis that changes the price of a node, and for each of its cells, the number of jobs and what
    their partner nodes cost.
    """

    jobs: int
    nodes: tuple[NodeCost, ...] = ()
    axes: Mapping[str, Sequence[tuple[Any, int, Amount]]] = field(default_factory=dict)
    time: TimeCost | None = None

    @property
    def node_total(self) -> Amount:
        """What the partner nodes cost."""
        return sum((node.total for node in self.nodes), NOTHING)

    @property
    def total(self) -> Amount:
        """What everything costs."""
        return self.node_total + (self.time.amount if self.time is not None else NOTHING)


@dataclass(frozen=True, slots=True)
class LearntTimes:
    """What earlier jobs took: the mean seconds of each node class, and the seconds of each job.

    `besides_nodes`: the mean seconds of a job in which none of its nodes ran.
    """

    by_class: Mapping[str, float] = field(default_factory=dict)
    jobs: Sequence[float] = ()
    besides_nodes: float = 0.0

    def get_spread(self, count: int) -> tuple[float, float]:
        """Return the factors between which the time of `count` jobs lies to the mean, with 95 % confidence.

        From one earlier job, nobody knows how much they differ: a half to the double.
        """
        if len(self.jobs) < 2 or count == 0:
            return 0.5, 2.0
        mean = sum(self.jobs) / len(self.jobs)
        variance = sum((seconds - mean) ** 2 for seconds in self.jobs) / (len(self.jobs) - 1)
        half = 2 * math.sqrt(variance * (1 / len(self.jobs) + 1 / count)) / mean if mean > 0 else 0.0
        half = min(max(half, 0.05), 0.9)  # the machine is never as steady as a few equal jobs look
        return 1 - half, 1 + half

    def estimate_seconds(self, count: int) -> tuple[float, float] | None:
        """Return the seconds of `count` jobs by the mean of the earlier ones, as a range; None if there are none."""
        if not self.jobs:
            return None
        low, high = self.get_spread(count)
        seconds = sum(self.jobs) / len(self.jobs) * count
        return seconds * low, seconds * high


class PlanPrices(TemplatePrices):
    """Computes what a plan costs.

    `classes` are the node classes of its target; None if they are not known. `prices` are those of its targets, each
    None if it has none. `shares_cache`: all jobs run on one server that keeps node results.
    """

    def __init__(
        self,
        plan: Plan,
        classes: NodeInfo | None,
        prices: Sequence[TargetPrice | None] = (),
        learnt: LearntTimes | None = None,
        *,
        shares_cache: bool = True,
    ) -> None:
        super().__init__(plan.experiment.template, classes, prices)
        self._plan = plan
        self._learnt = learnt or LearntTimes()
        self._shares_cache = shares_cache

    def price_mean_jobs(self, jobs: int) -> Amount | None:
        """Return what the time of jobs costs, each as long as the mean of earlier jobs.

        None if no target has a price or no job has run.
        """
        seconds = self._learnt.estimate_seconds(jobs)
        return None if seconds is None or not self._has_rates else price_time(self._rates, jobs, seconds)

    def compute(self, is_sent: bytearray) -> PlanCost:
        """Return what the trials cost for which `is_sent` has a 1; it has one byte for each trial, in written order."""
        sums = [_NodeSum(node) for node in self._nodes]
        axes: dict[str, dict[Any, tuple[Any, int, Amount]]] = {}
        runs: dict[str, tuple[int, int]] = {}
        start = 0
        for part in self._plan.parts:
            mask = is_sent[start : start + part.count]
            start += part.count
            sequence = RunSequence(part.grid.sizes, part.order, part.kept_positions, mask)
            needs = find_dependencies(self._plan.experiment, part.grid)
            for total in sums:
                total.add(part, sequence, self._find_executions(sequence, needs[total.node.node_id]))
            self._add_axes(axes, part, sequence, sums)
            if any(rate.per_second for rate in self._rates):
                found = {one: tuple(map(len, self._find_executions(sequence, one))) for one in set(needs.values())}
                for node in self._running:
                    before, (low, high) = runs.get(node, (0, 0)), found[needs[node]]
                    runs[node] = (before[0] + low, before[1] + high)
        jobs = sum(is_sent)
        differing = {name: list(rows.values()) for name, rows in axes.items() if _differs(rows.values())}
        return PlanCost(jobs, tuple(total.to_cost() for total in sums), differing, self._compute_time(jobs, runs))

    def _find_executions(self, sequence: RunSequence, dimensions: frozenset[int]) -> tuple[Any, Any]:
        """Return in which jobs a node runs, at best and at worst."""
        caching = self._plan.caching
        best = sequence.find_executions(
            dimensions, ServerCache("ram", keeps_all=True) if caching.kind == "lru" else caching
        )
        worst = sequence.find_executions(dimensions, caching if self._shares_cache else NO_CACHE)
        return best, worst

    def _add_axes(
        self,
        axes: dict[str, dict[Any, tuple[Any, int, Amount]]],
        part: PlanPart,
        sequence: RunSequence,
        sums: Sequence[_NodeSum],
    ) -> None:
        """Add what the jobs of each cell cost, for the axes that change the price of a node."""
        import numpy as np

        relevant = {dimension for total in sums for dimension in total.dimensions}
        for dimension in sorted(relevant):
            size = part.grid.sizes[dimension]
            jobs = np.bincount(sequence.to_indexes(sequence.positions, [dimension]), minlength=size)
            amounts = np.zeros((2, size))
            for total in sums:
                amounts += total.sum_by_option(sequence, dimension, size)
            for axis in part.grid.dimensions[dimension]:
                rows = axes.setdefault(axis.name, {})
                for index, option in enumerate(axis.options):
                    cell = option.cell
                    key = cell if isinstance(cell, (str, int, float)) else repr(cell)
                    _, count, amount = rows.get(key, (cell, 0, NOTHING))
                    more = Amount(float(amounts[0, index]), float(amounts[1, index]))
                    rows[key] = (cell, count + int(jobs[index]), amount + more)

    def _compute_time(self, jobs: int, runs: Mapping[str, tuple[int, int]]) -> TimeCost | None:
        """Return what the jobs cost by their time; None if no target has a price."""
        if not self._has_rates:
            return None
        has_seconds = any(rate.per_second for rate in self._rates)
        seconds = self._estimate_seconds(jobs, runs) if has_seconds and jobs else None
        amount = price_time(self._rates, jobs, seconds) if not has_seconds or seconds or not jobs else UNKNOWN_AMOUNT
        return TimeCost(seconds, amount)

    def _estimate_seconds(self, jobs: int, runs: Mapping[str, tuple[int, int]]) -> tuple[float, float] | None:
        """Return the seconds of the jobs: node by node if all times are known, else by the mean of earlier jobs."""
        learnt = self._learnt
        graph = self._plan.experiment.template.graph
        classes = {node: graph[node]["class_type"] for node in runs}
        if not learnt.jobs or not all(class_type in learnt.by_class for class_type in classes.values()):
            return learnt.estimate_seconds(jobs)
        low, high = learnt.get_spread(jobs)
        rest = learnt.besides_nodes * jobs
        best = sum(runs[node][0] * learnt.by_class[class_type] for node, class_type in classes.items())
        worst = sum(runs[node][1] * learnt.by_class[class_type] for node, class_type in classes.items())
        return (best + rest) * low, (worst + rest) * high


def price_time(rates: Sequence[TargetPrice], jobs: int, seconds: tuple[float, float] | None) -> Amount:
    """Return what jobs cost that take these seconds, from the cheapest to the dearest of the targets."""
    low, high = seconds or (0.0, 0.0)
    return Amount(
        min(rate.per_job * jobs + rate.per_second * low for rate in rates),
        max(rate.per_job * jobs + rate.per_second * high for rate in rates),
    )


class _NodeSum:
    """Adds up what one node costs over the parts of a plan."""

    def __init__(self, node: PricedNode | StatedPrice) -> None:
        self.node = node
        self.dimensions: tuple[int, ...] = ()  # of the part that was added last
        self._best: Any = ()
        self._worst: Any = ()
        self._low: Any = None
        self._high: Any = None
        self._executions = (0, 0)
        self._each: Amount | None = None
        self._total = NOTHING
        self._is_approximate = False
        self._reasons: dict[str, None] = {}

    def add(self, part: PlanPart, sequence: RunSequence, executions: tuple[Any, Any]) -> None:
        """Add the executions of a part: in which jobs the node runs, at best and at worst."""
        import numpy as np

        self._best, self._worst = executions
        names = self.node.names
        self.dimensions = merge_dimensions(part.grid.slots[name] for name in names)
        size = math.prod(part.grid.sizes[dimension] for dimension in self.dimensions)
        too_many = size > _MAX_COMBINATIONS
        if too_many:
            self.dimensions, size = (), 1
        worst = sequence.to_indexes(self._worst, self.dimensions)
        used = np.flatnonzero(np.bincount(worst, minlength=size))
        self._low, self._high = np.zeros(size), np.full(size, math.inf)
        if too_many or len(used) > _MAX_PRICES:
            self._reasons[f"it depends on more than {_MAX_PRICES:,} combinations of values"] = None
        else:
            for index in used:
                price = self._price_combination(part, int(index), names)
                self._low[index], self._high[index] = price.amount.low, price.amount.high
                self._is_approximate |= price.is_approximate
                if price.reason:
                    self._reasons[price.reason] = None
        best = sequence.to_indexes(self._best, self.dimensions)
        if len(used):
            each = Amount(float(self._low[used].min()), float(self._high[used].max()))
            self._each = each if self._each is None else self._each.join(each)
            self._total += Amount(float(self._low[best].sum()), float(self._high[worst].sum()))
        self._executions = (self._executions[0] + len(best), self._executions[1] + len(worst))

    def _price_combination(self, part: PlanPart, index: int, names: Sequence[str]) -> NodePrice:
        coordinates = [0] * len(part.grid.sizes)
        for dimension in reversed(self.dimensions):
            index, coordinates[dimension] = divmod(index, part.grid.sizes[dimension])
        return self.node.compute({name: part.grid.slots[name].get(coordinates) for name in names})

    def sum_by_option(self, sequence: RunSequence, dimension: int, size: int) -> Any:
        """Return what the node costs in the part that was added last: low and high for each option of a dimension."""
        import numpy as np

        rows = []
        for jobs, prices in ((self._best, self._low), (self._worst, self._high)):
            weights = prices[sequence.to_indexes(jobs, self.dimensions)]
            rows.append(np.bincount(sequence.to_indexes(jobs, [dimension]), weights, size))
        return np.array(rows)

    def to_cost(self) -> NodeCost:
        """Return the sum."""
        return NodeCost(
            self.node.node_id,
            self.node.class_type,
            self._executions,
            self._each or NOTHING,
            self._total,
            self._is_approximate,
            tuple(self._reasons),
        )


def _differs(rows: Iterable[tuple[Any, int, Amount]]) -> bool:
    """Whether the jobs of the cells of an axis cost differently, each on average."""
    return len({str(amount.scale(1 / count)) for _, count, amount in rows if count}) > 1
