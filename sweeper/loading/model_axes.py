"""Let the first value of an axis of model files, `(none)`, switch its nodes off: by their strengths, or by a bypass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeper.loading.ui_format.graph import Node, Socket
from sweeper.loading.ui_format.links import find_bypass_input
from sweeper.model.axis_values import NONE, AxisError
from sweeper.model.expressions import Expression
from sweeper.model.node_classes import NodeInfo
from sweeper.model.template import Leaf, Template
from sweeper.model.workflow import is_link, iter_links
from sweeper.schemas.values import KeyPath, is_integer
from sweeper.wording import join_names


def switch_off(template: Template, name: str, file: str, links: Mapping[str, Any]) -> Template:
    """Return the template in which the value `(none)` of the slot `name` stands for no model file.

    Its nodes then keep a file that the server has, `file`, with every `strength` 0. A node without one is bypassed by
    `links`, which `find_bypass_links` returned. Raises AxisError if a node has neither.
    """
    if name not in template.slots or not template.slots[name].addresses:
        raise AxisError(f"`none: true` needs the slot of an input, which '{name}' is not; leave it out")
    files = [(each.node, "inputs", each.input) for each in template.slots[name].addresses]
    off: dict[KeyPath, Any] = dict.fromkeys(files, file)
    for node_id in sorted(template.find_nodes(name)):
        strengths = _list_strengths(template, node_id)
        off |= {(node_id, "inputs", key): 0 if is_integer(value) else 0.0 for key, value in strengths.items()}
        for path, _ in () if strengths else _iter_consumers(template, {node_id}):
            off[path] = links.get(f"{path[0]}.{path[2]}")
            if off[path] is None:
                why = "has no `strength`, and no input that its server would pass on in its place"
                raise AxisError(f"`none: true`: {_describe_node(template, node_id)} {why}; leave it out")
    leaves = {leaf.path: leaf for leaf in template.leaves}
    leaves |= {path: _make_leaf(template, name, leaves.get(path), path, value) for path, value in off.items()}
    leaves |= {path: replace(leaves[path], switch=name) for path in files}
    return replace(template, leaves=tuple(leaves.values()))


def describe_off(template: Template, name: str) -> str:
    """Say what `(none)` does to the nodes of a slot."""
    nodes = {node_id: _list_strengths(template, node_id) for node_id in sorted(template.find_nodes(name))}
    texts = [f"{_describe_node(template, node_id)} {f'with {join_names(found)} 0' if found else 'bypassed'}"
             for node_id, found in nodes.items()]  # fmt: skip
    return f"{NONE} of {name}: {', '.join(texts)}"


def find_nodes_to_bypass(template: Template, name: str) -> set[str]:
    """Return the nodes of a slot that have no strength."""
    nodes = template.find_nodes(name) if name in template.slots else ()
    return {node_id for node_id in nodes if not _list_strengths(template, node_id)}


def find_bypass_links(template: Template, nodes: Collection[str], classes: NodeInfo) -> dict[str, Any]:
    """Return the links past some nodes, as ComfyUI's page makes them, by `node.input`; without those that it cannot."""
    found = {}
    for path, link in _iter_consumers(template, nodes):
        origin = link
        while is_link(origin) and origin[0] in nodes:
            origin = _pass_on(template.graph[origin[0]], origin[1], classes)
        if origin is not None:
            found[f"{path[0]}.{path[2]}"] = origin
    return found


def _pass_on(node: Mapping[str, Any], output: int, classes: NodeInfo) -> Any:
    """Return what the input has that a bypassed node passes on to one of its outputs; None if there is none."""
    spec = classes.classes.get(node["class_type"])
    outputs = tuple(map(str, spec.outputs)) if spec is not None else ()
    if spec is None or not output < len(outputs):
        return None
    inputs = tuple(Socket(key, of.type) for key, of in spec.resolve_inputs(node["inputs"]).items() if of.kind == "link")
    index = find_bypass_input(Node("", "", (), inputs=inputs, outputs=outputs), output, outputs[output])
    return None if index is None else node["inputs"].get(inputs[index].name)


def _iter_consumers(template: Template, nodes: Collection[str]) -> Iterator[tuple[KeyPath, list[Any]]]:
    """Yield the path and the link of each input outside of these nodes that is linked to one of them."""
    for node_id, node in template.graph.items():
        for key, source, output in iter_links(node) if node_id not in nodes else ():
            if source in nodes:
                yield (node_id, "inputs", key), [source, output]


def _list_strengths(template: Template, node_id: str) -> dict[str, Any]:
    return {key: value for key, value in template.graph[node_id]["inputs"].items() if key.startswith("strength")}


def _describe_node(template: Template, node_id: str) -> str:
    return f"node {node_id} ({template.graph[node_id]['class_type']})"


def _make_leaf(template: Template, name: str, leaf: Leaf | None, path: KeyPath, off: Any) -> Leaf:
    """Return the leaf of an input that has the value `off` if the slot `name` is `(none)`, and else its own."""
    own = template.graph[str(path[0])]["inputs"][path[2]]

    def evaluate(values: Mapping[str, Any]) -> Any:
        if values[name] == NONE:
            return off
        return own if leaf is None else leaf.evaluate(values)

    names = tuple(dict.fromkeys((*(() if leaf is None else leaf.names), name)))
    return Leaf(path, Expression("", names, {}, is_text=False, sole_name=None, _evaluate=evaluate))
