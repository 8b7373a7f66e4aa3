"""Numbers as YAML 1.2 writes them (core schema, yaml.org/spec/1.2.2, section 10.3)."""

from __future__ import annotations

import math
import re
from typing import Final

_MAX_DIGITS: Final = 4000  # CPython refuses to convert longer integers (sys.set_int_max_str_digits)
_MAX_BITS: Final = 13_000  # the same limit for octal and hexadecimal integers
_MAX_SHOWN: Final = 40  # characters of a number in a message
TOO_LARGE: Final = "is too large for a number; a finite number is needed"

_INT = re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


def parse_number(text: str) -> int | float | None:
    """Parse a YAML 1.2 number such as `12`, `0x1F` or `1e-3`. Return None for any other text (`1_000`, `.inf`).

    Raises ValueError if the number has more digits, or is a larger float, than Python can hold.
    """
    if _INT.match(text):
        if len(text) <= _MAX_DIGITS:
            number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if number.bit_length() <= _MAX_BITS or text[:2] not in ("0o", "0x"):
                return number
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    if not _FLOAT.match(text):
        return None
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{shorten_number(text)} {TOO_LARGE}")
    return value


def shorten_number(number: str) -> str:
    """Cut the digits of a number to what a message can show."""
    return number if len(number) <= _MAX_SHOWN else number[:_MAX_SHOWN] + "..."
