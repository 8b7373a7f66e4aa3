"""Follow the link of an input to its origin: through reroutes, bypassed nodes, Get and Set nodes, and subgraphs.

The rules are those of ComfyUI's editor (`ExecutableNodeDTO.ts`: resolveInput, resolveOutput; `widgetInputs.ts` for
primitives; `setgetnodes.js` of KJNodes for GetNode and SetNode).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sweeper.loading.ui_format.graph import BYPASSED, MUTED, Node, UiGraph, UiWorkflow

# Nodes that only pass a link on: those of the editor and of rgthree.
_REROUTES: Final = frozenset({"Reroute", "Reroute (rgthree)"})
PRIMITIVE: Final = "PrimitiveNode"
_SET, _GET = "SetNode", "GetNode"  # KJNodes
# Nodes of the editor that have no effect on what is sent: notes, labels, switches for other nodes.
_FRONTEND_NODES: Final = frozenset(
    {"Note", "MarkdownNote"}
    | {
        f"{name} (rgthree)"
        for name in (
            "Label", "Bookmark", "Fast Muter", "Fast Bypasser", "Fast Groups Muter", "Fast Groups Bypasser",
            "Fast Actions Button", "Node Collector", "Mute / Bypass Repeater", "Mute / Bypass Relay",
            "Random Unmuter",
        )
    }
)  # fmt: skip
_CONNECT_AGAIN: Final = "connect the input again in ComfyUI, which does not queue such a workflow either"
_MAX_STEPS: Final = 150  # of one link; the longest chains of reroutes in real files have a dozen


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
        """Return the scope of a subgraph that the node `host` of this scope uses."""
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
    """Whether the node exists only in the editor and is never sent to a server."""
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
            raise UnresolvedError(
                f"'{socket.name}' of {node} is linked to node {link.origin}, which is not in the file; {_CONNECT_AGAIN}"
            )
        return self._follow_output(scope, source, link.output, wanted, steps - 1)

    def _leave_subgraph(self, scope: Scope, index: int, steps: int) -> Origin:
        """Follow a link out of a subgraph through its input `index`, to the link of the host's socket."""
        assert scope.host is not None
        assert scope.outer is not None
        if index >= len(scope.graph.inputs):
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
        """Follow a link into a subgraph through its output `index`."""
        layer = self.workflow.subgraphs[host.type]
        if index >= len(layer.outputs):
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
            setters = [
                node_in_scope
                for node_in_scope in scope_or_none.graph.nodes.values()
                if node_in_scope.type == _SET and get_first_value(node_in_scope) == name
            ]
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
    """Return the value of a node's first widget, None if it has none."""
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
    if wanted in ("*", ""):
        return (output if output < len(inputs) else 0) if inputs else None
    output_type = node.outputs[output] if output < len(node.outputs) else "*"
    if (
        output < len(inputs)
        and _can_connect(inputs[output].type, output_type)
        and _can_connect(inputs[output].type, wanted)
    ):
        return output
    exact = [index for index, socket in enumerate(inputs) if socket.type == wanted]
    connectable = [
        index
        for index, socket in enumerate(inputs)
        if _can_connect(socket.type, output_type) and _can_connect(socket.type, wanted)
    ]
    return next(iter([*exact, *connectable]), None)


def _can_connect(first: str, second: str) -> bool:
    """Whether two types match, ignoring case: "A,B" matches "B,C", and "*" everything (LiteGraph.isValidConnection)."""
    if first in ("*", "") or second in ("*", ""):
        return True
    return bool(set(first.lower().split(",")) & set(second.lower().split(",")))
