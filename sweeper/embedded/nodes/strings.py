"""Text nodes (nodes_string.py of ComfyUI 0.3.64): joining, cutting, comparing, regular expressions."""

from __future__ import annotations

import re
from collections.abc import Callable

from sweeper.embedded.nodes.base import Context, NodeOutput

_CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


def concatenate(_context: Context, string_a: str, string_b: str, delimiter: str) -> NodeOutput:
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


def _flags(*, case_insensitive: bool, multiline: bool, dotall: bool) -> re.RegexFlag:
    flags = re.RegexFlag(0)
    flags |= re.IGNORECASE if case_insensitive else flags
    flags |= re.MULTILINE if multiline else flags
    return flags | (re.DOTALL if dotall else flags)


def match(
    _context: Context, *, string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool
) -> NodeOutput:
    """Whether the pattern is found anywhere; a pattern that is none is not found."""
    flags = _flags(case_insensitive=case_insensitive, multiline=multiline, dotall=dotall)
    try:
        return NodeOutput((re.search(regex_pattern, string, flags) is not None,))
    except re.error:
        return NodeOutput((False,))


def extract(
    _context: Context,
    *,
    string: str,
    regex_pattern: str,
    mode: str,
    case_insensitive: bool,
    multiline: bool,
    dotall: bool,
    group_index: int,
) -> NodeOutput:
    """The first or all matches or groups, one a line; empty where nothing is found."""
    flags = _flags(case_insensitive=case_insensitive, multiline=multiline, dotall=dotall)
    try:
        matches = list(re.finditer(regex_pattern, string, flags))
    except re.error:
        matches = []
    if mode.endswith(("Match", "Matches")):
        texts = [match_.group(0) for match_ in matches]
    else:
        texts = [match_.group(group_index) or "" for match_ in matches if len(match_.groups()) >= group_index]
    return NodeOutput(("\n".join(texts[:1] if mode.startswith("First") else texts),))


def substitute(
    _context: Context,
    *,
    string: str,
    regex_pattern: str,
    replace: str,
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    count: int = 0,
) -> NodeOutput:
    flags = _flags(case_insensitive=case_insensitive, multiline=multiline, dotall=dotall)
    return NodeOutput((re.sub(regex_pattern, replace, string, count=count, flags=flags),))
