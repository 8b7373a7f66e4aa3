"""Where an input's link comes from: through reroutes, bypassed nodes, Get and Set nodes, in and out of subgraphs.

The rules are those of ComfyUI's editor (`ExecutableNodeDTO.ts`: resolveInput, resolveOutput; `widgetInputs.ts` for
primitives; KJNodes' `setgetnodes.js` for GetNode and SetNode). Which nodes the server sees is `canvas`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sweeper.loading.ui_format.graph import BYPASSED, MUTED, Node, UiGraph, UiWorkflow

# Nodes that only pass a link on: the editor's own, and rgthree's, which does the same.
_REROUTES: Final = frozenset({"Reroute", "Reroute (rgthree)"})
_PRIMITIVE: Final = "PrimitiveNode"
_SET, _GET = "SetNode", "GetNode"  # KJNodes
# Nodes of the page that decide nothing that is sent: notes, labels, switches for other nodes.
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
_MAX_STEPS: Final = 150  # of one link; the longest chains of reroutes in real files have a dozen


class UnresolvedError(Exception):
    """A link cannot be followed for sure; the message says why, as a whole sentence."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A layer as it stands in one place: the root, or one use of a subgraph by the node `host` of the scope `outer`."""

    graph: UiGraph
    ids: tuple[str, ...] = ()
    host: Node | None = None
    outer: Scope | None = None

    def to_api_id(self, node: Node) -> str:
        """The node's id in the API format: `57:8` is node 8 of the subgraph that node 57 stands for."""
        return ":".join((*self.ids, node.id))

    def enter(self, host: Node, graph: UiGraph) -> Scope:
        """The scope of a subgraph that stands in this one."""
        return Scope(graph, (*self.ids, host.id), host, self)


@dataclass(frozen=True, slots=True)
class NodeOrigin:
    """A link's true origin: an output of a node that the server knows."""

    node_id: str
    output: int


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """A link that ends in a value: a primitive's."""

    value: Any


@dataclass(frozen=True, slots=True)
class NoOrigin:
    """Nothing: the reason, empty where there never was a link.

    `ports` are the inputs of nested subgraphs that the way led out of, outermost first, with their numbers.
    """

    reason: str = ""
    ports: tuple[tuple[Scope, int], ...] = ()


Origin = NodeOrigin | ValueOrigin | NoOrigin


def is_frontend_only(node: Node) -> bool:
    """Whether the node exists on ComfyUI's page only and no server ever sees it."""
    return node.type in _FRONTEND_NODES or node.type in _REROUTES or node.type in (_PRIMITIVE, _SET, _GET)


@dataclass(slots=True)
class LinkFollower:
    """Follows the links of one canvas."""

    workflow: UiWorkflow

    def find_origin(self, scope: Scope, node: Node, index: int) -> Origin:
        """Where the link of a node's input comes from. Raises UnresolvedError."""
        socket = node.inputs[index]
        link = scope.graph.links.get(socket.link or "")
        source = scope.graph.nodes.get(link.origin) if link is not None else None
        if source is not None and source.type == _PRIMITIVE:
            return _read_primitive(source, node, index)
        return self._follow_input(scope, node, index, socket.type, _MAX_STEPS)

    def _follow_input(self, scope: Scope, node: Node, index: int, wanted: str, steps: int) -> Origin:
        if steps == 0:
            raise UnresolvedError(f"the links into {node} go in a circle, or pass through over {_MAX_STEPS} nodes")
        if index >= len(node.inputs) or node.inputs[index].link is None:
            return NoOrigin()
        link = scope.graph.links.get(str(node.inputs[index].link))
        if link is None:
            return NoOrigin(f"the link {node.inputs[index].link} is not in the file")
        if scope.host is not None and link.origin == scope.graph.input_node:
            return self._leave_subgraph(scope, link.output, steps - 1)
        source = scope.graph.nodes.get(link.origin)
        if source is None:
            return NoOrigin(f"it was linked to node {link.origin}, which is not in the file")
        return self._follow_output(scope, source, link.output, wanted, steps - 1)

    def _leave_subgraph(self, scope: Scope, index: int, steps: int) -> Origin:
        """Out of a subgraph through its input `number`, on to what the host's socket is linked to."""
        assert scope.host is not None
        assert scope.outer is not None
        if index >= len(scope.graph.inputs):
            return NoOrigin(f"the subgraph of {scope.host} has no input {index}")
        name = scope.graph.inputs[index].name
        for at, socket in enumerate(scope.host.inputs):
            if socket.name == name and socket.link is not None:
                source = self._find_source(scope.outer, socket.link)
                if source is not None and source.type == _PRIMITIVE:
                    raise UnresolvedError(
                        f"{source} is linked to the input '{name}' of the subgraph {scope.host}, which ComfyUI's "
                        "versions treat differently; write the value into the subgraph's own widget"
                    )
                origin = self._follow_input(scope.outer, scope.host, at, socket.type, steps)
                if isinstance(origin, NoOrigin) and origin.ports:
                    return NoOrigin(ports=(*origin.ports, (scope, index)))
                return origin
        return NoOrigin(ports=((scope, index),))

    def _find_source(self, scope: Scope, link_id: str) -> Node | None:
        link = scope.graph.links.get(link_id)
        return scope.graph.nodes.get(link.origin) if link is not None else None

    def _follow_output(self, scope: Scope, node: Node, index: int, wanted: str, steps: int) -> Origin:
        if node.mode == BYPASSED:
            match = find_bypass_input(node, index, wanted)
            if match is None:
                return NoOrigin(f"it was linked to {node}, which is bypassed and has no input of the type {wanted}")
            return self._follow_input(scope, node, match, node.inputs[match].type, steps)
        if node.type in self.workflow.subgraphs:
            if node.mode == MUTED:
                return NoOrigin(f"it was linked to {node}, which is muted")
            return self._enter_subgraph(scope, node, index, wanted, steps)
        if node.type in _REROUTES or node.type == _SET:
            return self._follow_input(scope, node, index, wanted, steps)
        if node.type == _GET:
            return self._follow_get_node(scope, node, wanted, steps)
        if node.type == _PRIMITIVE:
            raise UnresolvedError(f"{node} is linked through a reroute, where ComfyUI does not pass its value on")
        if node.type in _FRONTEND_NODES:
            raise UnresolvedError(f"{node} is linked to, but exists on ComfyUI's page only")
        if node.mode == MUTED:
            return NoOrigin(f"it was linked to {node}, which is muted")
        return NodeOrigin(scope.to_api_id(node), index)

    def _enter_subgraph(self, scope: Scope, host: Node, index: int, wanted: str, steps: int) -> Origin:
        """Into a subgraph through its output `number`."""
        layer = self.workflow.subgraphs[host.type]
        if index >= len(layer.outputs):
            return NoOrigin(f"the subgraph of {host} has no output {index}")
        inside = scope.enter(host, layer)
        if len(inside.ids) > len(self.workflow.subgraphs):
            raise UnresolvedError(f"the subgraph of {host} contains itself")
        for link_id in layer.outputs[index].links[:1]:
            link = layer.links.get(link_id)
            if link is not None and link.origin == layer.input_node:
                return self._leave_subgraph(inside, link.output, steps)
            if link is not None and link.origin in layer.nodes:
                return self._follow_output(inside, layer.nodes[link.origin], link.output, wanted, steps)
        return NoOrigin(f"the output {index} of the subgraph of {host} is linked to nothing inside")

    def _follow_get_node(self, scope: Scope, node: Node, wanted: str, steps: int) -> Origin:
        name = get_first_value(node)
        place: Scope | None = scope
        while place is not None:
            setters = [one for one in place.graph.nodes.values() if one.type == _SET and get_first_value(one) == name]
            if len(setters) > 1:
                raise UnresolvedError(f"{node} gets '{name}', which {len(setters)} SetNodes set")
            if setters:
                return self._follow_input(place, setters[0], 0, wanted, steps)
            place = place.outer
        raise UnresolvedError(f"{node} gets '{name}', which no SetNode sets")


def _read_primitive(primitive: Node, node: Node, index: int) -> ValueOrigin:
    """A primitive's value stands in the widget that it is linked to, and nowhere else."""
    if node.inputs[index].widget is None:
        raise UnresolvedError(f"{primitive} is linked to '{node.inputs[index].name}' of {node}, which is no widget")
    value = get_first_value(primitive)
    if value is None:
        raise UnresolvedError(f"{primitive} holds no value")
    replacing = (primitive.properties or {}).get("Run widget replace on values")
    if replacing and "%" in str(value):
        raise UnresolvedError(f"{primitive} holds '{value}', in which ComfyUI's page fills in other nodes' values")
    return ValueOrigin(value)


def get_first_value(node: Node) -> Any:
    """The value of a node's first widget, None where it has none."""
    if isinstance(node.values, dict):
        return next(iter(node.values.values()), None)
    return node.values[0] if isinstance(node.values, list) and node.values else None


def find_bypass_input(node: Node, output: int, wanted: str) -> int | None:
    """Which input a bypassed node passes on to an output, for a link that ends in an input of the type `wanted`.

    The same place if its type fits, else the first of exactly that type, else the first that fits
    (`ExecutableNodeDTO.ts`, #getBypassSlotIndex).
    """
    inputs = node.inputs
    if wanted in ("*", ""):
        return (output if output < len(inputs) else 0) if inputs else None
    given = node.outputs[output] if output < len(node.outputs) else "*"
    if output < len(inputs) and _can_connect(inputs[output].type, given) and _can_connect(inputs[output].type, wanted):
        return output
    exact = [at for at, one in enumerate(inputs) if one.type == wanted]
    fitting = [at for at, one in enumerate(inputs) if _can_connect(one.type, given) and _can_connect(one.type, wanted)]
    return next(iter([*exact, *fitting]), None)


def _can_connect(one: str, other: str) -> bool:
    """LiteGraph.isValidConnection: equal without regard to case, "A,B" meets "B,C", and "*" meets everything."""
    if one in ("*", "") or other in ("*", ""):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))
