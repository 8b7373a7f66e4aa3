"""The order in which a block's dimensions nest, so that a server which keeps the last job's results re-runs least.

ComfyUI's default cache keeps the node results of the preceding job only (`COMFYUI_BEHAVIOUR`, section 6, measured: 3
model loads against 36 for one sweep in two orders). A node runs again whenever a dimension that it depends on, itself
or through its inputs, has changed; so the dimensions with the costliest nodes downstream belong outermost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from sweeper.experiment import Experiment
from sweeper.planning.grid import Grid
from sweeper.workflow import downstream

# Rough seconds on a GPU by what a class's name says, until measured times are there. The order needs ranks, not truth.
_WEIGHTS: Final = (
    ("Loader", 10.0),
    ("Sampler", 8.0),
    ("Upscale", 4.0),
    ("VAE", 2.0),
    ("ControlNet", 2.0),
    ("TextEncode", 1.0),
)
_EXACT: Final = 12  # dimensions for which every subset is tried; beyond, the best next one is taken


def weight(class_type: str) -> float:
    """The assumed cost of running a node of this class once."""
    return next((cost for word, cost in _WEIGHTS if word in class_type), 0.1)


def dependencies(experiment: Experiment, grid: Grid) -> dict[str, frozenset[int]]:
    """For each node the dimensions that make it run again when they change."""
    found: dict[str, set[int]] = {node: set() for node in experiment.template.graph}
    for place, size in enumerate(grid.sizes):
        if size == 1:
            continue  # it never changes, so it makes nothing run again
        touched = {
            node
            for slot, column in grid.slots.items()
            if place in column.dimensions
            for node in experiment.template.nodes_of(slot)
        }
        for node in downstream(experiment.template.graph, touched):
            found[node].add(place)
    return {node: frozenset(places) for node, places in found.items()}


def executions(order: Sequence[int], sizes: Sequence[int], needs: dict[str, frozenset[int]]) -> dict[str, int]:
    """How often each node runs when the dimensions nest in `order`, on a server that keeps the last job's results."""
    counts = {}
    for node, places in needs.items():
        depth = max((order.index(place) + 1 for place in places), default=0)
        counts[node] = prod(sizes[place] for place in order[:depth])
    return counts


def best_order(experiment: Experiment, grid: Grid) -> tuple[int, ...]:
    """The dimensions, outermost first, with the least total cost; the written order where it is as good."""
    needs = dependencies(experiment, grid)
    graph = experiment.template.graph
    costs: dict[frozenset[int], float] = {}
    for node, places in needs.items():
        costs[places] = costs.get(places, 0.0) + weight(graph[node]["class_type"])
    dimensions = range(len(grid.sizes))
    return _exact(grid.sizes, costs) if len(dimensions) <= _EXACT else _greedy(grid.sizes, costs)


def _step_cost(inside: frozenset[int], added: int, sizes: Sequence[int], costs: dict[frozenset[int], float]) -> float:
    """What the nodes cost whose last dimension is `added`: they run once for every combination so far."""
    reached = inside | {added}
    runs = prod(sizes[place] for place in reached)
    return runs * sum(cost for places, cost in costs.items() if added in places and places <= reached)


def _exact(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Dynamic programming over the sets of outer dimensions; ties go to the order nearer to the written one."""
    everything = frozenset(range(len(sizes)))
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {frozenset(): (0.0, ())}
    for _ in sizes:
        wider: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for inside, (cost, order) in best.items():
            for added in sorted(everything - inside):
                found = (round(cost + _step_cost(inside, added, sizes, costs), 6), (*order, added))
                key = inside | {added}
                wider[key] = min(wider.get(key, found), found)
        best = wider
    return best[everything][1]


def _greedy(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Outermost first: at each step the dimension under which most cost would otherwise be repeated."""
    order: list[int] = []
    left = list(range(len(sizes)))
    while left:
        heaviest = max(left, key=lambda place: (sum(c for places, c in costs.items() if place in places), -place))
        order.append(heaviest)
        left.remove(heaviest)
    return tuple(order)
