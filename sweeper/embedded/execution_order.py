"""The order in which the nodes of a graph run, as ComfyUI chooses it.

Only nodes that an output node depends on run. Among the nodes whose inputs are ready, ComfyUI prefers an output node,
then a node that feeds an output node directly, then one that feeds it through one other node, then the first
(`comfy_execution/graph.py`, ExecutionList).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sweeper.embedded.node_inputs import list_sources


class ExecutionOrder:
    """The nodes that still have to run. Call `add` for each output, then `pick` and `complete` until it is empty.

    Args:
        graph: node id -> node.
        is_output: class_type -> whether it is an output node.
        is_cached: node id -> whether its result is cached, so that its upstream nodes need not run.

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
        """Add a node, cached or not, and the uncached nodes that it depends on."""
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current in self._blocked_by:
                continue
            self._blocked_by[current] = 0
            self._blocks.setdefault(current, {})
            for source in list_sources(self._graph[current]):
                if self._is_cached(source):
                    continue
                waiting.append(source)
                blocked = self._blocks.setdefault(source, {})
                if current not in blocked:
                    blocked[current] = None
                    self._blocked_by[current] += 1

    def pick(self) -> str | None:
        """The node to run next, or None if every pending node waits for another one, which means a cycle."""
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
        """Remove a node that has its result, and unblock the nodes that wait for it."""
        del self._blocked_by[node_id]
        for blocked in self._blocks.pop(node_id):
            self._blocked_by[blocked] -= 1

    def find_cycle_node(self) -> str:
        """A node on the cycle that blocks all pending nodes."""
        pending = dict(self._blocked_by)
        while True:
            # Remove nodes that only wait for a cycle, which are those that block no other pending node.
            leaves = [node for node in pending if not any(other in pending for other in self._blocks[node])]
            if not leaves:
                return next(iter(pending))
            for node in leaves:
                del pending[node]
