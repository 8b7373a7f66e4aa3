"""Convert a UI-format workflow, which ComfyUI's editor saves, into the API-format graph that the editor would send.

The conversion follows the editor's `graphToPrompt` (Comfy-Org/ComfyUI_frontend, src/utils/executionUtil.ts). It needs
the `object_info` of a server, because a UI file has values without names. A node that cannot be converted with
certainty is refused. `graph` parses the file, `widgets` assigns the values to inputs, `links` follows the links, and
`subgraph_values` finds the values that the node of a subgraph has itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.did_you_mean import find_nearest, join_names
from sweeper.loading.ui_format.graph import (
    BYPASSED,
    MUTED,
    MalformedWorkflowError,
    Node,
    Socket,
    UiWorkflow,
    parse_ui_workflow,
)
from sweeper.loading.ui_format.links import (
    LinkFollower,
    NodeOrigin,
    NoOrigin,
    Origin,
    Scope,
    UnresolvedError,
    ValueOrigin,
    is_frontend_only,
)
from sweeper.loading.ui_format.subgraph_values import find_host_value
from sweeper.loading.ui_format.widgets import (
    WidgetMismatchError,
    assign_widget_values,
    convert_host_value,
    convert_own_value,
)
from sweeper.model.node_classes import NodeInfo, NodeSpec
from sweeper.model.workflow import EXPORT_HINT
from sweeper.schemas.values import KeyPath

# `%date:yyyy-MM-dd%` and `%KSampler.seed%`, which the editor replaces (searchAndReplace.ts). The server does `%year%`.
_FRONTEND_TEXT: Final = re.compile(r"%(date:[^%]*|[^%.]+\.[^%.]+)%")


_MAX_NODES: Final = 100_000  # with subgraphs expanded: thirty that each use the next one twice make a billion
_MAX_NESTED: Final = 50


class UiFormatError(Exception):
    """The workflow cannot be converted with certainty. `problems` are (path, sentence) pairs; the first is advice."""

    def __init__(self, problems: list[tuple[KeyPath, str]]) -> None:
        count = f"{len(problems)} problems prevent" if len(problems) > 1 else "One problem prevents"
        head = f"{EXPORT_HINT}. {count} the conversion here"
        self.problems: tuple[tuple[KeyPath, str], ...] = (((), head), *problems)
        super().__init__("\n".join(sentence for _, sentence in self.problems))


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """The API-format graph, and notes as (path, sentence) pairs on the parts of the workflow that it lacks."""

    graph: dict[str, Any]
    notes: tuple[tuple[KeyPath, str], ...]


def convert_to_api(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> ConversionResult:
    """Convert a UI-format workflow, `{"nodes": [...], "links": [...]}`, with a server's response to GET /object_info.

    Raises UiFormatError with everything that cannot be converted with certainty, and InputError if `object_info` is
    something else.
    """
    info = NodeInfo.from_object_info(object_info)
    try:
        ui_workflow = parse_ui_workflow(workflow)
        converter = _Converter(ui_workflow, info, object_info)
        converter.convert_graph(Scope(ui_workflow.root))
    except MalformedWorkflowError as error:
        raise UiFormatError([(error.path, str(error))]) from error
    extra = workflow.get("extra")
    if isinstance(extra, dict) and extra.get("ue_links"):
        converter.problems.append((("extra", "ue_links"), "Anything Everywhere draws links that are not in the file"))
    converter.drop_loose_links()
    converter.note_scripts()
    if not converter.graph and not converter.problems:
        converter.problems.append((("nodes",), "no node of it would be sent to a server"))
    if converter.problems:
        raise UiFormatError(list(dict.fromkeys(converter.problems)))
    return ConversionResult(converter.graph, tuple(dict.fromkeys(converter.notes)))


class _Converter:
    """Converts one workflow and collects problems and notes."""

    def __init__(self, workflow: UiWorkflow, info: NodeInfo, object_info: Mapping[str, Any]) -> None:
        self.workflow = workflow
        self.info = info
        self.object_info = object_info
        self.link_follower = LinkFollower(workflow)
        self.graph: dict[str, Any] = {}
        self.node_count = 0
        self.problems: list[tuple[KeyPath, str]] = []
        self.notes: list[tuple[KeyPath, str]] = []

    def convert_graph(self, scope: Scope) -> None:
        for node in sorted(scope.graph.nodes.values(), key=lambda node_in_order: node_in_order.order):
            self.node_count += 1
            if self.node_count > _MAX_NODES:
                raise MalformedWorkflowError(("nodes",), f"with its subgraphs it has more than {_MAX_NODES:,} nodes")
            if is_frontend_only(node):
                continue
            if node.mode in (MUTED, BYPASSED):
                effect = "muted and left out" if node.mode == MUTED else "bypassed: its links are passed on"
                self.notes.append((node.path, f"{node} is {effect}"))
            elif node.type in self.workflow.subgraphs:
                self.convert_subgraph(scope, node)
            else:
                self.convert_node(scope, node)

    def convert_subgraph(self, scope: Scope, host: Node) -> None:
        inner_scope = scope.enter(host, self.workflow.subgraphs[host.type])
        if len(inner_scope.ids) > min(len(self.workflow.subgraphs), _MAX_NESTED):
            self.add_problem(host, f"is a subgraph that contains itself, or more than {_MAX_NESTED} nested levels")
        else:
            self.convert_graph(inner_scope)

    def add_problem(self, node: Node, reason: str) -> None:
        self.problems.append((node.path, f"{node} {reason}"))

    def convert_node(self, scope: Scope, node: Node) -> None:
        reason = self.explain_unknown_class(node)
        if reason:
            self.add_problem(node, reason)
            return
        spec = self.info.classes[node.type]
        try:
            inputs = self.convert_inputs(scope, node, spec)
        except WidgetMismatchError as error:
            self.add_problem(node, str(error))
        except UnresolvedError as error:
            self.problems.append((node.path, str(error)))
        else:
            declaration = self.object_info[node.type]
            title = node.title or declaration.get("display_name") or node.type
            self.graph[scope.to_api_id(node)] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": title}}

    def explain_unknown_class(self, node: Node) -> str:
        """Return why a node of this class cannot be sent; empty if it can."""
        if "Everywhere" in node.type:
            return "draws links that are not in the file"
        if node.type in self.info.classes:
            return ""
        if node.type.startswith(("workflow>", "workflow/")):
            return "is a group node; convert it to nodes or to a subgraph in ComfyUI"
        nearest = find_nearest(node.type, self.info.classes)
        return f"is of a class that the server does not have{f' (the nearest is {nearest})' if nearest else ''}"

    def convert_inputs(self, scope: Scope, node: Node, spec: NodeSpec) -> dict[str, Any]:
        """Return the inputs as the editor writes them: the values of widgets in the order of the class, then links."""
        widgets = assign_widget_values(node, spec)
        inputs = dict(widgets.values)
        if widgets.defaults:
            names = " and ".join(f"'{name}' = {inputs[name]!r}" for name in widgets.defaults)
            self.notes.append((node.path, f"{node} was saved before its class had {names}, the server's default"))
        for index, socket in enumerate(node.inputs):
            self.apply_link(node, spec, socket, self.link_follower.find_origin(scope, node, index), inputs)
        prefix = inputs.get("filename_prefix")
        if isinstance(prefix, str) and _FRONTEND_TEXT.search(prefix):
            self.notes.append((node.path, f"{node} has '{prefix}', whose %...% only ComfyUI's page replaces"))
        return inputs

    def apply_link(self, node: Node, spec: NodeSpec, socket: Socket, origin: Origin, inputs: dict[str, Any]) -> None:
        """Write the value or link that the socket receives into `inputs`, if it receives one."""
        name = socket.widget if socket.widget is not None and socket.widget in spec.inputs else socket.name
        if socket.widget is not None and name not in spec.inputs and not isinstance(origin, NoOrigin):
            raise WidgetMismatchError(f"links its widget '{name}', which the server's class does not have")
        if isinstance(origin, NodeOrigin):
            inputs[name] = [origin.node_id, origin.output]
        elif isinstance(origin, ValueOrigin):
            inputs[name] = convert_own_value(spec.inputs[name], origin.value)
        elif socket.link is not None:
            host_value = find_host_value(origin.ports) if name in inputs else None
            if host_value is not None:
                inputs[name] = convert_host_value(spec.inputs[name], host_value)
            elif name in inputs:
                inputs[name] = convert_own_value(spec.inputs[name], inputs[name])
            if origin.reason:
                self.notes.append((node.path, f"'{name}' of {node} is not linked: {origin.reason}"))

    def drop_loose_links(self) -> None:
        """Remove links to nodes that are not sent, as the editor does."""
        for node in self.graph.values():
            for name, value in list(node["inputs"].items()):
                if isinstance(value, list) and value[0] not in self.graph:
                    del node["inputs"][name]

    def note_scripts(self) -> None:
        """Note custom nodes, because their scripts for ComfyUI's page may change values when it queues a workflow."""
        classes = {node["class_type"] for node in self.graph.values()}
        modules = {name: str(self.object_info[name].get("python_module", "")) for name in classes}
        custom = sorted(name for name, module in modules.items() if module.startswith("custom_nodes"))
        if custom:
            self.notes.append(
                ((), f"what scripts of custom nodes change on the page is not followed: {join_names(custom)}")
            )
