"""What the nodes of a template cost in one job, by the prices of their classes and by what the targets state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.model.charges import PRICED, Charge, sum_charges
from sweeper.model.money import Amount, TargetPrice
from sweeper.model.node_classes import NodeInfo, NodeSpec
from sweeper.model.node_classes.price_badge import PriceCalculator
from sweeper.model.template import Template
from sweeper.model.workflow import find_sinks, iter_links
from sweeper.planning.node_prices import PricedNode, StatedPrice


class TemplatePrices:
    """Computes what a job with this template costs. `classes` and `prices` are as of `PlanPrices`."""

    def __init__(self, template: Template, classes: NodeInfo | None, prices: Sequence[TargetPrice | None] = ()) -> None:
        self._template = template
        self._classes = classes
        self._rates = [price or TargetPrice() for price in prices]
        calculator = PriceCalculator()
        self._running = self._find_running_nodes()
        found = (self._find_price(node, calculator) for node in template.graph if node in self._running)
        self._nodes = [node for node in found if node is not None]
        self._names = tuple(dict.fromkeys(name for node in self._nodes for name in node.names))
        self._charges: dict[str, tuple[Charge, ...]] = {}

    @property
    def has_partner_nodes(self) -> bool:
        """Whether the template has nodes with prices of their own."""
        return bool(self._nodes)

    @property
    def has_prices(self) -> bool:
        """Whether anything in it has a price."""
        return bool(self._nodes) or self._has_rates

    @property
    def _has_rates(self) -> bool:
        """Whether a target has a price."""
        return any(rate.has_rate for rate in self._rates)

    def price_params(self, params: Mapping[str, Any]) -> Amount:
        """Return what the partner nodes of one job with these params cost if all of them run."""
        return sum_charges(self.price_nodes(params))

    def price_nodes(self, params: Mapping[str, Any]) -> tuple[Charge, ...]:
        """Return what each partner node of one job with these params costs if it runs."""
        key = repr([params.get(name) for name in self._names])
        if key not in self._charges:
            self._charges[key] = tuple(
                Charge(node.node_id, node.class_type, node.compute(params).amount, PRICED) for node in self._nodes
            )
        return self._charges[key]

    def find_unbounded(self, params: Mapping[str, Any]) -> tuple[PricedNode | StatedPrice, str] | None:
        """Return the first partner node whose price has no upper bound, and why; None if all have one."""
        if all(math.isfinite(charge.amount.high) for charge in self.price_nodes(params)):
            return None
        found = ((node, node.compute(params)) for node in self._nodes)
        return next((node, price.reason) for node, price in found if math.isinf(price.amount.high))

    def _find_running_nodes(self) -> set[str]:
        """Return the nodes that an output node needs; no other node runs."""
        graph = self._template.graph
        waiting = [node for node in graph if (spec := self._get_spec(node)) is not None and spec.is_output]
        waiting = waiting or list(find_sinks(graph))
        running: set[str] = set()
        while waiting:
            node = waiting.pop()
            if node not in running:
                running.add(node)
                waiting += [source for _, source, _ in iter_links(graph[node])]
        return running

    def _get_spec(self, node: str) -> NodeSpec | None:
        class_type = self._template.graph[node]["class_type"]
        return self._classes.classes.get(class_type) if self._classes is not None else None

    def _find_price(self, node: str, calculator: PriceCalculator) -> PricedNode | StatedPrice | None:
        """Return the price of a node: what a target states for its class, else what the class states."""
        template, spec = self._template, self._get_spec(node)
        class_type = template.graph[node]["class_type"]
        found = [rate.get_node_price(class_type) for rate in self._rates]
        stated = [price for price in found if price is not None]
        if stated:
            return StatedPrice(node, class_type, Amount(min(stated), max(stated)))
        if spec is None or spec.price_badge is None:
            return None
        return PricedNode(template, node, spec, spec.price_badge, calculator)
