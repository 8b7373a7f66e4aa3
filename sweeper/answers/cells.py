"""Values as text for people: numbers, and cells of tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

_JSON: Final = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for each call
_MAX_CHOICES_LENGTH: Final = 60  # characters of a list of choices


def format_number(value: float) -> str:
    """A float for people: as many digits as distinguish it from its neighbours; 7.0 becomes 7."""
    return repr(value).removesuffix(".0")


def format_rounded(value: float) -> str:
    """A measured float, rounded to six significant digits or to an integer, because further digits are noise."""
    return format_number(float(f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"))


def to_json_text(value: Any) -> str:
    """A list or mapping as the text of a cell."""
    return _JSON.encode(value)


def format_cell(value: object, *, rounded: bool = False) -> str:
    """A value as one line without control characters.

    Floats are not rounded, because two values must not look alike, unless `rounded` says that they are measured.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_rounded(value) if rounded else format_number(value)
    return sanitize(value if isinstance(value, str) else to_json_text(value))


def join_choices(texts: Iterable[str], count: int) -> str:
    """As many of the first of `count` texts as fit into 60 characters; if some do not, also their number."""
    shown: list[str] = []
    for text in texts:
        if shown and len(" | ".join([*shown, text])) > _MAX_CHOICES_LENGTH:
            return f"{' | '.join(shown)} | ... ({count})"
        shown.append(text)
    return " | ".join(shown)


def join_values(values: Sequence[tuple[str, str]], separator: str, *, named: bool = False) -> str:
    """Join values, each with its axis before it if `named`. A width and its height are one size: `512 x 768`."""
    words = [f"{axis} {text}" if named else text for axis, text in values]
    for index, ((axis, width), (following, height)) in enumerate(pairwise(values)):
        if axis.casefold().endswith("width") and following.casefold().endswith("height"):
            words[index : index + 2] = [f"{width} x {height}"]
            break
    return separator.join(words)


def sanitize(text: str) -> str:
    """Replace each control character by a space, so that text from files and servers cannot control the terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
