"""Read multipart forms, query parameters, and the fields of JSON objects.

All functions raise `RequestRefusedError` with 400 for invalid input, and with 413 for a body above the limit.
"""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sweeper.embedded.http_helpers import parse_json, read_body, read_integer, read_object, refuse

FieldParser = Callable[[str, Any], Any]  # (name, value) -> the checked value
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form with one file, whose name, type and content it holds."""

    texts: list[tuple[str, str]]  # (name, value) in order; a name may appear more than once
    filename: str
    content_type: str
    data: bytes

    def get(self, name: str) -> str | None:
        """The last text field with this name."""
        return next((value for key, value in reversed(self.texts) if key == name), None)


async def read_form(request: Request, field: str) -> Form:
    """Read a form whose file is in the field `field`."""
    body = await read_body(request)  # the whole body, so that the limit holds for forms without Content-Length too

    async def stream_body() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream_body(), max_files=8, max_fields=64).parse()
    except (MultiPartException, ValueError, KeyError) as problem:
        raise refuse(f"Not a multipart form: {problem}") from problem
    try:
        file = form.get(field)
        if not isinstance(file, UploadFile):
            raise refuse(f"The form needs a file field called {field!r}.")
        texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        return Form(texts, file.filename or "", file.content_type or "", await file.read())
    finally:
        await form.close()


def read_choice(request: Request, name: str, choices: tuple[str, ...], default: str) -> str:
    """Read a query parameter that takes one of `choices`."""
    value = request.query_params.get(name, default)
    if value not in choices:
        raise refuse(f"{name!r} takes {', '.join(choices)}, not {value!r}.")
    return value


def read_flag(request: Request, name: str, *, default: bool) -> bool:
    """Read a query parameter that takes `true` or `false`."""
    return read_choice(request, name, ("true", "false"), "true" if default else "false") == "true"


def read_bounded(request: Request, name: str, default: int, minimum: int, maximum: int | None = None) -> int:
    """Read an integer query parameter from `minimum` to `maximum`."""
    number = read_integer(request, name, default)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        bounds = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
        raise refuse(f"{name!r} must be {bounds}.")
    return number


def cut_page(items: Sequence[Item], offset: int, limit: int | None) -> tuple[Sequence[Item], dict[str, Any]]:
    """Cut a page out of a list. Returns (its items, the `pagination` that describes it)."""
    page = items[offset:][:limit]
    more = offset + len(page) < len(items)
    return page, {"offset": offset, "limit": limit, "total": len(items), "has_more": more}


def make_cursor(fields: dict[str, Any]) -> str:
    """Make a cursor of a list: the base64url form of a JSON object, without padding."""
    return urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).decode().rstrip("=")


def parse_cursor(text: str) -> dict[str, Any]:
    """Parse a cursor that `make_cursor` made, or refuse it."""
    try:
        fields = parse_json(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise refuse("'after' is not a cursor; give the 'next_cursor' of a page.")
    return fields


def read_words(request: Request, name: str) -> list[str]:
    """Read a query parameter that takes words separated by commas; it may appear more than once."""
    return [word for text in request.query_params.getlist(name) for word in text.split(",") if word]


async def read_fields(request: Request, parsers: Mapping[str, FieldParser], required: Sequence[str]) -> dict[str, Any]:
    """Read the fields of the body, a JSON object, that have a parser. The `required` ones must be there."""
    fields = await read_object(request)
    missing = [name for name in required if name not in fields]
    if missing:
        raise refuse(f"Missing: {', '.join(missing)}.")
    return {name: parse(name, fields[name]) for name, parse in parsers.items() if name in fields}


def parse_text(name: str, value: Any) -> str:
    """Check a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise refuse(f"{name!r} must be a string.")
    return value


def parse_id(name: str, value: Any) -> str | None:
    """Parse a UUID to lower case; null stays None."""
    try:
        return None if value is None else str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as problem:
        raise refuse(f"{name!r} must be a UUID.") from problem


def parse_tags(name: str, value: Any) -> tuple[str, ...]:
    """Parse a list of strings: in order, without duplicates."""
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise refuse(f"{name!r} must be a list of strings.")
    return tuple(dict.fromkeys(value))


def parse_some_tags(name: str, value: Any) -> tuple[str, ...]:
    """Parse a list of at least one string."""
    tags = parse_tags(name, value)
    if not tags:
        raise refuse(f"{name!r} must have at least one string.")
    return tags


def parse_object(name: str, value: Any) -> dict[str, Any]:
    """Check a JSON object."""
    if not isinstance(value, dict):
        raise refuse(f"{name!r} must be a JSON object.")
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
