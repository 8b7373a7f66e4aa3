"""Node classes from an `object_info`: those of the server where it has them, and stand-ins for all others.

Imports neither NumPy nor Pillow; `stand_in_run` does, when the first stand-in runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from sweeper.embedded.nodes import NODE_CLASSES
from sweeper.embedded.nodes.base import Context, InputSpec, NodeClass, NodeOutput, hash_files
from sweeper.embedded.nodes.catalog.own_classes import list_other_declarations
from sweeper.embedded.stand_ins.class_shape import ClassShape, make_shape
from sweeper.errors import InputError
from sweeper.model.node_classes.spec import STAND_IN_KEY, NodeInfo, NodeSpec


@dataclass(frozen=True, slots=True)
class StandInRun:
    """Runs the nodes of a class by its shape."""

    shape: ClassShape

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        from sweeper.embedded.stand_ins.stand_in_run import run_stand_in

        return run_stand_in(self.shape, context, inputs)


def make_stand_in(spec: NodeSpec, declaration: Mapping[str, Any]) -> NodeClass:
    """The node class of a stand-in, from a class's entry in an `object_info` and what it was parsed to."""
    shape = make_shape(spec, declaration)
    required, optional = shape.select_inputs({})
    inputs = [*spec.inputs.values(), *spec.list_branch_inputs()]
    files = tuple(one.name for one in inputs if one.is_upload)
    outputs = tuple(list(output) if isinstance(output, tuple) else output for output in shape.outputs)
    return NodeClass(
        name=spec.class_type,
        declaration={**declaration, STAND_IN_KEY: True},
        required=required,
        optional=optional,
        outputs=cast("tuple[str, ...]", outputs),
        output_node=spec.is_output,
        run=StandInRun(shape),
        fingerprint=hash_files(files) if files else None,
        models=frozenset(one.name for one in inputs if one.names_model or one.is_upload),
        input_is_list=shape.input_is_list,
        output_is_list=shape.output_is_list,
        select_inputs=shape.select_inputs,
        stands_in=lambda _inputs: True,
    )


@lru_cache(maxsize=1)
def list_known_classes() -> Mapping[str, NodeClass]:
    """The classes of the server, and stand-ins for the other core classes of ComfyUI 0.3.64."""
    return describe_classes(list_other_declarations(), NODE_CLASSES)


def describe_classes(object_info: Mapping[str, Any], own: Mapping[str, NodeClass]) -> dict[str, NodeClass]:
    """The classes of the server together with all those that an `object_info` describes.

    Raises InputError if it is something else.
    """
    info = NodeInfo.from_object_info(object_info)
    described: dict[str, NodeClass] = dict(own)
    for name, spec in info.classes.items():
        declaration = object_info[name]
        if not isinstance(declaration, Mapping):
            raise InputError(f"the class '{name}' of this object_info is not a mapping")
        stand_in = make_stand_in(spec, declaration)
        is_own = name in own and not isinstance(own[name].run, StandInRun)
        described[name] = _combine(own[name], stand_in, declaration) if is_own else stand_in
    return described


def accept_options(node: NodeClass, options: Mapping[str, list[str]]) -> NodeClass:
    """The same class with more options of its combos (input -> options). A stand-in runs the nodes that use them."""
    groups = {"required": node.required, "optional": node.optional}
    inputs = {
        group: {name: _add_options(spec, options.get(name, [])) for name, spec in specs.items()}
        for group, specs in groups.items()
        if specs
    }
    declaration = {**node.declaration, "input": inputs}
    stand_in = make_stand_in(NodeInfo.from_object_info({node.name: declaration}).classes[node.name], declaration)
    if isinstance(node.run, StandInRun):
        return stand_in
    return _combine(node.run.own if isinstance(node.run, _OwnClass) else node, stand_in, declaration)


def _add_options(spec: InputSpec, options: list[str]) -> list[Any]:
    kind, details = spec
    if isinstance(kind, list):
        return [[*kind, *options], details]
    return [kind, {**details, "options": [*details.get("options", []), *options]} if options else details]


def _combine(own: NodeClass, stand_in: NodeClass, declaration: Mapping[str, Any]) -> NodeClass:
    """The server's own class as an `object_info` describes it. A stand-in runs the nodes that use more than it has."""
    described = [_simplify_output(output) for output in stand_in.outputs]
    if described != [_simplify_output(output) for output in own.outputs][: len(described)]:
        return stand_in  # older output nodes hand on nothing
    run = stand_in.run
    assert isinstance(run, StandInRun), "made by `make_stand_in`"
    combined = _OwnClass(own, run)
    return replace(
        own,
        required=stand_in.required,
        optional=stand_in.optional,
        outputs=stand_in.outputs,
        output_node=stand_in.output_node,
        run=combined,
        models=own.models | stand_in.models,
        input_is_list=stand_in.input_is_list,
        output_is_list=stand_in.output_is_list,
        declaration=declaration,
        select_inputs=run.shape.select_inputs,
        stands_in=combined.is_exceeded_by,
    )


def _simplify_output(output: Any) -> str:
    return output if isinstance(output, str) else "COMBO"


@dataclass(frozen=True, slots=True)
class _OwnClass:
    """Runs a class of the server where it has what a node asks for, else its stand-in."""

    own: NodeClass
    stand_in: StandInRun

    def is_exceeded_by(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a node uses an input or an option that the server's own class lacks."""
        resolved = self.stand_in.shape.spec.resolve_inputs(inputs)
        known = {**self.own.required, **self.own.optional}
        for name, value in self._rename(inputs).items():
            if name not in known:
                if name in resolved and value != resolved[name].default:
                    return True
            elif isinstance(value, str) and name not in self.own.models | self.own.input_files.keys():
                kind, options = known[name]
                choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
                if choices is not None and value not in choices:
                    return True
        return False

    def _rename(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs by the names that the server's own class has: `codec` of `format.codec`."""
        known = self.own.required.keys() | self.own.optional.keys()
        short = {name: name.rpartition(".")[2] for name in inputs if name not in known}
        return {short[name] if short.get(name) in known else name: value for name, value in inputs.items()}

    def __call__(self, context: Context, /, **inputs: Any) -> NodeOutput:
        if self.is_exceeded_by(context.prompt[context.node_id]["inputs"]):
            return self.stand_in(context, **inputs)
        known = self.own.required.keys() | self.own.optional.keys()
        renamed = self._rename(inputs)
        output: NodeOutput = self.own.run(context, **{name: renamed[name] for name in renamed if name in known})
        return output
