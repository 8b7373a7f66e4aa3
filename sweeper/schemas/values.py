"""What the checks of values have in common and what needs no jsonschema: value texts for messages, exact multiples."""

from __future__ import annotations

import json
import math
from fractions import Fraction

from sweeper.did_you_mean import join_names

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
    return _to_fraction(value) % _to_fraction(factor) == 0


def _to_fraction(value: float) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def format_value(value: object, limit: int = 80) -> str:
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


def shorten(text: str, limit: int = 80) -> str:
    """Cut a text to `limit` characters, because a message may quote a very long name or value."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def escape_unprintable(text: str) -> str:
    """Replace unprintable characters by their escapes in Python."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
