"""What a server keeps of node results from one job to the next, and what therefore runs in a sequence of jobs.

Facts from `COMFYUI_BEHAVIOUR`, section 6, measured on a real server: by default the results of the preceding job's
nodes only; with `--cache-lru N` about N results of the last jobs; with `--cache-none` nothing. Which order is best is
`order`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sweeper.model.workflow import Graph, find_sinks, iter_links

Dependencies = Mapping[str, frozenset[int]]  # node id -> the dimensions that make it run again


@dataclass(frozen=True, slots=True)
class ServerCache:
    """One way of keeping. `size`: how many node results an `lru` cache holds."""

    kind: Literal["classic", "lru", "none"] = "classic"
    size: int = 0

    def __str__(self) -> str:
        return f"lru {self.size}" if self.kind == "lru" else self.kind


CLASSIC_CACHE: Final = ServerCache()
NO_CACHE: Final = ServerCache("none")


def parse_cache_arguments(arguments: Sequence[str]) -> ServerCache:
    """What a ComfyUI started with this command line keeps; the default where it says nothing that we know."""
    found = CLASSIC_CACHE
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--cache-none":
            found = NO_CACHE
        elif name == "--cache-lru":
            given = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            # ComfyUI takes 0 for "no LRU", which is the default way.
            found = ServerCache("lru", int(given)) if given.isdecimal() and int(given) > 0 else CLASSIC_CACHE
        elif name == "--cache-classic":
            found = CLASSIC_CACHE
    return found


def find_smallest_cache(cachings: Iterable[ServerCache]) -> ServerCache:
    """What to order for when several servers share a plan: the one that keeps least of those that keep anything."""
    keeping = [caching for caching in cachings if caching.kind != "none"]
    return min(keeping, key=lambda caching: caching.size, default=NO_CACHE)


def count_lru_executions(
    graph: Graph, points: Iterable[Sequence[int]], dependencies: Dependencies, size: int
) -> dict[str, int]:
    """How often each node runs when the jobs at these coordinates come one after the other to an LRU cache.

    Whole generations (jobs) go, and only when the next job begins: `caching.py:283-292` of ComfyUI 0.3.64.
    """
    cache = _LruCache(size)
    sources = {node: tuple(source for _, source, _ in iter_links(graph[node])) for node in graph}
    read = {node: tuple(sorted(dependencies[node])) for node in graph}
    outputs = sorted(find_sinks(graph))
    counts = dict.fromkeys(graph, 0)
    for point in points:
        keys = {node: (node, *(point[place] for place in places)) for node, places in read.items()}
        cache.begin_job(keys.values())
        waiting = list(outputs)
        while waiting:
            node = waiting.pop()
            if cache.add(keys[node]):
                counts[node] += 1
                waiting.extend(sources[node])
    return counts


class _LruCache:
    def __init__(self, size: int) -> None:
        self.size = size
        self._last_used: dict[tuple[object, ...], int] = {}
        self._cached: set[tuple[object, ...]] = set()
        self._generation = self._oldest = 0

    def begin_job(self, keys: Iterable[tuple[object, ...]]) -> None:
        """A job begins: its own results are fresh, and of the others the oldest jobs' go until enough are gone."""
        self._generation += 1
        for key in keys:
            self._last_used[key] = self._generation
        while len(self._cached) > self.size and self._oldest < self._generation:
            self._oldest += 1
            self._cached = {key for key in self._cached if self._last_used[key] >= self._oldest}
            self._last_used = {key: used for key, used in self._last_used.items() if used >= self._oldest}

    def add(self, key: tuple[object, ...]) -> bool:
        """Whether a node with this key has to run."""
        if key in self._cached:
            return False
        self._cached.add(key)
        return True
