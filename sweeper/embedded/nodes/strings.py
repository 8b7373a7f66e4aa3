"""Text nodes and primitives.

ComfyUI sets no limit. Here a text that a node makes has at most `MAX_LENGTH` characters, because a few nodes that each
double their input would otherwise fill the memory.
"""

from __future__ import annotations

from typing import Any

MAX_LENGTH = 10_000_000


def hand_on(value: Any) -> Any:
    """A primitive."""
    return value


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError(f"the result has {length} characters; at most {MAX_LENGTH} are allowed")


def concatenate(string_a: str, string_b: str, delimiter: str) -> str:
    _check_length(len(string_a) + len(delimiter) + len(string_b))
    return delimiter.join((string_a, string_b))


def replace(string: str, find: str, replace: str) -> str:
    # The count walks the whole text, so a text that cannot grow is not counted.
    if len(replace) > len(find):
        _check_length(len(string) + string.count(find) * (len(replace) - len(find)))
    return string.replace(find, replace)
