"""A UI-format workflow, as ComfyUI's editor saves it, turned into the API-format graph that the editor would send.

Follows the editor's `graphToPrompt` (Comfy-Org/ComfyUI_frontend, src/utils/executionUtil.ts). It needs the server's
`object_info`, for a UI file holds values without names. What cannot be converted for sure is refused, node by node.
`canvas_graph` reads the file, `canvas_widgets` names the values, `canvas_links` follows the links, `canvas_hosts`
tells a subgraph's own values from those inside. No file is opened here.
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
from sweeper.loading.ui_format.widgets import WidgetMismatchError, convert_host_value, convert_own_value, widget_values
from sweeper.model.node_classes import NodeInfo, NodeSpec
from sweeper.model.workflow import EXPORT_HINT
from sweeper.schemas.values import KeyPath

# `%date:yyyy-MM-dd%` and `%KSampler.seed%`, which the page fills in (searchAndReplace.ts); `%year%` is the server's.
_FRONTEND_TEXT: Final = re.compile(r"%(date:[^%]*|[^%.]+\.[^%.]+)%")


_MAX_NODES: Final = 100_000  # after subgraphs: thirty that each hold the next one twice would be a billion
_MAX_NESTED: Final = 50


class UiFormatError(Exception):
    """The workflow cannot be converted for sure. `problems` are (path, sentence) pairs, the way out first."""

    def __init__(self, problems: list[tuple[KeyPath, str]]) -> None:
        count = f"{len(problems)} things in it" if len(problems) > 1 else "one thing in it"
        head = f"{EXPORT_HINT}. It could be converted here but for {count}"
        self.problems: tuple[tuple[KeyPath, str], ...] = (((), head), *problems)
        super().__init__("\n".join(sentence for _, sentence in self.problems))


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """What became of a canvas: the API-format graph, and (path, sentence) notes on what of the canvas is not in it."""

    graph: dict[str, Any]
    notes: tuple[tuple[KeyPath, str], ...]


def convert_to_api(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> ConversionResult:
    """Convert a UI-format workflow, `{"nodes": [...], "links": [...]}`, with a server's answer to GET /object_info.

    Raises CanvasError with everything that cannot be converted for sure, InputError for no object_info.
    """
    info = NodeInfo.from_object_info(object_info)
    try:
        read = parse_ui_workflow(workflow)
        conversion = _Converter(read, info, object_info)
        conversion.convert_graph(Scope(read.root))
    except MalformedWorkflowError as error:
        raise UiFormatError([(error.path, str(error))]) from error
    extra = workflow.get("extra")
    if isinstance(extra, dict) and extra.get("ue_links"):
        conversion.problems.append((("extra", "ue_links"), "Anything Everywhere draws links that are not in the file"))
    conversion.drop_loose_links()
    conversion.note_scripts()
    if not conversion.graph and not conversion.problems:
        conversion.problems.append((("nodes",), "no node of it would be sent to a server"))
    if conversion.problems:
        raise UiFormatError(list(dict.fromkeys(conversion.problems)))
    return ConversionResult(conversion.graph, tuple(dict.fromkeys(conversion.notes)))


class _Converter:
    """One canvas on its way, with the problems and notes met on the way."""

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
        for node in sorted(scope.graph.nodes.values(), key=lambda one: one.order):
            self.node_count += 1
            if self.node_count > _MAX_NODES:
                raise MalformedWorkflowError(("nodes",), f"with its subgraphs it has more than {_MAX_NODES:,} nodes")
            if is_frontend_only(node):
                continue
            if node.mode in (MUTED, BYPASSED):
                what = "muted and left out" if node.mode == MUTED else "bypassed: its links are passed on"
                self.notes.append((node.path, f"{node} is {what}"))
            elif node.type in self.workflow.subgraphs:
                self.convert_subgraph(scope, node)
            else:
                self.convert_node(scope, node)

    def convert_subgraph(self, scope: Scope, host: Node) -> None:
        inside = scope.enter(host, self.workflow.subgraphs[host.type])
        if len(inside.ids) > min(len(self.workflow.subgraphs), _MAX_NESTED):
            self.add_problem(
                host, f"stands for a subgraph that contains itself, or {_MAX_NESTED} others in one another"
            )
        else:
            self.convert_graph(inside)

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
            declared = self.object_info[node.type]
            title = node.title or declared.get("display_name") or node.type
            self.graph[scope.to_api_id(node)] = {"inputs": inputs, "class_type": node.type, "_meta": {"title": title}}

    def explain_unknown_class(self, node: Node) -> str:
        """Why the node's class is none that can be sent, empty when it is one."""
        if "Everywhere" in node.type:
            return "draws links that are not in the file"
        if node.type in self.info.classes:
            return ""
        if node.type.startswith(("workflow>", "workflow/")):
            return "is a group node; convert it to nodes or to a subgraph in ComfyUI"
        near = find_nearest(node.type, self.info.classes)
        return f"is of a class that the server does not have{f' (the nearest is {near})' if near else ''}"

    def convert_inputs(self, scope: Scope, node: Node, spec: NodeSpec) -> dict[str, Any]:
        """The inputs as the editor writes them: the widgets' values in the class's order, then the links."""
        widgets = widget_values(node, spec)
        found = dict(widgets.values)
        if widgets.defaults:
            names = " and ".join(f"'{name}' = {found[name]!r}" for name in widgets.defaults)
            self.notes.append((node.path, f"{node} is from before its class had {names}: the server's default"))
        for number, socket in enumerate(node.inputs):
            self.apply_link(node, spec, socket, self.link_follower.find_origin(scope, node, number), found)
        prefix = found.get("filename_prefix")
        if isinstance(prefix, str) and _FRONTEND_TEXT.search(prefix):
            self.notes.append((node.path, f"{node} holds '{prefix}', whose %...% only ComfyUI's page fills in"))
        return found

    def apply_link(self, node: Node, spec: NodeSpec, socket: Socket, origin: Origin, inputs: dict[str, Any]) -> None:
        """Write into `found` what the socket's link brings, where it has one."""
        name = socket.widget if socket.widget is not None and socket.widget in spec.inputs else socket.name
        if socket.widget is not None and name not in spec.inputs and not isinstance(origin, NoOrigin):
            raise WidgetMismatchError(f"links its widget '{name}', which the server's class does not have")
        if isinstance(origin, NodeOrigin):
            inputs[name] = [origin.node_id, origin.output]
        elif isinstance(origin, ValueOrigin):
            inputs[name] = convert_own_value(spec.inputs[name], origin.value)
        elif socket.link is not None:
            given = find_host_value(origin.ports) if name in inputs else None
            if given is not None:
                inputs[name] = convert_host_value(spec.inputs[name], given)
            elif name in inputs:
                inputs[name] = convert_own_value(spec.inputs[name], inputs[name])
            if origin.reason:
                self.notes.append((node.path, f"'{name}' of {node} is not linked: {origin.reason}"))

    def drop_loose_links(self) -> None:
        """Links to nodes that are not sent go, as in the editor."""
        for node in self.graph.values():
            for name, value in list(node["inputs"].items()):
                if isinstance(value, list) and value[0] not in self.graph:
                    del node["inputs"][name]

    def note_scripts(self) -> None:
        """Custom nodes may bring a script for the page that changes values on their way; nobody else knows it."""
        classes = {node["class_type"] for node in self.graph.values()}
        modules = {name: str(self.object_info[name].get("python_module", "")) for name in classes}
        custom = sorted(name for name, module in modules.items() if module.startswith("custom_nodes"))
        if custom:
            self.notes.append(
                ((), f"what scripts of custom nodes change on the page is not followed: {join_names(custom)}")
            )
