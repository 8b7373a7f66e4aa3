"""Describe a slot's JSON Schema in the few words that fit into a table cell.

Validating values belongs to `sweeper.schemas`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_MAX_CHOICES_LENGTH: Final = 60  # characters of a list of choices
_KNOWN_KEYWORDS: Final = frozenset(("type", "enum", "minimum", "maximum", "multipleOf", "minLength"))


def describe_schema(schema: Mapping[str, Any] | None) -> str:
    """`integer 1 .. 100`, `euler | heun | ... (44)`, `text, not empty`; empty if every value is allowed."""
    if not schema:
        return ""
    if not set(schema) <= _KNOWN_KEYWORDS:
        return json.dumps(dict(schema), ensure_ascii=False)
    if "enum" in schema:
        return join_choices(schema["enum"])
    kind = schema.get("type", "")
    if kind == "boolean":
        return "true | false"
    if kind == "string":
        shortest = schema.get("minLength")
        if shortest == 1:
            return "text, not empty"
        return f"text, at least {shortest} characters" if shortest else "text"
    kinds = [kind] if isinstance(kind, str) else kind
    word = " or ".join(name for name in kinds if name != "integer" or "number" not in kinds)  # 7 is a number too
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        word += f" {_format_number(low)} .. {_format_number(high)}"
    elif low is not None or high is not None:
        word += f" >= {_format_number(low)}" if high is None else f" <= {_format_number(high)}"
    if "multipleOf" in schema:
        word += f", a multiple of {_format_number(schema['multipleOf'])}"
    return word.strip()


def join_choices(values: list[Any], max_length: int = _MAX_CHOICES_LENGTH) -> str:
    """As many of the first values as fit into `max_length` characters; if some do not, also the number of all."""
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    shown: list[str] = []
    for text in texts:
        if shown and len(" | ".join([*shown, text])) > max_length:
            return f"{' | '.join(shown)} | ... ({len(texts)})"
        shown.append(text)
    return " | ".join(shown)


def _format_number(value: Any) -> str:
    """A number as in JSON, but the limits of integer types as powers: `2^64 - 1`."""
    for power in (31, 32, 53, 63, 64):
        for offset in (0, 1):
            if isinstance(value, int) and abs(value) == 2**power - offset:
                return f"{'-' if value < 0 else ''}2^{power}{' - 1' if offset else ''}"
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)
