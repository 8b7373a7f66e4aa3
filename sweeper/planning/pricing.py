"""What a plan costs: its partner nodes by the prices of their classes, its time by the price of the target.

Each price is computed once for each combination of the values that it depends on, never once for each trial. A partner
node is paid for when it runs: a server that has its result in the cache neither runs nor charges it again. Nobody knows
on which machine of Comfy Cloud a job runs, or how several targets share a plan. Then the amount is a range, from what
the cache saves at best to a payment for every job.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, reduce
from typing import Any, Final

from sweeper.model.expressions import ExpressionError
from sweeper.model.money import (
    NOTHING,
    PRICED,
    UNKNOWN_AMOUNT,
    Amount,
    Charge,
    TargetPrice,
    find_stated_price,
    sum_charges,
)
from sweeper.model.node_classes import InputSpec, NodeInfo, NodeSpec
from sweeper.model.node_classes.price_badge import NodePrice, PriceBadge, PriceCalculator
from sweeper.model.template import MISSING, Leaf, Template, drop_unchosen_inputs, set_at_path
from sweeper.model.workflow import is_link, iter_links
from sweeper.planning.grid import merge_dimensions
from sweeper.planning.model_inputs import find_running_nodes
from sweeper.planning.order import NO_CACHE, RunSequence, ServerCache, find_dependencies
from sweeper.planning.plan import Plan, PlanPart
from sweeper.planning.plan_outline import Bounds, CellCost, DueAmount, NodeCost, PlanCost, TimeCost

_Axes = dict[str, dict[Any, tuple[Any, int, Amount]]]  # by axis and key: the cell, its jobs, what they cost
_Time = tuple[tuple[float, float] | None, Amount]  # the seconds of jobs, from the least to the most; what they cost

Growth = tuple[float, float]  # how many times as long as earlier jobs others take, at least and at most
_SAME_SIZE: Final = ((1.0, 1.0), (1.0, 1.0))
_MAX_GUESSES: Final = 64  # combinations of values that arrive over links
_MAX_PRICES: Final = 2_000  # combinations of values for which one node is priced, a few seconds
_MAX_COMBINATIONS: Final = 1_000_000  # of the dimensions behind these values


# --- one node


class PricedNode:
    """A partner node of a template, and the values that its price depends on.

    `stated` is the price that the user states in the `price` of a target, whatever the class says; None: what `spec`
    says.
    """

    def __init__(
        self, template: Template, node_id: str, spec: NodeSpec, calculator: PriceCalculator, stated: Amount | None
    ) -> None:
        self.node_id = node_id
        self.class_type = spec.class_type
        self._template = template
        self._spec = spec
        self._badge = PriceBadge() if stated is not None or spec.price_badge is None else spec.price_badge
        self._calculator = calculator
        self._stated = stated

    @cached_property
    def _sources(self) -> dict[str, str]:
        """The inputs whose value comes over a link from a node that holds one literal: input -> source node."""
        graph = self._template.graph
        return {
            name: source
            for name, source, _ in iter_links(graph[self.node_id])
            if self._badge.reads(name)
            and str(graph[source]["class_type"]).startswith("Primitive")
            and not is_link(graph[source]["inputs"].get("value"))
        }

    @cached_property
    def leaves(self) -> list[Leaf]:
        """The values of the template on which the price depends."""
        sources = set(self._sources.values())
        return [
            leaf
            for leaf in self._template.leaves
            if (leaf.path[0] == self.node_id and self._badge.reads(str(leaf.path[2])))
            or (leaf.path[0] in sources and leaf.path[2] == "value")
        ]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for leaf in self.leaves for name in leaf.names))

    def compute(self, params: Mapping[str, Any]) -> NodePrice:
        """Return the price of one execution with these params, of which only those of `names` are read."""
        if self._stated is not None:
            return NodePrice(self._stated)
        graph = self._template.graph
        nodes = {
            node: {"inputs": copy.deepcopy(graph[node]["inputs"])} for node in (self.node_id, *self._sources.values())
        }
        try:
            for leaf in self.leaves:
                set_at_path(nodes, leaf.path, leaf.evaluate(params))
        except (ExpressionError, KeyError) as error:
            return NodePrice(UNKNOWN_AMOUNT, reason=f"its inputs cannot be computed: {error}")
        inputs = nodes[self.node_id]["inputs"]
        drop_unchosen_inputs(inputs, self._template.branches.get(self.node_id, {}))
        literals = {name: value for name, value in inputs.items() if not is_link(value)}
        literals |= {name: nodes[source]["inputs"].get("value") for name, source in self._sources.items()}
        return self._compute_all_guesses(literals, inputs)

    def _compute_all_guesses(self, literals: dict[str, Any], inputs: Mapping[str, Any]) -> NodePrice:
        """Return the price; over all choices of the inputs whose value comes over a link."""
        specs = self._spec.resolve_inputs(literals)
        # A widget that the workflow leaves out has its default, or else its first choice.
        values = {
            name: literals.get(name, next(iter(spec.choices or ()), None) if spec.default is MISSING else spec.default)
            for name, spec in specs.items()
            if spec.kind == "widget"
        }
        linked = [name for name, _ in self._badge.widgets if is_link(inputs.get(name)) and name not in literals]
        choices = [_list_choices(specs.get(name)) for name in linked]
        if not all(choices) or math.prod(map(len, choices)) > _MAX_GUESSES:
            name = next((name for name, found in zip(linked, choices, strict=True) if not found), "")
            source = inputs[name][0] if name else ""
            reason = f"its input {name} comes from node {source}, so its value is not known before the node runs"
            return NodePrice(UNKNOWN_AMOUNT, reason=reason if name else "too many of its inputs come over links")
        values = {name: value for name, value in values.items() if not is_link(inputs.get(name)) or name in literals}
        guesses = ({**values, **dict(zip(linked, guess, strict=True))} for guess in itertools.product(*choices))
        prices = [self._calculator.compute(self._badge, guess, inputs) for guess in guesses]
        return NodePrice(
            reduce(Amount.join, (price.amount for price in prices)),
            any(price.is_approximate for price in prices),
            next((price.reason for price in prices if price.reason), ""),
        )


def _list_choices(spec: InputSpec | None) -> list[Any]:
    """Return the values that an input may have; empty if they are not few."""
    if spec is None or spec.branches:
        return []
    return [False, True] if spec.type == "BOOLEAN" else list(spec.choices or ())


# --- one job


class TemplatePrices:
    """Computes what a job with this template costs. `PlanPrices` describes `classes` and `prices`."""

    def __init__(self, template: Template, classes: NodeInfo | None, prices: Sequence[TargetPrice | None] = ()) -> None:
        self._template = template
        self._classes = classes or NodeInfo({})
        self._rates = [price or TargetPrice() for price in prices]
        self._has_rates = any(rate.has_rate for rate in self._rates)
        calculator = PriceCalculator()
        self._running = find_running_nodes(template, self._classes)
        found = (self._find_price(node, calculator) for node in template.graph if node in self._running)
        self._nodes = [node for node in found if node is not None]
        self._names = tuple(dict.fromkeys(name for node in self._nodes for name in node.names))
        self._charges: dict[str, tuple[Charge, ...]] = {}

    @property
    def has_partner_nodes(self) -> bool:
        return bool(self._nodes)

    @property
    def has_prices(self) -> bool:
        return bool(self._nodes) or self._has_rates

    def price_params(self, params: Mapping[str, Any]) -> Amount:
        return sum_charges(self.price_nodes(params))

    def price_nodes(self, params: Mapping[str, Any]) -> tuple[Charge, ...]:
        """Return what each partner node of one job with these params costs if it runs."""
        key = repr([params.get(name) for name in self._names])
        if key not in self._charges:
            self._charges[key] = tuple(
                Charge(node.node_id, node.class_type, node.compute(params).amount, PRICED) for node in self._nodes
            )
        return self._charges[key]

    def find_unbounded(self, params: Mapping[str, Any]) -> tuple[PricedNode, str] | None:
        """Return the first partner node whose price has no upper bound, and why; None if all have one."""
        for node, charge in zip(self._nodes, self.price_nodes(params), strict=True):
            if charge.amount.high is None:
                return node, node.compute(params).reason
        return None

    def _find_price(self, node: str, calculator: PriceCalculator) -> PricedNode | None:
        """Return the price of a node: what a target states for its class, else what the class states."""
        class_type = self._template.graph[node]["class_type"]
        spec = self._classes.classes.get(class_type, NodeSpec(class_type, {}))
        stated = find_stated_price(self._rates, class_type)
        if stated is None and spec.price_badge is None:
            return None
        return PricedNode(self._template, node, spec, calculator, stated)


# --- a plan


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

    def compute(
        self, distinct: bytearray, pending: bytearray, growths: Sequence[Growth] = _SAME_SIZE
    ) -> PlanCost | None:
        """Return what the distinct trials cost, and what is left to pay for the pending ones.

        Each has one byte for each trial, in written order, which is 1 for these trials. `growths`: how many times as
        long as the earlier jobs those of each take, at least and at most. None if nothing has a price.
        """
        if not self.has_prices:
            return None
        (sums, axes, time), (rest, _, rest_time) = map(self._add_up, (distinct, pending), growths)
        nodes = tuple(node.to_cost(left.total) for node, left in zip(sums, rest, strict=True))
        priced = DueAmount(*(sum((getattr(node, name) for node in nodes), NOTHING) for name in ("total", "left")))
        estimated = None
        if time is not None and rest_time is not None:
            seconds = None if time[0] is None else Bounds(*(round(limit, 3) for limit in time[0]))
            estimated = TimeCost(seconds, time[1], rest_time[1])
        return PlanCost(
            jobs=sum(distinct),
            total=priced.total + (estimated.total if estimated is not None else NOTHING),
            left=priced.left + (estimated.left if estimated is not None else NOTHING),
            priced=priced,
            estimated=estimated,
            nodes=nodes,
            axes={
                name: tuple(itertools.starmap(CellCost, rows.values()))
                for name, rows in axes.items()
                # The jobs of its cells cost differently, each on average.
                if len({str(amount.scale(Fraction(1, count))) for _, count, amount in rows.values() if count}) > 1
            },
        )

    def _add_up(self, is_sent: bytearray, growth: Growth) -> tuple[list[_NodeSum], _Axes, _Time | None]:
        """Return the cost of these trials: by node, by axis, and that of their time."""
        sums = [_NodeSum(node) for node in self._nodes]
        axes: _Axes = {}
        runs: dict[str, tuple[int, int]] = {}
        for part in self._plan.parts:
            mask = is_sent[part.start : part.start + part.count]
            sequence = RunSequence(part.grid.sizes, part.order, part.kept_positions, mask)
            needs = find_dependencies(self._plan.experiment, part.grid)
            for total in sums:
                total.add(part, sequence, self._find_executions(sequence, needs[total.node.node_id]))
            self._add_axes(axes, part, sequence, sums)
            if any(rate.per_second for rate in self._rates):
                found = {need: tuple(map(len, self._find_executions(sequence, need))) for need in set(needs.values())}
                for node in self._running:
                    before, (low, high) = runs.get(node, (0, 0)), found[needs[node]]
                    runs[node] = (before[0] + low, before[1] + high)
        return sums, axes, self._compute_time(sum(is_sent), runs, growth)

    def _find_executions(self, sequence: RunSequence, dimensions: frozenset[int]) -> tuple[Any, Any]:
        """Return in which jobs a node runs, at best and at worst."""
        caching = self._plan.caching
        best = ServerCache("ram", keeps_all=True) if caching.kind == "lru" else caching
        worst = caching if self._shares_cache else NO_CACHE
        return sequence.find_executions(dimensions, best), sequence.find_executions(dimensions, worst)

    def _add_axes(self, axes: _Axes, part: PlanPart, sequence: RunSequence, sums: Sequence[_NodeSum]) -> None:
        """Add what the jobs of each cell cost, for the axes that change the price of a node."""
        import numpy as np

        relevant = {dimension for total in sums for dimension in total.dimensions}
        for dimension in sorted(relevant):
            size = part.grid.sizes[dimension]
            jobs = np.bincount(sequence.to_indexes(sequence.positions, [dimension]), minlength=size)
            by_node = [total.sum_by_option(sequence, [dimension], size) for total in sums]
            amounts = [sum(of_option, NOTHING) for of_option in zip(*by_node, strict=True)]
            for axis in part.grid.dimensions[dimension]:
                rows = axes.setdefault(axis.name, {})
                for index, option in enumerate(axis.options):
                    cell = option.cell
                    key = cell if isinstance(cell, (str, int, float)) else repr(cell)
                    _, count, amount = rows.get(key, (cell, 0, NOTHING))
                    rows[key] = (cell, count + int(jobs[index]), amount + amounts[index])

    def _compute_time(self, jobs: int, runs: Mapping[str, tuple[int, int]], growth: Growth) -> _Time | None:
        """Return the seconds of the jobs, and what these cost; None if no target has a price."""
        if not self._has_rates:
            return None
        has_seconds = any(rate.per_second for rate in self._rates)
        seconds = self._estimate_seconds(jobs, runs) if has_seconds and jobs else None
        seconds = None if seconds is None else (seconds[0] * growth[0], seconds[1] * growth[1])
        amount = price_time(self._rates, jobs, seconds) if not has_seconds or seconds or not jobs else UNKNOWN_AMOUNT
        return seconds, amount

    def _estimate_seconds(self, jobs: int, runs: Mapping[str, tuple[int, int]]) -> tuple[float, float] | None:
        """Return the seconds of the jobs: node by node if all times are known, else by the mean of earlier jobs."""
        learnt = self._learnt
        each = {node: learnt.by_class.get(self._template.graph[node]["class_type"]) for node in runs}
        known = {node: seconds for node, seconds in each.items() if seconds is not None}
        if not learnt.jobs or len(known) < len(each):
            return learnt.estimate_seconds(jobs)
        low, high = learnt.get_spread(jobs)
        best, worst = (sum(runs[node][end] * seconds for node, seconds in known.items()) for end in (0, 1))
        rest = learnt.besides_nodes * jobs
        return (best + rest) * low, (worst + rest) * high


def price_time(rates: Sequence[TargetPrice], jobs: int, seconds: tuple[float, float] | None) -> Amount:
    """Return what jobs cost that take these seconds, from the cheapest to the dearest of the targets."""
    return reduce(Amount.join, (rate.price_jobs(jobs, seconds or (0.0, 0.0)) for rate in rates))


class _NodeSum:
    """Adds up what one node costs over the parts of a plan."""

    def __init__(self, node: PricedNode) -> None:
        self.node = node
        self.dimensions: tuple[int, ...] = ()  # of the part that was added last
        self._best: Any = ()
        self._worst: Any = ()
        self._prices: dict[int, Amount] = {}  # by combination, of the part that was added last
        self._executions = (0, 0)
        self._each: Amount | None = None
        self.total = NOTHING
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
        used = np.unique(sequence.to_indexes(self._worst, self.dimensions)).tolist()
        if too_many or len(used) > _MAX_PRICES:
            self._prices = dict.fromkeys(used, UNKNOWN_AMOUNT)
            self._reasons[f"it depends on more than {_MAX_PRICES:,} combinations of values"] = None
        else:
            found = {index: self._price_combination(part, index, names) for index in used}
            self._prices = {index: price.amount for index, price in found.items()}
            self._is_approximate |= any(price.is_approximate for price in found.values())
            self._reasons |= dict.fromkeys(price.reason for price in found.values() if price.reason)
        if used:
            each = reduce(Amount.join, self._prices.values())
            self._each = each if self._each is None else self._each.join(each)
            self.total += self.sum_by_option(sequence, (), 1)[0]
        self._executions = (self._executions[0] + len(self._best), self._executions[1] + len(self._worst))

    def _price_combination(self, part: PlanPart, index: int, names: Sequence[str]) -> NodePrice:
        coordinates = [0] * len(part.grid.sizes)
        for dimension in reversed(self.dimensions):
            index, coordinates[dimension] = divmod(index, part.grid.sizes[dimension])
        return self.node.compute({name: part.grid.slots[name].get(coordinates) for name in names})

    def sum_by_option(self, sequence: RunSequence, dimensions: Sequence[int], size: int) -> list[Amount]:
        """Return what the node costs in the part that was added last, for each of the `size` options of dimensions."""
        import numpy as np

        lows, highs = [0] * size, [0] * size
        unbounded: set[int] = set()
        for jobs, is_best in ((self._best, True), (self._worst, False)):
            keys = sequence.to_indexes(jobs, self.dimensions) * size + sequence.to_indexes(jobs, dimensions)
            for key, count in zip(*(part.tolist() for part in np.unique(keys, return_counts=True)), strict=True):
                index, option = divmod(key, size)
                amount = self._prices[index]
                if is_best:
                    lows[option] += amount.low * count
                elif amount.high is None:
                    unbounded.add(option)
                else:
                    highs[option] += amount.high * count
        return [Amount(lows[i], None if i in unbounded else highs[i]) for i in range(size)]

    def to_cost(self, left: Amount) -> NodeCost:
        """Return the sum, of which `left` is left to pay."""
        return NodeCost(
            node=self.node.node_id,
            class_type=self.node.class_type,
            executions=Bounds(*self._executions),
            each=self._each or NOTHING,
            total=self.total,
            left=left,
            approximate=self._is_approximate,
            reasons=tuple(self._reasons),
        )
