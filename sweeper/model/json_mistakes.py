"""Say what is wrong with a text that is not JSON, in words and at places that are the same on each version of Python.

Python finds the place; its words and, for a comma before a bracket, the place itself differ from version to version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\n')
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD: Final = re.compile(r'[^\s,:\[\]{}"]+|.')
_KEY: Final = re.compile(r"[^\s,:\[\]{}\"]+\s*:")
_LAST_COMMA: Final = re.compile(r",\s*\Z")
_FIRST_COMMA: Final = re.compile(r",\s*[\]}]")
_MAX_SHOWN: Final = 30  # characters of a word in a message


class InvalidJsonError(ValueError):
    """A text is not JSON. `message`: what is wrong; `line`, `column`: where, from 1."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.message = message
        self.line = text.count("\n", 0, position) + 1
        self.column = position - text.rfind("\n", 0, position)
        super().__init__(f"{message}, line {self.line}, column {self.column}")


class TooDeepError(ValueError):
    """The lists and objects of a JSON text are nested deeper than allowed."""


def decode_json(text: str, decode: Callable[[str], Any], max_depth: int) -> Any:
    """Decode a text. Raises TooDeepError or InvalidJsonError, and the other errors of `decode`.

    A text may be both too deep and unfinished. Which of them Python reports depends on its version; here the depth
    always comes first. A value that could be decoded may still be deeper than `max_depth`.
    """
    try:
        return decode(text)
    except RecursionError:
        raise TooDeepError from None
    except json.JSONDecodeError as error:
        if is_text_deeper(text, max_depth):
            raise TooDeepError from None
        raise explain_mistake(text, error.pos) from None


def is_text_deeper(text: str, max_depth: int) -> bool:
    """Whether more than `max_depth` brackets and braces are open at some place of a text that may not be JSON."""
    depth = 0
    for lexeme in TOKEN.findall(text):
        if lexeme in {"{", "["}:
            depth += 1
        elif lexeme in {"}", "]"}:
            depth -= 1
        if depth > max_depth:
            return True
    return False


def explain_mistake(text: str, position: int) -> InvalidJsonError:
    """Return the error for a text in which Python's decoder stopped at a position."""
    before = text[:position].rstrip()
    rest = text[position:]
    if not text.strip():
        return InvalidJsonError("the text is empty", text, 0)
    if not rest.strip():
        return InvalidJsonError("the text ends before all brackets and braces are closed", text, len(before))
    if _FIRST_COMMA.match(rest):
        return InvalidJsonError("there is a comma after the last entry", text, position)
    if rest[0] in "]}" and _LAST_COMMA.search(before):
        return InvalidJsonError("there is a comma after the last entry", text, len(before) - 1)
    if _is_complete(before):
        return InvalidJsonError("there is more text after the end of the value", text, position)
    return InvalidJsonError(_describe(before, rest), text, position)


def _is_complete(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _describe(before: str, rest: str) -> str:
    """Return what is wrong at the beginning of `rest`."""
    first = rest[0]
    word = _WORD.match(rest)
    shown = word[0][:_MAX_SHOWN] if word else first
    if first < " ":
        return "there is a line break or a control character inside a text; write \\n for a line break"
    if first == "\\":
        return f"there is an unknown escape {rest[:2]} in a text; write \\\\ for a backslash"
    if first == "'":
        return "a text needs double quotes in place of '"
    if rest.startswith(("//", "/*", "#")):
        return "there is a comment, which JSON does not allow"
    if first == '"' and not _STRING.match(rest):
        return "the quote that opens here is not closed"
    if before[-1:] in ("{", ",") and _KEY.match(rest):
        return f"the key {shown} needs double quotes"
    if before[-1:] in ("", "[", "{", ":", ","):
        return f"a value cannot begin with {shown}"
    if first == ":" or first in "]}":
        return f"{first} does not belong here"
    return f"a comma or a colon is missing before {shown}"
