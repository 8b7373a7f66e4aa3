"""HTTP helpers: limited bodies, strict JSON, forms, query parameters, errors, files with byte ranges.

Routes and their meanings live in the `app_*` and `*_routes` modules.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
import uuid
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from sweeper.model import bounded_json

RouteRow = tuple[str, Callable[..., Any], str]  # path, endpoint, method

MAX_BODY = 104_857_600  # 100 MiB: ComfyUI's default --max-upload-size

# A browser must not run these from our origin, so they are sent as downloads (as in ComfyUI's server.py).
_NEVER_INLINE = frozenset({"text/html", "application/xhtml+xml", "text/javascript", "text/css", "image/svg+xml"})


class RequestRefusedError(Exception):
    """The request is refused with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. ASCII only, because a prompt may contain lone surrogates, which UTF-8 cannot encode."""
    body = json.dumps(data, separators=(",", ":"))
    return Response(body, status, headers, media_type="application/json; charset=utf-8")


async def read_body(request: Request) -> bytes:
    """Read the whole body, decompressed. Raises RequestRefusedError with 413 above `MAX_BODY` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise _make_too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise _make_too_large()
        parts.append(part)
    body = b"".join(parts)
    return _decompress(body) if request.headers.get("content-encoding") in {"gzip", "deflate"} else body


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=47)  # 32 + 15: zlib or gzip, by the header
    try:
        plain = decompressor.decompress(body, MAX_BODY)
    except zlib.error as problem:
        raise refuse_in_text(400, f"Content-Encoding: {problem}") from problem
    if decompressor.unconsumed_tail:
        raise _make_too_large()
    return plain


def _make_too_large() -> RequestRefusedError:
    return refuse_in_text(413, f"Maximum request body size {MAX_BODY} exceeded.", {"connection": "close"})


def parse_json(body: bytes | str) -> Any:
    """Parse strict JSON. Keeps half surrogate pairs, as ComfyUI does. Raises ValueError with the reason."""
    return bounded_json.parse_json(body, keeps_surrogates=True)


async def read_object(request: Request) -> dict[str, Any]:
    """Read a JSON object from the body. Raises RequestRefusedError with 400 for anything else."""
    data = await read_json(request)
    if not isinstance(data, dict):
        raise refuse("The body must be a JSON object.")
    return data


async def read_json(request: Request) -> Any:
    """Read a JSON value from the body. Raises RequestRefusedError with 400 for anything else."""
    body = await read_body(request)
    try:
        return parse_json(body)
    except ValueError as problem:
        raise refuse(f"Invalid JSON: {problem}") from problem


def refuse(message: str) -> RequestRefusedError:
    """Make a refusal with 400 in the form of both dialects: ComfyUI's `error`, and Cloud's `code` and `message`."""
    kind = "invalid_request"
    error = {"type": kind, "message": message, "details": "", "extra_info": {}}
    body = {"error": error, "node_errors": {}, "code": kind, "message": message}
    return RequestRefusedError(json_response(body, 400))


def refuse_as(status: int, code: str, message: str) -> RequestRefusedError:
    """Make a refusal in Cloud's form."""
    return RequestRefusedError(error_response(status, code, message))


def refuse_in_text(status: int, message: str, headers: Mapping[str, str] | None = None) -> RequestRefusedError:
    """Make a refusal in plain text."""
    return RequestRefusedError(Response(message, status, headers, media_type="text/plain"))


def error_response(status: int, code: str, message: str) -> Response:
    """An error response in Cloud's form."""
    return json_response({"code": code, "message": message}, status)


def format_time(milliseconds: int) -> str:
    """Format a time in milliseconds since the epoch as Cloud does: RFC 3339, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def read_integer(request: Request, name: str, default: int | None) -> int | None:
    """Read an integer from the query. Raises RequestRefusedError with 400 for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as problem:
        raise refuse(f"'{name}' must be an integer, not {text!r}.") from problem


def file_response(request: Request, path: Path, *, status: int = 200) -> Response:
    """Send a file with ETag and Last-Modified. Supports one byte range (206, 416) and If-None-Match (304).

    Reads the file on the event loop: outputs are pictures of a few MB, and a thread would cost more than the read.
    """
    stat = path.stat()
    data = path.read_bytes()
    etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {
        "etag": etag,
        "last-modified": formatdate(stat.st_mtime, usegmt=True),
        "accept-ranges": "bytes",
        "content-disposition": f"filename*=UTF-8''{quote(path.name, errors='replace')}",
    }
    if request.headers.get("if-none-match") in {etag, "*"}:
        return Response(status_code=304, headers=headers)
    media = "application/octet-stream" if kind in _NEVER_INLINE else kind
    span = _parse_range(request.headers.get("range"), len(data))
    if span is None:
        return Response(data, status, headers, media_type=media)
    start, stop = span
    if start >= stop:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(data)}"}, media_type=media)
    headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response(data[start:stop], 206, headers, media_type=media)


_RANGE = re.compile("bytes=([0-9]{0,4000})-([0-9]{0,4000})")  # CPython refuses to convert more digits


def _parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse a `bytes=` range to (start, stop). None: no range, send everything; start >= stop: answer 416.

    Follows aiohttp, which ComfyUI uses: several ranges, other units and malformed ranges are 416 too; `-0` is the
    whole file.
    """
    if header is None:
        return None
    match = _RANGE.fullmatch(header)
    if match is None or match.group(0) == "bytes=-":
        return size, size
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        return (max(0, size - (last or size)), size)
    stop = size if last is None else min(size, last + 1)
    return (first, stop) if first < min(stop, size) else (size, size)


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
            value = parse_json(text)
        except ValueError:
            value = None
        tags += [str(tag) for tag in value] if isinstance(value, list) else [part.strip() for part in text.split(",")]
    return tuple(dict.fromkeys(filter(None, tags)))
