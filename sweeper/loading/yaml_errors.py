"""Say what a person did wrong where PyYAML says what its parser expected.

The rules match texts of libyaml and of PyYAML's own parser, which differ. An error that no rule knows keeps its text.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

_COLON: Final = re.compile(r":(?=\s|$)")
_LINE_BREAK: Final = re.compile("[\n\x85\u2028\u2029]")  # those that libyaml counts
_OPENING: Final = {"sequence": ("[", "]"), "mapping": ("{", "}")}


def explain_yaml_error(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """Return the 1-based line of a mistake (0: unknown), and a sentence that ends with what to do."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    start = error.context_mark.line + 1 if error.context_mark else line
    context, problem = str(error.context or ""), str(error.problem or "")
    if "end of stream" in problem and "quoted" in context:
        return start, "the quote that opens in this line is not closed"
    for kind, (opening, closing) in _OPENING.items():
        if f"flow {kind}" in context:
            where = f" before line {line}" if line > start else ""
            return start, (
                f"the {opening} that opens in this line has no {closing}, or a comma is missing{where}; "
                "a text with brackets, braces or commas in it needs quotes"
            )
    before, after = _split_at(mark, text)
    sentence = (
        _explain_letter(problem, after[:1])
        or _explain_colon(problem, before)
        or _explain_quoted(problem)
        or _explain_indentation(context, start)
        or f"{context} {problem}".strip()
    )
    return line, sentence


def _split_at(mark: Any, text: str) -> tuple[str, str]:
    """Return the parts of the line before and after the mark, which may lie behind the end of the text."""
    lines = _LINE_BREAK.split(text)
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return line[: mark.column if mark else 0], line[mark.column if mark else 0 :]


def _explain_letter(problem: str, letter: str) -> str | None:
    """Explain a letter with which no value may begin."""
    if "cannot start any token" in problem and letter == "\t":
        return "there is a tab here, but YAML is indented with spaces; replace each tab by spaces"
    if "cannot start any token" in problem:
        return f"a text that begins with {letter} needs quotes"
    if "alphabetic or numeric" in problem:
        return "a text that begins with * or & needs quotes"
    return None


def _explain_colon(problem: str, before: str) -> str | None:
    """Explain a colon that is not allowed after the text `before` in its line."""
    if "mapping values are not allowed" not in problem:
        return None
    if _COLON.search(before):
        return "a text with a colon and a space in it needs quotes, such as prompt: 'a fox: red'"
    return (
        "this key is indented further than the line above allows; give keys of one mapping the same indentation, and "
        "put a space after each colon"
    )


def _explain_quoted(problem: str) -> str | None:
    if "escape" in problem or "hexdecimal" in problem or "hexadecimal" in problem:
        return (
            "in double quotes a backslash begins an escape such as \\n; write a path with / in place of \\, or put the "
            "text in single quotes"
        )
    return None


def _explain_indentation(context: str, start: int) -> str | None:
    if "block mapping" in context:
        return (
            f"this does not continue the mapping that begins in line {start}; give its keys the same indentation, and "
            "quote a whole text, not a part of it"
        )
    if "block collection" in context:
        return f"this does not continue the list that begins in line {start}; begin each item with - in the same column"
    return None
