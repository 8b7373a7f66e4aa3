"""A workflow: a concrete API-format graph, `{node id: {"class_type", "inputs", "_meta"}}`.

Here live its shape check, its links and what lies downstream, its canonical bytes and digest. Slots are
`template`'s business, and what a node class accepts is the server's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sweeper.did_you_mean import suggest
from sweeper.model.source import KeyPath
from sweeper.schemas import find_schema_problems

Graph = Mapping[str, Mapping[str, Any]]

_MAX_EXACT_INTEGER: Final = 2**53  # up to here every integer is a double of its own

EXPORT_HINT = (
    "this is ComfyUI's UI format; export it from ComfyUI with the menu Workflow > Export (API) "
    "(older versions: enable Dev mode in the settings, then Save (API Format))"
)
CONVERT_HINT: Final = f"{EXPORT_HINT}, or convert it: `sweeper template new FILE -o x.json`"


def is_link(value: object) -> bool:
    """Whether an input's value is a link `[node id, output slot]` (ComfyUI's own rule, graph_utils.is_link)."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def iter_links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """The links of one node: input name, node id it comes from, output slot."""
    for name, value in node.get("inputs", {}).items():
        if is_link(value):
            yield name, value[0], value[1]


def is_ui_format(value: object) -> bool:
    """Whether this is what "Save" writes, with the nodes' places on the canvas, and not an API export."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list) and "links" in value


def is_workflow(value: object) -> bool:
    """Whether this is a graph of either format, or a request to a server with one in it, whatever is wrong with it."""
    inner = value.get("prompt", value) if isinstance(value, dict) else None
    nodes = inner.values() if isinstance(inner, dict) else ()
    return is_ui_format(value) or any(isinstance(node, dict) and "class_type" in node for node in nodes)


def find_shape_problems(value: object) -> list[tuple[KeyPath, str]]:
    """Everything that is wrong with the shape of a graph: (path, message) pairs, empty when all is well."""
    if is_ui_format(value):
        return [((), CONVERT_HINT)]
    if isinstance(value, dict) and isinstance(value.get("prompt"), dict) and "class_type" not in value["prompt"]:
        return [(("prompt",), "the workflow is wrapped in a `prompt` key; keep what is inside it")]
    problems = find_schema_problems("workflow", value)
    if problems or not isinstance(value, dict):
        return problems
    problems = list(_find_link_problems(value))
    cycle = find_cycle(value)
    if cycle:
        problems.append(((cycle[0],), f"these nodes link in a circle: {' -> '.join(cycle)}"))
    return problems


def _find_link_problems(graph: Graph) -> Iterator[tuple[KeyPath, str]]:
    for node_id, node in graph.items():
        for name, source, output in iter_links(node):
            path: KeyPath = (node_id, "inputs", name)
            if source not in graph:
                yield path, f"links to node {source}, which is not in the workflow{suggest(source, graph, 'nodes')}"
            elif output < 0:
                yield path, f"links to output {output} of node {source}; outputs count from 0"
        for name, value in node.get("inputs", {}).items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph and not is_link(value):
                yield (
                    (node_id, "inputs", name),
                    f'{json.dumps(value)} is no link; a link is written ["node id", output]',
                )


def find_cycle(graph: Graph) -> list[str]:
    """The node ids of one circle of links, first node repeated at the end; empty when there is none."""
    done: set[str] = set()
    for start in graph:
        trail: dict[str, Iterator[str]] = {}
        node: str | None = start
        while node is not None and node not in done:
            trail[node] = iter([source for _, source, _ in iter_links(graph[node])])
            node = None
            while trail and node is None:  # an explicit stack: chains of thousands of nodes exist
                last = next(reversed(trail))
                node = next((source for source in trail[last] if source not in done and source in graph), None)
                if node is None:
                    done.add(last)
                    del trail[last]
                elif node in trail:
                    circle = list(trail)
                    return [*circle[circle.index(node) :], node]
    return []


def find_downstream(graph: Graph, nodes: Iterable[str]) -> frozenset[str]:
    """`nodes` and every node that a change in them reaches: what a server must run again."""
    users: dict[str, list[str]] = {}
    for node_id, node in graph.items():
        for _, source, _ in iter_links(node):
            users.setdefault(source, []).append(node_id)
    reached: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node_id = waiting.pop()
        if node_id not in reached:
            reached.add(node_id)
            waiting.extend(users.get(node_id, ()))
    return frozenset(reached)


def find_sinks(graph: Graph) -> frozenset[str]:
    """The nodes that no other node uses: the outputs, as far as the graph alone can tell."""
    used = {source for node in graph.values() for _, source, _ in iter_links(node)}
    return frozenset(node_id for node_id in graph if node_id not in used)


def encode_canonical(value: object) -> bytes:
    """Canonical JSON: keys sorted, no white space, UTF-8, 7.0 as 7. Raises ValueError for NaN and infinity.

    Numbers as in RFC 8785, but integers of any size: whether somebody, or a server that stored the graph, wrote 7 or
    7.0 must not make it another work.
    """
    return _CANONICAL.encode(_unify_numbers(value)).encode("utf-8", "surrogatepass")


# Made once: `json.dumps` makes one for each call that has options.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _unify_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT_INTEGER:
        return int(value)
    if isinstance(value, dict):
        return {key: _unify_numbers(item) for key, item in value.items()}
    return [_unify_numbers(item) for item in value] if isinstance(value, (list, tuple)) else value


def encode_graph(graph: Graph) -> bytes:
    """The bytes that identify a graph: canonical JSON without `_meta`, which the server ignores too."""
    return encode_canonical(
        {node_id: {k: v for k, v in node.items() if k != "_meta"} for node_id, node in graph.items()}
    )


def compute_digest(graph: Graph) -> str:
    """SHA-256 of the canonical bytes, 64 hex digits. Input files must stand in the graph as `file_mark`."""
    return hashlib.sha256(encode_graph(graph)).hexdigest()


def make_file_marker(sha256: str) -> str:
    """What stands for an input file in the digest: its content, not its name."""
    return f"sha256:{sha256}"
