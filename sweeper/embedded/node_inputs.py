"""Checks the inputs of a node against its class: presence, links, types, bounds, lists, and the class's own check.

Its answers are those of ComfyUI 0.33.0 (measured). Like ComfyUI, it does not enforce `step`, converts numeric strings
to numbers, and ignores unknown inputs. Two differences make it safer: it refuses a FLOAT that is not finite, and a
model file name that leads out of its folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweeper.embedded.folders import ServerFolders
from sweeper.embedded.nodes.base import InputSpec, NodeClass

# An error message shows longer lists as "(list of length 21)".
MAX_LISTED = 20

# (name, spec, error or None, id of a linked node that must be checked too)
CheckedInput = tuple[str, InputSpec | None, dict[str, Any] | None, str | None]


def is_link(value: Any) -> bool:
    """Whether a value is a link `[node id, output slot]`, as ComfyUI's `graph_utils.is_link` decides."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def list_sources(node: Mapping[str, Any]) -> list[str]:
    """The ids of the nodes to which the inputs of a node are linked."""
    return [value[0] for value in node["inputs"].values() if is_link(value)]


def iter_upstream(graph: Mapping[str, Any], starts: Iterable[str]) -> Iterator[str]:
    """These nodes and all upstream of them, each once."""
    pending, visited = list(starts), set(starts)
    while pending:
        node_id = pending.pop()
        yield node_id
        sources = set(list_sources(graph[node_id])) - visited
        visited |= sources
        pending += sources


def is_unsafe_name(name: Any) -> bool:
    """Whether a file name could lead out of its folder."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return True
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or parts[0].endswith(":")


class InputValidator:
    """Checks the inputs of the nodes of a request. `strict_models`: a model name must be in the list of its loader."""

    def __init__(self, nodes: Mapping[str, NodeClass], folders: ServerFolders, strict_models: bool) -> None:
        self.nodes = nodes
        self.folders = folders
        self.strict_models = strict_models
        self._specs: dict[str, tuple[dict[str, InputSpec], dict[str, InputSpec]]] = {}

    def _load_specs(self, node_class: NodeClass, inputs: Any) -> tuple[dict[str, InputSpec], dict[str, InputSpec]]:
        """(required, optional) of a node with these inputs; live lists are read once."""
        if node_class.select_inputs is not None:
            return node_class.load_input_specs(self.folders, inputs if isinstance(inputs, dict) else {})
        if node_class.name not in self._specs:
            self._specs[node_class.name] = node_class.load_input_specs(self.folders)
        return self._specs[node_class.name]

    def check_inputs(self, graph: dict[str, Any], node: dict[str, Any]) -> Iterator[CheckedInput]:
        """Check each input of the class, and convert values in place.

        Raises KeyError, IndexError or TypeError for a broken link, where ComfyUI does.
        """
        node_class = self.nodes[node["class_type"]]
        inputs: Any = node["inputs"]
        if not hasattr(inputs, "__contains__"):  # in a list or a string, each input counts as missing
            raise TypeError(f"argument of type '{type(inputs).__name__}' is not iterable")
        required, optional = self._load_specs(node_class, inputs)
        for name, spec in (*required.items(), *optional.items()):
            if name not in inputs:
                if name in required:
                    yield name, spec, _make_error("required_input_missing", "Required input is missing", name), None
                continue
            value = inputs[name]  # TypeError if `inputs` is not an object
            if isinstance(value, list):
                error = self._check_link(graph, name, spec, value)
                yield name, spec, error, None if error else value[0]
            else:
                any_file = name in node_class.models and not self.strict_models
                is_input_file = name in node_class.input_files
                error = _check_value(inputs, name, spec, is_input_file=is_input_file, any_file=any_file)
                yield name, spec, error, None

    def _check_link(self, graph: dict[str, Any], name: str, spec: InputSpec, value: list[Any]) -> dict[str, Any] | None:
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _make_error("bad_linked_input", message, name, input_config=spec, received_value=value)
        source = self.nodes[graph[value[0]]["class_type"]]
        received = source.outputs[value[1]]
        if _are_types_compatible(received, spec[0]):
            return None
        return _make_error(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{name}, received_type({received}) mismatch input_type({spec[0]})",
            input_name=name,
            input_config=spec,
            received_type=received,
            linked_node=value,
        )

    def check_files(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """VALIDATE_INPUTS of the loaders: one error for each input that names a file that is not there."""
        inputs = node["inputs"] if isinstance(node["inputs"], dict) else {}
        text = "Custom validation failed for node"
        return [
            _make_error(
                "custom_validation_failed", text, f"{name} - Invalid {kind} file: {inputs[name]}", input_name=name
            )
            for name, kind in self.nodes[node["class_type"]].input_files.items()
            if name in inputs and not is_link(inputs[name]) and self.folders.find_input(inputs[name]) is None
        ]


def _check_value(
    inputs: dict[str, Any], name: str, spec: InputSpec, *, is_input_file: bool, any_file: bool
) -> dict[str, Any] | None:
    """Convert `inputs[name]` in place, then check its bounds or its list.

    Bounds and list are not checked if `is_input_file`; with `any_file`, any safe file name is accepted.
    """
    kind, options = spec
    value = inputs[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        if isinstance(kind, str) and kind in _CONVERSIONS:
            value = inputs[name] = _CONVERSIONS[kind](value)
    except (TypeError, ValueError, OverflowError, AttributeError) as problem:
        return _make_error(
            "invalid_input_type",
            f"Failed to convert an input value to a {kind} value",
            f"{name}, {value}, {problem}",
            input_name=name,
            input_config=spec,
            received_value=value,
            exception_message=str(problem),
        )
    if is_input_file:
        return None
    is_number = isinstance(value, int | float)
    received = str(value) if is_number and not math.isfinite(value) else value  # JSON has no infinity
    info = {"input_name": name, "input_config": spec, "received_value": received}
    if is_number and "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return _make_error("value_smaller_than_min", message, name, **info)
    if is_number and "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return _make_error("value_bigger_than_max", message, name, **info)
    if received is not value:
        reason = "not a finite number"
        message = f"Failed to convert an input value to a {kind} value"
        details = f"{name}, {value}, {reason}"
        return _make_error("invalid_input_type", message, details, **info, exception_message=reason)
    choices = options.get("options", []) if kind == "COMBO" else kind
    if isinstance(choices, list) and (is_unsafe_name(value) if any_file else value not in choices):
        is_long = len(choices) > MAX_LISTED
        info["input_config"] = None if is_long else spec
        listed = f"(list of length {len(choices)})" if is_long else str(choices)
        return _make_error("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {listed}", **info)
    return None


_CONVERSIONS: dict[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _are_types_compatible(received: Any, expected: Any) -> bool:
    """ComfyUI's `validate_node_input`: equal types, "*" for any type, or unions "A,B" with a common member."""
    if received == expected or "*" in (received, expected):
        return True
    if not isinstance(received, str) or not isinstance(expected, str):
        return False
    return bool({kind.strip() for kind in received.split(",")} & {kind.strip() for kind in expected.split(",")})


def _make_error(kind: str, message: str, details: str, **extra_info: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {"input_name": details} | extra_info}
