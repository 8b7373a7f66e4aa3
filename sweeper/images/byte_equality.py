"""Compare two files byte by byte, apart from a PNG's text chunks, without holding either in memory."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from sweeper.errors import ImageError
from sweeper.images.decoding import read_bytes

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into tEXt
_IEND_CHUNK: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, equal in every PNG
_CHECKSUM_SIZE: Final = 8  # bytes at the end of the pixels
_BUFFER_SIZE: Final = 256 * 1024  # bytes; measured: two buffers fit a core's cache, and few calls are needed
_HEAD_SIZE: Final = 4096  # bytes; in most PNGs the pixels begin before


@dataclass(frozen=True, slots=True)
class ByteEquality:
    """Whether two files are `equal` apart from a PNG's text, or completely `identical`.

    If they are equal, `size` is that of the first file in bytes, and `checksums` are its `png_checksums`; empty if a
    text chunk follows the pixels.
    """

    equal: bool
    identical: bool = False
    size: int = 0
    checksums: bytes = b""


_DIFFERENT: Final = ByteEquality(equal=False)


class _Buffers(threading.local):
    """Two buffers for each thread. Allocating new ones, page by page, would cost as much as reading."""

    def __init__(self) -> None:
        self.this, self.other = bytearray(_BUFFER_SIZE), bytearray(_BUFFER_SIZE)


_BUFFERS: Final = _Buffers()


def has_same_bytes(a: Path | str, b: Path | str) -> bool:
    """Whether two files of any type are equal byte for byte, apart from the text chunks of a PNG.

    ComfyUI writes the workflow into these chunks. Raises ImageError if a file cannot be read.
    """
    return compare_bytes(a, b).equal


def compare_bytes(a: Path | str, b: Path | str) -> ByteEquality:
    """Compare two files by reading each once. Raises ImageError if one cannot be read."""
    try:
        # Not `Path.open`: for small files most of the time goes into calls, here and below.
        with FileIO(a) as this, FileIO(b) as other:
            first, second = _read_head(this), _read_head(other)
            if first.head == second.head and _is_same_rest(this, first, other, second):
                wholly = first.prefix == second.prefix
                return ByteEquality(equal=True, identical=wholly, size=first.size, checksums=first.checksums)
            if not (first.png and second.png):
                return _DIFFERENT
    except OSError as error:
        raise ImageError(f"{error.filename or a}: cannot be read: {error.strerror or error}") from error
    left, right = read_bytes(Path(a)), read_bytes(Path(b))  # text chunks may follow the pixels too
    return (
        ByteEquality(equal=True, identical=left == right, size=len(left))
        if _is_same_without_text(left, right)
        else _DIFFERENT
    )


def png_checksums(data: bytes) -> bytes:
    """The checksums at the end of a PNG's pixels: the Adler-32 of all of them, and the CRC-32 of the last IDAT chunk.

    Two files with equal checksums and equal size hold the same picture, except for forgeries. Empty if another chunk
    follows the pixels, and for any other file.
    """
    if not (data.startswith(_PNG) and data.endswith(_IEND_CHUNK)):
        return b""
    offset, kind, last = len(_PNG), b"", len(data) - len(_IEND_CHUNK)
    while offset < last:
        kind, offset = data[offset + 4 : offset + 8], offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
    return data[last - _CHECKSUM_SIZE : last] if kind == b"IDAT" and offset == last else b""


@dataclass(frozen=True, slots=True)
class _PngHead:
    """The beginning of a file: `prefix` is everything before a PNG's first IDAT chunk, and `head` is that without text.

    Both are empty for any other file, and for a PNG that is truncated or has data after its end.
    """

    size: int
    png: bool = False
    prefix: bytes = b""
    head: bytes = b""
    checksums: bytes = b""


def _read_head(file: FileIO) -> _PngHead:
    size = os.fstat(file.fileno()).st_size
    data = file.read(_HEAD_SIZE)
    if not data.startswith(_PNG):
        return _PngHead(size)
    if size <= len(_PNG) + len(_IEND_CHUNK) + _CHECKSUM_SIZE:
        return _PngHead(size, png=True)
    file.seek(size - len(_IEND_CHUNK) - _CHECKSUM_SIZE)
    last = file.read(_CHECKSUM_SIZE + len(_IEND_CHUNK))
    head, offset = _PNG, len(_PNG)
    while last.endswith(_IEND_CHUNK) and offset + 12 <= size:
        if offset + 8 > len(data):
            data = _read_until(file, data, offset + 8)
        kind, end = (
            data[offset + 4 : offset + 8],
            offset + 12 + int.from_bytes(data[offset : offset + 4], "big"),
        )  # type, data, checksum
        if kind == b"IDAT":
            return _PngHead(size, png=True, prefix=data[:offset], head=head, checksums=last[:_CHECKSUM_SIZE])
        if end > size:
            break
        if kind not in _TEXT_CHUNKS:
            data = _read_until(file, data, end)
            head += data[offset:end]
        offset = end
    return _PngHead(size, png=True)


def _read_until(file: FileIO, data: bytes, end: int) -> bytes:
    """Extend `data`, the part of the file that is read already, to at least `end` bytes, or to the end of the file."""
    if end > len(data):
        file.seek(len(data))
    while end > len(data):
        more = file.read(max(end - len(data), len(data)))  # twice as much each time, because there may be many chunks
        if not more:
            break
        data += more
    return data


def _is_same_rest(this: FileIO, first: _PngHead, other: FileIO, second: _PngHead) -> bool:
    start, start_2 = len(first.prefix), len(second.prefix)
    if first.size - start != second.size - start_2:
        return False
    this.seek(start)
    other.seek(start_2)
    buffers = _BUFFERS
    here, there = buffers.this, buffers.other
    filled = False  # whether both buffers hold only data of these files; what an earlier reading left is equal then
    while True:
        count, count_2 = this.readinto(here), other.readinto(there)
        if count == count_2 == 0:
            return True
        filled = filled or count == _BUFFER_SIZE
        # Compare whole buffers if possible, because a slice is a copy for which the system must allocate memory.
        if count != count_2 or (here != there if filled else here[:count] != there[:count]):
            return False


def _is_same_without_text(a: bytes, b: bytes) -> bool:
    parts_a, parts_b = strip_text_chunks(a), strip_text_chunks(b)
    if sum(map(len, parts_a)) != sum(map(len, parts_b)):  # this nearly always decides, without a copy
        return False
    return b"".join(parts_a) == b"".join(parts_b)


def strip_text_chunks(data: bytes) -> list[memoryview]:
    """The parts of a PNG between its text chunks (PNG specification, 11.3.4). Any other file is a single part.

    So is a PNG with invalid chunks, which is therefore equal only to identical bytes.
    """
    view = memoryview(data)
    if not data.startswith(_PNG):
        return [view]
    parts, part_start, offset = [], 0, len(_PNG)
    while offset + 12 <= len(data):
        end = offset + 12 + int.from_bytes(view[offset : offset + 4], "big")  # length, type, data, checksum
        if end > len(data):
            return [view]
        if bytes(view[offset + 4 : offset + 8]) in _TEXT_CHUNKS:
            parts.append(view[part_start:offset])
            part_start = end
        offset = end
    return [part for part in (*parts, view[part_start:]) if len(part)]
