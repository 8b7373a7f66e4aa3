"""Files held against each other as bytes, a PNG's text aside: piece by piece, so that memory holds none of them whole.

What the bytes mean as a picture does not live here.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sweeper.errors import ImageError
from sweeper.images.decoding import read_bytes

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into the first of these
_IEND_CHUNK: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, which is the same in every PNG
_CHECKSUM_SIZE: Final = 8  # bytes: the checksums that end the pixels
_BUFFER_SIZE: Final = 256 * 1024  # bytes, measured: two of them stay in a core's cache, and calls are few
_HEAD_SIZE: Final = 4096  # bytes in which most PNGs' pixels have begun


@dataclass(frozen=True, slots=True)
class ByteEquality:
    """How two files relate as bytes: `equal` but for a PNG's text, or `wholly`. `size` of the first in bytes, `ending`
    its `ending`, both known only where the two are equal, `ending` not where a PNG's text stands behind its pixels.
    """

    equal: bool
    identical: bool = False
    size: int = 0
    checksums: bytes = b""


_DIFFERENT: Final = ByteEquality(equal=False)


class _Buffers(threading.local):
    """Two buffers for each thread: fresh ones come from the system page by page, at the price of the reading."""

    def __init__(self) -> None:
        self.one, self.other = bytearray(_BUFFER_SIZE), bytearray(_BUFFER_SIZE)


_BUFFERS: Final = _Buffers()


def is_same_file(a: Path, b: Path) -> bool:
    """Whether two files are equal byte for byte, the text chunks of a PNG aside. Raises ImageError."""
    return compare_bytes(a, b).equal


def compare_bytes(a: Path | str, b: Path | str) -> ByteEquality:
    """How two files relate as bytes, from one reading of them. Raises ImageError where one cannot be read."""
    try:
        # `open` and not `Path.open`: for small files the calls are what takes the time, here and below.
        with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as other:  # noqa: PTH123
            first, second = _read_head(one), _read_head(other)
            if first.head == second.head and _is_same_rest(one, first, other, second):
                wholly = first.prefix == second.prefix
                return ByteEquality(equal=True, identical=wholly, size=first.size, checksums=first.checksums)
            if not (first.png and second.png):
                return _DIFFERENT
    except OSError as error:
        raise ImageError(f"{error.filename or a}: cannot be read: {error.strerror or error}") from error
    left, right = read_bytes(Path(a)), read_bytes(Path(b))  # text may stand behind the pixels too
    return (
        ByteEquality(equal=True, identical=left == right, size=len(left))
        if _is_same_without_text(left, right)
        else _DIFFERENT
    )


def png_checksums(data: bytes) -> bytes:
    """What ends a PNG's pixels: the Adler-32 of them all, as they were compressed, and the CRC-32 of the last chunk.

    Two pictures that have this and their file's size in common are one, but for a forgery. Empty where anything but
    pixels stands before a PNG's end, and for any other file.
    """
    if not (data.startswith(_PNG) and data.endswith(_IEND_CHUNK)):
        return b""
    at, kind, last = len(_PNG), b"", len(data) - len(_IEND_CHUNK)
    while at < last:
        kind, at = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
    return data[last - _CHECKSUM_SIZE : last] if kind == b"IDAT" and at == last else b""


@dataclass(frozen=True, slots=True)
class _PngHead:
    """A file of which the beginning is read: `before` is all that stands before a PNG's first IDAT chunk, `head` that
    without its text. Both are empty, and nothing is read, for any other file, and for a PNG that breaks off or has
    something behind its end.
    """

    size: int
    png: bool = False
    prefix: bytes = b""
    head: bytes = b""
    checksums: bytes = b""


def _read_head(file: BinaryIO) -> _PngHead:
    size = os.fstat(file.fileno()).st_size
    data = file.read(_HEAD_SIZE)
    if not data.startswith(_PNG):
        return _PngHead(size)
    if size <= len(_PNG) + len(_IEND_CHUNK) + _CHECKSUM_SIZE:
        return _PngHead(size, png=True)
    file.seek(size - len(_IEND_CHUNK) - _CHECKSUM_SIZE)
    last = file.read(_CHECKSUM_SIZE + len(_IEND_CHUNK))
    head, at = _PNG, len(_PNG)
    while last.endswith(_IEND_CHUNK) and at + 12 <= size:
        if at + 8 > len(data):
            data = _read_until(file, data, at + 8)
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")  # type, data, checksum
        if kind == b"IDAT":
            return _PngHead(size, png=True, prefix=data[:at], head=head, checksums=last[:_CHECKSUM_SIZE])
        if end > size:
            break
        if kind not in _TEXT_CHUNKS:
            data = _read_until(file, data, end)
            head += data[at:end]
        at = end
    return _PngHead(size, png=True)


def _read_until(file: BinaryIO, data: bytes, end: int) -> bytes:
    """The file's beginning, `data` of which is read already, at least up to `end` where it goes that far."""
    if end > len(data):
        file.seek(len(data))
    while end > len(data):
        more = file.read(max(end - len(data), len(data)))  # as much again: a file may have any number of chunks
        if not more:
            break
        data += more
    return data


def _is_same_rest(one: BinaryIO, first: _PngHead, other: BinaryIO, second: _PngHead) -> bool:
    start, start_2 = len(first.prefix), len(second.prefix)
    if first.size - start != second.size - start_2:
        return False
    one.seek(start)
    other.seek(start_2)
    pieces = _BUFFERS
    here, there = pieces.one, pieces.other
    settled = False  # whether all that the two hold is of these files, and what the last reading left was equal
    while True:
        count, count_2 = one.readinto(here), other.readinto(there)  # type: ignore[attr-defined]
        if count == count_2 == 0:
            return True
        settled = settled or count == _BUFFER_SIZE
        # A slice is a copy, and its memory comes from the system and goes back there.
        if count != count_2 or (here != there if settled else here[:count] != there[:count]):
            return False


def _is_same_without_text(a: bytes, b: bytes) -> bool:
    parts_a, parts_b = strip_text_chunks(a), strip_text_chunks(b)
    if sum(map(len, parts_a)) != sum(map(len, parts_b)):  # nearly always settles it, without a copy
        return False
    return b"".join(parts_a) == b"".join(parts_b)


def strip_text_chunks(data: bytes) -> list[memoryview]:
    """The file's parts, a PNG's text chunks left out (PNG specification, 11.3.4); anything else is one part.

    A PNG whose chunks do not add up is one part too: only equal bytes make it equal.
    """
    view = memoryview(data)
    if not data.startswith(_PNG):
        return [view]
    parts, kept_from, at = [], 0, len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")  # length, type, data, checksum
        if end > len(data):
            return [view]
        if bytes(view[at + 4 : at + 8]) in _TEXT_CHUNKS:
            parts.append(view[kept_from:at])
            kept_from = end
        at = end
    return [part for part in (*parts, view[kept_from:]) if len(part)]
