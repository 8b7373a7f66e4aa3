"""Download one output: streamed, hashed, checked, and resumed after a dropped connection.

A redirect to a storage host is followed without the key. `sweeper.store.artifacts` names and stores the files.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urljoin

import httpx

from sweeper.comfy.protocol import ServerResponse, raise_for_status
from sweeper.errors import LostError, TransientError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.http_client import ResponseStream
    from sweeper.comfy.protocol import JobOutput

_REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)
# A gateway may send such a page with status 200 in place of a picture. ComfyUI never does.
_ERROR_PAGE_TYPES: Final = re.compile(r"(text/html|application/json)\b", re.IGNORECASE)
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
    """The received part of a file, and what is needed to resume the transfer."""

    file: Receiver
    hash: Any = field(default_factory=hashlib.sha256)
    received: int = 0
    validator: str | None = None  # the ETag, so that only the same file is resumed

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
    partial = _PartialFile(file)
    waits = client.retry_policy.draw_waits(client.random)
    while True:
        before = partial.received
        try:
            return await _download_once(client, output, partial)
        except TransientError as error:
            if partial.received > before:  # progress, so a connection that drops every megabyte gets there in the end
                waits = client.retry_policy.draw_waits(client.random)
            wait = next(waits, None)
            if wait is None:
                raise TransientError(f"{output.filename}: {error}") from None
            await client.retry_waiter.wait(
                wait, error.retry_after, str(error), max_retry_after=client.retry_policy.max_retry_after
            )


async def _download_once(client: ComfyClient, output: JobOutput, partial: _PartialFile) -> DownloadResult:
    if not partial.range_headers():
        partial.restart()
    response = await client.open_output(output, partial.range_headers())
    if response.status in _REDIRECT_STATUSES:
        await response.close()
        try:
            location = urljoin(response.url, response.headers.get("location", ""))
        except ValueError:
            location = ""
        if not location.startswith(("http://", "https://")):
            raise TransientError("the server redirects to a URL that is not http(s)")
        if client.redact_text(location) != location:
            raise LostError(
                f"the server redirects to a URL that contains our key; {output.filename!r} is not downloaded"
            )
        response = await client.open_without_key(location, partial.range_headers())
        if response.status == 403:
            await response.close()
            raise TransientError("the signed URL has expired")
    try:
        return await _receive_response(client, response, output, partial)
    except httpx.HTTPError as error:
        raise TransientError(
            f"the connection dropped after {partial.received} bytes ({type(error).__name__})"
        ) from None
    finally:
        await response.close()


async def _receive_response(
    client: ComfyClient, response: ResponseStream, output: JobOutput, partial: _PartialFile
) -> DownloadResult:
    status = response.status
    if status == 416:  # the received part is longer than the server's file
        partial.restart()
        raise TransientError("the server cannot resume this file")
    if status not in (200, 206):
        body = await response.read()
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
    await _read_body(response, partial)
    return DownloadResult(partial.hash.hexdigest(), partial.received, kind)


async def _read_body(response: ResponseStream, partial: _PartialFile) -> None:
    """Read the body to its end. Raises TransientError if it is too short, httpx.HTTPError if the connection drops."""
    partial.validator = _strong_validator(response.headers.get("etag"))
    if response.headers.get("content-encoding", "identity") == "identity":
        length = response.headers.get("content-length")
        expected = partial.received + int(length) if length is not None and length.isdigit() else None
        async for chunk in response.aiter_raw():
            partial.write(chunk)
        if expected is not None and partial.received != expected:
            raise TransientError(f"received {partial.received} of {expected} bytes")
    else:  # compressed although we asked not to: the length does not apply, and a part cannot be resumed
        partial.restart()
        async for chunk in response.aiter_bytes():
            partial.write(chunk)


def _strong_validator(etag: str | None) -> str | None:
    """The ETag if it is strong; If-Range takes no other (RFC 9110, 13.1.5)."""
    return etag if etag and not etag.startswith("W/") else None
