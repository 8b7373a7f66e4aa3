"""Compare pictures: `compare_images` returns numbers, `compare_files` never raises for a mismatch. Also hash pictures.

The measures, all on the 8-bit scale 0-255 (see `sweeper.images.decoding`):

========== ======== ======== ====================================================================================
name       range    equal    meaning
========== ======== ======== ====================================================================================
psnr       dB       inf      peak signal-to-noise ratio over all pixels and channels, peak 255
ssim       -1 to 1  1        structural similarity, mean over channels: sigma 1.5, population covariance
ms_ssim    0 to 1   1        the same on up to five scales
mae        0 to 255 0        mean absolute difference over pixels and channels
max_abs    0 to 255 0        largest difference of any channel of any pixel
differing  0 to 1   0        share of pixels of which any channel differs at all
ciede2000  0 up     0        mean colour difference over pixels; 1 is barely visible
phash      0 to 64  0        differing bits of the DCT perceptual hash
windowed   0 to 1   0        largest share of differing pixels in any 16 x 16 window
lpips      0 up     0        LPIPS by the ONNX file that `SWEEPER_LPIPS` names; only on request
clip       -1 to 1  1        cosine of CLIP's embeddings by the file that `SWEEPER_CLIP` names; only on request
========== ======== ======== ====================================================================================

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
from typing import Final, Literal, TypeAlias

import numpy as np
from PIL import Image

from sweeper.errors import ImageError, UsageError
from sweeper.images.byte_equality import has_same_bytes
from sweeper.images.decoding import (
    CHANNELS,
    Picture,
    Pixels,
    convert_array,
    count_file_frames,
    count_image_frames,
    decode_frames,
    decode_image,
    open_bytes,
    read_bytes,
)
from sweeper.images.hashes import hash_pixels
from sweeper.images.measures import DEFAULT_NAMES, EQUAL_VALUES, MEASURES, measure_pair, take_worse
from sweeper.images.media import is_film, iter_film_frames, read_film_rate
from sweeper.wording import suggest

COMPARISON_METRICS: Final = DEFAULT_NAMES
ALL_METRICS: Final = tuple(MEASURES)
_ROWS_AT_ONCE: Final = 32

State: TypeAlias = Literal["same_bytes", "same_pixels", "measured", "size", "channels", "frames", "rate"]


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """The result of comparing two picture files.

    `state` is `same_bytes` (apart from a PNG's text chunks), `same_pixels`, `measured`, or what prevents a comparison:
    `size`, `channels`, `frames` (their number) or `rate` (a film's frames per second). `metrics` has the requested
    measures. It is empty if nothing can be compared, and `reason` then explains why. `frames` is the number of compared
    frames; 0 for films with equal bytes, which are not opened.
    """

    state: State
    metrics: Mapping[str, float]
    frames: int
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
    """SHA-256, as 64 hex digits, of a picture file's decoded pixels: scale, size, channels and values of every frame.

    Equal if and only if `compare_files` returns `same_pixels` or `same_bytes`. Compression, text and the order of a
    palette do not matter. Raises ImageError if the file cannot be read as a picture.
    """
    return hash_pixels(iter_frames(path))


def iter_frames(path: str | os.PathLike[str]) -> Iterator[Pixels]:
    """Decode the frames of a picture or a film, (height, width, 1-4), 0-255. Raises ImageError like `pixel_hash`."""
    file = Path(path)
    data = None if is_film(file) else read_bytes(file)
    return _open_source(path, data, str(path)).frames


def _check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    names = tuple(metrics)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise UsageError("; ".join(f"unknown metric '{name}'{suggest(name, MEASURES)}" for name in unknown))
    return names


@dataclass(frozen=True, slots=True)
class _FrameSource:
    """A picture whose frames are decoded on demand. A film's `count` is None, because only its end shows it."""

    name: str
    count: int | None
    frames: Iterator[Pixels]


def _compare(a: Picture, b: Picture, metrics: tuple[str, ...]) -> ImageComparison:
    paths = [Path(source) if isinstance(source, str | os.PathLike) else None for source in (a, b)]
    if paths[0] is not None and paths[1] is not None and is_film(paths[0]) and is_film(paths[1]):
        return _compare_films(paths[0], paths[1], metrics)
    if paths[0] is not None and paths[1] is not None and has_same_bytes(paths[0], paths[1]):
        return ImageComparison(
            "same_bytes", {name: EQUAL_VALUES[name] for name in metrics}, count_file_frames(paths[0])
        )
    data = [None if path is None or is_film(path) else read_bytes(path) for path in paths]
    this = _open_source(a, data[0], "the first picture")
    other = _open_source(b, data[1], "the second picture")
    if None not in (this.count, other.count) and this.count != other.count:
        return _frame_count_mismatch(this, this.count or 0, other, other.count or 0)
    return _compare_frames(this, other, metrics)


def _compare_films(a: Path, b: Path, metrics: tuple[str, ...]) -> ImageComparison:
    if has_same_bytes(a, b):
        return ImageComparison("same_bytes", {name: EQUAL_VALUES[name] for name in metrics}, 0)
    rates = read_film_rate(a), read_film_rate(b)
    if None not in rates and rates[0] != rates[1]:
        return ImageComparison("rate", {}, 0, f"{a} has {rates[0]:g} frames per second, {b} has {rates[1]:g}")
    return _compare_frames(_open_source(a, None, ""), _open_source(b, None, ""), metrics)


def _frame_count_mismatch(this: _FrameSource, count: int, other: _FrameSource, count_2: int) -> ImageComparison:
    return ImageComparison("frames", {}, 0, f"{this.name} has {count} frames, {other.name} has {count_2}")


def _open_source(source: Picture, data: bytes | None, name: str) -> _FrameSource:
    if isinstance(source, str | os.PathLike):
        name, path = os.fspath(source), Path(source)
        if data is None:
            return _FrameSource(name, None, iter_film_frames(path))
        image = open_bytes(data, name)
        return _FrameSource(name, count_image_frames(image, name), decode_frames(image, name))
    pixels = decode_image(source, name) if isinstance(source, Image.Image) else convert_array(source, name)
    return _FrameSource(name, 1, iter([pixels]))


def _compare_frames(this: _FrameSource, other: _FrameSource, metrics: tuple[str, ...]) -> ImageComparison:
    worst: dict[str, float] = {name: EQUAL_VALUES[name] for name in metrics}
    same, count = True, 0
    for left, right in zip_longest(this.frames, other.frames):
        if left is None or right is None:
            counts = [count + (first is not None) for first in (left, right)]
            counts[0] += sum(1 for _ in this.frames)
            counts[1] += sum(1 for _ in other.frames)
            return _frame_count_mismatch(this, counts[0], other, counts[1])
        count += 1
        (height, width, channels), (height_2, width_2, channels_2) = left.shape, right.shape
        if (height, width) != (height_2, width_2):
            sizes = f"{this.name} is {width} x {height} pixels, {other.name} is {width_2} x {height_2}"
            return ImageComparison("size", {}, 0, sizes)
        if channels != channels_2:
            kinds = f"{this.name} is {CHANNELS[channels]}, {other.name} is {CHANNELS[channels_2]}"
            return ImageComparison("channels", {}, 0, kinds)
        if not _is_equal(left, right):
            same = False
            worst = take_worse(worst, measure_pair(left, right, metrics))
    return ImageComparison("same_pixels" if same else "measured", worst, count)


def _is_equal(left: Pixels, right: Pixels) -> bool:
    """Compare a few rows at a time, because different pictures mostly differ in the first ones, and to save memory."""
    return all(
        np.array_equal(left[at : at + _ROWS_AT_ONCE], right[at : at + _ROWS_AT_ONCE])
        for at in range(0, left.shape[0], _ROWS_AT_ONCE)
    )
