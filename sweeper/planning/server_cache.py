"""What a server keeps of node results from one job to the next, and what therefore runs in a sequence of jobs.

Facts from `COMFYUI_BEHAVIOUR`, section 6, measured on a real server: by default the results of the preceding job's
nodes only; with `--cache-lru N` about N results of the last jobs; with `--cache-none` nothing. Which order is best is
`order`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sweeper.model.workflow import Graph, links, sinks

Needs = Mapping[str, frozenset[int]]  # node id -> the dimensions that make it run again


@dataclass(frozen=True, slots=True)
class Caching:
    """One way of keeping. `size`: how many node results an `lru` cache holds."""

    kind: Literal["classic", "lru", "none"] = "classic"
    size: int = 0

    def __str__(self) -> str:
        return f"lru {self.size}" if self.kind == "lru" else self.kind


CLASSIC: Final = Caching()
NONE: Final = Caching("none")


def caching_of(arguments: Sequence[str]) -> Caching:
    """What a ComfyUI started with this command line keeps; the default where it says nothing that we know."""
    found = CLASSIC
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--cache-none":
            found = NONE
        elif name == "--cache-lru":
            given = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            # ComfyUI takes 0 for "no LRU", which is the default way.
            found = Caching("lru", int(given)) if given.isdecimal() and int(given) > 0 else CLASSIC
        elif name == "--cache-classic":
            found = CLASSIC
    return found


def weakest(cachings: Iterable[Caching]) -> Caching:
    """What to order for when several servers share a plan: the one that keeps least of those that keep anything."""
    keeping = [caching for caching in cachings if caching.kind != "none"]
    return min(keeping, key=lambda caching: caching.size, default=NONE)


def lru_executions(graph: Graph, points: Iterable[Sequence[int]], needs: Needs, size: int) -> dict[str, int]:
    """How often each node runs when the jobs at these coordinates come one after the other to an LRU cache.

    Whole generations (jobs) go, and only when the next job begins: `caching.py:283-292` of ComfyUI 0.3.64.
    """
    cache = _Generations(size)
    sources = {node: tuple(source for _, source, _ in links(graph[node])) for node in graph}
    read = {node: tuple(sorted(needs[node])) for node in graph}
    outputs = sorted(sinks(graph))
    counts = dict.fromkeys(graph, 0)
    for point in points:
        keys = {node: (node, *(point[place] for place in places)) for node, places in read.items()}
        cache.begin(keys.values())
        waiting = list(outputs)
        while waiting:
            node = waiting.pop()
            if cache.add(keys[node]):
                counts[node] += 1
                waiting.extend(sources[node])
    return counts


class _Generations:
    def __init__(self, size: int) -> None:
        self.size = size
        self._used: dict[tuple[object, ...], int] = {}
        self._held: set[tuple[object, ...]] = set()
        self._generation = self._oldest = 0

    def begin(self, keys: Iterable[tuple[object, ...]]) -> None:
        """A job begins: its own results are fresh, and of the others the oldest jobs' go until enough are gone."""
        self._generation += 1
        for key in keys:
            self._used[key] = self._generation
        while len(self._held) > self.size and self._oldest < self._generation:
            self._oldest += 1
            self._held = {key for key in self._held if self._used[key] >= self._oldest}
            self._used = {key: used for key, used in self._used.items() if used >= self._oldest}

    def add(self, key: tuple[object, ...]) -> bool:
        """Whether a node with this key has to run."""
        if key in self._held:
            return False
        self._held.add(key)
        return True
