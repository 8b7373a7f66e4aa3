"""A JSON Schema in the few words that fit into a cell: what a slot takes.

`sweeper.schemas` tells what is wrong with a value; here nothing is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_MAX_CHOICES_LENGTH: Final = 60  # characters of a list of choices; the rest is counted
_KNOWN_KEYWORDS: Final = frozenset(("type", "enum", "minimum", "maximum", "multipleOf", "minLength"))


def describe_schema(schema: Mapping[str, Any] | None) -> str:
    """`integer 1 .. 100`, `euler | heun | ... (44)`, `text, not empty`; empty where anything goes."""
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
        return "text, not empty" if schema.get("minLength") == 1 else _describe_text("text", schema, "minLength")
    word = kind if isinstance(kind, str) else " or ".join(kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        word += f" {_format_number(low)} .. {_format_number(high)}"
    elif low is not None or high is not None:
        word += f" >= {_format_number(low)}" if high is None else f" <= {_format_number(high)}"
    if "multipleOf" in schema:
        word += f", a multiple of {_format_number(schema['multipleOf'])}"
    return word.strip()


def _describe_text(word: str, schema: Mapping[str, Any], key: str) -> str:
    return f"{word}, at least {schema[key]} characters" if schema.get(key) else word


def join_choices(values: list[Any], max_length: int = _MAX_CHOICES_LENGTH) -> str:
    """The first of some values, as many as have room, and how many there are where some have none."""
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    shown: list[str] = []
    for text in texts:
        if shown and len(" | ".join([*shown, text])) > max_length:
            return f"{' | '.join(shown)} | ... ({len(texts)})"
        shown.append(text)
    return " | ".join(shown)


def _format_number(value: Any) -> str:
    """As JSON has it, but 2^64 - 1 and its like as people know them."""
    for power in (31, 32, 53, 63, 64):
        for less in (0, 1):
            if isinstance(value, int) and abs(value) == 2**power - less:
                return f"{'-' if value < 0 else ''}2^{power}{' - 1' if less else ''}"
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)
