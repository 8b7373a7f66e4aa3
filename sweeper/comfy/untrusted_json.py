"""Parse JSON from a server, and write its values in messages. Pure."""

from __future__ import annotations

import reprlib
from typing import Any, Final

from sweeper.model import bounded_json

# ComfyUI nests its answers at most about 30 deep. Python's own limit of 1,000 would stop us only later, when we copy or
# write the value.
_MAX_DEPTH: Final = 200


def parse_json(content: bytes | str) -> Any:
    """Parse JSON as servers write it, who may send NaN. Raises ValueError; see `sweeper.model.bounded_json`."""
    return bounded_json.parse_json(content, max_depth=_MAX_DEPTH, is_strict=False)


def to_text(value: Any) -> str:
    """A value for a message: a text as it is, anything else as Python writes it, with long parts left out."""
    return value if isinstance(value, str) else reprlib.repr(value) if isinstance(value, dict | list) else str(value)
