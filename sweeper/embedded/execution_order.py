"""In which order the nodes of a graph run: only what the outputs reach, by ComfyUI's choice.

A topological dissolve (`comfy_execution/graph.py`, ExecutionList): among the ready nodes an output node goes first,
then one that feeds an output node, then one that feeds such a one, else the first. Nothing is run here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeper.embedded.node_inputs import is_link

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ExecutionOrder:
    """What is still to run. `add` outputs, then `pick` and `done` until it is empty.

    Args:
        graph: node id -> node.
        is_output: class_type -> whether it is an output node.
        is_cached: node id -> whether its result is at hand, so that nothing upstream is needed.

    """

    def __init__(
        self, graph: Mapping[str, Any], is_output: Callable[[str], bool], is_cached: Callable[[str], bool]
    ) -> None:
        self._graph = graph
        self._is_output = is_output
        self._is_cached = is_cached
        self._blocked_by: dict[str, int] = {}  # every pending node, in order of discovery
        self._blocks: dict[str, dict[str, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._blocked_by)

    def add(self, node_id: str) -> None:
        """Plan a node, cached or not, and whatever it needs that is not cached."""
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current in self._blocked_by:
                continue
            self._blocked_by[current] = 0
            self._blocks.setdefault(current, {})
            sources = [value[0] for value in self._graph[current]["inputs"].values() if is_link(value)]
            for source in sources:
                if self._is_cached(source):
                    continue
                waiting.append(source)
                blocked = self._blocks.setdefault(source, {})
                if current not in blocked:
                    blocked[current] = None
                    self._blocked_by[current] += 1

    def pick(self) -> str | None:
        """The node to run next; None when every pending node waits for another one: a cycle."""
        ready = [node_id for node_id, count in self._blocked_by.items() if count == 0]
        if not ready:
            return None
        for distance in range(3):
            for node_id in ready:
                if self._is_near_output(node_id, distance):
                    return node_id
        return ready[0]

    def _is_near_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return self._is_output(self._graph[node_id]["class_type"])
        return any(self._is_near_output(blocked, distance - 1) for blocked in self._blocks[node_id])

    def complete(self, node_id: str) -> None:
        """A picked node has its result."""
        del self._blocked_by[node_id]
        for blocked in self._blocks.pop(node_id):
            self._blocked_by[blocked] -= 1

    def find_cycle_node(self) -> str:
        """A node on the cycle that keeps `pick` from finding one."""
        pending = dict(self._blocked_by)
        while True:
            # Peel off what only waits for a cycle: nodes that block nobody who is left.
            loose = [node for node in pending if not any(other in pending for other in self._blocks[node])]
            if not loose:
                return next(iter(pending))
            for node in loose:
                del pending[node]
