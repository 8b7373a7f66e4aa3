"""`ClassShape`: what a stand-in knows of its class, from the class's entry in an `object_info`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sweeper.embedded.nodes.base import InputSpec
from sweeper.model.node_classes.spec import ANY, AUTOGROW, DYNAMIC_COMBO, NodeSpec
from sweeper.model.node_classes.spec import InputSpec as DescribedInput

_Specs = dict[str, InputSpec]
WITH_ALPHA: Final = "image with alpha"  # the name of an output whose pictures lead to a node that reads their alpha


@dataclass(frozen=True, slots=True)
class ClassShape:
    """What a stand-in knows of its class. An output type is a name, or the options of a combo."""

    spec: NodeSpec
    outputs: tuple[str | tuple[Any, ...], ...]
    output_names: tuple[str, ...]
    output_is_list: tuple[bool, ...]
    output_templates: tuple[str, ...]
    input_is_list: bool

    @property
    def class_type(self) -> str:
        return self.spec.class_type

    @property
    def is_output(self) -> bool:
        return self.spec.is_output

    def select_inputs(self, values: Mapping[str, Any]) -> tuple[_Specs, _Specs]:
        """The required and the optional inputs of a node with these values, undeclared ones of open classes too."""
        groups: tuple[_Specs, _Specs] = ({}, {})
        resolved = self.spec.resolve_inputs(values)
        for name, spec in resolved.items():
            groups[not spec.required][name] = _convert_spec(spec)
        for name in values:
            if name not in resolved and self.spec.can_take_undeclared(name) and name not in self.spec.hidden:
                groups[1][name] = (ANY, {})
        return groups

    def list_specs(self, values: Mapping[str, Any]) -> _Specs:
        required, optional = self.select_inputs(values)
        return {**required, **optional}

    def find_template(self, name: str) -> str:
        """The match template of an input, or ""."""
        declared = self.spec.inputs.get(name) or self.spec.inputs.get(name.partition(".")[0])
        if declared is None:
            return ""
        grown = declared.autogrow_inputs[0] if declared.autogrow_inputs else declared
        return grown.match_template

    def is_free(self, name: str) -> bool:
        """Whether an input takes every type."""
        declared = self.spec.inputs.get(name)
        return declared is None or declared.takes_anything


def _convert_spec(spec: DescribedInput) -> InputSpec:
    """An input as the server checks it. What a real server does not check takes everything."""
    options = dict(spec.options)
    if spec.type == "COMBO":
        schema = spec.schema or {}
        listed = "enum" in schema or "anyOf" in schema
        if spec.choices is None or not (listed or schema.get("minLength")):
            return ANY, options
        names = [choice["content"] for choice in spec.choices if isinstance(choice, Mapping) and "content" in choice]
        choices = [*spec.choices, *names]
        return (choices, options) if spec.is_legacy_combo else ("COMBO", {**options, "options": choices})
    if spec.type in {DYNAMIC_COMBO, AUTOGROW} or spec.takes_anything:
        return ANY, options
    return spec.type, options


def make_shape(spec: NodeSpec, declaration: Mapping[str, Any]) -> ClassShape:
    count = len(spec.outputs)
    names = [str(name) for name in _read_list(declaration, "output_name")][:count]
    are_lists = [flag is True for flag in _read_list(declaration, "output_is_list")][:count]
    return ClassShape(
        spec,
        tuple(ANY if isinstance(output, str) and output.startswith("COMFY_") else output for output in spec.outputs),
        (*names, *(str(output) for output in spec.outputs[len(names) :])),
        (*are_lists, *(False,) * (count - len(are_lists))),
        (*spec.output_templates[:count], *("",) * (count - len(spec.output_templates))),
        declaration.get("is_input_list") is True,
    )


def _read_list(declaration: Mapping[str, Any], key: str) -> list[Any]:
    value = declaration.get(key)
    return value if isinstance(value, list) else []
