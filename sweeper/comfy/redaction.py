"""Keep keys and signed URLs out of a server's responses and out of logs.

Redaction works on the bytes of a response before anything parses them, so no reader of a response can see a key, in
whatever form JSON, a URL or Base64 gives it. The slow search runs only if the bytes contain an escape.

httpx logs the URL of each request (INFO), and httpcore the headers of each response (DEBUG), in which a redirect has a
signed URL and a server may repeat a key. sweeper drops their records of its own requests, and logs each request itself,
without query and redacted. Records of the application's other requests stay as they are.
"""

from __future__ import annotations

import contextlib
import logging
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Final

_MASK: Final = b"***"
_BACKSLASH_ESCAPED: Final = '"/\\'  # printable characters that JSON may write after a backslash
_PERCENT_ESCAPE: Final = re.compile(rb"%[2-7]")  # the start of an escaped printable character
_MIN_BASE64_LENGTH: Final = 8  # characters of a key; the Base64 of a shorter one could occur by chance


class Redaction:
    """Removes `keys`, which are printable ASCII (see `target.validate_key`)."""

    def __init__(self, keys: Iterable[str]) -> None:
        forms = {form for key in keys if key for form in _encode_forms(key)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._plain = tuple(form.encode() for form in ordered)
        self._patterns = [re.compile("".join(map(_spelling_pattern, form)).encode()) for form in ordered]
        short = sorted({letter for form in ordered for letter in form} & set(_BACKSLASH_ESCAPED))
        self._escape_hints = tuple(f"\\{mark}".encode() for mark in ("u00", *short)) if ordered else ()

    def redact(self, content: bytes) -> bytes:
        for form in self._plain:
            content = content.replace(form, _MASK)
        if self._escape_hints and (
            any(mark in content for mark in self._escape_hints) or _PERCENT_ESCAPE.search(content)
        ):
            for pattern in self._patterns:
                content = pattern.sub(_MASK, content)
        return content

    def redact_text(self, text: str) -> str:
        """The text, such as a URL or an error message, with `***` in place of each key."""
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


_LOGGERS: Final = (
    "httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks",
)  # fmt: skip
_is_ours: ContextVar[bool] = ContextVar("sweeper_request", default=False)
log: Final = logging.getLogger("sweeper.comfy.http")


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return not _is_ours.get()


@contextlib.contextmanager
def mute_libraries() -> Iterator[None]:
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


for _name in _LOGGERS:  # a logger's own filters drop a record before any handler sees it, also those of its parents
    logging.getLogger(_name).addFilter(_is_not_ours)
