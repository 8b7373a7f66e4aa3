"""Send a request and read its answer within limits: size, time, and progress.

A server is not trusted. It may send without end, expand a few bytes into gigabytes, or send one byte every few seconds.
An answer that makes no progress for `stall_seconds` counts as no answer: its header has to be complete in that time
after the last part of the request left, and its body must bring `MIN_RATE` on average. Each limit is far above what
ComfyUI or Comfy Cloud needs. An answer beyond a limit is a TransientError, so the caller retries it and no paid job is
given up.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final

import httpx

from sweeper.errors import TransientError, Trouble

# Bytes of an answer that is not a file. The largest honest one is /object_info, with 2 to 20 MB.
ANSWER_BYTES: Final = 64 * 2**20
# Seconds for the body of an answer: /object_info with 20 MB takes this long at 0.5 Mbit/s.
ANSWER_SECONDS: Final = 300.0
# Seconds until the header of an answer is complete: the timeouts for a free connection and for connecting (see
# `client.TIMEOUT`), and some more. An upload gets the time that it needs at `UPLOAD_RATE` in addition.
HEADER_SECONDS: Final = 200.0
UPLOAD_RATE: Final = 16 * 1024  # bytes per second
_SENT_PIECE: Final = 16 * 1024  # bytes of a request that the server has to take within `stall_seconds`
# Bytes of one artifact: an hour of film in high quality. `max_download_gb` in your targets file sets another limit.
FILE_BYTES: Final = 16 * 2**30
# Bytes of an artifact that the server compressed although we asked it not to: only text shrinks, and no text is longer.
COMPRESSED_FILE_BYTES: Final = 2**30
# Seconds for one artifact with all retries: 16 GiB take this long at 6 Mbit/s.
FILE_SECONDS: Final = 6 * 3600.0
# Bytes per second that a body must bring, on average over `stall_seconds`. A slow telephone line has ten times as much.
MIN_RATE: Final = 1024
_PIECE_BYTES: Final = 2**20  # how much of a compressed body is expanded at once


async def send(http: httpx.AsyncClient, request: httpx.Request, stall_seconds: float) -> httpx.Response:
    """Send a request, and return when the header of its answer is complete. The caller reads and closes the answer.

    Raises TransientError if that makes no progress or takes too long, and httpx.HTTPError if the connection drops.
    """
    clock, began_at = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
    latest = began_at + HEADER_SECONDS + int(request.headers.get("content-length", 0)) / UPLOAD_RATE
    try:
        async with asyncio.timeout_at(latest) as deadline:
            stalls_at = partial(min, latest)
            assert isinstance(request.stream, httpx.AsyncByteStream)
            request.stream = _SentBody(request.stream, lambda: deadline.reschedule(stalls_at(clock() + stall_seconds)))
            return await http.send(request, stream=True)
    except TimeoutError:
        message = f"no complete answer header after {clock() - began_at:.0f} s"
        raise TransientError(message, trouble=Trouble.TIMEOUT) from None


class _SentBody(httpx.AsyncByteStream):
    """The body of a request. Calls `renew` when the header has left, and whenever the server has taken a piece."""

    def __init__(self, stream: httpx.AsyncByteStream, renew: Callable[[], None]) -> None:
        self._stream = stream
        self._renew = renew

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._renew()
        async for chunk in self._stream:
            for start in range(0, len(chunk), _SENT_PIECE):
                yield chunk[start : start + _SENT_PIECE]
                self._renew()


async def read_answer(response: httpx.Response, stall_seconds: float) -> bytes:
    """Read the body of an answer that is not a file, and close the response.

    Raises TransientError beyond a limit, and httpx.HTTPError if the connection drops.
    """
    content = bytearray()  # a list of pieces would take fifty times the memory if the server sends single bytes
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for piece in iter_body(response, ANSWER_BYTES, stall_seconds):
                content += piece
    except TimeoutError:
        message = f"the answer was not complete after {ANSWER_SECONDS:g} s"
        raise TransientError(message, trouble=Trouble.TIMEOUT) from None
    finally:
        await response.aclose()
    return bytes(content)


async def iter_body(response: httpx.Response, max_bytes: int, stall_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body, expanded if it is compressed. The caller closes the response.

    Raises TransientError after a piece with which it is longer than `max_bytes`, or if it is too
    slow, cut off or in an unknown encoding. Raises httpx.HTTPError if the connection drops.
    """
    expand, is_complete = _make_decoder(response.headers.get("content-encoding", ""))
    raw_bytes = total_bytes = 0
    async for chunk in _iter_chunks(response, stall_seconds):
        raw_bytes += len(chunk)
        for piece in expand(chunk):
            total_bytes += len(piece)
            yield piece
            if max(raw_bytes, total_bytes) > max_bytes:
                message = f"the answer is larger than {format_bytes(max_bytes)}, which sweeper does not accept"
                raise TransientError(message)
    if not is_complete():
        raise TransientError("the compressed answer is cut off", trouble=Trouble.DROPPED)


async def _iter_chunks(response: httpx.Response, stall_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises TransientError if we wait `stall_seconds` for less than the minimum rate.

    Only the waiting counts, and not what the caller does with a chunk, such as writing it to a slow disk.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)
    clock = asyncio.get_running_loop().time
    chunks = aiter(response.stream)
    waited, received = 0.0, 0
    while True:
        began_at = clock()
        try:
            async with asyncio.timeout(stall_seconds - waited):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"the server sends too slowly: {received} bytes in {stall_seconds:g} s"
            raise TransientError(message, trouble=Trouble.TIMEOUT) from None
        waited, received = waited + clock() - began_at, received + len(chunk)
        if received >= MIN_RATE * stall_seconds:
            waited, received = 0.0, 0
        yield chunk


def format_bytes(count: int) -> str:
    """A size for a message, such as `64 MB`."""
    unit, name = next(
        (unit for unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")) if count >= unit[0]), (1, "bytes")
    )
    return f"{count / unit:g} {name}"


def is_compressed(response: httpx.Response) -> bool:
    """Whether the body has a Content-Encoding, although we ask for none."""
    return response.headers.get("content-encoding", "identity").strip().casefold() not in ("", "identity")


def _make_decoder(encoding: str) -> tuple[Callable[[bytes], Iterator[bytes]], Callable[[], bool]]:
    """A function that expands a chunk in pieces, and one that says whether the body was complete.

    httpx expands a whole chunk at once, several times if the header names several encodings, without any limit.
    """
    encoding = encoding.strip().casefold()
    if encoding in ("", "identity"):
        return lambda chunk: iter((chunk,)), lambda: True
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise TransientError(f"the server compresses its answer ({encoding[:40]!r}), although sweeper asks it not to")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # with the header of gzip or of zlib

    def expand(chunk: bytes) -> Iterator[bytes]:
        while not decoder.eof:
            try:
                piece = decoder.decompress(chunk, _PIECE_BYTES)
            except zlib.error:
                raise TransientError("the compressed answer is damaged", trouble=Trouble.DROPPED) from None
            yield piece
            chunk = decoder.unconsumed_tail
            if not chunk and len(piece) < _PIECE_BYTES:
                return

    return expand, lambda: decoder.eof
