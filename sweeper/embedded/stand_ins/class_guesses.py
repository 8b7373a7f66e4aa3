"""Guesses what the unknown classes of a graph are, for a permissive server that has no description of them.

Types come from what the links lead to, from names, and from values. Only the graph counts, so that the same graph is
read the same way each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sweeper.embedded.node_inputs import is_link
from sweeper.embedded.nodes.base import NodeClass
from sweeper.embedded.stand_ins.class_descriptions import make_stand_in
from sweeper.model.node_classes.spec import ANY, NodeInfo

_MAX_OUTPUTS = 256  # of a guessed class; a link may name any slot
_TYPES: Final = (
    (r"images?|pixels|frames|photo|picture|video_frames", "IMAGE"),
    (r"masks?", "MASK"),
    (r"samples|latents?|latent_image", "LATENT"),
    (r"model", "MODEL"),
    (r"clip", "CLIP"),
    (r"vae", "VAE"),
    (r"positive|negative|conditioning|cond", "CONDITIONING"),
    (r"video", "VIDEO"),
    (r"audio", "AUDIO"),
    (r"text|string|prompt|caption", "STRING"),
    (r"seed|noise_seed|steps|width|height|length|batch_size", "INT"),
    (r"cfg|denoise|fps|strength", "FLOAT"),
    (r"sigmas", "SIGMAS"),
    (r"sampler", "SAMPLER"),
    (r"guider", "GUIDER"),
    (r"noise", "NOISE"),
    (r"control_net", "CONTROL_NET"),
    (r"upscale_model", "UPSCALE_MODEL"),
)
_NUMBERED: Final = re.compile(r"[_ .]?\d+$")


def guess_classes(graph: Any, known: Mapping[str, NodeClass]) -> Mapping[str, NodeClass]:
    """The known classes, and a stand-in for each other class of the nodes of a graph.

    `graph` may be any JSON value: what is no node is left for the validation to refuse.
    """
    items = graph.items() if isinstance(graph, Mapping) else ()
    nodes = {node_id: node for node_id, node in items if _is_node(node)}
    unknown = dict.fromkeys(node["class_type"] for node in nodes.values() if node["class_type"] not in known)
    if not unknown:
        return known
    declarations = _declare(nodes, tuple(unknown), known)
    specs = NodeInfo.from_object_info(declarations).classes
    return {**known, **{name: make_stand_in(specs[name], declarations[name]) for name in unknown}}


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )


def _declare(
    nodes: Mapping[str, Mapping[str, Any]], unknown: tuple[str, ...], known: Mapping[str, NodeClass]
) -> dict[str, dict[str, Any]]:
    """An entry of an object_info for each unknown class."""
    inputs: dict[str, dict[str, Any]] = {name: {} for name in unknown}
    outputs: dict[str, dict[int, tuple[str, str]]] = {name: {} for name in unknown}
    feeding = set()
    for node in nodes.values():
        for name, value in node["inputs"].items():
            if node["class_type"] in inputs:
                inputs[node["class_type"]].setdefault(name, _declare_input(value))
            if not is_link(value):
                continue
            feeding.add(value[0])
            source = nodes.get(value[0])
            if source is not None and source["class_type"] in outputs and value[1] in range(_MAX_OUTPUTS):
                slots = outputs[source["class_type"]]
                if slots.get(int(value[1]), (ANY, ""))[0] == ANY:
                    slots[int(value[1])] = _guess_type(node, name, known), name
    sinks = set(_iter_sinks(nodes, feeding, known))
    return {name: _make_declaration(inputs[name], outputs[name], is_output=name in sinks) for name in unknown}


def _declare_input(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return ["BOOLEAN", {}]
    if isinstance(value, int | float):
        return ["FLOAT" if isinstance(value, float) else "INT", {}]
    return ["STRING", {}] if isinstance(value, str) else [ANY, {}]


def _guess_type(node: Mapping[str, Any], name: str, known: Mapping[str, NodeClass]) -> str:
    """What an input takes: what its class says, or what its name usually means."""
    node_class = known.get(node["class_type"])
    if node_class is not None:
        required, optional = node_class.find_inputs(node["inputs"])
        declared = {**required, **optional}.get(name, (ANY, {}))[0]
        return declared if isinstance(declared, str) else "COMBO"
    plain = _NUMBERED.sub("", name.rpartition(".")[2].lower())
    # Types that nobody knows carry everything that led to them.
    return next((kind for pattern, kind in _TYPES if re.fullmatch(pattern, plain)), f"GUESSED_{plain.upper()}")


def _iter_sinks(
    nodes: Mapping[str, Mapping[str, Any]], feeding: set[str], known: Mapping[str, NodeClass]
) -> Iterator[str]:
    """The unknown classes of nodes that feed no other node; those without links only if nothing else is an output."""
    ends = {node_id: node for node_id, node in nodes.items() if node_id not in feeding}
    linked = [node for node in ends.values() if any(is_link(value) for value in node["inputs"].values())]
    has_output = any(node["class_type"] in known and known[node["class_type"]].output_node for node in nodes.values())
    for node in linked or ([] if has_output else list(ends.values())):
        if node["class_type"] not in known:
            yield node["class_type"]


def _make_declaration(
    inputs: Mapping[str, Any], outputs: Mapping[int, tuple[str, str]], *, is_output: bool
) -> dict[str, Any]:
    slots = [outputs.get(index, (ANY, "")) for index in range(max(outputs, default=-1) + 1)]
    return {
        "input": {"optional": dict(inputs)},
        "output": [kind for kind, _ in slots],
        "output_name": [name for _, name in slots],
        "output_node": is_output,
    }
