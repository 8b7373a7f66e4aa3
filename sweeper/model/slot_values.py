"""One value against its slot's schema: normalised so that equal values have equal bytes, or refused with a reason.

CONTRACT.md 1: an integral float in an integer slot becomes an int, an int in a number slot a float, -0.0 becomes 0.0;
NaN and infinity are refused everywhere. Pure; where values come from is `axes`' business.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.model.numbers import parse_number
from sweeper.schemas import explain_error, format_value, is_multiple, make_validator

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TRUE_WORDS: Final = frozenset({"true"})
_FALSE_WORDS: Final = frozenset({"false"})
_MAX_FLOAT: Final = sys.float_info.max
_TYPE_NAMES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class ValueRefusedError(Exception):
    """The value does not fit the schema; the message says what was found and what is allowed."""


class SlotSchema:
    """A slot's schema, compiled once. `schema` None takes any JSON value."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = dict(schema or {})
        self._validator: Validator | None = make_validator(self.schema) if self.schema else None
        types = self.schema.get("type", [])
        self.types = frozenset([types] if isinstance(types, str) else types)
        self._allowed = self.schema.get("enum", [self.schema["const"]] if "const" in self.schema else [])
        self._allowed_numbers = [member for member in self._allowed if _is_number(member)]
        self._integers_only = "integer" in self.types and "number" not in self.types
        self._floats_only = "number" in self.types and "integer" not in self.types
        self._is_surely_valid = _make_quick_check(self.schema)

    def __call__(self, value: Any) -> Any:
        """The value as it is written into the workflow. Raises ValueRefusedError."""
        value = self._coerce(normalise_json(value))
        if self._validator is not None and not self._is_surely_valid(value):
            reasons = dict.fromkeys(_list_reasons(self._validator, value))
            if reasons:
                raise ValueRefusedError("; ".join(reasons))
        return value

    def _coerce(self, value: Any) -> Any:
        if not _is_number(value):
            return value
        if self._integers_only and isinstance(value, float) and value.is_integer():
            return int(value)
        if self._floats_only and isinstance(value, int):
            return _to_float(value)
        # An enum without a type: the member it equals, so that 4.0 and 4 are one picture.
        return next((member for member in self._allowed_numbers if member == value), value)

    def parse_text(self, text: str, *, like: object = None) -> Any:
        """A cell of a text file as the slot's type: `8` is a number for a number slot and a text for a text slot.

        `like` is a value that the slot is known to take, such as its default: where the schema names no type, its type
        decides. A text that is nothing of the kind stays a text; calling the normaliser with it tells why it is wrong.
        """
        kinds = self.types or {_TYPE_NAMES.get(type(member), "") for member in self._allowed or [like]}
        if ("string" in kinds and self.types) or text in self._allowed:
            return text
        stripped = text.strip()
        if kinds & {"integer", "number"}:
            number = _parse_number(stripped)
            if number is not None:
                return number if self.types or self._allowed else _match_type(number, like)
        if "boolean" in kinds and stripped.lower() in _TRUE_WORDS | _FALSE_WORDS:
            return stripped.lower() in _TRUE_WORDS
        if "null" in self.types and not stripped:
            return None
        return text


def _list_reasons(validator: Validator, value: Any) -> list[str]:
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as jsonschema: see `schemas`

    try:
        errors = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    except Unresolvable as error:
        raise ValueRefusedError(f"the schema refers to {format_value(error.ref)}, which is not in it") from error
    except RecursionError as error:
        raise ValueRefusedError("the schema refers to itself without end") from error
    return [explain_error(error) for error in errors]


def normalise_json(value: Any) -> Any:
    """A JSON value with every -0.0 in it as 0.0. Raises ValueRefusedError for NaN, infinity and what JSON has not."""
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
    raise ValueRefusedError(f"found a {type(value).__name__}, which is no JSON value")


def _parse_number(text: str) -> int | float | None:
    """The number that YAML would read there, so that a list and a file of lines say the same."""
    try:
        return parse_number(text)
    except ValueError:  # too large for one
        return None


def _match_type(number: float, like: object) -> float:
    """A number in the type of another, where it has a value there: 7 beside 1.5 is 7.0, and 7.0 beside 2 is 7."""
    if isinstance(like, float) and abs(number) <= _MAX_FLOAT:
        return float(number)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueRefusedError(f"found {format_value(value)}, which is too large for a number") from error


_Check = Callable[[Any], bool]


def _make_type_check(allowed: list[str]) -> _Check:
    kinds = frozenset(allowed)

    def check(value: Any) -> bool:
        kind = _TYPE_NAMES.get(type(value))
        if kind == "integer" or (kind == "number" and value.is_integer()):  # 3.0 is both, and so is 3
            return "number" in kinds or "integer" in kinds
        return kind in kinds

    return check


def _make_member_check(members: list[Any]) -> _Check:
    """1 equals 1.0, but true equals no number."""
    known = {(isinstance(member, bool), member) for member in members if not isinstance(member, (list, dict))}
    return lambda value: (isinstance(value, bool), value) in known


_ANNOTATIONS: Final = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})

# What each keyword asks of a value that is no list and no mapping; a keyword of numbers says nothing about texts, and
# the other way round (JSON Schema, draft 2020-12, validation, section 6).
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


def _make_quick_check(schema: Mapping[str, Any]) -> _Check:
    """Whether a value certainly fits, without jsonschema, which needs ten times as long: an axis may have a million.

    "No" only means that jsonschema has to be asked: for a list, a mapping, any other keyword, and for the message.
    """
    if not schema.keys() <= _ANNOTATIONS | _KEYWORD_CHECKS.keys():
        return lambda _: False
    checks = [_KEYWORD_CHECKS[key](rule) for key, rule in schema.items() if key in _KEYWORD_CHECKS]

    def is_surely_valid(value: Any) -> bool:
        if isinstance(value, (list, dict)):
            return False
        for check in checks:  # noqa: SIM110 - `all` makes a generator for each value
            if not check(value):
                return False
        return True

    return is_surely_valid
