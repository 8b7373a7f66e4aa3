"""One value against its slot's schema: normalised so that equal values have equal bytes, or refused with a reason.

CONTRACT.md 1: an integral float in an integer slot becomes an int, an int in a number slot a float, -0.0 becomes 0.0;
NaN and infinity are refused everywhere. Pure; where values come from is `axes`' business.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sweeper.model.numbers import written_number
from sweeper.schemas import is_multiple, reason, shown, validator_for

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TRUE: Final = frozenset({"true"})
_FALSE: Final = frozenset({"false"})
_LARGEST: Final = sys.float_info.max
_TYPE_NAMES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class ValueRefusedError(Exception):
    """The value does not fit the schema; the message says what was found and what is allowed."""


class Normaliser:
    """A slot's schema, compiled once. `schema` None takes any JSON value."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = dict(schema or {})
        self._validator: Validator | None = validator_for(self.schema) if self.schema else None
        types = self.schema.get("type", [])
        self.types = frozenset([types] if isinstance(types, str) else types)
        self._members = self.schema.get("enum", [self.schema["const"]] if "const" in self.schema else [])
        self._numbers = [member for member in self._members if _is_number(member)]
        self._whole = "integer" in self.types and "number" not in self.types
        self._real = "number" in self.types and "integer" not in self.types
        self._fits = _quick(self.schema)

    def __call__(self, value: Any) -> Any:
        """The value as it is written into the workflow. Raises ValueRefusedError."""
        value = self._typed(finite(value))
        if self._validator is not None and not self._fits(value):
            reasons = dict.fromkeys(_reasons(self._validator, value))
            if reasons:
                raise ValueRefusedError("; ".join(reasons))
        return value

    def _typed(self, value: Any) -> Any:
        if not _is_number(value):
            return value
        if self._whole and isinstance(value, float) and value.is_integer():
            return int(value)
        if self._real and isinstance(value, int):
            return _as_float(value)
        # An enum without a type: the member it equals, so that 4.0 and 4 are one picture.
        return next((member for member in self._numbers if member == value), value)

    def from_text(self, text: str, *, like: object = None) -> Any:
        """A cell of a text file as the slot's type: `8` is a number for a number slot and a text for a text slot.

        `like` is a value that the slot is known to take, such as its default: where the schema names no type, its type
        decides. A text that is nothing of the kind stays a text; calling the normaliser with it tells why it is wrong.
        """
        kinds = self.types or {_TYPE_NAMES.get(type(member), "") for member in self._members or [like]}
        if ("string" in kinds and self.types) or text in self._members:
            return text
        stripped = text.strip()
        if kinds & {"integer", "number"}:
            number = _number(stripped)
            if number is not None:
                return number if self.types or self._members else _as(number, like)
        if "boolean" in kinds and stripped.lower() in _TRUE | _FALSE:
            return stripped.lower() in _TRUE
        if "null" in self.types and not stripped:
            return None
        return text


def _reasons(validator: Validator, value: Any) -> list[str]:
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as jsonschema: see `schemas`

    try:
        errors = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    except Unresolvable as error:
        raise ValueRefusedError(f"the schema refers to {shown(error.ref)}, which is not in it") from error
    except RecursionError as error:
        raise ValueRefusedError("the schema refers to itself without end") from error
    return [reason(error) for error in errors]


def finite(value: Any) -> Any:
    """A JSON value with every -0.0 in it as 0.0. Raises ValueRefusedError for NaN, infinity and what JSON has not."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefusedError(f"found {value}, but a finite number is needed")
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    raise ValueRefusedError(f"found a {type(value).__name__}, which is no JSON value")


def _number(text: str) -> int | float | None:
    """The number that YAML would read there, so that a list and a file of lines say the same."""
    try:
        return written_number(text)
    except ValueError:  # too large for one
        return None


def _as(number: float, like: object) -> float:
    """A number in the type of another, where it has a value there: 7 beside 1.5 is 7.0, and 7.0 beside 2 is 7."""
    if isinstance(like, float) and abs(number) <= _LARGEST:
        return float(number)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueRefusedError(f"found {shown(value)}, which is too large for a number") from error


_Check = Callable[[Any], bool]


def _of_type(allowed: list[str]) -> _Check:
    kinds = frozenset(allowed)

    def check(value: Any) -> bool:
        kind = _TYPE_NAMES.get(type(value))
        if kind == "integer" or (kind == "number" and value.is_integer()):  # 3.0 is both, and so is 3
            return "number" in kinds or "integer" in kinds
        return kind in kinds

    return check


def _one_of(members: list[Any]) -> _Check:
    """1 equals 1.0, but true equals no number."""
    known = {(isinstance(member, bool), member) for member in members if not isinstance(member, (list, dict))}
    return lambda value: (isinstance(value, bool), value) in known


_NOTES: Final = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})

# What each keyword asks of a value that is no list and no mapping; a keyword of numbers says nothing about texts, and
# the other way round (JSON Schema, draft 2020-12, validation, section 6).
_KEYWORDS: Final[Mapping[str, Callable[[Any], _Check]]] = {
    "type": lambda allowed: _of_type([allowed] if isinstance(allowed, str) else allowed),
    "enum": _one_of,
    "const": lambda member: _one_of([member]),
    "minimum": lambda bound: lambda value: not _is_number(value) or value >= bound,
    "maximum": lambda bound: lambda value: not _is_number(value) or value <= bound,
    "exclusiveMinimum": lambda bound: lambda value: not _is_number(value) or value > bound,
    "exclusiveMaximum": lambda bound: lambda value: not _is_number(value) or value < bound,
    "multipleOf": lambda factor: lambda value: not _is_number(value) or is_multiple(value, factor),
    "minLength": lambda least: lambda value: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda most: lambda value: not isinstance(value, str) or len(value) <= most,
}


def _quick(schema: Mapping[str, Any]) -> _Check:
    """Whether a value certainly fits, without jsonschema, which needs ten times as long: an axis may have a million.

    "No" only means that jsonschema has to be asked: for a list, a mapping, any other keyword, and for the message.
    """
    if not schema.keys() <= _NOTES | _KEYWORDS.keys():
        return lambda _: False
    checks = [_KEYWORDS[key](rule) for key, rule in schema.items() if key in _KEYWORDS]

    def fits(value: Any) -> bool:
        if isinstance(value, (list, dict)):
            return False
        for check in checks:  # noqa: SIM110 - `all` makes a generator for each value
            if not check(value):
                return False
        return True

    return fits
