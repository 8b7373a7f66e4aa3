"""The fields of requests about assets: missing ones and wrong types are 400, unknown names are ignored."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from sweeper.embedded.http_helpers import RequestRefusedError, bad_request, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from sweeper.embedded.request_parsing import Form


async def read_fields(request: Request, known: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    """What of the body's object is known here; some names must be there."""
    fields = await read_object(request)
    missing = [name for name in required if name not in fields]
    if missing:
        raise RequestRefusedError(bad_request(f"Missing: {', '.join(missing)}."))
    return {name: value for name, value in fields.items() if name in known}


def read_text(fields: Mapping[str, Any], name: str) -> str:
    """A string that is not empty."""
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise RequestRefusedError(bad_request(f"{name!r} must be a string."))
    return value


def read_id(fields: Mapping[str, Any], name: str) -> str | None:
    """A UUID in lower case, or None where it is absent or null."""
    value = fields.get(name)
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as problem:
        raise RequestRefusedError(bad_request(f"{name!r} must be a UUID.")) from problem


def read_tags(fields: Mapping[str, Any], minimum: int = 0) -> tuple[str, ...]:
    """A list of tags, each once, in order."""
    value = fields.get("tags")
    if not isinstance(value, list) or len(value) < minimum or not all(isinstance(tag, str) for tag in value):
        raise RequestRefusedError(bad_request(f"'tags' must be a list of strings, {minimum} or more."))
    return tuple(dict.fromkeys(value))


def read_metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`user_metadata`, an object; `{}` where it is absent."""
    value = fields.get("user_metadata", {})
    if not isinstance(value, dict):
        raise RequestRefusedError(bad_request("'user_metadata' must be an object."))
    return value


def read_form_tags(form: Form) -> tuple[str, ...]:
    """The tags of a form: repeated fields, each one tag, several with commas, or a JSON list: clients do all three."""
    tags: list[str] = []
    for text in (value for name, value in form.texts if name in {"tags", "tags[]"}):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        tags += [str(tag) for tag in value] if isinstance(value, list) else [part.strip() for part in text.split(",")]
    return tuple(dict.fromkeys(filter(None, tags)))
