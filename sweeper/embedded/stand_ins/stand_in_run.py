"""Runs one node of a class that only its description tells: the entry of everything in this folder that draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.node_inputs import is_link
from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.stand_ins.features import make_no_features, read_literal
from sweeper.embedded.stand_ins.node_reading import LinkedInput, NodeReading, OutputRequest, find_kind, read_inputs
from sweeper.embedded.stand_ins.output_values import join_images, make_output, transform_value
from sweeper.embedded.stand_ins.shown_outputs import save_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.stand_ins.class_shape import ClassShape

    Array = NDArray[Any]

_MAX_LIST = 64  # items that an output with OUTPUT_IS_LIST gives
_MAX_JOINED = 16  # items of an input list that are joined
_MAX_ABOVE = 32  # nodes above a number that are read
_ABOVE = 0.4  # how strongly they count, compared with the node's own inputs


def run_stand_in(shape: ClassShape, context: Context, inputs: Mapping[str, Any]) -> NodeOutput:
    """Make the outputs of a node from its inputs, and save what reaches it if it is an output node."""
    reading = _read(shape, context, inputs)
    values = _make_values(shape, context, reading)
    return NodeOutput(values, save_inputs(context, reading) if shape.is_output else None)


def _read(shape: ClassShape, context: Context, inputs: Mapping[str, Any]) -> NodeReading:
    context.check()
    written = context.prompt.get(context.node_id, {}).get("inputs", {})
    links = {
        name: _read_nodes_above(context.prompt, written[name], inputs[name])
        for name in inputs
        if is_link(written.get(name))
    }
    if shape.input_is_list:
        inputs = {name: _join_items(items) for name, items in inputs.items() if items}
    specs = shape.list_specs(written)
    return read_inputs(shape.class_type, specs, inputs, links)


def _read_nodes_above(prompt: Mapping[str, Any], link: list[Any], value: Any) -> Array:
    """The features of everything that led to a text or number of a stand-in, which does not carry it, [F].

    A value of the server's own classes says all that they know, and other values carry their history.
    """
    features = make_no_features()
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in items):
        return features
    pending, visited = [link[0]], {link[0]}
    while pending and len(visited) < _MAX_ABOVE:
        node = prompt.get(pending.pop(0), {})
        if node.get("class_type") in NODE_CLASSES:
            continue
        for name, given in node.get("inputs", {}).items():
            if is_link(given):
                if given[0] not in visited:
                    visited.add(given[0])
                    pending.append(given[0])
            elif not name.endswith("filename_prefix"):
                features += np.float32(_ABOVE) * read_literal(f"{node['class_type']}/{name}", given, {})
    return features


def _make_values(shape: ClassShape, context: Context, reading: NodeReading) -> tuple[Any, ...]:
    values = []
    counts: Counter[str] = Counter()
    for index, kind in enumerate(shape.outputs):
        context.check()
        kinds = tuple(one for one in shape.outputs if isinstance(one, str))
        if isinstance(kind, tuple):
            request = OutputRequest("COMBO", shape.output_names[index], counts["COMBO"], kinds, kind)
        else:
            request = OutputRequest(kind, shape.output_names[index], counts[kind], kinds)
        counts[request.type] += 1
        template = shape.output_templates[index]
        value = _make_value(context, shape, reading, request, template)
        values.append(_split_items(value) if shape.output_is_list[index] else value)
    return tuple(values)


def _make_value(
    context: Context, shape: ClassShape, reading: NodeReading, request: OutputRequest, template: str
) -> Any:
    if "," in request.type:
        kinds = [kind.strip() for kind in request.type.split(",")]
        kind = next((one.kind for one in reading.linked if one.kind in kinds), kinds[0])
        return _make_value(context, shape, reading, replace(request, type=kind), template)
    if request.type != "*":
        return make_output(context, reading, request)
    candidates = _find_candidates(shape, reading, template)
    values = {one.name: one.value for one in candidates}
    values |= {
        name: value for name, value in reading.widgets.items() if template and shape.find_template(name) == template
    }
    chosen = reading.choose(values)
    if chosen is not None:
        return values[chosen]
    if not candidates:
        literals = [value for value in reading.widgets.values() if not template and value is not None]
        return literals[0] if literals and not reading.linked else make_output(context, reading, request)
    return transform_value(context, reading, candidates[0], request)


def _find_candidates(shape: ClassShape, reading: NodeReading, template: str) -> list[LinkedInput]:
    """The inputs whose type an output follows."""
    if template:
        return [one for one in reading.linked if shape.find_template(one.name) == template]
    free = [one for one in reading.linked if shape.find_template(one.name) or shape.is_free(one.name)]
    return free or list(reading.linked)


def _join_items(items: list[Any]) -> Any:
    """One value of a list: pictures become a batch, texts and numbers the first one, others a list."""
    kinds = {find_kind(item) for item in items}
    if len(items) == 1:
        return items[0]
    if kinds == {"IMAGE"}:
        return join_images(items[: _MAX_JOINED * 4])
    if kinds == {"MASK"}:
        planes = [item.reshape(-1, *item.shape[-2:]) for item in items[:_MAX_JOINED]]
        same = [plane for plane in planes if plane.shape[1:] == planes[0].shape[1:]]
        return np.concatenate(same)
    if kinds == {"STRING"}:
        return ", ".join(items[:_MAX_JOINED])
    return items[0]


def _split_items(value: Any) -> list[Any]:
    """The list of a list output: the pictures of a batch one by one, other values alone."""
    if find_kind(value) in {"IMAGE", "MASK"} and value.ndim >= 3:
        return [value[index : index + 1] for index in range(min(len(value), _MAX_LIST))]
    if find_kind(value) == "LATENT" and len(value["samples"]) > 1 and "noise_mask" not in value:
        samples = value["samples"]
        kept = {key: one for key, one in value.items() if key not in {"batch_index", "residue"}}
        return [{**kept, "samples": samples[index : index + 1]} for index in range(min(len(samples), _MAX_LIST))]
    return [value]
