"""What a server that keeps the last job's results runs again between two trials: where a plan is best cut in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.model.workflow import find_downstream

if TYPE_CHECKING:
    from sweeper.model.template import Template
    from sweeper.model.trial import Trial
    from sweeper.planning.order import Costs


class TransitionCost:
    """The cost of going from one trial to the next, by the slots that differ; in the unit of `Costs`."""

    def __init__(self, template: Template, costs: Costs) -> None:
        self._graph = template.graph
        self._costs = costs
        self._nodes = {slot: template.find_nodes(slot) for slot in template.slots}
        self._cache: dict[tuple[str, ...], float] = {}
        self.full_cost = self._add_up(template.graph)

    def compute(self, before: Trial | None, after: Trial) -> float:
        """What `after` costs when `before` was the job before it; the whole graph where there was none."""
        if before is None or self._costs.caching.kind == "none":
            return self.full_cost
        changed = tuple([slot for slot, value in after.params.items() if not _is_same(before.params, slot, value)])
        if changed not in self._cache:
            touched = {node for slot in changed for node in self._nodes[slot]}
            self._cache[changed] = self._add_up(find_downstream(self._graph, touched))
        return self._cache[changed]

    def _add_up(self, nodes: Any) -> float:
        return sum(self._costs.estimate(self._graph[node]["class_type"]) for node in nodes)


def _is_same(params: Mapping[str, Any], slot: str, value: Any) -> bool:
    return slot in params and params[slot] == value
