"""Read a server's answer within limits: its size, its time, and a minimum rate.

A server is not trusted. It may send without end, expand a few bytes into gigabytes, or send one byte every few seconds.
Each limit is far above what ComfyUI or Comfy Cloud needs. An answer beyond a limit is a TransientError, so the caller
retries it and no paid job is given up.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import httpx

from sweeper.errors import TransientError, Trouble

# Bytes of an answer that is not a file. The largest honest one is /object_info, with 2 to 20 MB.
ANSWER_BYTES: Final = 64 * 2**20
# Seconds for the body of an answer: /object_info with 20 MB takes this long at 0.5 Mbit/s.
ANSWER_SECONDS: Final = 300.0
# Seconds until the header of an answer is complete: the timeouts for a free connection, for connecting and for the
# first byte (see `client.TIMEOUT`), and some more. An upload gets the time that it needs at `UPLOAD_RATE` in addition.
HEADER_SECONDS: Final = 200.0
UPLOAD_RATE: Final = 16 * 1024  # bytes per second
# Bytes of one artifact: an hour of film in high quality. `max_download_gb` in your targets file sets another limit.
FILE_BYTES: Final = 16 * 2**30
# Bytes of an artifact that the server compressed although we asked it not to: only text shrinks, and no text is longer.
COMPRESSED_FILE_BYTES: Final = 2**30
# Seconds for one artifact with all retries: 16 GiB take this long at 6 Mbit/s.
FILE_SECONDS: Final = 6 * 3600.0
# Bytes per second, on average over each window, that a body must have. A slow telephone line has ten times as much.
MIN_RATE: Final = 1024
RATE_WINDOW: Final = 20.0  # seconds
_PIECE_BYTES: Final = 2**20  # how much of a compressed body is expanded at once


async def read_answer(response: httpx.Response) -> bytes:
    """Read the body of an answer that is not a file, and close the response.

    Raises TransientError beyond a limit, and httpx.HTTPError if the connection drops.
    """
    content = bytearray()  # a list of pieces would take fifty times the memory if the server sends single bytes
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for piece in iter_body(response, ANSWER_BYTES):
                content += piece
    except TimeoutError:
        message = f"the answer was not complete after {ANSWER_SECONDS:g} s"
        raise TransientError(message, trouble=Trouble.TIMEOUT) from None
    finally:
        await response.aclose()
    return bytes(content)


async def iter_body(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body, expanded if it is compressed. The caller closes the response.

    Raises TransientError after a piece with which it is longer than `max_bytes`, or if it is too
    slow, cut off or in an unknown encoding. Raises httpx.HTTPError if the connection drops.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)
    expand, is_complete = _make_decoder(response.headers.get("content-encoding", ""))
    check_rate = _make_rate_check()
    raw_bytes = total_bytes = 0
    async for chunk in response.stream:
        check_rate(len(chunk))
        raw_bytes += len(chunk)
        for piece in expand(chunk):
            total_bytes += len(piece)
            yield piece
            if max(raw_bytes, total_bytes) > max_bytes:
                message = f"the answer is larger than {format_bytes(max_bytes)}, which sweeper does not accept"
                raise TransientError(message)
    if not is_complete():
        raise TransientError("the compressed answer is cut off", trouble=Trouble.DROPPED)


def format_bytes(count: int) -> str:
    """A size for a message, such as `64 MB`."""
    unit, name = next(
        (unit for unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")) if count >= unit[0]), (1, "bytes")
    )
    return f"{count / unit:g} {name}"


def is_compressed(response: httpx.Response) -> bool:
    """Whether the body has a Content-Encoding, although we ask for none."""
    return response.headers.get("content-encoding", "identity").strip().casefold() not in ("", "identity")


def _make_rate_check() -> Callable[[int], None]:
    clock = asyncio.get_running_loop().time
    since, received = clock(), 0

    def check_rate(count: int) -> None:
        nonlocal since, received
        received += count
        seconds = clock() - since
        if seconds < RATE_WINDOW:
            return
        if received < MIN_RATE * seconds:
            raise TransientError(
                f"the server sends too slowly: {received} bytes in {seconds:.0f} s", trouble=Trouble.TIMEOUT
            )
        since, received = clock(), 0

    return check_rate


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
