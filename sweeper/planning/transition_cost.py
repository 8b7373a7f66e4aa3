"""The cost of running one trial after another, on a server that keeps the results of the last job.

The runner splits a plan among servers where this cost is high.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.model.template import Template
from sweeper.model.trial import Trial
from sweeper.model.workflow import find_downstream
from sweeper.planning.order import Costs


class TransitionCost:
    """The cost of one trial after another, by the slots whose values differ, in the unit of `Costs`.

    `full_cost` is the cost of a whole graph.
    """

    def __init__(self, template: Template, costs: Costs) -> None:
        self._graph = template.graph
        self._costs = costs
        self._nodes = {slot: template.find_nodes(slot) for slot in template.slots}
        self._cache: dict[tuple[str, ...], float] = {}
        self.full_cost = self._add_up(template.graph)

    def compute(self, before: Trial | None, after: Trial) -> float:
        """Return the cost of `after` if `before` was the previous job of the server; None: there was none."""
        if before is None or self._costs.caching.kind == "none":
            return self.full_cost
        changed = tuple([slot for slot, value in after.params.items() if not _is_same(before.params, slot, value)])
        if changed not in self._cache:
            nodes = {node for slot in changed for node in self._nodes[slot]}
            self._cache[changed] = self._add_up(find_downstream(self._graph, nodes))
        return self._cache[changed]

    def _add_up(self, nodes: Any) -> float:
        return sum(self._costs.estimate(self._graph[node]["class_type"]) for node in nodes)


def _is_same(params: Mapping[str, Any], slot: str, value: Any) -> bool:
    return slot in params and params[slot] == value
