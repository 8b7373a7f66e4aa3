"""Parse JSON from a server: bounded in depth and memory, and without half surrogate pairs. Pure."""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any, Final

# ComfyUI nests its answers at most about 30 deep. Python's own limit of 1,000 would stop us only later, when we copy or
# write the value.
_MAX_DEPTH: Final = 200
# Values in one text. /object_info has 200,000; five million take about half a gigabyte.
_MAX_VALUES: Final = 5_000_000
_HALF_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")  # or a whole pair, which an emoji has


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON text with exact big integers. Raises ValueError if it is invalid, too deep or has too many values.

    Half a surrogate pair becomes `?`, because UTF-8 and URLs cannot express it.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    if text.count(",") + text.count("[") + text.count("{") > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES} values")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        _check_depth(value)
    if _HALF_SURROGATE.search(text) or (isinstance(content, str) and not _is_encodable(text)):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(f"more than {_MAX_DEPTH} levels")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_text(value: Any) -> str:
    """A value for a message: a text as it is, anything else as Python writes it, with long parts left out."""
    return value if isinstance(value, str) else reprlib.repr(value) if isinstance(value, dict | list) else str(value)
