"""The order in which a block's dimensions nest, so that a server which keeps the last job's results re-runs least.

ComfyUI's default cache keeps the node results of the preceding job only (`COMFYUI_BEHAVIOUR`, section 6, measured: 3
model loads against 36 for one sweep in two orders). A node runs again whenever a dimension that it depends on, itself
or through its inputs, has changed; so the dimensions with the costliest nodes downstream belong outermost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from sweeper.model.experiment import Experiment
from sweeper.model.workflow import Graph, find_downstream
from sweeper.planning.grid import Grid
from sweeper.planning.server_cache import CLASSIC_CACHE, Dependencies, ServerCache, count_lru_executions

# Rough seconds on a GPU by what a class's name says, until measured times are there. The order needs ranks, not truth.
_WEIGHTS: Final = (
    ("Loader", 10.0),
    ("Sampler", 8.0),
    ("Upscale", 4.0),
    ("VAE", 2.0),
    ("ControlNet", 2.0),
    ("TextEncode", 1.0),
)
_MAX_EXACT: Final = 12  # dimensions for which every subset is tried; beyond, the best next one is taken


@dataclass(frozen=True, slots=True)
class Costs:
    """What running a node once costs. `seconds` were measured, by class; a class that was not has an assumed cost.

    `caching` is what the server keeps from one job to the next.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    caching: ServerCache = CLASSIC_CACHE

    def estimate(self, class_type: str) -> float:
        """The cost of one class."""
        assumed = next((cost for word, cost in _WEIGHTS if word in class_type), 0.1)
        return max(self.seconds.get(class_type, assumed), 1e-6)

    def add_up(self, graph: Graph, runs: Mapping[str, int]) -> float:
        """The cost of running each node so many times."""
        return sum(count * self.estimate(graph[node]["class_type"]) for node, count in runs.items())


def find_dependencies(experiment: Experiment, grid: Grid) -> Dependencies:
    """For each node the dimensions that make it run again when they change."""
    found: dict[str, set[int]] = {node: set() for node in experiment.template.graph}
    for place, size in enumerate(grid.sizes):
        if size == 1:
            continue  # it never changes, so it makes nothing run again
        touched = {
            node
            for slot, column in grid.slots.items()
            if place in column.dimensions
            for node in experiment.template.find_nodes(slot)
        }
        for node in find_downstream(experiment.template.graph, touched):
            found[node].add(place)
    return {node: frozenset(places) for node, places in found.items()}


def count_executions(order: Sequence[int], sizes: Sequence[int], dependencies: Dependencies) -> dict[str, int]:
    """How often each node runs when the whole product nests in `order`, on a server that keeps the last results."""
    counts = {}
    for node, places in dependencies.items():
        depth = max((order.index(place) + 1 for place in places), default=0)
        counts[node] = prod(sizes[place] for place in order[:depth])
    return counts


def count_filtered_executions(
    order: Sequence[int], points: Iterable[Sequence[int]], dependencies: Dependencies
) -> dict[str, int]:
    """The same for chosen points only, counted one by one."""
    walked = sorted(tuple([point[place] for place in order]) for point in points)
    runs: dict[frozenset[int], int] = {}
    for places in set(dependencies.values()):
        seen = [order.index(place) for place in places]
        depth = max(seen, default=-1) + 1
        # With the outer dimensions fixed in between, a node runs again whenever one that it depends on changes.
        last: tuple[int, ...] | None = None
        count = 0
        for point in walked:
            now = tuple([point[level] for level in range(depth) if level in seen])
            count += now != last
            last = now
        runs[places] = count
    return {node: runs[places] for node, places in dependencies.items()}


def count_cached_executions(
    graph: Graph,
    order: Sequence[int],
    points: Sequence[Sequence[int]],
    dependencies: Dependencies,
    caching: ServerCache,
) -> dict[str, int]:
    """How often each node runs at these points, nested in `order`, on a server that keeps results in this way."""
    if caching.kind == "none":
        return dict.fromkeys(graph, len(points))
    if caching.kind == "lru":
        walked = sorted(points, key=lambda point: [point[place] for place in order])
        return count_lru_executions(graph, walked, dependencies, caching.size)
    return count_filtered_executions(order, points, dependencies)


def find_best_order(experiment: Experiment, grid: Grid, costs: Costs) -> tuple[int, ...]:
    """The dimensions, outermost first, with the least total cost; the written order where it is as good."""
    written = tuple(range(len(grid.sizes)))
    if costs.caching.kind == "none":
        return written
    needs = find_dependencies(experiment, grid)
    graph = experiment.template.graph
    weights: dict[frozenset[int], float] = {}
    for node, places in needs.items():
        weights[places] = weights.get(places, 0.0) + costs.estimate(graph[node]["class_type"])
    return _search_exact(grid.sizes, weights) if len(written) <= _MAX_EXACT else _search_greedy(grid.sizes, weights)


def _compute_step_cost(
    inside: frozenset[int], added: int, sizes: Sequence[int], costs: dict[frozenset[int], float]
) -> float:
    """What the nodes cost whose last dimension is `added`: they run once for every combination so far."""
    reached = inside | {added}
    runs = prod(sizes[place] for place in reached)
    return runs * sum(cost for places, cost in costs.items() if added in places and places <= reached)


def _search_exact(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Dynamic programming over the sets of outer dimensions; ties go to the order nearer to the written one."""
    everything = frozenset(range(len(sizes)))
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {frozenset(): (0.0, ())}
    for _ in sizes:
        wider: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for inside, (cost, order) in best.items():
            for added in sorted(everything - inside):
                found = (round(cost + _compute_step_cost(inside, added, sizes, costs), 6), (*order, added))
                key = inside | {added}
                wider[key] = min(wider.get(key, found), found)
        best = wider
    return best[everything][1]


def _search_greedy(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Outermost first: at each step the dimension under which most cost would otherwise be repeated."""
    order: list[int] = []
    left = list(range(len(sizes)))
    while left:
        heaviest = max(left, key=lambda place: (sum(c for places, c in costs.items() if place in places), -place))
        order.append(heaviest)
        left.remove(heaviest)
    return tuple(order)
