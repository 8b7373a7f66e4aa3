"""The price of a node of a template: what its class states for given params, or what the user states for the class."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sweeper.model.expressions import ExpressionError
from sweeper.model.money import UNKNOWN_AMOUNT, Amount
from sweeper.model.node_classes import InputSpec, NodeSpec
from sweeper.model.node_classes.price_badge import NodePrice, PriceBadge, PriceCalculator
from sweeper.model.template import MISSING, Leaf, Template, drop_unchosen_inputs, set_at_path
from sweeper.model.workflow import is_link, iter_links

_MAX_GUESSES: Final = 64  # combinations of values that arrive over links


@dataclass(frozen=True, slots=True)
class StatedPrice:
    """A node whose price the user states in the `price` of a target, whatever the class says."""

    node_id: str
    class_type: str
    amount: Amount
    names: tuple[str, ...] = ()

    def compute(self, _params: Mapping[str, Any]) -> NodePrice:
        """Return the price of one execution."""
        return NodePrice(self.amount)


class PricedNode:
    """A partner node of a template, and the values that its price depends on."""

    def __init__(
        self, template: Template, node_id: str, spec: NodeSpec, badge: PriceBadge, calculator: PriceCalculator
    ) -> None:
        self.node_id = node_id
        self.class_type = spec.class_type
        self._template = template
        self._spec = spec
        self._badge = badge
        self._calculator = calculator

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
        """The slots on which the price depends."""
        return tuple(dict.fromkeys(name for leaf in self.leaves for name in leaf.names))

    def compute(self, params: Mapping[str, Any]) -> NodePrice:
        """Return the price of one execution with these params, of which only those of `names` are read."""
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
        values = {name: literals.get(name, _get_default(spec)) for name, spec in specs.items() if spec.kind == "widget"}
        linked = [name for name, _ in self._badge.widgets if is_link(inputs.get(name)) and name not in literals]
        choices = [_list_choices(specs.get(name)) for name in linked]
        if not all(choices) or math.prod(map(len, choices)) > _MAX_GUESSES:
            name = next((one for one, found in zip(linked, choices, strict=True) if not found), "")
            source = inputs[name][0] if name else ""
            reason = f"its input {name} comes from node {source}, so its value is not known before the node runs"
            return NodePrice(UNKNOWN_AMOUNT, reason=reason if name else "too many of its inputs come over links")
        values = {name: value for name, value in values.items() if not is_link(inputs.get(name)) or name in literals}
        price: NodePrice | None = None
        for guess in itertools.product(*choices):
            other = self._calculator.compute(self._badge, {**values, **dict(zip(linked, guess, strict=True))}, inputs)
            price = other if price is None else _join_prices(price, other)
        assert price is not None
        return price


def _get_default(spec: InputSpec) -> Any:
    """Return the value of a widget that a workflow leaves out: its default, or else its first choice."""
    if spec.default is not MISSING:
        return spec.default
    return spec.choices[0] if spec.choices else None


def _list_choices(spec: InputSpec | None) -> list[Any]:
    """Return the values that an input may have; empty if they are not few."""
    if spec is None or spec.branches:
        return []
    return [False, True] if spec.type == "BOOLEAN" else list(spec.choices or ())


def _join_prices(first: NodePrice, second: NodePrice) -> NodePrice:
    return NodePrice(
        first.amount.join(second.amount), first.is_approximate or second.is_approximate, first.reason or second.reason
    )
