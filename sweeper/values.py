"""One value against its slot's schema: normalised so that equal values have equal bytes, or refused with a reason.

CONTRACT.md 1: an integral float in an integer slot becomes an int, an int in a number slot a float, -0.0 becomes 0.0;
NaN and infinity are refused everywhere. Pure; where values come from is `axes`' business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.schemas import reason, shown, validator_for

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TRUE = frozenset({"true"})
_FALSE = frozenset({"false"})


class ValueRefusedError(Exception):
    """The value does not fit the schema; the message says what was found and what is allowed."""


class Normaliser:
    """A slot's schema, compiled once. `schema` None takes any JSON value."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = dict(schema or {})
        self._validator: Validator | None = validator_for(self.schema) if self.schema else None
        types = self.schema.get("type", [])
        self.types = frozenset([types] if isinstance(types, str) else types)
        self._members = [member for member in self.schema.get("enum", []) if _is_number(member)]

    def __call__(self, value: Any) -> Any:
        """The value as it is written into the workflow. Raises ValueRefusedError."""
        value = self._typed(_finite(value))
        if self._validator is not None:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
            if errors:
                raise ValueRefusedError("; ".join(dict.fromkeys(reason(error) for error in errors)))
        return value

    def _typed(self, value: Any) -> Any:
        if not _is_number(value):
            return value
        if isinstance(value, float) and value.is_integer() and "integer" in self.types and "number" not in self.types:
            return int(value)
        if isinstance(value, int) and "number" in self.types and "integer" not in self.types:
            return _as_float(value)
        # An enum without a type: the member it equals, so that 4.0 and 4 are one picture.
        return next((member for member in self._members if member == value), value)

    def from_text(self, text: str) -> Any:
        """A cell of a text file as the slot's type: `8` is a number for a number slot and a text for a text slot."""
        if "string" in self.types:
            return text
        kinds = self.types or {type(member).__name__ for member in self.schema.get("enum", [])}
        stripped = text.strip()
        if kinds & {"integer", "number", "int", "float"}:
            number = _number(stripped)
            if number is not None:
                return number
        if kinds & {"boolean", "bool"} and stripped.lower() in _TRUE | _FALSE:
            return stripped.lower() in _TRUE
        if "null" in kinds and not stripped:
            return None
        return text


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueRefusedError(f"found {shown(value)}, which is too large for a number") from error


def _finite(value: Any) -> Any:
    """The value with every -0.0 as 0.0. Raises ValueRefusedError for NaN, infinity and what JSON does not have."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueRefusedError(f"found {value}, but a finite number is needed")
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int)):
        return value
    raise ValueRefusedError(f"found a {type(value).__name__}, which is no JSON value")
