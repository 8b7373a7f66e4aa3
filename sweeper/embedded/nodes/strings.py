"""Texts (nodes_string.py of ComfyUI 0.3.64): joining, cutting, replacing, comparing; and primitives.

ComfyUI sets no limit. Here a text that a node makes has at most `MAX_LENGTH` characters, because a few nodes that each
double their input would otherwise fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_LENGTH = 10_000_000

_CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "Equal": str.__eq__,
    "Starts With": str.startswith,
    "Ends With": str.endswith,
}


def hand_on(value: Any) -> Any:
    """A primitive."""
    return value


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError(f"the result has {length} characters; at most {MAX_LENGTH} are allowed")


def concatenate(string_a: str, string_b: str, delimiter: str) -> str:
    _check_length(len(string_a) + len(delimiter) + len(string_b))
    return delimiter.join((string_a, string_b))


def substring(string: str, start: int, end: int) -> str:
    return string[start:end]


def length(string: str) -> int:
    return len(string)


def convert_case(string: str, mode: str) -> str:
    return _CASES.get(mode, str)(string)


def trim(string: str, mode: str) -> str:
    return _TRIMS.get(mode, str)(string)


def replace(string: str, find: str, replace: str) -> str:
    # The count walks the whole text, so a text that cannot grow is not counted.
    if len(replace) > len(find):
        _check_length(len(string) + string.count(find) * (len(replace) - len(find)))
    return string.replace(find, replace)


def contains(string: str, substring: str, case_sensitive: bool) -> bool:
    return substring in string if case_sensitive else substring.lower() in string.lower()


def compare(string_a: str, string_b: str, mode: str, case_sensitive: bool) -> bool:
    if not case_sensitive:
        string_a, string_b = string_a.lower(), string_b.lower()
    return _COMPARISONS[mode](string_a, string_b)
