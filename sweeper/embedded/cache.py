"""ComfyUI's execution cache: which node results of earlier prompts are reused, and by which key.

The key of a node covers its class, its inputs, the fingerprint of its class (IS_CHANGED), and the same of all its
ancestors. Unknown extra inputs count; node ids and `_meta` do not. There are four policies, as ComfyUI has flags for
them: `classic` keeps the nodes of the previous prompt, `lru N` keeps N results (`--cache-lru N`), `ram N` keeps all
results while the machine has more than N GiB of free memory (`--cache-ram 1 N`), and `none` keeps nothing
(`--cache-none`).

One difference from ComfyUI 0.3.64: ComfyUI distinguishes two equal upstream nodes from one that is used twice; here
both cases have the same key. The pictures are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from sweeper.embedded.nodes import NodeClass
from sweeper.embedded.validation import is_link, list_sources


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The result of one node: a list of values for each output (usually of length 1), and its `ui` output.

    `meta` holds the id of the node that ran, which may be one of an earlier prompt.
    """

    values: tuple[list[Any], ...]
    ui: Mapping[str, list[Any]] | None
    meta: Mapping[str, Any]


Keys = Mapping[str, str | None]  # node id -> key; None: cannot be cached


def compute_keys(graph: Mapping[str, Any], nodes: Mapping[str, NodeClass], fingerprint: Callable[[str], Any]) -> Keys:
    """Compute the cache key of every node of a graph, including nodes that no output depends on.

    A node has no key if its fingerprint is NaN (ComfyUI's sign for "always run"), if one of its links leads to no node,
    or if it lies on or below a cycle. `fingerprint` is asked, by node id, only for classes that define one.
    """
    links = {node_id: set(list_sources(node)) for node_id, node in graph.items()}
    sorter = TopologicalSorter({node_id: sources & graph.keys() for node_id, sources in links.items()})
    with suppress(CycleError):
        sorter.prepare()
    keys: dict[str, str | None] = dict.fromkeys(graph)
    while ready := sorter.get_ready():
        for node_id in ready:
            node = graph[node_id]
            mark = fingerprint(node_id) if nodes[node["class_type"]].fingerprint is not None else False
            always_runs = isinstance(mark, float) and math.isnan(mark)
            if not always_runs and all(keys.get(source) is not None for source in links[node_id]):
                keys[node_id] = _compute_key(node, mark, keys)
        sorter.done(*ready)
    return keys


def _compute_key(node: Mapping[str, Any], fingerprint: Any, keys: Keys) -> str:
    inputs = {
        name: {"ancestor": keys[value[0]], "slot": value[1]} if is_link(value) else [value]
        for name, value in node["inputs"].items()
    }
    text = json.dumps([node["class_type"], repr(fingerprint), inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=20).hexdigest()


class Cache:
    """The results of one worker. Call `begin_prompt` for each prompt, then `get` and `put` with its node ids.

    Not thread-safe. `limit`: the results to keep (lru), or the GiB of memory that must stay free (ram).
    """

    def __init__(self, policy: str, limit: int = 0) -> None:
        self.policy, self.limit = policy, limit
        self._entries: dict[str, CacheEntry] = {}
        self._keys: dict[str, str] = {}
        self._generation = self._oldest = 0  # of prompts
        self._last_used: dict[str, int] = {}  # key -> generation

    def begin_prompt(self, keys: Keys) -> None:
        """Start a prompt whose nodes have these keys, and evict results by the policy."""
        # A node without a key keeps its result while its own prompt runs. These keys cannot clash with a digest. With
        # the policy "none", that holds for all nodes, so that equal nodes all run.
        plain = self.policy == "none"
        self._keys = {node: f"unkeyed {node}" if plain or key is None else key for node, key in keys.items()}
        self._generation += 1
        self._last_used |= dict.fromkeys(self._keys.values(), self._generation)
        self._keep(lambda key: not key.startswith("unkeyed "))
        if self.policy == "lru":
            # Whole generations go (all results last used by one prompt), so a running prompt may exceed the limit.
            while len(self._entries) > self.limit and self._oldest < self._generation:
                self._oldest += 1
                self._keep(lambda key: self._last_used[key] >= self._oldest)
        elif self.policy != "ram" or measure_memory()[1] <= self.limit * 2**30:
            self._keep(lambda key: self._last_used[key] == self._generation)
        used = self._entries.keys() | self._keys.values()
        self._last_used = {key: last for key, last in self._last_used.items() if key in used}

    def _keep(self, is_kept: Callable[[str], bool]) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if is_kept(key)}

    def get(self, node_id: str) -> CacheEntry | None:
        """The result of this node of the current prompt, or None if it is not cached."""
        return self._entries.get(self._keys[node_id])

    def put(self, node_id: str, entry: CacheEntry) -> None:
        self._entries[self._keys[node_id]] = entry

    def clear(self) -> None:
        """Remove everything (`POST /free` with `free_memory`)."""
        self._entries.clear()


def measure_memory() -> tuple[int, int]:
    """Total and free bytes of this machine's memory; zeros where the system does not say (only Linux does)."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0, 0
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return kib.get("MemTotal", 0) * 1024, kib.get("MemAvailable", 0) * 1024


def make_cache(policy: str) -> Cache:
    """Make the cache of a policy: `classic`, `none`, `lru N` (N is 1 or more), `ram N`. Raises ValueError otherwise."""
    name, *numbers = policy.split()
    if name in {"classic", "none"} and not numbers:
        return Cache(name)
    if name in {"lru", "ram"} and len(numbers) == 1 and numbers[0].isdecimal() and int(numbers[0]) >= (name == "lru"):
        return Cache(name, int(numbers[0]))
    raise ValueError(f"cache {policy!r}: give 'classic', 'none', 'lru N' such as 'lru 50', or 'ram N' such as 'ram 2'")
