"""Choose the nesting order of the dimensions of a block so that a caching server runs as few nodes as possible.

Most servers keep only the node results of the preceding job. A node runs again if a dimension has changed that the node
depends on, directly or through its inputs. So the dimensions with the costliest nodes downstream belong
outermost. For 3 models, 3 texts and 4 seeds, the best order loads a model 3 times, the worst order 36 times.

Which node results a ComfyUI keeps from job to job depends on its cache:

- `classic` (`--cache-classic` or `--high-ram`; the default before 0.23.0) keeps the results of the preceding job's
  nodes, of any client.
- `lru N` (`--cache-lru N`) keeps about N results of the last jobs.
- `ram` (`--cache-ram`; the default since 0.23.0, Comfy-Org/ComfyUI#13802) keeps all results while the machine has more
  free memory than a threshold, otherwise those of the preceding job. The default threshold is the whole memory, up to
  128 GiB (#14089, #15068), so only machines with more keep anything else.
- `none` (`--cache-none`) keeps nothing.

Measured on ComfyUI 0.3.64 and 0.33.0 with each option.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from sweeper.model.experiment import Experiment
from sweeper.model.node_classes.spec import MODEL_SUFFIXES
from sweeper.model.template import MISSING, Template
from sweeper.model.trial import Trial
from sweeper.model.workflow import Graph, find_downstream, find_sinks, has_filename_prefix, iter_links
from sweeper.planning.grid import Grid, OptionColumn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Positions: TypeAlias = NDArray[np.int64]

Dependencies = Mapping[str, frozenset[int]]  # for each node id, the dimensions whose change makes the node run again

_GIB: Final = 2**30
_FIRST_WITH_RAM: Final = (0, 23)  # by default; older versions with the option may keep more than is planned for
# Rough seconds on a GPU by the name of the class, used until times are measured. Only their order matters.
_WEIGHTS: Final = {"Loader": 10.0, "Sampler": 8.0, "Upscale": 4.0, "VAE": 2.0, "ControlNet": 2.0, "TextEncode": 1.0}
_MAX_EXACT: Final = 12  # dimensions for which every subset is tried; with more, they are only sorted


@dataclass(frozen=True, slots=True)
class ServerCache:
    """The kind of cache that a server uses.

    `size`: the number of node results that an `lru` cache keeps. `keeps_all`: whether a `ram` cache has the memory to
    keep the results of all jobs.
    """

    kind: Literal["classic", "lru", "ram", "none"] = "classic"
    size: int = 0
    keeps_all: bool = False

    def __str__(self) -> str:
        if self.kind == "ram":
            return "ram" if self.keeps_all else "ram, last job only"
        return f"lru {self.size}" if self.kind == "lru" else self.kind


CLASSIC_CACHE: Final = ServerCache()
NO_CACHE: Final = ServerCache("none")


def detect_server_cache(version: str, arguments: Sequence[str], memory: tuple[int, int] = (0, 0)) -> ServerCache:
    """Return the cache of a ComfyUI of this version with this command line; the classic one if both say nothing.

    `memory`: total and free bytes of its machine, as `/system_stats` reports them.
    """
    options = {
        name: [value] if value else [*takewhile(lambda word: not word.startswith("-"), arguments[index + 1 :])]
        for index, argument in enumerate(arguments)
        for name, _, value in [argument.partition("=")]
    }
    size = "".join(options.get("--cache-lru", [])[:1])
    if "--cache-classic" in options or "--high-ram" in options:
        return CLASSIC_CACHE
    if size.isdecimal() and int(size) > 0:  # `--cache-lru 0` means no LRU cache, so the default one
        return ServerCache("lru", int(size))
    if "--cache-none" in options:
        return NO_CACHE
    numbers = tuple(map(int, re.findall(r"[0-9]{1,6}", version)[:3]))
    if numbers < _FIRST_WITH_RAM:
        return CLASSIC_CACHE
    total, free = memory
    try:  # the second threshold is that below which it drops the results of earlier jobs
        threshold = float(options["--cache-ram"][1]) * _GIB
    except (KeyError, IndexError, ValueError):
        threshold = min(128 * _GIB, total)
    return ServerCache("ram", keeps_all=free > threshold)


def find_smallest_cache(caches: Iterable[ServerCache]) -> ServerCache:
    """Return the cache to plan for when several servers share a plan: the smallest that keeps anything.

    Each server has a cache of its own, so trials that share a loaded model belong together even if all servers keep all
    results. Therefore a `ram` cache counts as one that keeps the last job only, unless there is one server.
    """
    keeping = [cache for cache in caches if cache.kind != "none"]
    smallest = min(keeping, key=lambda cache: (cache.keeps_all, cache.size), default=NO_CACHE)
    return replace(smallest, keeps_all=smallest.keeps_all and len(keeping) == 1)


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of running a node once: `seconds` as measured for its class, else an assumed cost.

    `caching` is the cache of the server.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    caching: ServerCache = CLASSIC_CACHE

    def estimate(self, class_type: str) -> float:
        assumed = next((cost for word, cost in _WEIGHTS.items() if word in class_type), 0.1)
        return max(self.seconds.get(class_type, assumed), 1e-6)

    def add_up(self, graph: Graph, runs: Mapping[str, int]) -> float:
        return sum(count * self.estimate(graph[node]["class_type"]) for node, count in runs.items())


def find_dependencies(experiment: Experiment, grid: Grid) -> Dependencies:
    """Return for each node the dimensions whose change makes it run again.

    A node that saves files runs in every job, because each job has a prefix of its own: see `sweeper.comfy.jobs_api`.
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
    order: Sequence[int], sizes: Sequence[int], dependencies: Dependencies, caching: ServerCache
) -> dict[str, int]:
    """Count how often each node runs for the whole product in this order, with a cache of the last job or of all."""
    counts = {}
    for node, dimensions in dependencies.items():
        depth = max((order.index(dimension) + 1 for dimension in dimensions), default=0)
        repeated = dimensions if caching.keeps_all else order[:depth]
        counts[node] = prod(sizes[dimension] for dimension in repeated)
    return counts


def count_lru_executions(
    graph: Graph, trials: Iterable[Sequence[int]], dependencies: Dependencies, size: int
) -> dict[str, int]:
    """Count how often each node runs if the jobs at these coordinates run one after the other with an LRU cache.

    The cache evicts the results of whole jobs, and only when the next job begins (caching.py of 0.3.64 and 0.33.0).
    """
    sources = {node: tuple(source for _, source, _ in iter_links(graph[node])) for node in graph}
    dimensions_of = {node: tuple(sorted(dependencies[node])) for node in graph}
    outputs = sorted(find_sinks(graph))
    counts = dict.fromkeys(graph, 0)
    last_used: dict[tuple[object, ...], int] = {}  # by result, the number of the job
    cached: set[tuple[object, ...]] = set()
    oldest = 0
    for number, coordinates in enumerate(trials, 1):
        keys = {
            node: (node, *(coordinates[dimension] for dimension in needed)) for node, needed in dimensions_of.items()
        }
        last_used.update(dict.fromkeys(keys.values(), number))
        while len(cached) > size and oldest < number:
            oldest += 1
            last_used = {key: used for key, used in last_used.items() if used >= oldest}
            cached &= last_used.keys()
        pending = list(outputs)
        while pending:
            node = pending.pop()
            if keys[node] not in cached:
                cached.add(keys[node])
                counts[node] += 1
                pending.extend(sources[node])
    return counts


def prefer_files(grid: Grid) -> list[int]:
    """Return the dimensions in the order that decides if two orders cost the same: those of model files first.

    A loader runs again whether its file or its strength changes, but LoraLoader keeps the last file that it read. For
    3 files and 2 strengths it reads 3 times if the strength varies fastest, otherwise 6 times.
    """
    of_files: set[int] = set()
    for name, column in grid.slots.items():
        values = column.values if isinstance(column, OptionColumn) else [column.get([0] * len(grid.sizes))]
        allowed = grid.experiment.template.slots[name].schema.rules.get("enum", ())
        if any(isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES) for value in (*values, *allowed)):
            of_files.update(column.dimensions)
    return sorted(range(len(grid.sizes)), key=lambda dimension: (dimension not in of_files, dimension))


def find_best_order(experiment: Experiment, grid: Grid, costs: Costs) -> tuple[int, ...]:
    """Return the dimensions, outermost first, in the order of least total cost; of equal ones, the first in the sense
    of `prefer_files`.
    """
    written = tuple(range(len(grid.sizes)))
    if costs.caching.kind == "none" or costs.caching.keeps_all:
        return written
    needs = find_dependencies(experiment, grid)
    graph = experiment.template.graph
    preferred = prefer_files(grid)  # the search takes the first of equal orders
    sizes = [grid.sizes[dimension] for dimension in preferred]
    weights: dict[frozenset[int], float] = {}
    for node, dimensions in needs.items():
        places = frozenset(map(preferred.index, dimensions))
        weights[places] = weights.get(places, 0.0) + costs.estimate(graph[node]["class_type"])
    if len(written) <= _MAX_EXACT:
        found = _search_exact(sizes, weights)
    else:  # the dimension whose change costs most is the outermost; of equal ones, the first
        changes = [sum(cost for places, cost in weights.items() if place in places) for place in written]
        found = tuple(sorted(written, key=changes.__getitem__, reverse=True))
    return tuple(preferred[place] for place in found)


def _search_exact(sizes: Sequence[int], costs: dict[frozenset[int], float]) -> tuple[int, ...]:
    """Find the best order by dynamic programming over sets of outer dimensions; of equal ones, the smallest."""
    all_dimensions = frozenset(range(len(sizes)))
    best: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {frozenset(): (0.0, ())}
    for _ in sizes:
        larger: dict[frozenset[int], tuple[float, tuple[int, ...]]] = {}
        for outer, (cost, order) in best.items():
            for added in sorted(all_dimensions - outer):
                chosen = outer | {added}
                # The nodes whose innermost dimension is `added` run once for every combination so far.
                runs = prod(sizes[dimension] for dimension in chosen)
                each = sum(cost for needed, cost in costs.items() if added in needed and needed <= chosen)
                candidate = (round(cost + runs * each, 6), (*order, added))
                larger[chosen] = min(larger.get(chosen, candidate), candidate)
        best = larger
    return best[all_dimensions][1]


class RunSequence:
    """The jobs that are sent, as arrays of written positions in a grid of these sizes, in the order in which they run.

    So node executions of a million jobs can be counted of which any are left out.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        order: Sequence[int],
        kept_positions: Iterable[int] | None,
        is_sent: bytearray | None = None,
    ) -> None:
        """`kept_positions` None: all positions of the grid. `is_sent` has one byte for each; None: all are sent."""
        import numpy as np

        self._sizes = tuple(sizes)
        dtype = np.int64 if prod(sizes) <= sys.maxsize else object  # Python's integers
        kept = np.arange(prod(sizes)) if kept_positions is None else np.fromiter(kept_positions, dtype)
        self.positions: Positions = kept if is_sent is None else kept[np.frombuffer(is_sent, dtype=np.uint8) > 0]
        if tuple(order) != tuple(range(len(self._sizes))):
            self.positions = self.positions[np.argsort(self.to_indexes(self.positions, order), kind="stable")]

    def to_indexes(self, positions: Positions, dimensions: Sequence[int]) -> Positions:
        """Return the number of each position's combination of options in these dimensions; the last varies fastest."""
        import numpy as np

        indexes = np.zeros(len(positions), positions.dtype)
        for dimension in dimensions:
            stride = prod(self._sizes[dimension + 1 :])
            indexes = indexes * self._sizes[dimension] + positions // stride % self._sizes[dimension]
        return indexes

    def find_executions(self, dimensions: Iterable[int], caching: ServerCache) -> Positions:
        """Return the jobs in which a node runs that depends on these dimensions; an LRU cache counts as the classic."""
        import numpy as np

        if caching.kind == "none" or not len(self.positions):
            return self.positions
        keys = self.to_indexes(self.positions, sorted(dimensions))
        if caching.keeps_all:
            return self.positions[np.sort(np.unique(keys, return_index=True)[1])]
        return self.positions[np.concatenate(([True], keys[1:] != keys[:-1]))]

    def count_executions(self, graph: Graph, dependencies: Dependencies, caching: ServerCache) -> dict[str, int]:
        """Count how often each node runs."""
        if caching.kind == "lru" and self._sizes:
            coordinates = [self.to_indexes(self.positions, (dimension,)) for dimension in range(len(self._sizes))]
            points = zip(*(part.tolist() for part in coordinates), strict=True)
            return count_lru_executions(graph, points, dependencies, caching.size)
        counts = {needed: len(self.find_executions(needed, caching)) for needed in set(dependencies.values())}
        return {node: counts[needed] for node, needed in dependencies.items()}


class TransitionCost:
    """The cost of one trial after another, by the slots whose values differ, on a server that keeps the last results.

    The runner splits a plan among servers where this cost is high. `full_cost` is the cost of a whole graph.
    """

    def __init__(self, template: Template, costs: Costs) -> None:
        self._graph = template.graph
        self._costs = costs
        self._nodes = {slot: template.find_nodes(slot) for slot in template.slots}
        self._cache: dict[tuple[str, ...], float] = {}
        self.full_cost = costs.add_up(template.graph, dict.fromkeys(template.graph, 1))

    def compute(self, before: Trial | None, after: Trial) -> float:
        """Return the cost of `after` if `before` was the previous job of the server; None: there was none."""
        if before is None or self._costs.caching.kind == "none":
            return self.full_cost
        changed = tuple([slot for slot, value in after.params.items() if before.params.get(slot, MISSING) != value])
        if changed not in self._cache:
            nodes = {node for slot in changed for node in self._nodes[slot]}
            runs = dict.fromkeys(find_downstream(self._graph, nodes), 1)
            self._cache[changed] = self._costs.add_up(self._graph, runs)
        return self._cache[changed]
