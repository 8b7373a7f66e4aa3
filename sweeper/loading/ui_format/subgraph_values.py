"""Find the values that the node of a subgraph (its host) gives to widgets inside, as ComfyUI's page does.

An input of a subgraph that leads to a widget is a widget of the host. Its value is that of the widget inside unless the
host has one. A host has its values in the order of these inputs. Hosts of 2025 have `proxyWidgets` too, a list of
`[node id, widget name]` or `["-1", input name]`: there the values are in the order of that list, and an entry that no
input leads to gives its value to the widget inside (ComfyUI_frontend 1.49: `SubgraphNode.ts`,
`proxyWidgetMigration.ts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node, Port, UiGraph, UiWorkflow
from sweeper.loading.ui_format.links import PRIMITIVE, LinkEnd, UnresolvedError, get_first_value
from sweeper.loading.ui_format.widgets import read_widgets
from sweeper.model.node_classes import NodeInfo
from sweeper.model.template import MISSING
from sweeper.schemas.values import KeyPath

_OWN_INPUT: Final = "-1"  # the id of the subgraph's own inputs in `proxyWidgets`
_OLD_PREFIX: Final = re.compile(r"\s*\d+\s*:\s*")  # `12: text` named a widget of node 12 deeper inside


@dataclass(slots=True)
class _HostValues:
    """The values of a host by the name of its inputs, and those for widgets inside by node id and input name."""

    by_input: dict[str, Any] = field(default_factory=dict)
    inside: dict[tuple[str, str], Any] = field(default_factory=dict)


class SubgraphValues:
    """Finds the values of the hosts of one workflow."""

    def __init__(self, workflow: UiWorkflow, info: NodeInfo) -> None:
        self.workflow = workflow
        self.info = info
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
            spec = self.info.classes.get(node.type)
            for index, socket in enumerate(node.inputs if spec is not None else ()):
                link = graph.links.get(socket.link or "")
                if spec is not None and link is not None and link.origin == primitive.id:
                    widgets = read_widgets(node, spec)
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
        """Return the values of all widgets of a node by the name of their input."""
        if node.type in self.workflow.subgraphs:
            return self._read_host(node).by_input
        if node.type == PRIMITIVE:
            return {"value": get_first_value(node)}
        spec = self.info.classes.get(node.type)
        return {} if spec is None else {name: widget.value for name, widget in read_widgets(node, spec).items()}

    def _find_widget(self, node: Node, name: str) -> str:
        """Return the name of the input of a node whose widget is called `name`, or whose inner widget is; else ""."""
        if name in self._read_values(node):
            return name
        graph = self.workflow.subgraphs.get(node.type)
        for port in graph.inputs if graph is not None else ():
            target = self._find_target(graph, port) if graph is not None else None
            if target is not None and target[1] == name:
                return port.name
        return ""


def _parse_proxies(host: Node, graph: UiGraph) -> list[tuple[str, str]]:
    """Return the entries of `proxyWidgets`. As the page, ignore the list if one entry is not of two or three texts."""
    proxies = (host.properties or {}).get("proxyWidgets")
    if isinstance(proxies, str):
        try:
            proxies = json.loads(proxies)
        except ValueError:
            return []
    entries = proxies if isinstance(proxies, list) else []
    if not all(isinstance(entry, list) and len(entry) in (2, 3) for entry in entries) or not all(
        isinstance(text, str) for entry in entries for text in entry
    ):
        return []
    return [(graph.new_ids.get(entry[0], entry[0]), entry[1]) for entry in entries]
