"""Check a value against the schema of its slot, and normalise it so that equal values have equal bytes.

In an integer slot, a float such as 7.0 becomes an int. In a number slot, an int becomes a float. -0.0 becomes 0.0
everywhere. NaN and infinity are refused everywhere.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from sweeper.errors import ALSO_WRONG, MAX_PROBLEMS
from sweeper.model.bounded_json import parse_number
from sweeper.schemas import make_validator
from sweeper.schemas.values import format_value, is_multiple

_MAX_FLOAT: Final = sys.float_info.max
_TYPE_NAMES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_Check = Callable[[Any], bool]
_ANNOTATIONS: Final = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})
_RANGE: Final = _ANNOTATIONS | {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_FOR_SOME_NUMBERS: Final = frozenset({"multipleOf", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if"})


class ValueRefusedError(Exception):
    """The value does not fit the schema. The message says what was found and what is allowed."""


class SlotSchema:
    """The compiled JSON Schema of a slot. Without rules it takes any JSON value.

    `is_integer`: of all numbers it takes only integers. Raises InvalidSchemaError if the rules are not a JSON Schema.
    """

    def __init__(self, rules: Mapping[str, Any] | None) -> None:
        self.rules = dict(rules or {})
        self._validator = make_validator(self.rules) if self.rules else None
        types = self.rules.get("type", [])
        self.types = frozenset([types] if isinstance(types, str) else types)
        self._allowed = self.rules.get("enum", [self.rules["const"]] if "const" in self.rules else [])
        self._allowed_numbers = [value for value in self._allowed if _is_number(value)]
        self.is_integer = "integer" in self.types and "number" not in self.types
        self._floats_only = "number" in self.types and "integer" not in self.types
        self._is_surely_valid = _make_quick_check(self.rules)
        self._refused_count = 0

    @property
    def rules_for_some_numbers(self) -> list[str]:
        """The rules that may refuse a number between two that are valid."""
        found = self.rules.keys() & _FOR_SOME_NUMBERS
        choices: Any = self.rules.get("anyOf")
        others = [part for part in choices or () if part != {"type": "null"}]
        if len(others) == 1 and isinstance(others[0], dict) and others[0].keys() <= _RANGE:
            found -= {"anyOf"}  # a number of a range, or nothing
        return sorted(found)

    def allows(self, value: Any) -> bool:
        """Whether the slot takes a value."""
        try:
            self.normalise(value)
        except ValueRefusedError:
            return False
        return True

    def normalise(self, value: Any) -> Any:
        """Return the value as it is written into the workflow. Raises ValueRefusedError."""
        value = self._coerce(normalise_json(value))
        if self._validator is not None and not self._is_surely_valid(value):
            if self._refused_count >= MAX_PROBLEMS and _is_quick(self.rules) and not isinstance(value, (list, dict)):
                raise ValueRefusedError(ALSO_WRONG)  # the quick check decides alone, and nobody reads so many reasons
            reasons = self._validator.list_reasons(value)
            if reasons:
                self._refused_count += 1
                raise ValueRefusedError("; ".join(reasons))
        return value

    def _coerce(self, value: Any) -> Any:
        if not _is_number(value):
            return value
        if self.is_integer and isinstance(value, float) and value.is_integer():
            return int(value)
        if self._floats_only and isinstance(value, int):
            if abs(value) > _MAX_FLOAT:
                raise ValueRefusedError(f"found {format_value(value)}, which is too large for a number")
            return float(value)
        # In an enum without a type, take the member that is equal, so that 4.0 and 4 have the same digest.
        return next((number for number in self._allowed_numbers if number == value), value)

    def parse_text(self, text: str, *, like: object = None) -> Any:
        """Convert a text from a file to the type of the slot: `8` becomes a number for a number slot.

        If the schema has no type, the type of `like` decides, which is a valid value such as the default. A text that
        cannot be converted is returned unchanged; `normalise` then explains why it is wrong.
        """
        kinds = self.types or {_TYPE_NAMES.get(type(member), "") for member in self._allowed or [like]}
        if ("string" in kinds and self.types) or text in self._allowed:
            return text
        stripped = text.strip()
        if kinds & {"integer", "number"}:
            with suppress(ValueError):  # as YAML does, so that a list and a file of lines give the same value
                if (number := parse_number(stripped)) is not None:
                    return number if self.types or self._allowed else _match_type(number, like)
        if "boolean" in kinds and stripped.lower() in ("true", "false"):
            return stripped.lower() == "true"
        if "null" in self.types and not stripped:
            return None
        return text


def normalise_json(value: Any) -> Any:
    """Copy a JSON value with every -0.0 as 0.0. Raises ValueRefusedError for NaN, infinity and other types."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefusedError(f"found {value}, but a finite number is needed")
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, list):
        return [normalise_json(item) for item in value]
    if isinstance(value, dict):
        return {key: normalise_json(item) for key, item in value.items()}
    raise ValueRefusedError(f"found a {type(value).__name__}, which is not a JSON value")


def _match_type(number: float, like: object) -> float:
    """Convert a number to the type of another if possible: 7 like 1.5 is 7.0, and 7.0 like 2 is 7."""
    if isinstance(like, float) and abs(number) <= _MAX_FLOAT:
        return float(number)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _make_type_check(allowed: list[str]) -> _Check:
    kinds = frozenset(allowed)

    def check(value: Any) -> bool:
        kind = _TYPE_NAMES.get(type(value))
        if kind == "integer" or (kind == "number" and value.is_integer()):  # 3 and 3.0 are of both types
            return "number" in kinds or "integer" in kinds
        return kind in kinds

    return check


def _make_member_check(members: list[Any]) -> _Check:
    """Return a check that the value is a member: 1 equals 1.0, but true does not equal 1."""
    known = {(isinstance(member, bool), member) for member in members if not isinstance(member, (list, dict))}
    return lambda value: (isinstance(value, bool), value) in known


# The check of each keyword, for values that are not lists or mappings. Keywords for numbers ignore texts, and the other
# way round (JSON Schema 2020-12, Validation, section 6).
_KEYWORD_CHECKS: Final[Mapping[str, Callable[[Any], _Check]]] = {
    "type": lambda allowed: _make_type_check([allowed] if isinstance(allowed, str) else allowed),
    "enum": _make_member_check,
    "const": lambda member: _make_member_check([member]),
    "minimum": lambda bound: lambda value: not _is_number(value) or value >= bound,
    "maximum": lambda bound: lambda value: not _is_number(value) or value <= bound,
    "exclusiveMinimum": lambda bound: lambda value: not _is_number(value) or value > bound,
    "exclusiveMaximum": lambda bound: lambda value: not _is_number(value) or value < bound,
    "multipleOf": lambda factor: lambda value: not _is_number(value) or is_multiple(value, factor),
    "minLength": lambda least: lambda value: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda most: lambda value: not isinstance(value, str) or len(value) <= most,
}


def _is_quick(schema: Mapping[str, Any]) -> bool:
    return schema.keys() <= _ANNOTATIONS | _KEYWORD_CHECKS.keys()


def _make_quick_check(schema: Mapping[str, Any]) -> _Check:
    """Return a check that is ten times as fast as jsonschema, because an axis may have a million values.

    True means that the value is valid. False means that jsonschema must decide, because the value is a list or mapping,
    or the schema has other keywords, or the value is invalid and needs a message.
    """
    if not _is_quick(schema):
        return lambda _: False
    checks = [_KEYWORD_CHECKS[key](rule) for key, rule in schema.items() if key in _KEYWORD_CHECKS]

    def is_surely_valid(value: Any) -> bool:
        if isinstance(value, (list, dict)):
            return False
        for check in checks:  # noqa: SIM110 - `all` would create a generator for each of a million values
            if not check(value):
                return False
        return True

    return is_surely_valid
