"""Stand-ins: they run node classes that the server does not implement, from what an `object_info` says of them.

`class_descriptions` makes node classes of an `object_info`, of which `ClassShape` is what a stand-in knows. When one
runs (`stand_in_run`), `histories` reads its inputs and says what they mean, and `output_values` makes its outputs.
`README.md` of `sweeper/embedded` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

from sweeper.embedded.nodes import InputSpec
from sweeper.model.node_classes.spec import ANY, AUTOGROW, DYNAMIC_COMBO, NodeSpec
from sweeper.model.node_classes.spec import InputSpec as DescribedInput

_Specs = dict[str, InputSpec]


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """One output to make: its type, its name, the how many-th of its type it is, and the types of all outputs.

    `choices`: the options of a combo. `template`: its match template, or "". `is_list`: OUTPUT_IS_LIST.
    """

    type: str
    name: str
    number: int
    siblings: tuple[str, ...]
    choices: tuple[Any, ...]
    template: str
    is_list: bool


@dataclass(frozen=True, slots=True)
class ClassShape:
    """What a stand-in knows of its class."""

    spec: NodeSpec
    outputs: tuple[OutputRequest, ...]
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


def describe_outputs(declaration: Mapping[str, Any], spec: NodeSpec) -> Iterator[OutputRequest]:
    """The outputs of a class, from its entry in an `object_info` and from what that was parsed to."""

    def read(key: str) -> list[Any]:
        value = declaration.get(key)
        return value if isinstance(value, list) else []

    kinds = tuple(
        "COMBO" if isinstance(output, tuple) else ANY if output.startswith("COMFY_") else output
        for output in spec.outputs
    )
    facts = zip_longest(spec.outputs, read("output_name"), read("output_is_list"), spec.output_templates)
    for index, (output, name, is_list, template) in enumerate(islice(facts, len(kinds))):
        kind, label = kinds[index], str(output if name is None else name)
        choices = output if isinstance(output, tuple) else ()
        yield OutputRequest(kind, label, kinds[:index].count(kind), kinds, choices, template or "", is_list is True)
