"""Node classes from an `object_info`: those of the server where it has them, and stand-ins for all others.

A permissive server guesses what the other classes of a graph are: types come from what the links lead to, from names,
and from values. Only the graph counts, so that the same graph is read the same way each time.
Imports neither NumPy nor Pillow; `stand_in_run` does, when the first stand-in runs.
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, cast

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.nodes import (
    NODE_CLASSES,
    Context,
    NodeClass,
    NodeOutput,
    hash_files,
    list_choices,
    list_other_declarations,
)
from sweeper.embedded.stand_ins import ClassShape, describe_outputs
from sweeper.embedded.validation import is_link
from sweeper.errors import InputError
from sweeper.model.node_classes.spec import ANY, STAND_IN_KEY, NodeInfo, NodeSpec


def _run_stand_in(shape: ClassShape, context: Context, /, **inputs: Any) -> NodeOutput:
    """Make the outputs that the `shape` of a class declares, in place of the class."""
    from sweeper.embedded.stand_ins.stand_in_run import run_stand_in

    return run_stand_in(shape, context, inputs)


def make_stand_in(declaration: Mapping[str, Any], spec: NodeSpec) -> NodeClass:
    shape = ClassShape(spec, tuple(describe_outputs(declaration, spec)), declaration.get("is_input_list") is True)
    required, optional = shape.select_inputs({})
    inputs = [*spec.inputs.values(), *spec.list_branch_inputs()]
    files = tuple(described.name for described in inputs if described.is_upload)
    outputs = [list(request.choices) if request.choices else request.type for request in shape.outputs]
    return NodeClass(
        name=spec.class_type,
        declaration={**declaration, STAND_IN_KEY: True},
        required=required,
        optional=optional,
        outputs=cast("tuple[str, ...]", tuple(outputs)),
        output_node=spec.is_output,
        run=partial(_run_stand_in, shape),
        fingerprint=hash_files(files) if files else None,
        models=frozenset(described.name for described in inputs if described.names_model or described.is_upload),
        input_is_list=shape.input_is_list,
        output_is_list=tuple(request.is_list for request in shape.outputs),
        select_inputs=shape.select_inputs,
        is_stand_in=True,
    )


class _KnownClasses(Mapping[str, NodeClass]):
    """The classes of the server, and stand-ins for the other recorded ones, each made when it is first asked for.

    To make all of them takes 0.3 s.
    """

    def __init__(self) -> None:
        self._others = list_other_declarations()
        self._made = dict(NODE_CLASSES)

    def __getitem__(self, name: str) -> NodeClass:
        if name not in self._made:
            self._made |= describe_classes(self._others, {}, only=[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        if missing := self._others.keys() - self._made.keys():
            self._made |= describe_classes(self._others, {}, only=missing)
        return iter([*NODE_CLASSES, *self._others])

    def __len__(self) -> int:
        return len(NODE_CLASSES) + len(self._others)


@lru_cache(maxsize=1)
def list_known_classes() -> Mapping[str, NodeClass]:
    """The classes of the server, and stand-ins for the other core classes of ComfyUI 0.33.0."""
    return _KnownClasses()


def describe_classes(
    object_info: Mapping[str, Any], known: Mapping[str, NodeClass], *, only: Collection[str] | None = None
) -> dict[str, NodeClass]:
    """The classes of the server together with those that an `object_info` describes, or with `only` these of them.

    Raises InputError if it is something else.
    """
    described = dict(known)
    for name, spec in NodeInfo.from_object_info(object_info, only=only).classes.items():
        declaration = object_info[name]
        if not isinstance(declaration, Mapping):
            raise InputError(f"the class '{name}' of this object_info is not a mapping")
        stand_in = make_stand_in(declaration, spec)
        is_own = name in known and not known[name].is_stand_in
        described[name] = _combine(known[name], stand_in, declaration) if is_own else stand_in
    return described


def _combine(own: NodeClass, stand_in: NodeClass, declaration: Mapping[str, Any]) -> NodeClass:
    """The server's own class, with the inputs that an `object_info` describes; it ignores those that it lacks."""
    described = [_simplify_output(output) for output in stand_in.outputs]
    if described != [_simplify_output(output) for output in own.outputs][: len(described)]:
        return stand_in  # older output nodes hand on nothing
    kept: dict[str, Any] = {name: getattr(own, name) for name in ("fingerprint", "input_files", "is_stand_in")}
    models = own.models | stand_in.models
    return replace(stand_in, declaration=declaration, models=models, run=partial(_run_own, own), **kept)


def _simplify_output(output: Any) -> str:
    return output if isinstance(output, str) else "COMBO"


def _run_own(own: NodeClass, context: Context, /, **inputs: Any) -> NodeOutput:
    known = {**own.required, **own.optional}
    return own.run(context, **{name: value for name, value in inputs.items() if name in known})


def make_object_info(node: NodeClass, folders: ServerFolders, *, strict_models: bool = True) -> dict[str, Any]:
    """Describe one class as `/object_info` does, with live lists read from the folders.

    Unless `strict_models`, an input for a model file accepts any name, and our option `any_file` says so.
    """
    is_described = node.select_inputs is not None
    own_files = any(folders.list_models(node.get_model_folder(name)) for name in node.models)
    if is_described and not own_files:
        return dict(node.declaration)
    groups = dict(node.declaration["input"])
    for group, specs in zip(("required", "optional"), node.load_input_specs(folders), strict=True):
        for name in specs.keys() & groups.get(group, {}).keys() & (node.models | node.input_files.keys()):
            kind, options = specs[name]
            if name in node.models and not strict_models and not is_described:
                options = {**options, "any_file": True}
            groups[group] = {**groups[group], name: [kind, options] if options else [kind]}
    return {**node.declaration, "input": groups}


def node_classes() -> dict[str, Any]:
    """The answer of `GET /object_info` of a new server, without starting one."""
    folders = ServerFolders(Path(os.devnull))  # nothing is below it
    own = {name: make_object_info(node, folders, strict_models=False) for name, node in NODE_CLASSES.items()}
    # The others are as declared, because a new server has no model files. So none of them has to be understood.
    others = list_other_declarations()
    return own | {name: {**declared, STAND_IN_KEY: name not in own} for name, declared in others.items()}


def list_model_files(nodes: Mapping[str, NodeClass], folders: ServerFolders) -> dict[str, list[str]]:
    """Model folder -> the file names that the loaders list, without duplicates, and then those in models/."""
    found: dict[str, dict[str, None]] = {}
    for node in nodes.values():
        inputs = {**node.required, **node.optional} if node.models else {}  # few classes load models
        for name, spec in inputs.items():
            if name in node.models:
                names = [choice for choice in list_choices(spec) or () if isinstance(choice, str)]
                found.setdefault(node.get_model_folder(name), {}).update(dict.fromkeys(names))
    for folder in folders.list_model_folders():
        found.setdefault(folder, {})
    return {folder: [*(listed | dict.fromkeys(folders.list_models(folder)))] for folder, listed in found.items()}


# --- classes that nothing describes ----------------------------------------------------------------------------------

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
_JSON_TYPES: Final = {bool: "BOOLEAN", float: "FLOAT", int: "INT", str: "STRING"}
_NUMBERED: Final = re.compile(r"[_ .]?\d+$")
_Nodes = Mapping[str, Mapping[str, Any]]
_Classes = Mapping[str, NodeClass]
_Slot = tuple[str | tuple[Any, ...], str, bool]  # the type of an output, its name, and whether a known class says so


def guess_classes(graph: Any, known: _Classes) -> _Classes:
    """The known classes, and a stand-in for each other class of a graph.

    `graph` may be any JSON value: the validation refuses what is not a node.
    """
    nodes = _list_nodes(graph)
    unknown = tuple(dict.fromkeys(node["class_type"] for node in nodes.values() if node["class_type"] not in known))
    return ChainMap(_guess_unknown(nodes, unknown, known), cast("dict[str, NodeClass]", known)) if unknown else known


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


def _guess_unknown(nodes: _Nodes, unknown: tuple[str, ...], known: _Classes) -> dict[str, NodeClass]:
    """A stand-in for each unknown class. Links take each of its outputs for what they need."""
    inputs: dict[str, dict[str, Any]] = {name: {} for name in unknown}
    slots: dict[str, dict[int, _Slot]] = {name: {} for name in unknown}
    feeding = set()
    for node in nodes.values():
        for name, value in node["inputs"].items():
            if node["class_type"] in inputs:
                inputs[node["class_type"]].setdefault(name, [_JSON_TYPES.get(type(value), ANY), {}])
            if not is_link(value):
                continue
            feeding.add(value[0])
            source = nodes.get(value[0], {}).get("class_type")
            if source in slots and value[1] in range(_MAX_OUTPUTS):
                slot = _guess_slot(node, name, known)
                found = slots[source].setdefault(int(value[1]), slot)
                if slot[2] > found[2]:  # what a known class says goes before a name
                    slots[source][int(value[1])] = slot
                elif slot[::2] != found[::2] and slot[2]:
                    slots[source][int(value[1])] = ANY, "", True  # it hands on whatever comes in
    sinks = set(_iter_sinks(nodes, feeding, known))
    classes = {}
    for class_type in unknown:
        found_slots = slots[class_type]
        outputs = [found_slots.get(index, (ANY, "", False)) for index in range(max(found_slots, default=-1) + 1)]
        declared = {
            "input": {"optional": inputs[class_type]},
            "output": [list(kind) if isinstance(kind, tuple) else kind for kind, _, _ in outputs],
            "output_name": [name for _, name, _ in outputs],
            "output_node": class_type in sinks,
        }
        spec = NodeInfo.from_object_info({class_type: declared}).classes[class_type]
        classes[class_type] = make_stand_in(declared, spec)
    return classes


def _guess_slot(node: Mapping[str, Any], name: str, known: _Classes) -> _Slot:
    """What an input takes: what its class says, or what its name usually means."""
    node_class = known.get(node["class_type"])
    if node_class is not None:
        declared = node_class.list_inputs(node["inputs"]).get(name, (ANY, {}))[0]
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
