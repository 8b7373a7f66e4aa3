"""Stand-ins: they run node classes that the server does not implement, from what an `object_info` says of them.

`class_descriptions` makes node classes of an `object_info`, of which `ClassShape` is what a stand-in knows. When one
runs (`stand_in_run`), `histories` reads its inputs and says what they mean, and `output_values` makes its outputs.
`README.md` of `sweeper/embedded` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.embedded.nodes import InputSpec
from sweeper.model.node_classes.spec import ANY, AUTOGROW, DYNAMIC_COMBO, NodeSpec
from sweeper.model.node_classes.spec import InputSpec as DescribedInput

_Specs = dict[str, InputSpec]


@dataclass(frozen=True, slots=True)
class ClassShape:
    """What a stand-in knows of its class. An output is a type, or the options of a combo."""

    spec: NodeSpec
    outputs: tuple[str | tuple[Any, ...], ...]
    output_names: tuple[str, ...]
    output_is_list: tuple[bool, ...]
    output_templates: tuple[str, ...]
    input_is_list: bool

    def select_inputs(self, values: Mapping[str, Any]) -> tuple[_Specs, _Specs]:
        """The required and the optional inputs of a node with these values; undeclared ones are optional."""
        groups: tuple[_Specs, _Specs] = ({}, {})
        resolved = self.spec.resolve_inputs(values)
        for name, spec in resolved.items():
            is_inner_combo = spec.type == DYNAMIC_COMBO and "." in name  # old files have none (measured on 0.33.0)
            groups[not spec.required or is_inner_combo][name] = _convert_spec(spec)
        for name in values:
            if name not in resolved and self.spec.can_take_undeclared(name) and name not in self.spec.hidden:
                groups[1][name] = (ANY, {})
        return groups

    def find_template(self, name: str) -> str:
        """The match template of an input, or ""."""
        declared = self.spec.inputs.get(name) or self.spec.inputs.get(name.partition(".")[0])
        if declared is None:
            return ""
        return (declared.autogrow_inputs[0] if declared.autogrow_inputs else declared).match_template


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
    is_open = spec.type in {DYNAMIC_COMBO, AUTOGROW} or spec.takes_anything
    return ANY if is_open else spec.type, options


def describe_shape(declaration: Mapping[str, Any], spec: NodeSpec) -> ClassShape:
    """The shape of a class from its entry in an `object_info`, and from what that was parsed to."""

    def read(key: str) -> list[Any]:
        value = declaration.get(key)
        return value[: len(spec.outputs)] if isinstance(value, list) else []

    count, names, lists = len(spec.outputs), read("output_name"), read("output_is_list")
    return ClassShape(
        spec,
        tuple(ANY if isinstance(output, str) and output.startswith("COMFY_") else output for output in spec.outputs),
        (*map(str, names), *(str(output) for output in spec.outputs[len(names) :])),
        (*(flag is True for flag in lists), *(False,) * (count - len(lists))),
        (*spec.output_templates[:count], *("",) * (count - len(spec.output_templates))),
        declaration.get("is_input_list") is True,
    )
