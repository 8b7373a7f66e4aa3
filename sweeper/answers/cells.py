"""Values as text for people: numbers, and cells of tables."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

_JSON: Final = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for each call
_MAX_CHOICES_LENGTH: Final = 60  # characters of a list of choices
_JOINER: Final = "\N{ZERO WIDTH JOINER}"
_EMOJI_SELECTOR: Final = "\N{VARIATION SELECTOR-16}"
_EMOJI_CATEGORIES: Final = ("So", "Sm")  # Unicode categories; some arrows are mathematical symbols


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


def sanitize(text: str) -> str:
    """Replace each control character by a space, so that text from files and servers cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or _is_emoji_joiner(text, index) else " " for index, char in enumerate(text)
    )


def _is_emoji_joiner(text: str, index: int) -> bool:
    """Whether a zero-width joiner at `index` joins two emoji. Anywhere else it would be an invisible character."""
    before, char, after = text[max(index - 1, 0)], text[index], text[index + 1 : index + 2]
    return (
        char == _JOINER
        # Sk: a skin tone
        and (before == _EMOJI_SELECTOR or unicodedata.category(before) in (*_EMOJI_CATEGORIES, "Sk"))
        and bool(after)
        and unicodedata.category(after) in _EMOJI_CATEGORIES
    )
