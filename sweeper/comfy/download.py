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

from sweeper.comfy.protocol import Reply, demand
from sweeper.errors import LostError, TransientError

if TYPE_CHECKING:
    from sweeper.comfy.client import ComfyClient
    from sweeper.comfy.http_client import Stream
    from sweeper.comfy.protocol import Output

_REDIRECTS: Final = (301, 302, 303, 307, 308)
# What a gateway says with 200 in place of a picture. ComfyUI never sends a page as one (COMFYUI_BEHAVIOUR.md 3.5).
_PAGE: Final = re.compile(r"(text/html|application/json)\b", re.IGNORECASE)
_TEXT: Final = re.compile(r"\.(html?|json|gltf|txt|md)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
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
class _Sink:
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

    def headers(self) -> dict[str, str]:
        if not self.received or self.validator is None:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}


async def fetch(client: ComfyClient, output: Output, file: Receiver) -> Fetched:
    """Bring one output of a job into `file`.

    A signed address is asked for anew at every try, so one that expired (403) is no matter. Raises LostError when the
    server no longer has the file, TransientError when patience is over, OSError when our disk says no.
    """
    sink = _Sink(file)
    waits = client.patience.waits(client.random)
    while True:
        before = sink.received
        try:
            return await _try(client, output, sink)
        except TransientError as error:
            if sink.received > before:  # a connection that drops every megabyte still gets there
                waits = client.patience.waits(client.random)
            wait = next(waits, None)
            if wait is None:
                raise TransientError(f"{output.filename}: {error}") from None
            await client.pauses.pause(wait, error.retry_after, str(error), longest=client.patience.asked)


async def _try(client: ComfyClient, output: Output, sink: _Sink) -> Fetched:
    if not sink.headers():
        sink.restart()
    response = await client.open(output, sink.headers())
    if response.status in _REDIRECTS:
        await response.close()
        try:
            location = urljoin(response.url, response.headers.get("location", ""))
        except ValueError:
            location = ""
        if not location.startswith(("http://", "https://")):
            raise TransientError("the server redirects to an address that is not http")
        if client.clean_text(location) != location:
            raise LostError(
                f"the server redirects to an address that holds our key; {output.filename!r} is not fetched"
            )
        response = await client.open_elsewhere(location, sink.headers())
        if response.status == 403:
            await response.close()
            raise TransientError("the signed address is no longer valid")
    try:
        return await _receive(client, response, output, sink)
    except httpx.HTTPError as error:
        raise TransientError(f"the transfer broke off after {sink.received} bytes ({type(error).__name__})") from None
    finally:
        await response.close()


async def _receive(client: ComfyClient, response: Stream, output: Output, sink: _Sink) -> Fetched:
    status = response.status
    if status == 416:  # what we hold is not the beginning of what the server has
        sink.restart()
        raise TransientError("the server cannot resume this file")
    if status not in (200, 206):
        body = await response.read()
        if status in (400, 403, 404, 410):  # 403: a path out of the server's folders (COMFYUI_BEHAVIOUR.md 3.5)
            raise LostError(f"the server does not give out the file {output.filename!r} (HTTP {status})")
        demand(Reply(status, response.headers, client.clean(body)[:4000]))
        raise TransientError(f"HTTP {status} where a file was expected")
    if status == 206 and not response.headers.get("content-range", "").startswith(f"bytes {sink.received}-"):
        sink.restart()
        raise TransientError("the server resumed at another place than we asked for")
    kind = response.headers.get("content-type", "")
    if _PAGE.match(kind) and not _TEXT.search(output.filename):
        raise TransientError(f"{client.clean_text(kind)} where a file was expected")
    if status == 200:
        sink.restart()
    await _pour(response, sink)
    return Fetched(sink.hash.hexdigest(), sink.received, kind)


async def _pour(response: Stream, sink: _Sink) -> None:
    """The body into the sink. Raises TransientError where it ends before its length, httpx.HTTPError for a drop."""
    sink.validator = _strong(response.headers.get("etag"))
    if response.headers.get("content-encoding", "identity") == "identity":
        length = response.headers.get("content-length")
        expected = sink.received + int(length) if length is not None and length.isdigit() else None
        async for chunk in response.chunks():
            sink.write(chunk)
        if expected is not None and sink.received != expected:
            raise TransientError(f"{sink.received} bytes came of {expected}")
    else:  # asked not to, but it compressed: then its length says nothing, and a part cannot be resumed
        sink.restart()
        async for chunk in response.decoded():
            sink.write(chunk)


def _strong(etag: str | None) -> str | None:
    """RFC 9110, 13.1.5: only a strong validator may stand in If-Range."""
    return etag if etag and not etag.startswith("W/") else None
