"""Compare pictures: `compare_images` returns numbers, `compare_files` never raises for a mismatch. Also hash pictures.

The measures, all on the 8-bit scale 0-255 (see `sweeper.images.decoding`), are those of the table under "Tolerances" in
`sweeper/regression/README.md`.

Alpha is one more channel, except for `ciede2000`, `phash`, `lpips` and `clip`, which use the worse result of the
picture over black and over white. Animations and films are compared frame by frame, and each measure is that of the
worst frame. Only the requested measures are computed, and equal files are only read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from sweeper.errors import ImageError, UsageError
from sweeper.images.decoding import (
    CHANNELS,
    Picture,
    Pixels,
    convert_array,
    decode_frames,
    decode_image,
    hash_frames,
    open_bytes,
    read_bytes,
)
from sweeper.images.measures import DEFAULT_NAMES, EQUAL_VALUES, MEASURES, measure_pair, take_worse
from sweeper.images.media import is_film, iter_film_frames, read_film_rate
from sweeper.wording import suggest

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")  # ComfyUI writes the prompt and the workflow into tEXt
_IEND_CHUNK: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, equal in every PNG
_CHECKSUM_SIZE: Final = 8  # bytes at the end of the pixels
_PIECE_SIZE: Final = 256 * 1024  # bytes of other files, such as films, that are in memory at once


@dataclass(frozen=True, slots=True)
class ByteEquality:
    """Whether two files are `equal` apart from a PNG's text, or completely `identical`.

    ComfyUI writes the workflow into that text. Of equal PNGs, `size` is that of the first file in bytes, and
    `checksums` are its `png_checksums`.
    """

    equal: bool
    identical: bool
    size: int = 0
    checksums: bytes = b""


def compare_bytes(a: Path | str, b: Path | str) -> ByteEquality:
    """Compare two files of any type. Raises ImageError if one cannot be read."""
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


COMPARISON_METRICS: Final = DEFAULT_NAMES
ALL_METRICS: Final = tuple(MEASURES)


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """The result of comparing two picture files.

    `state` is `same_bytes` (apart from a PNG's text chunks), `same_pixels`, `measured`, or what prevents a comparison:
    `size`, `channels`, `frames` (their number) or `rate` (a film's frames per second). `metrics` has the requested
    measures. It is empty if nothing can be compared, and `reason` then explains why.
    """

    state: Literal["same_bytes", "same_pixels", "measured", "size", "channels", "frames", "rate"]
    metrics: Mapping[str, float]
    reason: str = ""


def compare_images(a: Picture, b: Picture, *, metrics: Iterable[str] = COMPARISON_METRICS) -> dict[str, float]:
    """Compute measures of two pictures, in the given order. Each may be a path, a Pillow image or an array.

    Arrays are (height, width) or (height, width, 1-4): uint8, uint16, bool, or other numbers on the scale 0-255. A path
    means all frames of the file, a Pillow image its current frame. Every measure is symmetric.

    Raises ImageError for something that cannot be read as a picture, or if the sizes, channels or numbers of frames
    differ, and UsageError for an unknown metric.
    """
    comparison = _compare(a, b, _check_metrics(metrics))
    if comparison.reason:
        raise ImageError(comparison.reason)
    return dict(comparison.metrics)


def compare_files(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, metrics: Iterable[str] = COMPARISON_METRICS
) -> ImageComparison:
    """Compare two files in steps: equal bytes are not decoded, and equal pixels are not measured.

    Unlike `compare_images`, a mismatch is a state. Raises ImageError only for a file that cannot be read as a picture.
    """
    return _compare(Path(a), Path(b), _check_metrics(metrics))


def pixel_hash(path: str | os.PathLike[str]) -> str:
    """The hash of a picture file's decoded pixels (see `hash_frames`).

    Equal if and only if `compare_files` returns `same_pixels` or `same_bytes`. Raises ImageError if the file cannot be
    read as a picture.
    """
    return hash_frames(iter_frames(path))


def iter_frames(path: str | os.PathLike[str]) -> Iterator[Pixels]:
    """Decode the frames of a picture or a film, (height, width, 1-4), 0-255. Raises ImageError like `pixel_hash`."""
    return _open_source(path, str(path))[1]


def _check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    names = tuple(metrics)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise UsageError("; ".join(f"unknown metric '{name}'{suggest(name, MEASURES)}" for name in unknown))
    return names


_Source = tuple[str, Iterator[Pixels]]  # the name of a picture, and its frames, decoded on demand


def _compare(a: Picture, b: Picture, metrics: tuple[str, ...]) -> ImageComparison:
    if isinstance(a, str | os.PathLike) and isinstance(b, str | os.PathLike):
        if compare_bytes(Path(a), Path(b)).equal:
            if not is_film(Path(a)):
                open_bytes(read_bytes(Path(a)), os.fspath(a))  # raises ImageError unless it is a picture
            return ImageComparison("same_bytes", {name: EQUAL_VALUES[name] for name in metrics})
        rates = [read_film_rate(Path(path)) for path in (a, b) if is_film(Path(path))]
        if len(rates) == 2 and None not in rates and rates[0] != rates[1]:
            return ImageComparison("rate", {}, f"{a} has {rates[0]:g} frames per second, {b} has {rates[1]:g}")
    return _compare_frames(_open_source(a, "the first picture"), _open_source(b, "the second picture"), metrics)


def _open_source(source: Picture, name: str) -> _Source:
    if isinstance(source, str | os.PathLike):
        name, path = os.fspath(source), Path(source)
        if is_film(path):
            return name, iter_film_frames(path)
        return name, decode_frames(open_bytes(read_bytes(path), name), name)
    return name, iter([decode_image(source, name) if isinstance(source, Image.Image) else convert_array(source, name)])


def _compare_frames(this: _Source, other: _Source, metrics: tuple[str, ...]) -> ImageComparison:
    worst: dict[str, float] = {name: EQUAL_VALUES[name] for name in metrics}
    same = True
    for count, (left, right) in enumerate(zip_longest(this[1], other[1])):
        if left is None or right is None:
            ends = ((left, this), (right, other))
            counts = [count + (frame is not None) + sum(1 for _ in rest) for frame, (_, rest) in ends]
            return ImageComparison("frames", {}, f"{this[0]} has {counts[0]} frames, {other[0]} has {counts[1]}")
        (height, width, channels), (height_2, width_2, channels_2) = left.shape, right.shape
        if (height, width) != (height_2, width_2):
            sizes = f"{this[0]} is {width} x {height} pixels, {other[0]} is {width_2} x {height_2}"
            return ImageComparison("size", {}, sizes)
        if channels != channels_2:
            kinds = f"{this[0]} is {CHANNELS[channels]}, {other[0]} is {CHANNELS[channels_2]}"
            return ImageComparison("channels", {}, kinds)
        if not np.array_equal(left, right):
            same = False
            worst = take_worse(worst, measure_pair(left, right, metrics))
    return ImageComparison("same_pixels" if same else "measured", worst)
