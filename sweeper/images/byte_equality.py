"""Compare two files byte by byte, apart from a PNG's text chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sweeper.errors import ImageError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into tEXt
_IEND_CHUNK: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, equal in every PNG
_CHECKSUM_SIZE: Final = 8  # bytes at the end of the pixels
_PIECE_SIZE: Final = 256 * 1024  # bytes of other files, such as films, that are in memory at once


@dataclass(frozen=True, slots=True)
class ByteEquality:
    """Whether two files are `equal` apart from a PNG's text, or completely `identical`.

    Of equal PNGs, `size` is that of the first file in bytes, and `checksums` are its `png_checksums`.
    """

    equal: bool
    identical: bool
    size: int = 0
    checksums: bytes = b""


def has_same_bytes(a: Path | str, b: Path | str) -> bool:
    """Whether two files of any type are equal byte for byte, apart from the text chunks of a PNG.

    ComfyUI writes the workflow into these chunks. Raises ImageError if a file cannot be read.
    """
    return compare_bytes(a, b).equal


def compare_bytes(a: Path | str, b: Path | str) -> ByteEquality:
    """Compare two files. Raises ImageError if one cannot be read."""
    try:
        with Path(a).open("rb") as this, Path(b).open("rb") as other:
            left, right = this.read(len(_PNG)), other.read(len(_PNG))
            if left == right == _PNG:
                left, right = left + this.read(), right + other.read()
            else:
                while left == right and left:
                    left, right = this.read(_PIECE_SIZE), other.read(_PIECE_SIZE)
                return ByteEquality(left == right, left == right)
    except OSError as error:
        raise ImageError(f"{error.filename or a}: cannot be read: {error.strerror or error}") from error
    if left != right and _strip_text_chunks(left) != _strip_text_chunks(right):
        return ByteEquality(equal=False, identical=False)
    return ByteEquality(equal=True, identical=left == right, size=len(left), checksums=png_checksums(left))


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


def _strip_text_chunks(data: bytes) -> bytes:
    """A PNG without its text chunks (PNG specification, 11.3.4). One with invalid chunks stays as it is."""
    parts, part_start, offset = [], 0, len(_PNG)
    while offset + 12 <= len(data):
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")  # length, type, data, checksum
        if end > len(data):
            return data
        if data[offset + 4 : offset + 8] in _TEXT_CHUNKS:
            parts.append(data[part_start:offset])
            part_start = end
        offset = end
    return b"".join([*parts, data[part_start:]])
