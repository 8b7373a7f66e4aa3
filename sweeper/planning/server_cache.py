"""The cache of a ComfyUI server: which node results it keeps from job to job, and which nodes run therefore.

As measured on ComfyUI 0.3.64, a server keeps by default only the results of the nodes of the preceding job, of any
client. With `--cache-lru N` it keeps about N results of the last jobs, with `--cache-none` nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sweeper.model.workflow import Graph, find_sinks, iter_links

Dependencies = Mapping[str, frozenset[int]]  # for each node id, the dimensions whose change makes the node run again


@dataclass(frozen=True, slots=True)
class ServerCache:
    """The kind of cache that a server uses. `size` is the number of node results that an `lru` cache keeps."""

    kind: Literal["classic", "lru", "none"] = "classic"
    size: int = 0

    def __str__(self) -> str:
        return f"lru {self.size}" if self.kind == "lru" else self.kind


CLASSIC_CACHE: Final = ServerCache()
NO_CACHE: Final = ServerCache("none")


def parse_cache_arguments(arguments: Sequence[str]) -> ServerCache:
    """Return the cache of a ComfyUI with this command line; the default if no known option is given."""
    cache = CLASSIC_CACHE
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--cache-none":
            cache = NO_CACHE
        elif name == "--cache-lru":
            size = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            # `--cache-lru 0` means no LRU cache, so the default one.
            cache = ServerCache("lru", int(size)) if size.isdecimal() and int(size) > 0 else CLASSIC_CACHE
        elif name == "--cache-classic":
            cache = CLASSIC_CACHE
    return cache


def find_smallest_cache(cachings: Iterable[ServerCache]) -> ServerCache:
    """Return the cache to plan for when several servers share a plan: the smallest that keeps anything."""
    keeping = [caching for caching in cachings if caching.kind != "none"]
    return min(keeping, key=lambda caching: caching.size, default=NO_CACHE)


def count_lru_executions(
    graph: Graph, trials: Iterable[Sequence[int]], dependencies: Dependencies, size: int
) -> dict[str, int]:
    """Count how often each node runs if the jobs at these coordinates run one after the other with an LRU cache.

    The cache evicts the results of whole jobs, and only when the next job begins (ComfyUI 0.3.64, caching.py:283-292).
    """
    cache = _LruCache(size)
    sources = {node: tuple(source for _, source, _ in iter_links(graph[node])) for node in graph}
    dimensions_of = {node: tuple(sorted(dependencies[node])) for node in graph}
    outputs = sorted(find_sinks(graph))
    counts = dict.fromkeys(graph, 0)
    for coordinates in trials:
        keys = {
            node: (node, *(coordinates[dimension] for dimension in needed)) for node, needed in dimensions_of.items()
        }
        cache.begin_job(keys.values())
        pending = list(outputs)
        while pending:
            node = pending.pop()
            if cache.add(keys[node]):
                counts[node] += 1
                pending.extend(sources[node])
    return counts


class _LruCache:
    """A model of ComfyUI's LRU cache of `size` node results."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._last_used: dict[tuple[object, ...], int] = {}
        self._cached: set[tuple[object, ...]] = set()
        self._generation = self._oldest = 0

    def begin_job(self, keys: Iterable[tuple[object, ...]]) -> None:
        """Mark the results of a new job as used, and evict those of the oldest jobs until the size is kept."""
        self._generation += 1
        for key in keys:
            self._last_used[key] = self._generation
        while len(self._cached) > self.size and self._oldest < self._generation:
            self._oldest += 1
            self._cached = {key for key in self._cached if self._last_used[key] >= self._oldest}
            self._last_used = {key: used for key, used in self._last_used.items() if used >= self._oldest}

    def add(self, key: tuple[object, ...]) -> bool:
        """Add a result. Return whether it was not cached, so that its node has to run."""
        if key in self._cached:
            return False
        self._cached.add(key)
        return True
