"""One node's inputs against its class: presence, links, coercion, bounds, lists, and the class's own check.

As ComfyUI 0.3.64 does it (`execution.py`, `validate_inputs`): in particular `step` is not enforced, the options of a
newer "COMBO" input are not compared, numeric strings are turned into numbers, and unknown inputs pass. Two differences,
both on the safe side: a FLOAT that is not finite is refused, and a model file name that climbs out of its folder is.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from sweeper.embedded.nodes.base import Folders, InputSpec, NodeClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Longer lists are not repeated in the answer, "(list of length 21)" is.
MAX_LISTED = 20

CheckedInput = tuple[str, InputSpec | None, dict[str, Any] | None, str | None]  # name, spec, its error, a node to visit


def is_link(value: Any) -> bool:
    """Whether a value is `[node id, output slot]`, by ComfyUI's `graph_utils.is_link`."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def is_unsafe_name(name: Any) -> bool:
    """Whether a file name points, or may point, out of the folder that it is meant for."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return True
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or parts[0].endswith(":")


class InputSpecCache:
    """Required and optional inputs per class, with the live lists read at most once per request."""

    def __init__(self, nodes: Mapping[str, NodeClass], folders: Folders) -> None:
        self.nodes = nodes
        self.folders = folders
        self._cache: dict[str, tuple[dict[str, InputSpec], dict[str, InputSpec]]] = {}

    def get(self, class_type: str) -> tuple[dict[str, InputSpec], dict[str, InputSpec]]:
        """(required, optional), in the class's order."""
        if class_type not in self._cache:
            self._cache[class_type] = self.nodes[class_type].load_input_specs(self.folders)
        return self._cache[class_type]


class InputValidator:
    """The checks of a node's inputs; `strict_models` also compares model names with the loaders' lists."""

    def __init__(self, specs: InputSpecCache, strict_models: bool) -> None:
        self.specs = specs
        self.strict_models = strict_models

    def check_inputs(self, graph: dict[str, Any], node: dict[str, Any]) -> Iterator[CheckedInput]:
        """Go through the known inputs. Raises KeyError, IndexError or TypeError where ComfyUI does (broken links)."""
        class_type = node["class_type"]
        known = self.specs.nodes[class_type]
        inputs: Any = node["inputs"]
        if not hasattr(inputs, "__contains__"):  # a list or a text has no input either, and is told so below
            raise TypeError(f"argument of type '{type(inputs).__name__}' is not iterable")
        required, optional = self.specs.get(class_type)
        vouched = _names_checked_by_class(known.check, (*required, *optional))
        for name, spec in (*required.items(), *optional.items()):
            if name not in inputs:
                if name in required:
                    yield name, spec, _make_error("required_input_missing", "Required input is missing", name), None
                continue
            value = inputs[name]  # TypeError where `inputs` is no object after all
            if isinstance(value, list):
                error = self._check_link(graph, name, spec, value)
                yield name, spec, error, None if error else value[0]
            else:
                trusted = name in known.models and not self.strict_models
                yield (
                    name,
                    spec,
                    _check_value(inputs, name, spec, has_class_check=name in vouched, any_file=trusted),
                    None,
                )

    def _check_link(self, graph: dict[str, Any], name: str, spec: InputSpec, value: list[Any]) -> dict[str, Any] | None:
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _make_error("bad_linked_input", message, name, input_config=spec, received_value=value)
        source = self.specs.nodes[graph[value[0]]["class_type"]]
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

    def run_class_check(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """The class's own VALIDATE_INPUTS, if it has one: one error per input that it vouches for."""
        known = self.specs.nodes[node["class_type"]]
        if known.check is None or not isinstance(node["inputs"], dict):
            return []
        wanted = _names_checked_by_class(known.check, (*known.required, *known.optional))
        given = {name: value for name, value in node["inputs"].items() if name in wanted and not is_link(value)}
        if any(name not in given for name in wanted if name in known.required):
            return []  # missing, or linked: known only when it runs
        message = known.check(self.specs.folders, **given)
        if message is None:
            return []
        text = "Custom validation failed for node"
        return [_make_error("custom_validation_failed", text, f"{name} - {message}", input_name=name) for name in given]


def _names_checked_by_class(check: Any, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs that a class's own check looks at: its named parameters after the context, or all if it takes any."""
    if check is None:
        return ()
    parameters = inspect.signature(check).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return inputs
    return tuple(parameters)[1:]


def _check_value(
    inputs: dict[str, Any], name: str, spec: InputSpec, *, has_class_check: bool, any_file: bool
) -> dict[str, Any] | None:
    """Coerce `inputs[name]` in place, then hold it to its bounds or its list."""
    kind, options = spec
    value = inputs[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        if isinstance(kind, str) and kind in _COERCIONS:
            value = inputs[name] = _COERCIONS[kind](value)
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
    if has_class_check:
        return None
    number = isinstance(value, int | float)
    shown = str(value) if number and not math.isfinite(value) else value  # JSON knows no infinity
    facts = {"input_name": name, "input_config": spec, "received_value": shown}
    if number and "min" in options and value < options["min"]:
        return _make_error(
            "value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", name, **facts
        )
    if number and "max" in options and value > options["max"]:
        return _make_error("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, **facts)
    if shown is not value:
        why = "not a finite number"
        message = f"Failed to convert an input value to a {kind} value"
        return _make_error("invalid_input_type", message, f"{name}, {value}, {why}", **facts, exception_message=why)
    if isinstance(kind, list) and (is_unsafe_name(value) if any_file else value not in kind):
        many = len(kind) > MAX_LISTED
        facts["input_config"] = None if many else spec
        listed = f"(list of length {len(kind)})" if many else str(kind)
        return _make_error("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", **facts)
    return None


_COERCIONS: dict[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _are_types_compatible(received: Any, wanted: Any) -> bool:
    """ComfyUI's `validate_node_input`: equal, any ("*"), or unions "A,B" with a member in common."""
    if received == wanted or "*" in (received, wanted):
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool({kind.strip() for kind in received.split(",")} & {kind.strip() for kind in wanted.split(",")})


def _make_error(kind: str, message: str, details: str, **extra_info: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {"input_name": details} | extra_info}
