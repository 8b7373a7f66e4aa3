"""Checks of values that need no jsonschema, such as shapes and exact multiples; and texts of values for messages."""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from typing import Any, Final, TypeGuard

from sweeper.wording import escape_unprintable, join_names, shorten

_MAX_EXACT_INTEGER: Final = 2**53  # up to this, every integer has an exact double

KeyPath = tuple[str | int, ...]  # the keys and indexes that lead to a part of a value


class InvalidSchemaError(Exception):
    """A JSON Schema is invalid at `path`."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


def is_multiple(value: float, factor: float) -> bool:
    """Whether `value` is an integer times `factor`, both as written in decimal: 0.3 is a multiple of 0.1."""
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    if any(isinstance(number, float) and not math.isfinite(number) for number in (value, factor)):
        return False
    return to_fraction(value) % to_fraction(factor) == 0


def to_fraction(value: float) -> Fraction:
    """Return the number as it was written: 0.1 becomes 1/10, not the nearest double."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def fits_shape(value: object, shape: Any) -> bool:
    """Whether a JSON value has a shape, which is written as a value of this shape with types in place of its parts.

    `[str]` is a list of texts, `[str, bool]` a list of these two, `{...: int}` a mapping to integers, `{"a": str}` a
    mapping with this key among others, `(None, int)` either of them, and `object` anything. A key that is not there has
    the value None.
    """
    if isinstance(shape, tuple):
        return any(fits_shape(value, part) for part in shape)
    if isinstance(shape, list):
        shapes = shape * len(value) if isinstance(value, list) and len(shape) == 1 else shape
        return isinstance(value, list) and len(value) == len(shapes) and all(map(fits_shape, value, shapes))
    if isinstance(shape, dict):
        if ... in shape:
            part_shape = shape[...]
            return isinstance(value, dict) and (
                part_shape is object or all(fits_shape(part, part_shape) for part in value.values())
            )
        return isinstance(value, dict) and all(fits_shape(value.get(key), part) for key, part in shape.items())
    return shape is object or value is shape or type(value) is shape


def format_value(value: object, limit: int = 60) -> str:
    """Write a value for a message: JSON on one line, cut at `limit` characters; lists and mappings only by kind."""
    if isinstance(value, dict):
        return f"a mapping ({join_names(value)})" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        text = f"'{escape_unprintable(value[:limit])}'"
    else:
        text = "nothing" if value is None else json.dumps(value, default=str)
    return shorten(text, limit)


def unify_numbers(value: Any) -> Any:
    """Return a JSON value with 7 for 7.0, because they are equal in JSON Schema, and where a server reads either."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _MAX_EXACT_INTEGER:
        return int(value)
    if isinstance(value, dict):
        return {key: unify_numbers(item) for key, item in value.items()}
    return [unify_numbers(item) for item in value] if isinstance(value, (list, tuple)) else value


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a JSON value is an integer; for Python, True is one too."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number that a float can hold; for Python, True is a number too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
