"""Guesses what the unknown classes of a graph are, for a permissive server that has no description of them.

Types come from what the links lead to, from names, and from values. Only the graph counts, so that the same graph is
read the same way each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sweeper.embedded.node_inputs import is_link
from sweeper.embedded.nodes.base import Context, NodeClass, NodeOutput
from sweeper.embedded.stand_ins.class_descriptions import StandInRun, accept_options, make_stand_in
from sweeper.embedded.stand_ins.class_shape import WITH_ALPHA, ClassShape
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
    *(
        (name.lower(), name)
        for name in ("MODEL", "CLIP", "VAE", "VIDEO", "AUDIO", "SIGMAS", "SAMPLER", "GUIDER", "NOISE")
    ),
    *((name.lower(), name) for name in ("CONTROL_NET", "UPSCALE_MODEL")),
)
_Slot = tuple[str | tuple[Any, ...], str, bool]  # the type of an output, its name, and whether a known class says so
_NUMBERED: Final = re.compile(r"[_ .]?\d+$")


def guess_classes(graph: Any, known: Mapping[str, NodeClass]) -> Mapping[str, NodeClass]:
    """The known classes, those that a graph gives unknown options with these, and a stand-in for each other class.

    `graph` may be any JSON value: the validation refuses what is not a node.
    """
    nodes = _list_nodes(graph)
    unknown = dict.fromkeys(node["class_type"] for node in nodes.values() if node["class_type"] not in known)
    extended = {name: accept_options(known[name], options) for name, options in _find_options(nodes, known).items()}
    if not unknown and not extended:
        return known
    return {**known, **extended, **_guess_unknown(nodes, tuple(unknown), known)}


def add_defaults(graph: Any, known: Mapping[str, NodeClass]) -> None:
    """Give the nodes of a graph the required inputs that they lack, if there is a default: an older server had none."""
    for node in _list_nodes(graph).values():
        if node["class_type"] in known:
            for name, (_, options) in known[node["class_type"]].find_inputs(node["inputs"])[0].items():
                if "default" in options:
                    node["inputs"].setdefault(name, options["default"])


def _list_nodes(graph: Any) -> dict[str, Any]:
    items = graph.items() if isinstance(graph, Mapping) else ()
    return {node_id: node for node_id, node in items if _is_node(node)}


def _find_options(
    nodes: Mapping[str, Mapping[str, Any]], known: Mapping[str, NodeClass]
) -> dict[str, dict[str, list[str]]]:
    """The options, class -> input -> options, that nodes use but their classes do not list: newer servers have more."""
    found: dict[str, dict[str, list[str]]] = {}
    for node in nodes.values():
        node_class = known.get(node["class_type"])
        if node_class is None or node_class.input_files:
            continue
        for name, (kind, options) in (*node_class.required.items(), *node_class.optional.items()):
            value = node["inputs"].get(name)
            choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
            if name in node_class.models | node_class.input_files.keys() or not isinstance(choices, list):
                continue
            if isinstance(value, str) and value not in choices:
                found.setdefault(node["class_type"], {}).setdefault(name, []).append(value)
    return found


@dataclass(frozen=True, slots=True)
class _GuessedRun:
    """Runs the nodes of a guessed class, each with the output types that its own links show."""

    shapes: Mapping[str, ClassShape]

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        return StandInRun(self.shapes[context.node_id])(context, **inputs)

    def compute_fingerprint(self, context: Context, /, **_widgets: Any) -> str:
        """Nodes with equal inputs may lead to other types."""
        shape = self.shapes[context.node_id]
        return repr((shape.outputs, shape.output_names))


def _guess_unknown(
    nodes: Mapping[str, Mapping[str, Any]], unknown: tuple[str, ...], known: Mapping[str, NodeClass]
) -> dict[str, NodeClass]:
    """A stand-in for each unknown class. Links take each of its outputs for what they need."""
    inputs: dict[str, dict[str, Any]] = {name: {} for name in unknown}
    slots: dict[str, dict[int, _Slot]] = {
        node_id: {} for node_id, node in nodes.items() if node["class_type"] in inputs
    }
    feeding = set()
    for node in nodes.values():
        for name, value in node["inputs"].items():
            if node["class_type"] in inputs:
                inputs[node["class_type"]].setdefault(name, _declare_input(value))
            if not is_link(value):
                continue
            feeding.add(value[0])
            if value[0] in slots and value[1] in range(_MAX_OUTPUTS):
                guess = _guess_type(node, name, known)
                before = slots[value[0]].get(int(value[1]))
                if before is None or (guess[2] and not before[2]):
                    slots[value[0]][int(value[1])] = guess
    sinks = set(_iter_sinks(nodes, feeding, known))
    classes = {}
    for class_type in unknown:
        own_slots = {node_id: slots[node_id] for node_id in slots if nodes[node_id]["class_type"] == class_type}
        count = max((slot + 1 for found in own_slots.values() for slot in found), default=0)
        declaration = {
            "input": {"optional": inputs[class_type]},
            "output": [ANY] * count,
            "output_node": class_type in sinks,
        }
        stand_in = make_stand_in(NodeInfo.from_object_info({class_type: declaration}).classes[class_type], declaration)
        shape = stand_in.run.shape  # type: ignore[attr-defined]  # made so by `make_stand_in`
        run = _GuessedRun({node_id: _fill_slots(shape, found, count) for node_id, found in own_slots.items()})
        classes[class_type] = replace(stand_in, run=run, fingerprint=run.compute_fingerprint)
    return classes


def _fill_slots(shape: ClassShape, slots: Mapping[int, _Slot], count: int) -> ClassShape:
    found = [slots.get(index, (ANY, "", False)) for index in range(count)]
    return replace(shape, outputs=tuple(kind for kind, _, _ in found), output_names=tuple(name for _, name, _ in found))


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )


def _declare_input(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return ["BOOLEAN", {}]
    if isinstance(value, int | float):
        return ["FLOAT" if isinstance(value, float) else "INT", {}]
    return ["STRING", {}] if isinstance(value, str) else [ANY, {}]


def _guess_type(node: Mapping[str, Any], name: str, known: Mapping[str, NodeClass]) -> _Slot:
    """What an input takes: what its class says, or what its name usually means."""
    node_class = known.get(node["class_type"])
    if node_class is not None:
        required, optional = node_class.find_inputs(node["inputs"])
        declared = {**required, **optional}.get(name, (ANY, {}))[0]
        if declared == "IMAGE" and "alpha" in node["inputs"].values():
            return declared, WITH_ALPHA, True
        return declared if isinstance(declared, str) else tuple(declared), name, declared != ANY
    plain = _NUMBERED.sub("", name.rpartition(".")[2].lower())
    # Types that nobody knows carry everything that led to them.
    kind = next((kind for pattern, kind in _TYPES if re.fullmatch(pattern, plain)), f"GUESSED_{plain.upper()}")
    return kind, name, False


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
