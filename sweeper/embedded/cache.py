"""Which node results of earlier prompts are kept, and under what key: ComfyUI's execution cache.

A node's key is its class, its inputs, its class's fingerprint (IS_CHANGED) and the same for all its ancestors; ids and
`_meta` are not in it, unknown extra inputs are. Three ways of keeping, as ComfyUI's flags have them: `classic` (only
the nodes of the preceding prompt), `lru N` (generations of prompts, `--cache-lru N`) and `none` (`--cache-none`).

One difference from ComfyUI 0.3.64: two equal nodes upstream count as one node in the key of what lies downstream, while
ComfyUI tells a shared node from two equal ones. Both give the same pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.embedded.node_inputs import is_link

if TYPE_CHECKING:
    from sweeper.embedded.nodes.base import NodeClass


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What one node gave: a list of values per output, mostly of one, and what it showed.

    `meta` bears the id under which it really ran.
    """

    values: tuple[list[Any], ...]
    ui: Mapping[str, list[Any]] | None
    meta: Mapping[str, Any]


Keys = Mapping[str, str | None]  # node id -> key; None: cannot be cached


def compute_keys(
    graph: Mapping[str, Any],
    nodes: Mapping[str, NodeClass],
    fingerprint: Callable[[str], Any],
) -> Keys:
    """The key of every node of the graph, also of those that no output reaches.

    A node is without a key when its fingerprint is NaN (ComfyUI's word for "always run me"), when a link of it leads
    nowhere, or when it lies on or below a cycle.

    Args:
        graph: node id -> node, each with `class_type` and `inputs`.
        nodes: class_type -> node class.
        fingerprint: node id -> its class's fingerprint; asked only for classes that have one.

    """
    keys: dict[str, str | None] = {}
    for start in graph:
        stack = [start]
        path: set[str] = set()
        while stack:
            node_id = stack[-1]
            if node_id in keys:
                stack.pop()
                continue
            node = graph[node_id]
            links = [value[0] for value in node["inputs"].values() if is_link(value)]
            missing = [link for link in links if link in graph and link not in keys]
            if missing and node_id not in path:
                path.add(node_id)
                stack.extend(missing)
                continue
            stack.pop()
            mark = fingerprint(node_id) if nodes[node["class_type"]].fingerprint is not None else False
            uncachable = missing or mark != mark or any(keys.get(link) is None for link in links)  # noqa: PLR0124 - NaN
            keys[node_id] = None if uncachable else _compute_key(node, mark, keys)
    return keys


def _compute_key(node: Mapping[str, Any], fingerprint: Any, keys: Keys) -> str:
    inputs = {
        name: {"ancestor": keys[value[0]], "slot": value[1]} if is_link(value) else [value]
        for name, value in node["inputs"].items()
    }
    text = json.dumps([node["class_type"], repr(fingerprint), inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=20).hexdigest()


class Cache:
    """Entries by key. One belongs to one executor and is used from its thread only.

    `classic` is a Cache; the other two ways of keeping are its subclasses. `begin` opens a prompt, `get` and `put`
    serve its nodes by id.
    """

    def __init__(self) -> None:
        self._entries: dict[str, CacheEntry] = {}
        self._keys: dict[str, str] = {}

    def begin_prompt(self, keys: Keys) -> None:
        """Open a prompt whose nodes have these keys, and drop what need not be kept."""
        # A node without a key still keeps its result while its own prompt runs; the id cannot clash with a digest.
        self._keys = {node_id: key or f"unkeyed {node_id}" for node_id, key in keys.items()}
        self._entries = {key: entry for key, entry in self._entries.items() if not key.startswith("unkeyed ")}
        self._evict()

    def _evict(self) -> None:
        used = set(self._keys.values())
        self._entries = {key: entry for key, entry in self._entries.items() if key in used}

    def get(self, node_id: str) -> CacheEntry | None:
        """What this node of the open prompt gave, if it is known."""
        return self._entries.get(self._keys[node_id])

    def put(self, node_id: str, entry: CacheEntry) -> None:
        """Keep what this node of the open prompt gave."""
        self._entries[self._keys[node_id]] = entry

    def clear(self) -> None:
        """Forget everything (`POST /free` with `free_memory`)."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class LRUCache(Cache):
    """`--cache-lru N`: N results; whole generations (prompts) go, and only when the next prompt begins."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._generation = 0
        self._oldest = 0
        self._last_used: dict[str, int] = {}

    def begin_prompt(self, keys: Keys) -> None:
        self._generation += 1
        super().begin_prompt(keys)

    def _evict(self) -> None:
        self._touch(self._keys.values())
        while len(self._entries) > self.size and self._oldest < self._generation:
            self._oldest += 1
            kept = {key: entry for key, entry in self._entries.items() if self._last_used[key] >= self._oldest}
            self._entries = kept
        self._last_used = {
            key: used for key, used in self._last_used.items() if used >= self._oldest or key in self._entries
        }

    def _touch(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._last_used[key] = self._generation

    def put(self, node_id: str, entry: CacheEntry) -> None:
        super().put(node_id, entry)
        self._touch((self._keys[node_id],))


class NoCache(Cache):
    """`--cache-none`: results live while their own prompt runs, by node id, so that equal nodes all run."""

    def begin_prompt(self, keys: Keys) -> None:
        self._entries.clear()
        self._keys = {node_id: node_id for node_id in keys}


def make_cache(policy: str) -> Cache:
    """`classic`, `none`, or `lru N` (N results, at least 1). Raises ValueError for anything else."""
    words = policy.split()
    if words == ["classic"]:
        return Cache()
    if words == ["none"]:
        return NoCache()
    if len(words) == 2 and words[0] == "lru" and words[1].isdecimal() and int(words[1]) > 0:
        return LRUCache(int(words[1]))
    raise ValueError(f"cache {policy!r}: give 'classic', 'none' or 'lru N', such as 'lru 50'")
