"""Text nodes (nodes_string.py of ComfyUI 0.3.64): joining, cutting, replacing, comparing.

ComfyUI sets no limit. Here a text that a node makes has at most `MAX_LENGTH` characters, because a few nodes that each
double their input would otherwise fill the memory. Regular expressions are in `regular_expressions.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from sweeper.embedded.nodes.base import Context, NodeOutput

MAX_LENGTH = 10_000_000

_CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError(f"the result has {length} characters; at most {MAX_LENGTH} are allowed")


def concatenate(_context: Context, string_a: str, string_b: str, delimiter: str) -> NodeOutput:
    _check_length(len(string_a) + len(delimiter) + len(string_b))
    return NodeOutput((delimiter.join((string_a, string_b)),))


def substring(_context: Context, string: str, start: int, end: int) -> NodeOutput:
    return NodeOutput((string[start:end],))


def length(_context: Context, string: str) -> NodeOutput:
    return NodeOutput((len(string),))


def convert_case(_context: Context, string: str, mode: str) -> NodeOutput:
    return NodeOutput((_CASES.get(mode, str)(string),))


def trim(_context: Context, string: str, mode: str) -> NodeOutput:
    return NodeOutput((_TRIMS.get(mode, str)(string),))


def replace(_context: Context, string: str, find: str, replace: str) -> NodeOutput:
    # The count walks the whole text, so a text that cannot grow is not counted.
    if len(replace) > len(find):
        _check_length(len(string) + string.count(find) * (len(replace) - len(find)))
    return NodeOutput((string.replace(find, replace),))


def contains(_context: Context, string: str, substring: str, case_sensitive: bool) -> NodeOutput:
    if not case_sensitive:
        string, substring = string.lower(), substring.lower()
    return NodeOutput((substring in string,))


def compare(_context: Context, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> NodeOutput:
    if not case_sensitive:
        string_a, string_b = string_a.lower(), string_b.lower()
    rules: dict[str, Callable[[], bool]] = {
        "Equal": lambda: string_a == string_b,
        "Starts With": lambda: string_a.startswith(string_b),
        "Ends With": lambda: string_a.endswith(string_b),
    }
    return NodeOutput((rules[mode](),))
