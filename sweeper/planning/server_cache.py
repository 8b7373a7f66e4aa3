"""The cache of a ComfyUI server: which node results it keeps from job to job, and which nodes run therefore.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final, Literal

from sweeper.model.workflow import Graph, find_sinks, iter_links

Dependencies = Mapping[str, frozenset[int]]  # for each node id, the dimensions whose change makes the node run again

_GIB: Final = 2**30
_FIRST_WITH_RAM: Final = (0, 3, 68)  # the option exists; it has one threshold for all results
_FIRST_WITH_RAM_BY_DEFAULT: Final = (0, 23)  # and a second threshold for the results of earlier jobs


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
    if numbers < (_FIRST_WITH_RAM if "--cache-ram" in options else _FIRST_WITH_RAM_BY_DEFAULT):
        return CLASSIC_CACHE
    total, free = memory
    return ServerCache("ram", keeps_all=free > _find_threshold(numbers, options.get("--cache-ram", []), total))


def _find_threshold(version: tuple[int, ...], values: Sequence[str], total: int) -> float:
    """Return the free memory in bytes below which a `ram` cache drops results of earlier jobs.

    Where the defaults of versions differ, this is the largest of them.
    """
    position, default = 1, min(128 * _GIB, total)
    if version < _FIRST_WITH_RAM_BY_DEFAULT:
        position, default = 0, max(4 * _GIB, min(32 * _GIB, total // 4))
    try:
        return float(values[position]) * _GIB
    except (IndexError, ValueError):
        return default


def find_smallest_cache(caches: Iterable[ServerCache]) -> ServerCache:
    """Return the cache to plan for when several servers share a plan: the smallest that keeps anything.

    Each server has a cache of its own, so trials that share a loaded model belong together even if all servers keep all
    results. Therefore a `ram` cache counts as one that keeps the last job only, unless there is one server.
    """
    keeping = [cache for cache in caches if cache.kind != "none"]
    smallest = min(keeping, key=lambda cache: (cache.keeps_all, cache.size), default=NO_CACHE)
    return replace(smallest, keeps_all=smallest.keeps_all and len(keeping) == 1)


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
