"""Files held against each other as bytes, a PNG's text aside: piece by piece, so that memory holds none of them whole.

What the bytes mean as a picture does not live here.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO, Final

from sweeper.comparing.decoding import read_bytes
from sweeper.errors import ImageError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into the first of these
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, which is the same in every PNG
_PIECE: Final = 256 * 1024  # bytes, measured: two of them stay in a core's cache, and calls are few


class _Pieces(threading.local):
    """Two buffers for each thread: fresh ones come from the system page by page, at the price of the reading."""

    def __init__(self) -> None:
        self.one, self.other = bytearray(_PIECE), bytearray(_PIECE)


_PIECES: Final = _Pieces()


def same_files(a: Path, b: Path) -> bool:
    """Whether two files are equal byte for byte, the text chunks of a PNG aside. Raises ImageError."""
    try:
        with a.open("rb", buffering=0) as one, b.open("rb", buffering=0) as other:
            if _head(one) == _head(other) and _same_rest(one, other):
                return True
            if not (_is_png(one) and _is_png(other)):
                return False
    except OSError as error:
        raise ImageError(f"{error.filename or a}: cannot be read: {error.strerror or error}") from error
    return _same_without_text(read_bytes(a), read_bytes(b))  # text may stand behind the pixels too


def _is_png(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(_PNG)) == _PNG


def _head(file: BinaryIO) -> bytes:
    """What stands before a PNG's pixels, its text left out; the file is left at its first IDAT chunk.

    Empty, and the file at its start, for any other file, and for a PNG that breaks off or has something behind its end.
    """
    size = os.fstat(file.fileno()).st_size
    if _is_png(file) and size > len(_PNG) + len(_END):
        file.seek(size - len(_END))
        whole = file.read(len(_END)) == _END
        found, at = _PNG, len(_PNG)
        while whole and at + 12 <= size:
            file.seek(at)
            chunk = file.read(8)
            if chunk[4:] == b"IDAT":
                file.seek(at)
                return found
            end = at + 12 + int.from_bytes(chunk[:4], "big")  # length, type, data, checksum
            if end > size:
                break
            if chunk[4:] not in _TEXT:
                found += chunk + file.read(end - at - 8)
            at = end
    file.seek(0)
    return b""


def _same_rest(one: BinaryIO, other: BinaryIO) -> bool:
    rests = [os.fstat(file.fileno()).st_size - file.tell() for file in (one, other)]
    if rests[0] != rests[1]:
        return False
    while True:
        count, count_2 = one.readinto(_PIECES.one), other.readinto(_PIECES.other)  # type: ignore[attr-defined]
        if count == count_2 == _PIECE:
            if _PIECES.one != _PIECES.other:
                return False
        elif count != count_2 or _PIECES.one[:count] != _PIECES.other[:count]:
            return False
        elif count == 0:
            return True


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
