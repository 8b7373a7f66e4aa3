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
_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into the first of these
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, which is the same in every PNG
_SUMS: Final = 8  # bytes: the checksums that end the pixels
_PIECE: Final = 256 * 1024  # bytes, measured: two of them stay in a core's cache, and calls are few
_FIRST: Final = 4096  # bytes in which most PNGs' pixels have begun


@dataclass(frozen=True, slots=True)
class Sameness:
    """How two files relate as bytes: `equal` but for a PNG's text, or `wholly`. `size` of the first in bytes, `ending`
    its `ending`, both known only where the two are equal, `ending` not where a PNG's text stands behind its pixels.
    """

    equal: bool
    wholly: bool = False
    size: int = 0
    ending: bytes = b""


_OTHER: Final = Sameness(equal=False)


class _Pieces(threading.local):
    """Two buffers for each thread: fresh ones come from the system page by page, at the price of the reading."""

    def __init__(self) -> None:
        self.one, self.other = bytearray(_PIECE), bytearray(_PIECE)


_PIECES: Final = _Pieces()


def same_files(a: Path, b: Path) -> bool:
    """Whether two files are equal byte for byte, the text chunks of a PNG aside. Raises ImageError."""
    return sameness(a, b).equal


def sameness(a: Path | str, b: Path | str) -> Sameness:
    """How two files relate as bytes, from one reading of them. Raises ImageError where one cannot be read."""
    try:
        # `open` and not `Path.open`: for small files the calls are what takes the time, here and below.
        with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as other:  # noqa: PTH123
            first, second = _begun(one), _begun(other)
            if first.head == second.head and _same_rest(one, first, other, second):
                wholly = first.before == second.before
                return Sameness(equal=True, wholly=wholly, size=first.size, ending=first.ending)
            if not (first.png and second.png):
                return _OTHER
    except OSError as error:
        raise ImageError(f"{error.filename or a}: cannot be read: {error.strerror or error}") from error
    left, right = read_bytes(Path(a)), read_bytes(Path(b))  # text may stand behind the pixels too
    return Sameness(equal=True, wholly=left == right, size=len(left)) if _same_without_text(left, right) else _OTHER


def ending(data: bytes) -> bytes:
    """What ends a PNG's pixels: the Adler-32 of them all, as they were compressed, and the CRC-32 of the last chunk.

    Two pictures that have this and their file's size in common are one, but for a forgery. Empty where anything but
    pixels stands before a PNG's end, and for any other file.
    """
    if not (data.startswith(_PNG) and data.endswith(_END)):
        return b""
    at, kind, last = len(_PNG), b"", len(data) - len(_END)
    while at < last:
        kind, at = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
    return data[last - _SUMS : last] if kind == b"IDAT" and at == last else b""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A file of which the beginning is read: `before` is all that stands before a PNG's first IDAT chunk, `head` that
    without its text. Both are empty, and nothing is read, for any other file, and for a PNG that breaks off or has
    something behind its end.
    """

    size: int
    png: bool = False
    before: bytes = b""
    head: bytes = b""
    ending: bytes = b""


def _begun(file: BinaryIO) -> _Begun:
    size = os.fstat(file.fileno()).st_size
    data = file.read(_FIRST)
    if not data.startswith(_PNG):
        return _Begun(size)
    if size <= len(_PNG) + len(_END) + _SUMS:
        return _Begun(size, png=True)
    file.seek(size - len(_END) - _SUMS)
    last = file.read(_SUMS + len(_END))
    head, at = _PNG, len(_PNG)
    while last.endswith(_END) and at + 12 <= size:
        if at + 8 > len(data):
            data = _more(file, data, at + 8)
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")  # type, data, checksum
        if kind == b"IDAT":
            return _Begun(size, png=True, before=data[:at], head=head, ending=last[:_SUMS])
        if end > size:
            break
        if kind not in _TEXT:
            data = _more(file, data, end)
            head += data[at:end]
        at = end
    return _Begun(size, png=True)


def _more(file: BinaryIO, data: bytes, end: int) -> bytes:
    """The file's beginning, `data` of which is read already, at least up to `end` where it goes that far."""
    if end > len(data):
        file.seek(len(data))
    while end > len(data):
        more = file.read(max(end - len(data), len(data)))  # as much again: a file may have any number of chunks
        if not more:
            break
        data += more
    return data


def _same_rest(one: BinaryIO, first: _Begun, other: BinaryIO, second: _Begun) -> bool:
    start, start_2 = len(first.before), len(second.before)
    if first.size - start != second.size - start_2:
        return False
    one.seek(start)
    other.seek(start_2)
    pieces = _PIECES
    here, there = pieces.one, pieces.other
    settled = False  # whether all that the two hold is of these files, and what the last reading left was equal
    while True:
        count, count_2 = one.readinto(here), other.readinto(there)  # type: ignore[attr-defined]
        if count == count_2 == 0:
            return True
        settled = settled or count == _PIECE
        # A slice is a copy, and its memory comes from the system and goes back there.
        if count != count_2 or (here != there if settled else here[:count] != there[:count]):
            return False


def _same_without_text(a: bytes, b: bytes) -> bool:
    parts_a, parts_b = without_text(a), without_text(b)
    if sum(map(len, parts_a)) != sum(map(len, parts_b)):  # nearly always settles it, without a copy
        return False
    return b"".join(parts_a) == b"".join(parts_b)


def without_text(data: bytes) -> list[memoryview]:
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
        if bytes(view[at + 4 : at + 8]) in _TEXT:
            parts.append(view[kept_from:at])
            kept_from = end
        at = end
    return [part for part in (*parts, view[kept_from:]) if len(part)]
