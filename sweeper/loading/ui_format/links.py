"""Follow the link of an input to its origin: through reroutes, bypassed nodes, Get and Set nodes, and subgraphs.

The rules are those of ComfyUI's editor (`ExecutableNodeDTO.ts`: resolveInput, resolveOutput; `widgetInputs.ts` for
primitives; `setgetnodes.js` of KJNodes for GetNode and SetNode).

An input of a subgraph that leads to a widget is a widget of the subgraph's node (its host). Its value is that of the
widget inside unless the host has one. A host has its values in the order of these inputs. Hosts of 2025 have
`proxyWidgets` too, a list of `[node id, widget name]` or `["-1", input name]`: there the values are in the order of
that list, and an entry that no input leads to gives its value to the widget inside (ComfyUI_frontend 1.49:
`SubgraphNode.ts`, `proxyWidgetMigration.ts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.loading.ui_format.graph import BYPASSED, MUTED, Node, Port, UiGraph, UiWorkflow
from sweeper.loading.ui_format.own_names import Declarations
from sweeper.model.template import MISSING
from sweeper.schemas.values import KeyPath, fits_shape

# Nodes that only pass a link on: those of the editor and of rgthree.
_REROUTES: Final = frozenset({"Reroute", "Reroute (rgthree)"})
PRIMITIVE: Final = "PrimitiveNode"
_SET, _GET = "SetNode", "GetNode"  # KJNodes
# Nodes of the editor that have no effect on what is sent: notes, labels, switches for other nodes.
_OF_RGTHREE: Final = (
    "Label", "Bookmark", "Fast Muter", "Fast Bypasser", "Fast Groups Muter", "Fast Groups Bypasser",
    "Fast Actions Button", "Node Collector", "Mute / Bypass Repeater", "Mute / Bypass Relay", "Random Unmuter",
)  # fmt: skip
_FRONTEND_NODES: Final = frozenset({"Note", "MarkdownNote", *(f"{name} (rgthree)" for name in _OF_RGTHREE)})
_CONNECT_AGAIN: Final = "connect the input again in ComfyUI, which does not queue such a workflow either"
_MAX_STEPS: Final = 150  # of one link; the longest chains of reroutes in real files have a dozen
_OWN_INPUT: Final = "-1"  # the id of the subgraph's own inputs in `proxyWidgets`
_OLD_PREFIX: Final = re.compile(r"\s*\d+\s*:\s*")  # `12: text` named a widget of node 12 deeper inside


class UnresolvedError(Exception):
    """A link cannot be followed with certainty. The message says why, as a whole sentence."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A graph in its context: the main graph, or a use of a subgraph by the node `host` of the scope `outer`."""

    graph: UiGraph
    ids: tuple[str, ...] = ()
    host: Node | None = None
    outer: Scope | None = None

    def to_api_id(self, node: Node) -> str:
        """Return the id of a node in the API format: `57:8` is node 8 of the subgraph of node 57."""
        return ":".join((*self.ids, node.id))

    def enter(self, host: Node, graph: UiGraph) -> Scope:
        return Scope(graph, (*self.ids, host.id), host, self)


@dataclass(frozen=True, slots=True)
class NodeOrigin:
    """The origin of a link is an output of a node that the server receives."""

    node_id: str
    output: int


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """The origin of a link is the value of a primitive."""

    value: Any
    primitive: Node


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """The unlinked input `name` of a node, at which a link ends. `is_left`: the link leaves the node, a subgraph."""

    scope: Scope
    node: Node
    name: str
    is_left: bool = False


@dataclass(frozen=True, slots=True)
class NoOrigin:
    """The link has no origin. `reason` says why; it is empty if the link ends at the input `end`."""

    reason: str = ""
    end: LinkEnd | None = None


Origin = NodeOrigin | ValueOrigin | NoOrigin


def is_frontend_only(node: Node) -> bool:
    return node.type in _FRONTEND_NODES or node.type in _REROUTES or node.type in (PRIMITIVE, _SET, _GET)


@dataclass(slots=True)
class LinkFollower:
    """Follows the links of one workflow."""

    workflow: UiWorkflow

    def find_origin(self, scope: Scope, node: Node, index: int) -> Origin:
        """Return the origin of the link of a node's input. Raises UnresolvedError."""
        socket = node.inputs[index]
        link = scope.graph.links.get(socket.link or "")
        source = scope.graph.nodes.get(link.origin) if link is not None else None
        if source is not None and source.type == PRIMITIVE:
            return _read_primitive(source)
        return self._follow_input(scope, node, index, socket.type, _MAX_STEPS)

    def _follow_input(self, scope: Scope, node: Node, index: int, wanted: str, steps: int) -> Origin:
        if steps == 0:
            raise UnresolvedError(f"the links into {node} form a cycle, or pass through more than {_MAX_STEPS} nodes")
        if not 0 <= index < len(node.inputs):
            return NoOrigin(f"it leads through {node}, which has no input {index}")
        socket = node.inputs[index]
        if socket.link is None:
            return NoOrigin(end=LinkEnd(scope, node, socket.name))
        link = scope.graph.links.get(socket.link)
        if link is None:
            raise UnresolvedError(f"the link of '{socket.name}' of {node} is not in the file; {_CONNECT_AGAIN}")
        if scope.host is not None and link.origin == scope.graph.input_node:
            return self._leave_subgraph(scope, link.output, steps - 1)
        source = scope.graph.nodes.get(link.origin)
        if source is None:
            problem = f"'{socket.name}' of {node} is linked to node {link.origin}, which is not in the file"
            raise UnresolvedError(f"{problem}; {_CONNECT_AGAIN}")
        return self._follow_output(scope, source, link.output, wanted, steps - 1)

    def _leave_subgraph(self, scope: Scope, index: int, steps: int) -> Origin:
        """Follow a link out of a subgraph through its input `index`, to the link of the host's socket."""
        assert scope.host is not None
        assert scope.outer is not None
        if not 0 <= index < len(scope.graph.inputs):
            return NoOrigin(f"the subgraph of {scope.host} has no input {index}")
        name = scope.graph.inputs[index].name
        for socket_index, socket in enumerate(scope.host.inputs):
            if socket.name == name and socket.link is not None:
                return self._follow_input(scope.outer, scope.host, socket_index, socket.type, steps)
        return NoOrigin(end=LinkEnd(scope.outer, scope.host, name, is_left=True))

    def _follow_output(self, scope: Scope, node: Node, index: int, wanted: str, steps: int) -> Origin:
        if node.mode == BYPASSED:
            input_index = find_bypass_input(node, index, wanted)
            if input_index is None:
                return NoOrigin(f"it was linked to {node}, which is bypassed and has no input of the type {wanted}")
            return self._follow_input(scope, node, input_index, node.inputs[input_index].type, steps)
        if node.type in self.workflow.subgraphs:
            if node.mode == MUTED:
                return NoOrigin(f"it was linked to {node}, which is muted")
            return self._enter_subgraph(scope, node, index, wanted, steps)
        if node.type in _REROUTES or node.type == _SET:
            return self._follow_input(scope, node, index, wanted, steps)
        if node.type == _GET:
            return self._follow_get_node(scope, node, wanted, steps)
        if node.type == PRIMITIVE:
            return NoOrigin(f"{node} is linked through a reroute or a subgraph, which pass no value on")
        if node.type in _FRONTEND_NODES:
            raise UnresolvedError(f"{node} is linked to, but exists only on ComfyUI's page")
        if node.mode == MUTED:
            return NoOrigin(f"it was linked to {node}, which is muted")
        return NodeOrigin(scope.to_api_id(node), index)

    def _enter_subgraph(self, scope: Scope, host: Node, index: int, wanted: str, steps: int) -> Origin:
        layer = self.workflow.subgraphs[host.type]
        if not 0 <= index < len(layer.outputs):
            return NoOrigin(f"the subgraph of {host} has no output {index}")
        inner_scope = scope.enter(host, layer)
        if len(inner_scope.ids) > len(self.workflow.subgraphs):
            raise UnresolvedError(f"the subgraph of {host} contains itself")
        for link_id in layer.outputs[index].links[:1]:
            link = layer.links.get(link_id)
            if link is not None and link.origin == layer.input_node:
                return self._leave_subgraph(inner_scope, link.output, steps)
            if link is not None and link.origin in layer.nodes:
                return self._follow_output(inner_scope, layer.nodes[link.origin], link.output, wanted, steps)
        return NoOrigin(f"the output {index} of the subgraph of {host} is linked to nothing inside")

    def _follow_get_node(self, scope: Scope, node: Node, wanted: str, steps: int) -> Origin:
        name = get_first_value(node)
        scope_or_none: Scope | None = scope
        while scope_or_none is not None:
            found = (other for other in scope_or_none.graph.nodes.values() if other.type == _SET)
            setters = [other for other in found if get_first_value(other) == name]
            if len(setters) > 1:
                raise UnresolvedError(f"{node} gets '{name}', which {len(setters)} SetNodes set")
            if setters:
                return self._follow_input(scope_or_none, setters[0], 0, wanted, steps)
            scope_or_none = scope_or_none.outer
        raise UnresolvedError(f"{node} gets '{name}', which no SetNode sets")


def _read_primitive(primitive: Node) -> ValueOrigin:
    value = get_first_value(primitive)
    if value is None:
        raise UnresolvedError(f"{primitive} has no value")
    has_replacements = (primitive.properties or {}).get("Run widget replace on values")
    if has_replacements and "%" in str(value):
        raise UnresolvedError(f"{primitive} has '{value}', in which ComfyUI's page inserts values of other nodes")
    return ValueOrigin(value, primitive)


def get_first_value(node: Node) -> Any:
    if isinstance(node.values, dict):
        return next(iter(node.values.values()), None)
    return node.values[0] if isinstance(node.values, list) and node.values else None


def find_bypass_input(node: Node, output: int, wanted: str) -> int | None:
    """Return the index of the input that a bypassed node passes on to an output; None if there is none.

    `wanted` is the type of the input at the end of the link. The result is the input with the index of the output if
    its type fits, else the first of exactly that type, else the first that fits (`ExecutableNodeDTO.ts`,
    #getBypassSlotIndex).
    """
    inputs = node.inputs
    if output < 0:
        return None
    if wanted in ("*", ""):
        return (output if output < len(inputs) else 0) if inputs else None
    output_type = node.outputs[output] if output < len(node.outputs) else "*"
    fits = [_can_connect(socket.type, output_type) and _can_connect(socket.type, wanted) for socket in inputs]
    if output < len(inputs) and fits[output]:
        return output
    exact = [index for index, socket in enumerate(inputs) if socket.type == wanted]
    return next(iter([*exact, *(index for index, is_fit in enumerate(fits) if is_fit)]), None)


def _can_connect(first: str, second: str) -> bool:
    """Whether two types match, ignoring case: "A,B" matches "B,C", and "*" everything (LiteGraph.isValidConnection)."""
    if first in ("*", "") or second in ("*", ""):
        return True
    return bool(set(first.lower().split(",")) & set(second.lower().split(",")))


@dataclass(slots=True)
class _HostValues:
    """The values of a host by the name of its inputs, and those for widgets inside by node id and input name."""

    by_input: dict[str, Any] = field(default_factory=dict)
    inside: dict[tuple[str, str], Any] = field(default_factory=dict)


class SubgraphValues:
    """Finds the values of the hosts of one workflow."""

    def __init__(self, workflow: UiWorkflow, declarations: Declarations) -> None:
        self.workflow = workflow
        self.declarations = declarations
        self.hosts: dict[KeyPath, _HostValues] = {}

    def find_value(self, end: LinkEnd) -> Any:
        """Return the value that a host has for the input at which a link ends; MISSING if none has one."""
        host = end.scope.host
        value = self._read_host(host).inside.get((end.node.id, end.name), MISSING) if host is not None else MISSING
        if not end.is_left or value is not MISSING:
            return value
        values = self._read_host(end.node).by_input
        if end.name in values and values[end.name] is MISSING:
            raise UnresolvedError(f"{end.node} has no value for '{end.name}', and the server offers none")
        return values.get(end.name, MISSING)

    def _read_host(self, host: Node) -> _HostValues:
        if host.path not in self.hosts:
            self.hosts[host.path] = _HostValues()  # of a subgraph that contains itself, which is refused elsewhere
            self.hosts[host.path] = self._make_values(host, self.workflow.subgraphs[host.type])
        return self.hosts[host.path]

    def _make_values(self, host: Node, graph: UiGraph) -> _HostValues:
        targets = {port.name: target for port in graph.inputs if (target := self._find_target(graph, port)) is not None}
        result = _HostValues({name: value for name, (_, _, value) in targets.items()})
        values = host.values if isinstance(host.values, list) else []
        result.by_input.update(zip(targets, values, strict=False))
        inputs_by_target = {(node.id, widget): name for name, (node, widget, _) in reversed(targets.items())}
        for index, (node_id, shown_name) in enumerate(_parse_proxies(host, graph)):
            node = graph.nodes.get(node_id)
            name = inputs_by_target.get((node_id, shown_name)) or (shown_name if node_id == _OWN_INPUT else "")
            inner_name = ""
            if node is not None and not name:
                inner_name = self._find_widget(node, _OLD_PREFIX.sub("", shown_name))
                name = inputs_by_target.get((node_id, inner_name), "")
            value = values[index] if index < len(values) else None
            if name in targets:
                result.by_input.update({} if value is None else {name: value})
            elif node is not None and inner_name:
                key = (node_id, inner_name)
                inner_value = result.inside.get(key, self._read_values(node).get(inner_name))
                result.inside[key] = inner_value if value is None else value
            if node is not None and node.type == PRIMITIVE:
                self._check_targets(host, graph, node)
        return result

    def _check_targets(self, host: Node, graph: UiGraph, primitive: Node) -> None:
        """Refuse a primitive that a host shows if the page would connect other inputs.

        The page takes the indices of the sockets from the file, but has the sockets in the order of the class.
        """
        for node in graph.nodes.values():
            spec = self.declarations.find_spec(node)
            for index, socket in enumerate(node.inputs):
                link = graph.links.get(socket.link or "")
                if spec is not None and link is not None and link.origin == primitive.id:
                    widgets = self.declarations.read_widgets(node)
                    order = [*(name for name in spec.inputs if name not in widgets), *widgets]
                    if spec.is_dynamic or index >= len(order) or order[index] != socket.name:
                        raise UnresolvedError(
                            f"{host} shows the value of {primitive}, which ComfyUI's page gives to another input than "
                            f"'{socket.name}' of {node}; give the value to the nodes themselves"
                        )

    def _find_target(self, graph: UiGraph, port: Port) -> tuple[Node, str, Any] | None:
        """Return the first widget to which an input of a subgraph leads, and its value; None if it leads to none.

        If it leads only to widgets that the server's classes do not have, the host still has a value for the first of
        them, because the file was saved with classes that had it.
        """
        absent: tuple[Node, str, Any] | None = None
        for link_id in port.links:
            for node in graph.nodes.values():
                for socket in node.inputs:
                    if socket.link == link_id:
                        values = self._read_values(node)
                        if socket.name in values:
                            return node, socket.name, values[socket.name]
                        if socket.widget is not None and absent is None:
                            absent = (node, socket.name, MISSING)
        return absent

    def _read_values(self, node: Node) -> Mapping[str, Any]:
        if node.type in self.workflow.subgraphs:
            return self._read_host(node).by_input
        if node.type == PRIMITIVE:
            return {"value": get_first_value(node)}
        if self.declarations.find_spec(node) is None:
            return {}
        return {name: widget.value for name, widget in self.declarations.read_widgets(node).items()}

    def _find_widget(self, node: Node, name: str) -> str:
        """Return the name of the input of a node whose widget is called `name`, or whose inner widget is; else ""."""
        if name in self._read_values(node):
            return name
        graph = self.workflow.subgraphs.get(node.type)
        if graph is not None:
            for port in graph.inputs:
                target = self._find_target(graph, port)
                if target is not None and target[1] == name:
                    return port.name
        return ""


def _parse_proxies(host: Node, graph: UiGraph) -> list[tuple[str, str]]:
    """Return the entries of `proxyWidgets`. As the page, ignore the list if one entry is not of two or three texts."""
    proxies = (host.properties or {}).get("proxyWidgets")
    if isinstance(proxies, str):
        try:
            proxies = json.loads(proxies)
        except (ValueError, RecursionError):
            return []
    if not isinstance(proxies, list) or not fits_shape(proxies, [([str, str], [str, str, str])]):
        return []
    return [(graph.new_ids.get(entry[0], entry[0]), entry[1]) for entry in proxies]
