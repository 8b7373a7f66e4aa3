"""Takes keys out of what a server says, in every spelling in which JSON, a URL or Base64 may hold them.

Bytes in, bytes out, before anything is parsed: then no reader of an answer can meet a key, whether it reads JSON or
shows the start of a page. Every answer of a server with a key passes here, so the slow look is taken only where a
character says that it may find something.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

_MASK: Final = b"***"
_BACKSLASH_ESCAPED: Final = '"/\\'  # the printable characters that JSON may write with a backslash before them
_PERCENT_ESCAPE: Final = re.compile(rb"%[2-7]")  # the first of the two digits of a printable character
_MIN_BASE64_LENGTH: Final = 8  # characters of a key below which its Base64 is no more than a few common letters


class Redaction:
    """What to take out. `keys` are printable ASCII, as `keys.usable` has them."""

    def __init__(self, keys: Iterable[str]) -> None:
        forms = {form for key in keys if key for form in _encode_forms(key)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._plain = tuple(form.encode() for form in ordered)
        self._patterns = [re.compile("".join(map(_spelling_pattern, form)).encode()) for form in ordered]
        short = sorted({letter for form in ordered for letter in form} & set(_BACKSLASH_ESCAPED))
        self._escape_hints = tuple(f"\\{mark}".encode() for mark in ("u00", *short)) if ordered else ()

    def redact(self, content: bytes) -> bytes:
        """The same without any key: `***` stands for each."""
        for form in self._plain:
            content = content.replace(form, _MASK)
        if self._escape_hints and (
            any(mark in content for mark in self._escape_hints) or _PERCENT_ESCAPE.search(content)
        ):
            for spelt in self._patterns:
                content = spelt.sub(_MASK, content)
        return content

    def redact_text(self, text: str) -> str:
        """The same for text, which may be what was a URL or an error."""
        return self.redact(text.encode("utf-8", "replace")).decode()


def _encode_forms(key: str) -> Iterable[str]:
    """The key itself, as a form's field writes it, and what Base64 makes of all of it."""
    yield key
    yield key.replace(" ", "+")
    if len(key) >= _MIN_BASE64_LENGTH:
        yield b64encode(key.encode()).decode().rstrip("=")
        yield urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _spelling_pattern(letter: str) -> str:
    r"""A pattern of every way to write one character: itself, `\u002f` or `\/`, `%2f` in either case.

    A JSON text or a URL may stand inside another, three deep: then there are more backslashes, or `%252f`. Not any
    number of them: a text of nothing else would be looked at from every place to its end.
    """
    plain = re.escape(letter)
    code = "".join(f"[{one}{one.upper()}]" for one in f"{ord(letter):02x}")
    short = rf"|\\\\{{0,6}}{plain}" if letter in _BACKSLASH_ESCAPED else ""
    # Each way begins with a plain character: then the regex engine passes quickly over what none begins with.
    return rf"(?:{plain}|\\\\{{0,6}}u00{code}|%(?:25){{0,3}}{code}{short})"
