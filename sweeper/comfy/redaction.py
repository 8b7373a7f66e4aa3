"""Remove keys from a server's responses, in every form that JSON, a URL or Base64 gives them.

This works on the bytes of a response before anything parses them, so no reader of a response can see a key. Every
response of a server with a key passes through here; the slow search runs only if the bytes contain an escape.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

_MASK: Final = b"***"
_BACKSLASH_ESCAPED: Final = '"/\\'  # printable characters that JSON may write after a backslash
_PERCENT_ESCAPE: Final = re.compile(rb"%[2-7]")  # the start of an escaped printable character
_MIN_BASE64_LENGTH: Final = 8  # characters of a key; the Base64 of a shorter one could occur by chance


class Redaction:
    """Removes `keys`, which are printable ASCII (see `credentials.validate_key`)."""

    def __init__(self, keys: Iterable[str]) -> None:
        forms = {form for key in keys if key for form in _encode_forms(key)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._plain = tuple(form.encode() for form in ordered)
        self._patterns = [re.compile("".join(map(_spelling_pattern, form)).encode()) for form in ordered]
        short = sorted({letter for form in ordered for letter in form} & set(_BACKSLASH_ESCAPED))
        self._escape_hints = tuple(f"\\{mark}".encode() for mark in ("u00", *short)) if ordered else ()

    def redact(self, content: bytes) -> bytes:
        """The content with `***` in place of each key."""
        for form in self._plain:
            content = content.replace(form, _MASK)
        if self._escape_hints and (
            any(mark in content for mark in self._escape_hints) or _PERCENT_ESCAPE.search(content)
        ):
            for pattern in self._patterns:
                content = pattern.sub(_MASK, content)
        return content

    def redact_text(self, text: str) -> str:
        """The same for a text, such as a URL or an error message."""
        return self.redact(text.encode("utf-8", "replace")).decode()


def _encode_forms(key: str) -> Iterable[str]:
    """The key as it is, as a form field encodes it, and in Base64."""
    yield key
    yield key.replace(" ", "+")
    if len(key) >= _MIN_BASE64_LENGTH:
        yield b64encode(key.encode()).decode().rstrip("=")
        yield urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _spelling_pattern(letter: str) -> str:
    r"""A pattern for every way to write one character: itself, `\u002f` or `\/`, `%2f` in either case.

    JSON or URLs may be nested three deep, which adds backslashes or makes `%252f`. The repetition is bounded, because
    an unbounded one would take quadratic time on a text of backslashes.
    """
    plain = re.escape(letter)
    code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(letter):02x}")
    short = rf"|\\\\{{0,6}}{plain}" if letter in _BACKSLASH_ESCAPED else ""
    # Each alternative begins with a literal character, so the regex engine skips quickly to candidates.
    return rf"(?:{plain}|\\\\{{0,6}}u00{code}|%(?:25){{0,3}}{code}{short})"
