"""Read the fields of requests about assets.

All functions raise `RequestRefusedError` with 400 for a missing field and for a wrong type. Unknown fields are ignored.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from sweeper.embedded.http_helpers import RequestRefusedError, bad_request, read_object
from sweeper.embedded.request_parsing import Form


async def read_fields(request: Request, allowed: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    """Read the `allowed` fields of the body, a JSON object. The `required` ones must be there."""
    fields = await read_object(request)
    missing = [name for name in required if name not in fields]
    if missing:
        raise RequestRefusedError(bad_request(f"Missing: {', '.join(missing)}."))
    return {name: value for name, value in fields.items() if name in allowed}


def read_text(fields: Mapping[str, Any], name: str) -> str:
    """Read a string that is not empty."""
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise RequestRefusedError(bad_request(f"{name!r} must be a string."))
    return value


def read_id(fields: Mapping[str, Any], name: str) -> str | None:
    """Read a UUID, in lower case. Returns None if the field is missing or null."""
    value = fields.get(name)
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as problem:
        raise RequestRefusedError(bad_request(f"{name!r} must be a UUID.")) from problem


def read_tags(fields: Mapping[str, Any], minimum: int = 0) -> tuple[str, ...]:
    """Read the list `tags`, in order and without duplicates."""
    value = fields.get("tags")
    if not isinstance(value, list) or len(value) < minimum or not all(isinstance(tag, str) for tag in value):
        raise RequestRefusedError(bad_request(f"'tags' must be a list of strings, {minimum} or more."))
    return tuple(dict.fromkeys(value))


def read_metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read the object `user_metadata`. Returns `{}` if it is missing."""
    value = fields.get("user_metadata", {})
    if not isinstance(value, dict):
        raise RequestRefusedError(bad_request("'user_metadata' must be an object."))
    return value


def read_form_tags(form: Form) -> tuple[str, ...]:
    """Read the tags of a form. Clients send repeated fields, and in each one tag, tags with commas, or a JSON list."""
    tags: list[str] = []
    for text in (value for name, value in form.texts if name in {"tags", "tags[]"}):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        tags += [str(tag) for tag in value] if isinstance(value, list) else [part.strip() for part in text.split(",")]
    return tuple(dict.fromkeys(filter(None, tags)))
