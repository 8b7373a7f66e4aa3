"""Parse JSON that a stranger wrote: bounded in depth, memory and digits; and the numbers of YAML 1.2.

`sweeper.loading.parse` parses the user's own files, with the line of every mistake.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from sweeper.model.json_mistakes import TooDeepError, decode_json

MAX_DEPTH: Final = 100  # levels of lists and objects; a workflow has about six
# Values in one text. /object_info has 200,000; five million take about half a gigabyte.
_MAX_VALUES: Final = 5_000_000
_HALF_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")  # or a whole pair, which an emoji has
_MAX_DIGITS: Final = 4300  # CPython refuses to convert longer integers (sys.set_int_max_str_digits)
_MAX_BITS: Final = 13_000  # the same limit for octal and hexadecimal integers
_MAX_SHOWN: Final = 40  # characters of a number in a message
TOO_MANY_DIGITS: Final = f"a number of more than {_MAX_DIGITS} digits"
TOO_LARGE: Final = "is too large for a number; a finite number is needed"
_INT = re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


def parse_json(
    content: bytes | str, *, max_depth: int = MAX_DEPTH, is_strict: bool = True, keeps_surrogates: bool = False
) -> Any:
    """Parse a JSON text with exact big integers. Raises ValueError with the reason if it is invalid or too large.

    `is_strict`: refuse NaN, infinity, and numbers that are too large for a float. Half a surrogate pair becomes `?`,
    because UTF-8, SQLite and URLs cannot express it, unless `keeps_surrogates`.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    if text.count(",") + text.count("[") + text.count("{") > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES:,} values")
    try:
        value = decode_json(text, _decode if is_strict else _decode_loosely, max_depth)
    except TooDeepError:
        raise ValueError(f"nested deeper than {max_depth} levels") from None
    return check_value(value, text, max_depth, keeps_surrogates=keeps_surrogates)


def check_value(value: Any, text: str, max_depth: int = MAX_DEPTH, *, keeps_surrogates: bool = False) -> Any:
    """The value of a JSON text as `parse_json` returns it. Raises ValueError if it is nested too deep."""
    if text.count("[") + text.count("{") > max_depth and is_deeper(value, max_depth):
        raise ValueError(f"nested deeper than {max_depth} levels")
    if keeps_surrogates:
        return value
    if _HALF_SURROGATE.search(text) or not is_encodable(text):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{shorten_number(text)} {TOO_LARGE}")
    return value


def _decode(text: str) -> Any:
    """Without a function for integers, which would take as long as all the rest."""
    try:
        return _decode_fast(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number; if it is an integer, CPython's message says nothing to a user
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=parse_number)


def _decode_loosely(text: str) -> Any:
    """With NaN, infinity, and numbers that are too large for a float."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer; CPython's message says nothing to a user
        raise ValueError(TOO_MANY_DIGITS) from None


_decode_fast: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float).decode


def is_deeper(value: Any, max_depth: int) -> bool:
    """Whether a JSON value has more than `max_depth` levels of lists and mappings."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(max_depth):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can express a text: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_number(text: str) -> int | float | None:
    """Parse a YAML 1.2 number such as `12`, `0x1F` or `1e-3`. Return None for any other text (`1_000`, `.inf`).

    Raises ValueError if the number has more digits, or is a larger float, than Python can hold.
    """
    if _INT.match(text):
        if len(text) <= _MAX_DIGITS:
            number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if number.bit_length() <= _MAX_BITS or text[:2] not in ("0o", "0x"):
                return number
        raise ValueError(TOO_MANY_DIGITS)
    if not _FLOAT.match(text):
        return None
    return _parse_float(text)


def shorten_number(number: str) -> str:
    """Cut the digits of a number to what a message can show."""
    return number if len(number) <= _MAX_SHOWN else number[:_MAX_SHOWN] + "..."
