"""Choose the nesting order of the dimensions of a block so that a caching server runs as few nodes as possible.

Most servers keep only the node results of the preceding job. A node runs again if a dimension has changed that the node
depends on, directly or through its inputs. So the dimensions with the costliest nodes downstream belong
outermost. For 3 models, 3 texts and 4 seeds, the best order loads a model 3 times, the worst order 36 times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from sweeper.model.experiment import Experiment
from sweeper.model.workflow import Graph, find_downstream, has_filename_prefix
from sweeper.planning.grid import Grid
from sweeper.planning.server_cache import CLASSIC_CACHE, Dependencies, ServerCache, count_lru_executions

# Rough seconds on a GPU by the name of the class, used until times are measured. Only their order matters.
_WEIGHTS: Final = (
    ("Loader", 10.0),
    ("Sampler", 8.0),
    ("Upscale", 4.0),
    ("VAE", 2.0),
    ("ControlNet", 2.0),
    ("TextEncode", 1.0),
)
_MAX_EXACT: Final = 12  # dimensions for which every subset is tried; with more, the search is greedy


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of running a node once: `seconds` as measured for its class, else an assumed cost.

    `caching` is the cache of the server.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    caching: ServerCache = CLASSIC_CACHE

    def estimate(self, class_type: str) -> float:
        """Return the cost of running a node of this class once."""
        assumed = next((cost for word, cost in _WEIGHTS if word in class_type), 0.1)
        return max(self.seconds.get(class_type, assumed), 1e-6)

    def add_up(self, graph: Graph, runs: Mapping[str, int]) -> float:
        """Return the cost of running each node as often as `runs` says."""
        return sum(count * self.estimate(graph[node]["class_type"]) for node, count in runs.items())


def find_dependencies(experiment: Experiment, grid: Grid) -> Dependencies:
    """Return for each node the dimensions whose change makes it run again.

    A node that saves files runs in every job, because each job has a prefix of its own: see `sweeper.comfy.job_marker`.
    """
    graph = experiment.template.graph
    saving = {node for node in graph if has_filename_prefix(graph[node])}
    dependencies: dict[str, set[int]] = {node: set() for node in graph}
    for dimension, size in enumerate(grid.sizes):
        if size == 1:
            continue  # it never changes
        nodes = {
            node
            for slot, column in grid.slots.items()
            if dimension in column.dimensions
            for node in experiment.template.find_nodes(slot)
        }
        for node in find_downstream(graph, nodes | saving if nodes else ()):
            dependencies[node].add(dimension)
    return {node: frozenset(dimensions) for node, dimensions in dependencies.items()}


def count_executions(
    order: Sequence[int], sizes: Sequence[int], dependencies: Dependencies, caching: ServerCache = CLASSIC_CACHE
) -> dict[str, int]:
    """Count how often each node runs for the whole product in this order, with a cache of the last job or of all."""
    counts = {}
    for node, dimensions in dependencies.items():
        depth = max((order.index(dimension) + 1 for dimension in dimensions), default=0)
        repeated = dimensions if caching.keeps_all else order[:depth]
        counts[node] = prod(sizes[dimension] for dimension in repeated)
    return counts


def count_filtered_executions(
    order: Sequence[int], points: Iterable[Sequence[int]], dependencies: Dependencies
) -> dict[str, int]:
    """Count how often each node runs for these points in this order, with a cache of the last job."""
    sorted_points = sorted(tuple([point[dimension] for dimension in order]) for point in points)
    counts: dict[frozenset[int], int] = {}
    for dimensions in set(dependencies.values()):
        levels = [order.index(dimension) for dimension in dimensions]
        depth = max(levels, default=-1) + 1
        # Along the sorted points, a node runs again whenever one of its dimensions changes.
        last: tuple[int, ...] | None = None
        count = 0
        for point in sorted_points:
            current = tuple([point[level] for level in range(depth) if level in levels])
            count += current != last
            last = current
        counts[dimensions] = count
    return {node: counts[dimensions] for node, dimensions in dependencies.items()}


def count_cached_executions(
    graph: Graph,
    order: Sequence[int],
    points: Sequence[Sequence[int]],
    dependencies: Dependencies,
    caching: ServerCache,
) -> dict[str, int]:
    """Count how often each node runs for these points in this order, with a cache of this kind."""
    if caching.kind == "none":
        return dict.fromkeys(graph, len(points))
    if caching.keeps_all:
        counts = {
            dimensions: len({tuple([point[dimension] for dimension in dimensions]) for point in points})
            for dimensions in set(dependencies.values())
        }
        return {node: counts[dimensions] for node, dimensions in dependencies.items()}
    if caching.kind == "lru":
        sorted_points = sorted(points, key=lambda point: [point[dimension] for dimension in order])
        return count_lru_executions(graph, sorted_points, dependencies, caching.size)
    return count_filtered_executions(order, points, dependencies)


def find_best_order(experiment: Experiment, grid: Grid, costs: Costs) -> tuple[int, ...]:
    """Return the dimensions, outermost first, in the order of least total cost; the written order if it is as good."""
    written = tuple(range(len(grid.sizes)))
    if costs.caching.kind == "none" or costs.caching.keeps_all:
        return written
    needs = find_dependencies(experiment, grid)
    graph = experiment.template.graph
    weights: dict[frozenset[int], float] = {}
    for node, dimensions in needs.items():
        weights[dimensions] = weights.get(dimensions, 0.0) + costs.estimate(graph[node]["class_type"])
    return _search_exact(grid.sizes, weights) if len(written) <= _MAX_EXACT else _search_greedy(grid.sizes, weights)


def _compute_step_cost(
    outer: frozenset[int], added: int, sizes: Sequence[int], costs: dict[frozenset[int], float]
) -> float:
    """Return the cost of the nodes whose innermost dimension is `added`: they run once for every combination so far."""
    chosen = outer | {added}
    runs = prod(sizes[dimension] for dimension in chosen)
    return runs * sum(cost for dimensions, cost in costs.items() if added in dimensions and dimensions <= chosen)


def _search_exact(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Find the best order by dynamic programming over sets of outer dimensions; ties go to the written order."""
    all_dimensions = frozenset(range(len(sizes)))
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {frozenset(): (0.0, ())}
    for _ in sizes:
        larger: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for outer, (cost, order) in best.items():
            for added in sorted(all_dimensions - outer):
                candidate = (round(cost + _compute_step_cost(outer, added, sizes, costs), 6), (*order, added))
                key = outer | {added}
                larger[key] = min(larger.get(key, candidate), candidate)
        best = larger
    return best[all_dimensions][1]


def _search_greedy(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Choose one dimension after the other, outermost first: the one whose change would cost most."""
    order: list[int] = []
    remaining = list(range(len(sizes)))
    while remaining:
        costliest = max(
            remaining,
            key=lambda dimension: (sum(c for dimensions, c in costs.items() if dimension in dimensions), -dimension),
        )
        order.append(costliest)
        remaining.remove(costliest)
    return tuple(order)
