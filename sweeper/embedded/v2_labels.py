"""The labels of jobs in API v2: what a deployment accepts as `metadata`, and as a filter of its list.

The rules are those that the documentation of comfy-sdk 0.5 states.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sweeper.embedded.http_helpers import refuse_as

MAX_LABELS = 16  # of a job
MAX_FILTERS = 3  # of a list
_MAX_VALUE_BYTES = 256
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # control and bidirectional characters


def read_labels(value: Any) -> dict[str, str]:
    """Read the `metadata` of a submission. Raises RequestRefusedError with `metadata_invalid`."""
    if not isinstance(value, dict):
        raise refuse_as(422, "metadata_invalid", "'metadata' must be an object of texts.")
    if len(value) > MAX_LABELS:
        raise refuse_as(422, "metadata_invalid", f"'metadata' has {len(value)} labels; {MAX_LABELS} are allowed.")
    for key, text in value.items():
        if not _is_label(key, text):
            raise refuse_as(422, "metadata_invalid", f"The label {key!r} breaks the rules for keys or values.")
    return value


def read_filters(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Read the parameters `metadata[KEY]=VALUE` of a list. Raises RequestRefusedError."""
    filters = {match[1]: text for name, text in query if (match := _FILTER.fullmatch(name))}
    if len(filters) > MAX_FILTERS or not all(_is_label(key, text) for key, text in filters.items()):
        raise refuse_as(422, "invalid_metadata_filter", f"At most {MAX_FILTERS} valid labels can be asked for.")
    return filters


def _is_label(key: str, text: Any) -> bool:
    return (
        _KEY.fullmatch(key) is not None
        and isinstance(text, str)
        and len(text.encode("utf-8", "surrogatepass")) <= _MAX_VALUE_BYTES
        and not _FORBIDDEN.search(text)
    )
