"""Guesses what the unknown classes of a graph are, for a permissive server that has no description of them.

Types come from what the links lead to, from names, and from values. Only the graph counts, so that the same graph is
read the same way each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.embedded.nodes.base import Context, NodeClass, NodeOutput
from sweeper.embedded.stand_ins.class_descriptions import StandIn, make_stand_in
from sweeper.embedded.stand_ins.class_shape import ClassShape, describe_shape
from sweeper.embedded.validation import is_link
from sweeper.model.node_classes.spec import ANY, NodeInfo

_MAX_OUTPUTS = 256  # of a guessed class; a link may name any slot
_TYPES: Final = (
    (r"samples|(\w+_)?latents?|latent_images?", "LATENT"),
    (r"(\w+_)?images?|pixels|frames|photo|picture|video_frames", "IMAGE"),
    (r"positive|negative|conditioning|cond", "CONDITIONING"),
    (r"(\w+_)?masks?", "MASK"),
    (r"text|string|prompt|caption", "STRING"),
    (r"seed|noise_seed|steps|width|height|length|batch_size", "INT"),
    (r"cfg|denoise|fps|strength", "FLOAT"),
    *((name.lower(), name) for name in (
        "MODEL", "CLIP", "VAE", "VIDEO", "AUDIO", "SIGMAS", "SAMPLER", "GUIDER", "NOISE", "CONTROL_NET",
        "UPSCALE_MODEL",
    )),
)  # fmt: skip
_NUMBERED: Final = re.compile(r"[_ .]?\d+$")
_Nodes = Mapping[str, Mapping[str, Any]]
_Classes = Mapping[str, NodeClass]
_Slot = tuple[str | tuple[Any, ...], str, bool]  # the type of an output, its name, and whether a known class says so
_UNKNOWN_SLOT: _Slot = (ANY, "", False)


def guess_classes(graph: Any, known: _Classes) -> _Classes:
    """The known classes, and a stand-in for each other class of a graph.

    `graph` may be any JSON value: the validation refuses what is not a node.
    """
    nodes = _list_nodes(graph)
    unknown = tuple(dict.fromkeys(node["class_type"] for node in nodes.values() if node["class_type"] not in known))
    return {**known, **_guess_unknown(nodes, unknown, known)} if unknown else known


def add_defaults(graph: Any, known: _Classes) -> None:
    """Give the nodes of a graph the required inputs that they lack, if there is a default: an older server had none."""
    for node in _list_nodes(graph).values():
        if node["class_type"] in known:
            for name, (_, options) in known[node["class_type"]].find_inputs(node["inputs"])[0].items():
                if "default" in options:
                    node["inputs"].setdefault(name, options["default"])


def _list_nodes(graph: Any) -> dict[str, Any]:
    return {
        node_id: node
        for node_id, node in (graph.items() if isinstance(graph, Mapping) else ())
        if isinstance(node, Mapping)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    }


@dataclass(frozen=True, slots=True)
class _GuessedClass:
    """Runs the nodes of a guessed class, each with the output types that its own links show."""

    shapes: Mapping[str, ClassShape]

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        return StandIn(self.shapes[context.node_id])(context, **inputs)

    def compute_fingerprint(self, context: Context, /, **_widgets: Any) -> str:
        """Nodes with equal inputs may lead to other types."""
        shape = self.shapes[context.node_id]
        return repr((shape.outputs, shape.output_names))


def _guess_unknown(nodes: _Nodes, unknown: tuple[str, ...], known: _Classes) -> dict[str, NodeClass]:
    """A stand-in for each unknown class. Links take each of its outputs for what they need."""
    inputs: dict[str, dict[str, Any]] = {name: {} for name in unknown}
    slots: dict[str, dict[int, _Slot]] = {name: {} for name, node in nodes.items() if node["class_type"] in inputs}
    feeding = set()
    for node in nodes.values():
        for name, value in node["inputs"].items():
            if node["class_type"] in inputs:
                inputs[node["class_type"]].setdefault(name, _declare_input(value))
            if not is_link(value):
                continue
            feeding.add(value[0])
            if value[0] in slots and value[1] in range(_MAX_OUTPUTS):
                found, slot = slots[value[0]], _guess_slot(node, name, known)
                if slot[2] > found.get(value[1], (ANY, "", -1))[2]:  # what a known class says goes before a name
                    found[int(value[1])] = slot
    sinks = set(_iter_sinks(nodes, feeding, known))
    classes = {}
    for class_type in unknown:
        own_slots = {node_id: found for node_id, found in slots.items() if nodes[node_id]["class_type"] == class_type}
        count = max((slot + 1 for found in own_slots.values() for slot in found), default=0)
        groups = {"optional": inputs[class_type]}
        declared = {"input": groups, "output": [ANY] * count, "output_node": class_type in sinks}
        shape = describe_shape(declared, NodeInfo.from_object_info({class_type: declared}).classes[class_type])
        run = _GuessedClass({node_id: _fill_slots(shape, found) for node_id, found in own_slots.items()})
        classes[class_type] = replace(make_stand_in(declared, shape), run=run, fingerprint=run.compute_fingerprint)
    return classes


def _fill_slots(shape: ClassShape, slots: Mapping[int, _Slot]) -> ClassShape:
    found = [slots.get(index, _UNKNOWN_SLOT) for index in range(len(shape.outputs))]
    return replace(shape, outputs=tuple(slot[0] for slot in found), output_names=tuple(slot[1] for slot in found))


def _declare_input(value: Any) -> list[Any]:
    names = {bool: "BOOLEAN", float: "FLOAT", int: "INT", str: "STRING"}
    return [names.get(type(value), ANY), {}]


def _guess_slot(node: Mapping[str, Any], name: str, known: _Classes) -> _Slot:
    """What an input takes: what its class says, or what its name usually means."""
    node_class = known.get(node["class_type"])
    if node_class is not None:
        required, optional = node_class.find_inputs(node["inputs"])
        declared = {**required, **optional}.get(name, (ANY, {}))[0]
        return declared if isinstance(declared, str) else tuple(declared), name, declared != ANY
    plain = _NUMBERED.sub("", name.rpartition(".")[2].lower())
    # Types that nobody knows carry everything that led to them.
    kind = next((kind for pattern, kind in _TYPES if re.fullmatch(pattern, plain)), f"GUESSED_{plain.upper()}")
    return kind, name, False


def _iter_sinks(nodes: _Nodes, feeding: set[str], known: _Classes) -> Iterator[str]:
    """The unknown classes of nodes that feed no other node; those without links only if nothing else is an output."""
    ends = [node for node_id, node in nodes.items() if node_id not in feeding]
    linked = [node for node in ends if any(is_link(value) for value in node["inputs"].values())]
    has_output = any(node["class_type"] in known and known[node["class_type"]].output_node for node in nodes.values())
    for node in linked or ([] if has_output else ends):
        if node["class_type"] not in known:
            yield node["class_type"]
