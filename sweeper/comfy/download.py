"""Fetching one output: through the redirect without the key, streamed and hashed, checked, resumed after a drop.

The bytes go to whoever receives them; names and places on our disk are `sweeper.store.artifacts`' business.
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
# What a gateway says with 200 in place of a picture. ComfyUI never sends a page as one (COMFYUI_BEHAVIOUR.md 3.5).
_ERROR_PAGE_TYPES: Final = re.compile(r"(text/html|application/json)\b", re.IGNORECASE)
_TEXT_SUFFIXES: Final = re.compile(r"\.(html?|json|gltf|txt|md)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What arrived: its hash, its size, and what the server called its type (empty where it did not)."""

    sha256: str
    bytes: int
    content_type: str


class Receiver(Protocol):
    """Where the bytes of a file go, in order. Its errors are OSErrors, and go to the caller."""

    def write(self, chunk: bytes, /) -> Any: ...
    def restart(self) -> Any:
        """Forget what came so far: the file begins anew."""


@dataclass(slots=True)
class _PartialFile:
    """The part of a file that is here: where it goes, and what a resumed transfer must continue from."""

    file: Receiver
    hash: Any = field(default_factory=hashlib.sha256)
    received: int = 0
    validator: str | None = None  # the ETag: a resumed file must be the same file

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
    """Bring one output of a job into `file`.

    A signed address is asked for anew at every try, so one that expired (403) is no matter. Raises LostError when the
    server no longer has the file, TransientError when patience is over, OSError when our disk says no.
    """
    sink = _PartialFile(file)
    waits = client.retry_policy.draw_waits(client.random)
    while True:
        before = sink.received
        try:
            return await _download_once(client, output, sink)
        except TransientError as error:
            if sink.received > before:  # a connection that drops every megabyte still gets there
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
            raise TransientError("the server redirects to an address that is not http")
        if client.redact_text(location) != location:
            raise LostError(
                f"the server redirects to an address that holds our key; {output.filename!r} is not fetched"
            )
        response = await client.open_without_key(location, partial.range_headers())
        if response.status == 403:
            await response.close()
            raise TransientError("the signed address is no longer valid")
    try:
        return await _receive_response(client, response, output, partial)
    except httpx.HTTPError as error:
        raise TransientError(
            f"the transfer broke off after {partial.received} bytes ({type(error).__name__})"
        ) from None
    finally:
        await response.close()


async def _receive_response(
    client: ComfyClient, response: ResponseStream, output: JobOutput, partial: _PartialFile
) -> DownloadResult:
    status = response.status
    if status == 416:  # what we hold is not the beginning of what the server has
        partial.restart()
        raise TransientError("the server cannot resume this file")
    if status not in (200, 206):
        body = await response.read()
        if status in (400, 403, 404, 410):  # 403: a path out of the server's folders (COMFYUI_BEHAVIOUR.md 3.5)
            raise LostError(f"the server does not give out the file {output.filename!r} (HTTP {status})")
        raise_for_status(ServerResponse(status, response.headers, client.redact(body)[:4000]))
        raise TransientError(f"HTTP {status} where a file was expected")
    if status == 206 and not response.headers.get("content-range", "").startswith(f"bytes {partial.received}-"):
        partial.restart()
        raise TransientError("the server resumed at another place than we asked for")
    kind = response.headers.get("content-type", "")
    if _ERROR_PAGE_TYPES.match(kind) and not _TEXT_SUFFIXES.search(output.filename):
        raise TransientError(f"{client.redact_text(kind)} where a file was expected")
    if status == 200:
        partial.restart()
    await _read_body(response, partial)
    return DownloadResult(partial.hash.hexdigest(), partial.received, kind)


async def _read_body(response: ResponseStream, partial: _PartialFile) -> None:
    """The body into the sink. Raises TransientError where it ends before its length, httpx.HTTPError for a drop."""
    partial.validator = _strong_validator(response.headers.get("etag"))
    if response.headers.get("content-encoding", "identity") == "identity":
        length = response.headers.get("content-length")
        expected = partial.received + int(length) if length is not None and length.isdigit() else None
        async for chunk in response.aiter_raw():
            partial.write(chunk)
        if expected is not None and partial.received != expected:
            raise TransientError(f"{partial.received} bytes came of {expected}")
    else:  # asked not to, but it compressed: then its length says nothing, and a part cannot be resumed
        partial.restart()
        async for chunk in response.aiter_bytes():
            partial.write(chunk)


def _strong_validator(etag: str | None) -> str | None:
    """RFC 9110, 13.1.5: only a strong validator may stand in If-Range."""
    return etag if etag and not etag.startswith("W/") else None
