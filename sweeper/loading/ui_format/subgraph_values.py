"""Find the values that the node of a subgraph (its host) has for inputs that represent a widget inside the subgraph.

Three generations of the editor saved them differently. With `proxyWidgets` (2025), the values are in the order of that
list: an entry `["-1", name]` belongs to the input of that name, and any other entry mirrors a widget inside, whose own
value counts. Without `proxyWidgets` (before and after), there is one value for each such input, in the order of the
inputs (`SubgraphNode.ts`). If the host has no value, the value inside the subgraph counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node, UiGraph
from sweeper.loading.ui_format.links import Scope, UnresolvedError
from sweeper.loading.ui_format.widgets import SEED_INPUTS, is_control_value

_OWN_INPUT: Final = "-1"  # the id of the subgraph's own inputs in `proxyWidgets`


def find_host_value(ports: tuple[tuple[Scope, int], ...]) -> Any:
    """Return the value of the outermost host that has one, on the way out of nested subgraphs; None if none has.

    `ports` are the scopes on that way with the index of the subgraph's input, outermost first. Raises UnresolvedError
    if the values of a host cannot be assigned to its inputs.
    """
    for scope, index in ports:
        assert scope.host is not None
        value = _collect_values(scope.host, scope.graph).get(scope.graph.inputs[index].name)
        if value is not None:
            return value
    return None


def _collect_values(host: Node, graph: UiGraph) -> dict[str, Any]:
    """Return the values of a host by the name of the subgraph's input."""
    values = host.values
    if isinstance(values, Mapping):
        return dict(values)
    if not isinstance(values, list) or not any(value is not None for value in values):
        return {}
    proxies = (host.properties or {}).get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        return _collect_proxied(host, graph, values, proxies)
    return _collect_in_order(host, graph, values)


def _collect_proxied(host: Node, graph: UiGraph, values: list[Any], proxies: list[Any]) -> dict[str, Any]:
    values_by_input = {}
    if len(values) > len(proxies):
        raise UnresolvedError(f"{host} has {len(values)} values for the {len(proxies)} widgets that it shows")
    for value, proxy in zip(values, proxies, strict=False):  # controls at the end are not saved
        if not isinstance(proxy, list) or len(proxy) < 2:
            raise UnresolvedError(f"{host} shows a widget that its `proxyWidgets` do not name")
        node_id, name = str(proxy[0]), str(proxy[1])
        if node_id == _OWN_INPUT:
            values_by_input[name] = value
        elif value is not None and not is_control_value(value) and not _has_value(graph.nodes.get(node_id), value):
            raise UnresolvedError(f"{host} shows another value of '{name}' than node {node_id} inside it has")
    return values_by_input


def _has_value(node: Node | None, value: Any) -> bool:
    if node is None:
        return False
    values = list(node.values.values()) if isinstance(node.values, dict) else node.values
    return isinstance(values, list) and value in values


def _collect_in_order(host: Node, graph: UiGraph, values: list[Any]) -> dict[str, Any]:
    """Assign one value to each input that represents a widget. After a seed, skip a "control after generate" value."""
    widget_names = {
        socket.link: socket.widget
        for node in graph.nodes.values()
        for socket in node.inputs
        if socket.link is not None and socket.widget is not None
    }
    values_by_input: dict[str, Any] = {}
    remaining = list(values)
    widgets_by_input = [
        (port.name, [widget_names[link] for link in port.links if link in widget_names]) for port in graph.inputs
    ]
    control_count = len(values) - sum(bool(inner_widgets) for _, inner_widgets in widgets_by_input)
    for name, inner_widgets in widgets_by_input:
        if inner_widgets and remaining:
            values_by_input[name] = remaining.pop(0)
            if control_count > 0 and SEED_INPUTS & set(inner_widgets) and remaining and is_control_value(remaining[0]):
                remaining.pop(0)
                control_count -= 1
    if remaining or control_count != 0:
        widget_count = sum(bool(inner_widgets) for _, inner_widgets in widgets_by_input)
        raise UnresolvedError(f"{host} has {len(values)} values for the {widget_count} widgets that it shows")
    return values_by_input
