"""What Jinja2's parser says of a text that it cannot read, in words that are the user's: "end of print statement" is
its own for `}}`, and of the braces that we put around a bare expression nobody wrote any. Pure text.
"""

from __future__ import annotations

import re
from typing import Final

_CHARACTER: Final = re.compile(r"unexpected char (?:'(?P<plain>.*)'|\"(?P<quoted>.*)\") at (?P<at>\d+)", re.DOTALL)
_OUT_OF_PLACE: Final = re.compile(
    r"(?P<how>unexpected|expected token '(?P<wanted>[^']+)', got|Expected an expression, got)"
    r" '(?P<found>.+?)'(?:, expected '(?P<closing>.)')?"
)
_BEFORE: Final = len("{{ ")
_ENDS: Final = {"end of print statement": "}}", "end of statement block": "%}"}
_KINDS: Final = {"integer": "a number", "float": "a number", "string": "a text in quotes"}
_INSTEAD: Final = {
    "=": "; to compare, write == or !=", "&": "; write `and`", "!": "; write `not`, or != to compare",
    "?": "; write `a if test else b`", "AND": "; write `and`", "OR": "; write `or`", "NOT": "; write `not`",
}  # fmt: skip


def worded(message: str, text: str, *, bare: bool) -> str:
    """The message of Jinja2's parser on `text`; `bare`: an expression that was put between `{{ ` and ` }}`."""
    if bare and not text.strip():
        return "is empty, and a value is needed"
    if bare and "{{" in text:
        return "an expression is written here without '{{' and '}}'"
    if message.startswith("unexpected end of template"):
        return "a '{{' has no '}}'"
    if (character := _CHARACTER.fullmatch(message)) is not None:
        found = character["plain"] or character["quoted"]
        place = int(character["at"]) + 1 - (_BEFORE if bare else 0)
        if found in ("'", '"'):
            return f"the text that begins with {found} at character {place} has no closing {found}"
        return f"'{found}' at character {place} is out of place{_INSTEAD.get(found, '')}"
    read = _OUT_OF_PLACE.match(message)
    if read is None:
        return message
    found = read["found"]
    end = f"'{_ENDS[found]}'" if found in _ENDS else ""
    if bare and found in ("}", "end of print statement"):
        end = "its end"
    if end:
        wanted = f"a '{read['closing']}'" if read["closing"] else "a name" if read["wanted"] == "name" else "a value"
        return f"{wanted} is missing before {end}"
    what = _KINDS.get(found, f"'{found}'")
    return f"{what} is out of place{_INSTEAD.get(found, '')}"
