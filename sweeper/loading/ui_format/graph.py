"""Parse a UI-format workflow: the nodes, links and subgraphs that ComfyUI's editor saves.

There are two shapes. In schema 0.4, links are arrays `[id, origin, output, target, input, type]`; in schema 1.0, they
are objects. The definitions of subgraphs always use objects (litegraph, `types/serialisation.ts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sweeper.schemas.values import KeyPath

MUTED: Final = 2  # litegraph's LGraphEventMode.NEVER
BYPASSED: Final = 4  # LGraphEventMode.BYPASS
_MAX_DIGITS: Final = 15  # of an id that is a number; Python makes no number of 5,000 digits
_INPUT_NODE: Final = "-10"  # litegraph's SUBGRAPH_INPUT_ID, if a definition has none


class MalformedWorkflowError(Exception):
    """The workflow is not built as ComfyUI builds it, at `path`."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Link:
    """The source of a link: the id of a node and the index of its output."""

    origin: str
    output: int


@dataclass(frozen=True, slots=True)
class Socket:
    """One input of a node in the editor. `widget` is the name of the widget that the socket represents, if any.

    `label` is the name that the user gave to it. `is_localized`: it was saved by an editor of 2025 or newer.
    """

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str = ""
    is_localized: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One node in the editor. `values` are the values of its widgets, a list or a mapping; `path` locates the node.

    `named_values` are the same values by name, as newer editors save them too.
    """

    id: str
    type: str
    path: KeyPath
    title: str | None = None
    mode: int = 0
    order: int = 0
    inputs: tuple[Socket, ...] = ()
    outputs: tuple[str, ...] = ()
    values: Any = None
    named_values: Mapping[str, Any] | None = None
    properties: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        title = f", '{self.title}'" if self.title and self.title != self.type else ""
        return f"node {self.id} ({self.type}{title})"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a subgraph. `links` are the links inside the subgraph that are connected to it."""

    name: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UiGraph:
    """The main graph, or the graph inside a subgraph, whose inputs come from the node `input_node`.

    `new_ids` are the ids of the nodes that got another one, by the id in the file.
    """

    nodes: Mapping[str, Node]
    links: Mapping[str, Link]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    input_node: str | None = None
    new_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UiWorkflow:
    """A whole file: its main graph, and its subgraphs by the type of the nodes that represent them."""

    root: UiGraph
    subgraphs: Mapping[str, UiGraph]


def parse_ui_workflow(value: Mapping[str, Any]) -> UiWorkflow:
    """Parse a UI-format workflow. Raises MalformedWorkflowError."""
    definitions = _require_mapping(value.get("definitions"), ("definitions",), optional=True)
    path: KeyPath = ("definitions", "subgraphs")
    subgraphs = {
        str(subgraph.get("id")): _parse_graph(subgraph, (*path, index), is_root=False)
        for index, subgraph in enumerate(_require_mappings(definitions.get("subgraphs"), path))
    }
    root = _parse_graph(value, (), is_root=True)
    state = value.get("state")
    last_id = state.get("lastNodeId") if isinstance(state, dict) else value.get("last_node_id")
    known = int(last_id) if isinstance(last_id, int) and _is_number_text(str(last_id)) else 0
    return UiWorkflow(root, _make_ids_unique(root, subgraphs, known))


def _make_ids_unique(root: UiGraph, subgraphs: Mapping[str, UiGraph], last_id: int) -> dict[str, UiGraph]:
    """Give new ids to nodes of subgraphs whose id is taken by another graph (`subgraphDeduplication.ts`)."""
    taken = {node_id for node_id in root.nodes if _is_number_text(node_id)}
    result = {}
    for name, graph in subgraphs.items():
        new_ids: dict[str, str] = {}
        for node_id in graph.nodes:
            if node_id in taken:
                last_id += 1
                while str(last_id) in taken:
                    last_id += 1
                new_ids[node_id] = str(last_id)
            elif _is_number_text(node_id):
                last_id = max(last_id, int(node_id))
            taken.add(new_ids.get(node_id, node_id))
        nodes = [replace(node, id=new_ids.get(node_id, node_id)) for node_id, node in graph.nodes.items()]
        links = {key: replace(link, origin=new_ids.get(link.origin, link.origin)) for key, link in graph.links.items()}
        result[name] = replace(graph, nodes={node.id: node for node in nodes}, links=links, new_ids=new_ids)
    return result


def _parse_graph(value: Mapping[str, Any], path: KeyPath, *, is_root: bool) -> UiGraph:
    nodes: dict[str, Node] = {}
    for index, item in enumerate(_require_mappings(value.get("nodes"), (*path, "nodes"))):
        node = _parse_node(item, (*path, "nodes", index))
        if node.id in nodes:
            raise MalformedWorkflowError(node.path, f"two nodes have the id {node.id}")
        nodes[node.id] = node
    links = dict(_parse_links(value.get("links"), (*path, "links")))
    if is_root:
        return UiGraph(nodes, links)
    input_node = _require_mapping(value.get("inputNode"), (*path, "inputNode"), optional=True).get("id", _INPUT_NODE)
    inputs, outputs = (
        tuple(map(_parse_port, _require_mappings(value.get(key), (*path, key)))) for key in ("inputs", "outputs")
    )
    return UiGraph(nodes, links, inputs, outputs, str(input_node))


def _parse_node(value: Mapping[str, Any], path: KeyPath) -> Node:
    node_id, kind = value.get("id"), value.get("type")
    if not isinstance(node_id, (int, str)) or not isinstance(kind, str):
        raise MalformedWorkflowError(path, "is not a node: it needs an `id` and a `type`")
    title, mode, order = value.get("title"), value.get("mode", 0), value.get("order", 0)
    return Node(
        id=str(node_id),
        type=kind,
        path=path,
        title=title if isinstance(title, str) else None,
        mode=mode if isinstance(mode, int) else 0,
        order=order if isinstance(order, int) else 0,
        inputs=tuple(_parse_socket(item) for item in _require_mappings(value.get("inputs"), (*path, "inputs"))),
        outputs=tuple(str(item.get("type")) for item in _require_mappings(value.get("outputs"), (*path, "outputs"))),
        values=value.get("widgets_values"),
        named_values=named if isinstance(named := value.get("widgets_values_named"), dict) else None,
        properties=_require_mapping(value.get("properties"), (*path, "properties"), optional=True),
    )


def _parse_socket(value: Mapping[str, Any]) -> Socket:
    link, widget = value.get("link"), value.get("widget")
    name = widget.get("name") if isinstance(widget, dict) else None
    kind = value.get("type")
    if not isinstance(kind, str):  # old files have the options of a combo, or 0 or -1 for "any" and "event"
        kind = "COMBO" if isinstance(kind, list) else "*"
    link_id = None if link is None else str(link)
    widget_name, label = (text if isinstance(text, str) else None for text in (name, value.get("label")))
    return Socket(str(value.get("name", "")), kind, link_id, widget_name, label or "", "localized_name" in value)


def _parse_port(value: Mapping[str, Any]) -> Port:
    links = value.get("linkIds")
    return Port(str(value.get("name", "")), tuple(map(str, links)) if isinstance(links, list) else ())


def _parse_links(value: Any, path: KeyPath) -> Iterator[tuple[str, Link]]:
    for index, item in enumerate(value if isinstance(value, list) else []):
        if item is None:
            continue  # old editors left null for removed links
        link_id, origin, output = item[:3] if isinstance(item, list) and len(item) >= 5 else (None, None, None)
        if isinstance(item, dict):
            link_id, origin, output = item.get("id"), item.get("origin_id"), item.get("origin_slot")
        if isinstance(output, str) and _is_number_text(output):
            output = int(output)  # the editor uses parseInt
        if not isinstance(link_id, (int, str)) or not isinstance(origin, (int, str)) or not isinstance(output, int):
            raise MalformedWorkflowError((*path, index), "is not a link")
        yield str(link_id), Link(str(origin), output)


def _is_number_text(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def _require_mapping(value: Any, path: KeyPath, *, optional: bool = False) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    if optional and not value:
        return {}
    raise MalformedWorkflowError(path, "a mapping is needed here")


def _require_mappings(value: Any, path: KeyPath) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedWorkflowError(path, "a list is needed here")
    return [_require_mapping(item, (*path, index)) for index, item in enumerate(value)]
