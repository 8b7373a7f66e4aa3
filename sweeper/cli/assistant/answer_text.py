"""Write what a tool answers as JSON of a bounded size, because an assistant pays for every word that it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_BYTES: Final = 60_000  # of one answer
# How long texts, and how many items of lists and mappings, stay in an answer that is too long; one step after another.
_LEVELS: Final = ((2000, 500), (400, 100), (100, 20), (40, 5))
_FEW_ROWS: Final = 10  # an answer with at least so many rows needs no shorter cells


def to_text(value: Any, advice: str = "ask for less") -> str:
    """Write a value as JSON. One that is too long gets shorter texts and fewer items, and says so in `left_out`.

    `advice` says how to ask for the rest.
    """
    text = _dump(value)
    if len(text.encode()) <= MAX_BYTES:
        return text
    for step, (longest, most) in enumerate(_LEVELS):
        if isinstance(value, list):
            rows = [_shorten(row, longest, most) for row in value]
            count = _count_fitting(rows)
            is_last = step == len(_LEVELS) - 1
            short: dict[str, Any] = {"first": rows[:count]} if is_last or count >= min(len(rows), _FEW_ROWS) else {}
            left_out = (
                f"these are the first {count} of {len(rows)}, with texts of at most {longest} characters; {advice}"
            )
        else:
            short = _shorten(value, longest, most)
            left_out = f"this has texts of at most {longest} characters and lists of at most {most} items; {advice}"
        text = _dump({**short, "left_out": left_out}) if short else text
        if len(text.encode()) <= MAX_BYTES:
            return text
    return cut_text(text)


def cut_text(text: str) -> str:
    """Return at most `MAX_BYTES` of a text, and say so if it is longer."""
    content = text.encode()
    if len(content) <= MAX_BYTES:
        return text
    return content[: MAX_BYTES - 100].decode("utf-8", "ignore") + f"\n... (cut; it has {len(content)} bytes)"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _shorten(value: Any, longest: int, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}... ({len(value)} characters)"
    if isinstance(value, Mapping):
        items = list(value.items())
        short = {_shorten(key, longest, most): _shorten(item, longest, most) for key, item in items[:most]}
        return short | ({"...": f"{len(items) - most} more"} if len(items) > most else {})
    if isinstance(value, Sequence):
        short_items = [_shorten(item, longest, most) for item in value[:most]]
        return short_items + ([f"... {len(value) - most} more"] if len(value) > most else [])
    return value


def _count_fitting(rows: Sequence[Any]) -> int:
    """How many of the rows fit into an answer, with some space for what is left out."""
    size = 1000
    for count, row in enumerate(rows):
        size += len(_dump({"first": [row]}).encode())
        if size > MAX_BYTES:
            return count
    return len(rows)
