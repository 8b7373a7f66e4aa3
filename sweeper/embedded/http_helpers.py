"""HTTP helpers: limited bodies, strict JSON, forms, query parameters, errors, files with byte ranges.

Routes and their meanings live in the `app_*` and `*_routes` modules.
"""

from __future__ import annotations

import json
import mimetypes
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, Response

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


def file_response(path: Path) -> FileResponse:
    """Send a file with ETag and Last-Modified, whole or the byte ranges that the request names."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"content-disposition": f"filename*=UTF-8''{quote(path.name, errors='replace')}"}
    media = "application/octet-stream" if kind in _NEVER_INLINE else kind
    return FileResponse(path, headers=headers, media_type=media)


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
