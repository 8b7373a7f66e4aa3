"""Comparing pictures: `compare_images` for numbers, `compare_files` for a check that must not crash, and the hashes.

The measures, all on the 8-bit scale 0-255 whatever the source (`comparing.decoding` says how each kind gets there):

========== ======== ======== ====================================================================================
name       range    equal    meaning
========== ======== ======== ====================================================================================
psnr       dB       inf      peak signal-to-noise ratio over all pixels and channels, peak 255
ssim       -1 to 1  1        structural similarity, mean over channels: sigma 1.5, population covariance
ms_ssim    0 to 1   1        the same on up to five scales
mae        0 to 255 0        mean absolute difference over pixels and channels
max_abs    0 to 255 0        largest difference of any channel of any pixel
differing  0 to 1   0        share of pixels of which any channel differs at all
ciede2000  0 up     0        mean colour difference over pixels; 1 is about what an eye can tell
phash      0 to 64  0        differing bits of the DCT perceptual hash
windowed   0 to 1   0        largest share of differing pixels in any 16 x 16 window
lpips      0 up     0        LPIPS by the ONNX file that `SWEEPER_LPIPS` names; only when asked for
clip       -1 to 1  1        cosine of CLIP's embeddings by the file that `SWEEPER_CLIP` names; only when asked for
========== ======== ======== ====================================================================================

Alpha is one more channel for all but `ciede2000`, `phash`, `lpips` and `clip`, which take the worse of the picture over
black and over white. Of an animation or a film every frame is compared with its counterpart, and each measure is that
of its worst frame.

What is accepted as close enough, and what a baseline is, does not live here. Equal files cost their reading; each
measure is computed only when asked for.
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

from sweeper.did_you_mean import suggest
from sweeper.errors import ImageError, UsageError
from sweeper.images.byte_equality import is_same_file
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

COMPARISON_METRICS: Final = DEFAULT_NAMES
ALL_METRICS: Final = tuple(MEASURES)
_ROWS_AT_ONCE: Final = 32

State: TypeAlias = Literal["same_bytes", "same_pixels", "measured", "size", "channels", "frames", "rate"]


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """How two picture files relate.

    `state` is `same_bytes` (a PNG's text chunks aside), `same_pixels`, `measured`, or what cannot be compared: `size`,
    `channels`, `frames` (their number) or `rate` (a film's frames a second). `metrics` holds the measures asked for and
    is empty where nothing can be compared; `reason` then says why, with what both have. `frames` is how many were
    compared; 0 also for films of the same bytes, which are not opened.
    """

    state: State
    metrics: Mapping[str, float]
    frames: int
    reason: str = ""


def compare_images(a: Picture, b: Picture, *, metrics: Iterable[str] = COMPARISON_METRICS) -> dict[str, float]:
    """The measures of two pictures, in the order asked for: paths, Pillow images or arrays, in any mixture.

    Arrays are (height, width) or (height, width, 1-4): uint8, uint16, bool, or other numbers on the 0-255 scale. A path
    stands for all frames of its file, a Pillow image for the frame it stands at. Every measure is symmetric.

    Raises ImageError for what cannot be read as a picture, and for two of different size, channels or number of frames;
    UsageError for a metric that there is not.
    """
    found = _compare(a, b, _check_metrics(metrics))
    if found.reason:
        raise ImageError(found.reason)
    return dict(found.metrics)


def compare_files(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, metrics: Iterable[str] = COMPARISON_METRICS
) -> ImageComparison:
    """As `compare_images`, in tiers and with a mismatch as a state: equal bytes are not decoded, equal pixels not
    measured.

    Raises ImageError only for a file that cannot be read as a picture.
    """
    return _compare(Path(a), Path(b), _check_metrics(metrics))


def has_same_bytes(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two files are equal byte for byte, the text chunks of a PNG aside: ComfyUI writes the workflow there.

    Files of any kind. Raises ImageError when one cannot be read.
    """
    return is_same_file(Path(a), Path(b))


def pixel_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256, as 64 hex digits, of a picture file's decoded pixels: scale, size, channels and values of every frame.

    Equal exactly when `compare_files` says `same_pixels` or better; compression, text and palette order do not matter.
    Raises ImageError when the file cannot be read as a picture.
    """
    return hash_pixels(iter_frames(path))


def iter_frames(path: str | os.PathLike[str]) -> Iterator[Pixels]:
    """Every frame of a picture or a film in turn, (height, width, 1-4), 0-255. Raises ImageError as `pixel_hash`."""
    place = Path(path)
    data = None if is_film(place) else read_bytes(place)
    return _open_source(path, data, str(path)).frames


def _check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    names = tuple(metrics)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise UsageError("; ".join(f"unknown metric '{name}'{suggest(name, MEASURES)}" for name in unknown))
    return names


@dataclass(frozen=True, slots=True)
class _FrameSource:
    """A picture whose frames are decoded one by one, when asked for; a film's `count` shows only at its end."""

    name: str
    count: int | None
    frames: Iterator[Pixels]


def _compare(a: Picture, b: Picture, metrics: tuple[str, ...]) -> ImageComparison:
    paths = [Path(source) if isinstance(source, str | os.PathLike) else None for source in (a, b)]
    if paths[0] is not None and paths[1] is not None and is_film(paths[0]) and is_film(paths[1]):
        return _compare_films(paths[0], paths[1], metrics)
    if paths[0] is not None and paths[1] is not None and is_same_file(paths[0], paths[1]):
        return ImageComparison(
            "same_bytes", {name: EQUAL_VALUES[name] for name in metrics}, count_file_frames(paths[0])
        )
    data = [None if path is None or is_film(path) else read_bytes(path) for path in paths]
    one = _open_source(a, data[0], "the first picture")
    other = _open_source(b, data[1], "the second picture")
    if None not in (one.count, other.count) and one.count != other.count:
        return _frame_count_mismatch(one, one.count or 0, other, other.count or 0)
    return _compare_frames(one, other, metrics)


def _compare_films(a: Path, b: Path, metrics: tuple[str, ...]) -> ImageComparison:
    if is_same_file(a, b):
        return ImageComparison("same_bytes", {name: EQUAL_VALUES[name] for name in metrics}, 0)
    rates = read_film_rate(a), read_film_rate(b)
    if None not in rates and rates[0] != rates[1]:
        return ImageComparison("rate", {}, 0, f"{a} has {rates[0]:g} frames a second, {b} has {rates[1]:g}")
    return _compare_frames(_open_source(a, None, ""), _open_source(b, None, ""), metrics)


def _frame_count_mismatch(one: _FrameSource, count: int, other: _FrameSource, count_2: int) -> ImageComparison:
    return ImageComparison("frames", {}, 0, f"{one.name} has {count} frames, {other.name} has {count_2}")


def _open_source(source: Picture, data: bytes | None, name: str) -> _FrameSource:
    if isinstance(source, str | os.PathLike):
        name, path = os.fspath(source), Path(source)
        if data is None:
            return _FrameSource(name, None, iter_film_frames(path))
        image = open_bytes(data, name)
        return _FrameSource(name, count_image_frames(image, name), decode_frames(image, name, data))
    pixels = decode_image(source, name) if isinstance(source, Image.Image) else convert_array(source, name)
    return _FrameSource(name, 1, iter([pixels]))


def _compare_frames(one: _FrameSource, other: _FrameSource, metrics: tuple[str, ...]) -> ImageComparison:
    worst: dict[str, float] = {name: EQUAL_VALUES[name] for name in metrics}
    same, count = True, 0
    for left, right in zip_longest(one.frames, other.frames):
        if left is None or right is None:
            counts = [count + (first is not None) for first in (left, right)]
            counts[0] += sum(1 for _ in one.frames)
            counts[1] += sum(1 for _ in other.frames)
            return _frame_count_mismatch(one, counts[0], other, counts[1])
        count += 1
        (height, width, channels), (height_2, width_2, channels_2) = left.shape, right.shape
        if (height, width) != (height_2, width_2):
            sizes = f"{one.name} is {width} x {height} pixels, {other.name} is {width_2} x {height_2}"
            return ImageComparison("size", {}, 0, sizes)
        if channels != channels_2:
            kinds = f"{one.name} is {CHANNELS[channels]}, {other.name} is {CHANNELS[channels_2]}"
            return ImageComparison("channels", {}, 0, kinds)
        if not _is_equal(left, right):
            same = False
            worst = take_worse(worst, measure_pair(left, right, metrics))
    return ImageComparison("same_pixels" if same else "measured", worst, count)


def _is_equal(left: Pixels, right: Pixels) -> bool:
    """A few rows at a time: most pictures that differ do so in the first, and nothing of a picture's size is made."""
    return all(
        np.array_equal(left[at : at + _ROWS_AT_ONCE], right[at : at + _ROWS_AT_ONCE])
        for at in range(0, left.shape[0], _ROWS_AT_ONCE)
    )
