"""The values that a subgraph's node holds itself, for inputs of the subgraph that stand for a widget inside.

Three generations of the editor wrote them differently. With `proxyWidgets` (2025) the values stand in that list's
order: an entry `["-1", name]` belongs to the subgraph's input of that name, any other mirrors a widget inside, whose
own value counts. Without it (before, and again later) there is one value for every such input, in the order of the
inputs (`SubgraphNode.ts`). Where no value is given, the one inside counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sweeper.loading.ui_format.graph import Node, UiGraph
from sweeper.loading.ui_format.links import Scope, UnresolvedError
from sweeper.loading.ui_format.widgets import is_control_value

_OWN_INPUT: Final = "-1"  # the id under which `proxyWidgets` names the subgraph's own inputs
_SEED_INPUTS: Final = frozenset({"seed", "noise_seed"})


def find_host_value(ports: tuple[tuple[Scope, int], ...]) -> Any:
    """The value that the outermost node on a way out of nested subgraphs holds for it, None where none does.

    `ports` are the scopes on the way with the number of the subgraph's input, outermost first. Raises UnresolvedError
    where a node's values cannot be told apart.
    """
    for scope, number in ports:
        assert scope.host is not None
        value = _collect_values(scope.host, scope.graph).get(scope.graph.inputs[number].name)
        if value is not None:
            return value
    return None


def _collect_values(host: Node, graph: UiGraph) -> dict[str, Any]:
    """The values that a host holds, by the name of the subgraph's input."""
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
    found = {}
    if len(values) > len(proxies):
        raise UnresolvedError(f"{host} holds {len(values)} values for the {len(proxies)} widgets that it shows")
    for value, proxy in zip(values, proxies, strict=False):  # trailing controls are not saved
        if not isinstance(proxy, list) or len(proxy) < 2:
            raise UnresolvedError(f"{host} shows a widget that its `proxyWidgets` do not name")
        node_id, name = str(proxy[0]), str(proxy[1])
        if node_id == _OWN_INPUT:
            found[name] = value
        elif value is not None and not is_control_value(value) and not _has_value(graph.nodes.get(node_id), value):
            raise UnresolvedError(f"{host} shows another value of '{name}' than node {node_id} inside it holds")
    return found


def _has_value(node: Node | None, value: Any) -> bool:
    if node is None:
        return False
    values = list(node.values.values()) if isinstance(node.values, dict) else node.values
    return isinstance(values, list) and value in values


def _collect_in_order(host: Node, graph: UiGraph, values: list[Any]) -> dict[str, Any]:
    """One value for every input that stands for a widget; after a seed "control after generate" may stand too."""
    widgets = {
        socket.link: socket.widget
        for node in graph.nodes.values()
        for socket in node.inputs
        if socket.link is not None and socket.widget is not None
    }
    found: dict[str, Any] = {}
    rest = list(values)
    names = [(port.name, [widgets[link] for link in port.links if link in widgets]) for port in graph.inputs]
    spare = len(values) - sum(bool(inside) for _, inside in names)
    for name, inside in names:
        if inside and rest:
            found[name] = rest.pop(0)
            if spare > 0 and _SEED_INPUTS & set(inside) and rest and is_control_value(rest[0]):
                rest.pop(0)
                spare -= 1
    if rest or spare != 0:
        shown = sum(bool(inside) for _, inside in names)
        raise UnresolvedError(f"{host} holds {len(values)} values for the {shown} widgets that it shows")
    return found
