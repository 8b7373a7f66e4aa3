"""Download one output: streamed, hashed, checked, and resumed after a dropped connection.

A redirect to a storage host is followed without the key. `sweeper.store.artifacts` names and stores the files.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

import httpx

from sweeper.comfy.protocol import JobOutput, ServerResponse, raise_for_status
from sweeper.comfy.transport import (
    COMPRESSED_FILE_BYTES,
    FILE_BYTES,
    FILE_SECONDS,
    format_bytes,
    is_compressed,
    iter_body,
    read_answer,
)
from sweeper.errors import LostError, TransientError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient

_REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)
_MAX_REDIRECTS: Final = 6
# A gateway may send such a page with status 200 in place of a picture. ComfyUI never does.
_ERROR_PAGE_TYPES: Final = re.compile(r"(text/html|application/json)\b", re.IGNORECASE)
_MIN_PROGRESS: Final = 64 * 1024  # bytes that a try must bring for the tries to be counted anew
_TEXT_SUFFIXES: Final = re.compile(r"\.(html?|json|gltf|txt|md)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """A received file: its hash, its size in bytes, and the server's Content-Type (empty if missing)."""

    sha256: str
    bytes: int
    content_type: str


class Receiver(Protocol):
    """Takes the bytes of a file, in order. Its OSErrors reach the caller of `download`."""

    def write(self, chunk: bytes, /) -> Any: ...
    def restart(self) -> Any:
        """Discard the bytes received so far."""


@dataclass(slots=True)
class _PartialFile:
    file: Receiver
    hash: Any = field(default_factory=hashlib.sha256)
    received: int = 0
    validator: str | None = None  # the ETag, so that only the same file is resumed
    is_too_large: bool = False  # so another try cannot help

    def restart(self) -> None:
        if self.received:
            self.file.restart()
        self.hash, self.received, self.validator = hashlib.sha256(), 0, None

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.hash.update(chunk)
        self.received += len(chunk)

    def range_headers(self) -> dict[str, str]:
        if not self.received or self.validator is None:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}


async def download(client: ComfyClient, output: JobOutput, file: Receiver) -> DownloadResult:
    """Download one output of a job into `file`, with retries.

    Every try asks for a new signed URL, so an expired one (403) does no harm. Raises LostError if the server no longer
    has the file, TransientError after the last try, and OSError if `file` cannot be written.
    """
    if output.content is not None:
        file.write(output.content)
        return DownloadResult(hashlib.sha256(output.content).hexdigest(), len(output.content), "")
    try:
        async with asyncio.timeout(FILE_SECONDS) as deadline:
            return await _download_with_retries(client, output, _PartialFile(file))
    except TimeoutError:
        if not deadline.expired():
            raise
        raise TransientError(f"{output.filename}: not complete after {FILE_SECONDS:g} s") from None


async def _download_with_retries(client: ComfyClient, output: JobOutput, partial: _PartialFile) -> DownloadResult:
    policy, clock = client.retry_policy, asyncio.get_running_loop().time
    waits, give_up_at = policy.draw_waits(client.random), clock() + policy.idle_seconds
    while True:
        before = partial.received
        try:
            return await _download_once(client, output, partial)
        except TransientError as error:
            # Progress, so a connection that drops every megabyte gets there in the end. A few bytes are none.
            if partial.received >= before + _MIN_PROGRESS:
                waits, give_up_at = policy.draw_waits(client.random), clock() + policy.idle_seconds
            wait = None if partial.is_too_large else next(waits, None)
            if wait is None or clock() >= give_up_at:
                raise TransientError(f"{output.filename}: {error}") from None
            left = min(policy.max_retry_after, give_up_at - clock())
            await client.retry_waiter.wait(wait, error.retry_after, str(error), max_retry_after=left)


async def _download_once(client: ComfyClient, output: JobOutput, partial: _PartialFile) -> DownloadResult:
    if not partial.range_headers():
        partial.restart()
    response = await _open_through_redirects(client, output, partial)
    try:
        return await _receive_response(client, response, output, partial)
    except httpx.HTTPError as error:
        raise TransientError(
            f"the connection dropped after {partial.received} bytes ({type(error).__name__})"
        ) from None
    finally:
        await response.aclose()


async def _open_through_redirects(client: ComfyClient, output: JobOutput, partial: _PartialFile) -> httpx.Response:
    """Request an output and follow its redirects. Only the first request carries the key."""
    if output.url:
        location = _check_location(client, output, output.url)
        response = await client.open_without_key(location, partial.range_headers())
    else:
        response = await client.open_output(output, partial.range_headers())
    for _ in range(_MAX_REDIRECTS):
        if response.status_code not in _REDIRECT_STATUSES:
            break
        await response.aclose()
        location = _check_location(client, output, response.headers.get("location", ""), str(response.url))
        response = await client.open_without_key(location, partial.range_headers())
        if response.status_code == 403:
            await response.aclose()
            raise TransientError("the signed URL has expired")
    if response.status_code in _REDIRECT_STATUSES:
        await response.aclose()
        raise TransientError(f"the server redirects more than {_MAX_REDIRECTS} times")
    return response


def _check_location(client: ComfyClient, output: JobOutput, location: str, base: str = "") -> str:
    """The URL of a file elsewhere. Raises LostError if it contains our key, TransientError if it is not an http(s) URL.

    Of an output with a URL, it must be https, unless the target itself is not.
    """
    try:
        location = urljoin(base, location)
        parts = urlsplit(location)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise TransientError("the server redirects to a URL that is not http(s)")
    if output.url and parts.scheme != "https" and client.target.url.startswith("https:"):
        raise LostError(f"the server names a URL that is not https, so {output.filename!r} is not downloaded")
    if client.redact_text(location) != location:
        raise LostError(f"the server redirects to a URL that contains our key; {output.filename!r} is not downloaded")
    return location


async def _receive_response(
    client: ComfyClient, response: httpx.Response, output: JobOutput, partial: _PartialFile
) -> DownloadResult:
    status = response.status_code
    if status == 416:  # the received part is longer than the server's file
        partial.restart()
        raise TransientError("the server cannot resume this file")
    if status not in (200, 206):
        body = await read_answer(response, client.retry_policy.stall_seconds)
        if status in (400, 403, 404, 410):  # ComfyUI: 400 invalid name, 403 outside its folders, 404 missing
            raise LostError(f"the server does not serve the file {output.filename!r} (HTTP {status})")
        raise_for_status(ServerResponse(status, response.headers, client.redact(body)[:4000]))
        raise TransientError(f"HTTP {status} where a file was expected")
    if status == 206 and not response.headers.get("content-range", "").startswith(f"bytes {partial.received}-"):
        partial.restart()
        raise TransientError("the server resumed at the wrong byte")
    kind = response.headers.get("content-type", "")
    if _ERROR_PAGE_TYPES.match(kind) and not _TEXT_SUFFIXES.search(output.filename):
        raise TransientError(f"{client.redact_text(kind)} where a file was expected")
    if status == 200:
        partial.restart()
    max_bytes = client.target.max_file_bytes or FILE_BYTES
    await _read_body(response, partial, max_bytes, client.retry_policy.stall_seconds)
    return DownloadResult(partial.hash.hexdigest(), partial.received, kind)


async def _read_body(response: httpx.Response, partial: _PartialFile, max_bytes: int, stall_seconds: float) -> None:
    """Read the body to its end. Raises TransientError if it is too short, httpx.HTTPError if the connection drops."""
    etag = response.headers.get("etag")
    partial.validator = etag if etag and not etag.startswith("W/") else None  # of If-Range (RFC 9110, 13.1.5)
    length, expected = response.headers.get("content-length", ""), None
    if is_compressed(response):  # although we asked not to: the length does not apply, and a part cannot be resumed
        partial.restart()
        max_bytes = min(max_bytes, COMPRESSED_FILE_BYTES)
    elif re.fullmatch("[0-9]{1,18}", length):
        expected = partial.received + int(length)
    if expected is None or expected <= max_bytes:
        async for chunk in iter_body(response, max_bytes, stall_seconds):
            if partial.received + len(chunk) > max_bytes:
                break
            partial.write(chunk)
        else:
            if expected is not None and partial.received != expected:
                raise TransientError(f"received {partial.received} of {expected} bytes")
            return
    partial.is_too_large = True
    raise TransientError(
        f"the file is larger than {format_bytes(max_bytes)}, the most that sweeper downloads; "
        "if you trust the server, set `max_download_gb` for this target in your own targets file"
    )
