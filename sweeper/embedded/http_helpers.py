"""HTTP helpers for both dialects and the storage host: limited bodies, strict JSON, errors, files with byte ranges.

Routes and their meanings live in the `app_*` and `*_routes` modules.
"""

from __future__ import annotations

import hashlib
import json
import math
import mimetypes
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

RouteRow = tuple[str, Callable[..., Any], str]  # path, endpoint, method

MAX_BODY = 104_857_600  # 100 MiB: ComfyUI's default --max-upload-size
MAX_DEPTH = 100  # levels of nesting in a JSON body; a workflow has about six

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


def parse_json(body: bytes) -> Any:
    """Parse strict JSON: no NaN or infinity, at most `MAX_DEPTH` levels. Raises ValueError with the reason."""
    try:
        data = json.loads(body, parse_constant=_reject_constant, parse_float=_parse_finite)
    except RecursionError as problem:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from problem
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return data


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


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


_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


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
