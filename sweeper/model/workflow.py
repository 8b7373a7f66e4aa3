"""A workflow as a concrete API-format graph, `{node id: {"class_type", "inputs", "_meta"}}`.

This module checks the shape of a graph, follows its links, and computes its canonical bytes and digest. It knows
nothing of slots or of node classes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from sweeper.errors import MAX_PROBLEMS
from sweeper.schemas import find_schema_problems
from sweeper.schemas.values import KeyPath, is_integer, unify_numbers
from sweeper.wording import shorten, suggest

Graph = Mapping[str, Mapping[str, Any]]

PREFIX_INPUT: Final = "filename_prefix"

EXPORT_HINT = (
    "this is ComfyUI's UI format; export it from ComfyUI with the menu Workflow > Export (API) "
    "(older versions: enable Dev mode in the settings, then Save (API Format))"
)
CONVERT_HINT: Final = f"{EXPORT_HINT}, or convert it: `sweeper template new FILE -o x.json`"
# Shared, because `json.dumps` makes a new encoder for each call with options.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def encode_workflow(graph: Graph) -> bytes:
    """A graph as the bytes of a JSON file, formatted as ComfyUI exports it."""
    try:
        return json.dumps(graph, indent=2, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can escape it, UTF-8 cannot encode it
        return json.dumps(graph, indent=2).encode() + b"\n"


def find_unique_titles(graph: Graph) -> dict[str, str]:
    """Return the titles that name one node only, by the id of the node."""
    titles = {node_id: str(node.get("_meta", {}).get("title") or "").strip() for node_id, node in graph.items()}
    counts = Counter([*titles.values(), *graph, ""])
    return {node_id: title for node_id, title in titles.items() if counts[title] == 1}


def is_link(value: object) -> bool:
    """Whether the value of an input is a link `[node id, output index]`, by ComfyUI's rule (graph_utils.is_link)."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and is_integer(value[1])


def iter_links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield the links of one node as (input name, id of the source node, output index)."""
    for name, value in node.get("inputs", {}).items():
        if is_link(value):
            yield name, value[0], value[1]


def is_ui_format(value: object) -> bool:
    """Whether this is a workflow in the UI format, which ComfyUI's "Save" writes, and not an API export."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list) and "links" in value


def is_workflow(value: object) -> bool:
    """Whether this looks like a workflow of either format, or like a request that contains one."""
    inner = value.get("prompt", value) if isinstance(value, dict) else None
    nodes = inner.values() if isinstance(inner, dict) else ()
    return is_ui_format(value) or any(isinstance(node, dict) and "class_type" in node for node in nodes)


def find_shape_problems(value: object) -> list[tuple[KeyPath, str]]:
    """Return all errors in the shape of a graph as (path, message) pairs."""
    if is_ui_format(value):
        return [((), CONVERT_HINT)]
    if isinstance(value, dict) and isinstance(value.get("prompt"), dict) and "class_type" not in value["prompt"]:
        return [(("prompt",), "the workflow is wrapped in a `prompt` key; keep what is inside it")]
    if isinstance(value, dict) and len(value) > 1 and not any(isinstance(node, dict) for node in value.values()):
        return [((), "this is no workflow: none of its entries is a node, a mapping with `class_type` and `inputs`")]
    problems = find_schema_problems("workflow", value)
    if problems or not isinstance(value, dict):
        return problems
    problems = list(itertools.islice(_find_link_problems(value), MAX_PROBLEMS))
    cycle = find_cycle(value)
    if cycle:
        problems.append(((cycle[0],), f"these nodes link in a cycle: {join_cycle(cycle)}"))
    return problems


def _find_link_problems(graph: Graph) -> Iterator[tuple[KeyPath, str]]:
    for node_id, node in graph.items():
        for name, source, output in iter_links(node):
            path: KeyPath = (node_id, "inputs", name)
            if source not in graph:
                advice = suggest(source, graph, "nodes")
                yield path, f"links to node {shorten(source)}, which is not in the workflow{advice}"
            elif output < 0:
                yield path, f"links to output {output} of node {source}; outputs count from 0"
        for name, value in node.get("inputs", {}).items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph and not is_link(value):
                message = f'{shorten(json.dumps(value))} is not a link; a link is written ["node id", output]'
                yield (node_id, "inputs", name), message


def find_cycle(graph: Graph) -> list[str]:
    """Return the node ids of one cycle of links, with the first node repeated at the end; empty without a cycle."""
    sources = {node: [source for _, source, _ in iter_links(graph[node]) if source in graph] for node in graph}
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return []


def join_cycle(names: Sequence[str]) -> str:
    """Write the names of a cycle as `a -> b -> a`; of a long one, its two ends."""
    shown = [*names[:8], "...", *names[-2:]] if len(names) > 12 else names
    return " -> ".join(map(shorten, shown))


def find_downstream(graph: Graph, nodes: Iterable[str]) -> frozenset[str]:
    """Return `nodes` and all nodes that depend on them: those that run again after a change."""
    users: dict[str, list[str]] = {}
    for node_id, node in graph.items():
        for _, source, _ in iter_links(node):
            users.setdefault(source, []).append(node_id)
    return find_reachable(nodes, lambda node_id: users.get(node_id, ()))


def find_upstream(graph: Graph, nodes: Iterable[str]) -> frozenset[str]:
    """Return `nodes` and all nodes that they depend on; not those that are missing in the graph."""

    def list_sources(node_id: str) -> list[str]:
        return [source for _, source, _ in iter_links(graph[node_id]) if source in graph]

    return find_reachable(nodes, list_sources)


def find_reachable(nodes: Iterable[str], list_next: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """Return `nodes` and all that `list_next` leads to from them."""
    reached: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node_id = waiting.pop()
        if node_id not in reached:
            reached.add(node_id)
            waiting.extend(list_next(node_id))
    return frozenset(reached)


def find_sinks(graph: Graph) -> frozenset[str]:
    """Return the nodes that no other node uses, which are the outputs as far as the graph alone can show."""
    used = {source for node in graph.values() for _, source, _ in iter_links(node)}
    return frozenset(node_id for node_id in graph if node_id not in used)


def has_filename_prefix(node: Mapping[str, Any]) -> bool:
    """Whether a node names its files by a text of its own, which sweeper makes unique to each job."""
    return isinstance(node.get("inputs"), Mapping) and isinstance(node["inputs"].get(PREFIX_INPUT), str)


def encode_canonical(value: object) -> bytes:
    """Encode a value as canonical JSON: sorted keys, no white space, UTF-8, 7.0 as 7.

    Numbers follow RFC 8785, except that integers may have any size. A graph must keep its digest if a user or a server
    writes 7.0 for 7. Raises ValueError for NaN and infinity.
    """
    return _CANONICAL.encode(unify_numbers(value)).encode("utf-8", "surrogatepass")


def encode_graph(graph: Graph) -> bytes:
    """Encode a graph as canonical JSON without `_meta`, which servers ignore."""
    return encode_canonical(
        {node_id: {key: node[key] for key in node if key != "_meta"} for node_id, node in graph.items()}
    )


def compute_digest(graph: Graph) -> str:
    """Return the SHA-256 of the canonical bytes as 64 hex digits.

    The graph must have a marker (see `make_file_marker`) in place of the name of each input file.
    """
    return hashlib.sha256(encode_graph(graph)).hexdigest()


def make_file_marker(sha256: str) -> str:
    """Return the marker that represents an input file in the digest, by its content and not its name."""
    return f"sha256:{sha256}"
