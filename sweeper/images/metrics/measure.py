"""Measure files: read each picture, compute every metric that is not cached yet, and collect the failures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.errors import ImageError
from sweeper.images.decoding import decode_frames, hash_frames
from sweeper.images.metrics.registry import Metric, MetricInput
from sweeper.model.picture_size import FILM_TYPES, PICTURE_FORMATS, PICTURE_TYPES, SOUND_TYPES, TEXT_TYPES, check_pixels
from sweeper.model.result import PIXEL_HASH

Value: TypeAlias = float | str

_DECODE_ERRORS: Final = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageError)
_NEVER_MEASURED: Final = FILM_TYPES | SOUND_TYPES | TEXT_TYPES  # of which nobody expects a metric of pictures
_UNREADABLE: Final = "no metric can be computed because this cannot be read as a picture; check that it is complete"


def measure(
    picture: NDArray[np.uint8], metrics: Mapping[str, Metric], params: Mapping[str, Any] | None = None
) -> dict[str, Value]:
    """Compute metrics of one picture, which is uint8 RGB of shape (height, width, 3). `params` are the trial's slots.

    Raises ImageError if a function fails, or returns neither a finite number nor a text.
    """
    values: dict[str, Value] = {}
    for name, metric in metrics.items():
        try:
            result = metric.function(picture, params or {}) if metric.reads_params else metric.function(picture)
            if result is None:
                raise TypeError("it returned None; return a number or a text")  # noqa: TRY301
            value = result if isinstance(result, str) else float(result)
        except Exception as error:  # the user's function may raise anything
            raise ImageError(f"metric '{name}' failed: {type(error).__name__}: {error}") from error
        if isinstance(value, float) and value - value != 0:  # NaN and both infinities
            raise ImageError(f"metric '{name}' gave {value}, which is not a finite number")
        values[name] = value
    return values


def measure_missing(
    files: Iterable[MetricInput],
    metrics: Mapping[str, Metric],
    cached: Mapping[str, Collection[str]],
    problems: dict[str, list[Path]],
) -> Iterator[tuple[str, str, Value | None]]:
    """Compute what is not cached yet: (key, metric, value) rows for the store's cache, each key once.

    `cached` has the known keys of each metric. The value is None for a file that is not a picture (a video, a text). If
    a metric fails or a picture is broken, there is no row; instead the message and the file are added to `problems`. A
    missing file is skipped, because it may come back. The `PIXEL_HASH` of a broken
    picture is None too.
    """
    done: set[tuple[str, str]] = set()
    for file in files:
        keys = {
            name: key
            for name, metric in metrics.items()
            if (key := file.cache_key(metric)) not in cached.get(name, ()) and (key, name) not in done
        }
        if not keys:
            continue
        done.update((key, name) for name, key in keys.items())
        if file.path.is_file():
            yield from _measure_file(file, keys, metrics, problems)


def _measure_file(
    file: MetricInput, keys: dict[str, str], metrics: Mapping[str, Metric], problems: dict[str, list[Path]]
) -> Iterator[tuple[str, str, Value | None]]:
    """The rows of one file, which is decoded once; `keys` has the key of each metric."""
    names, suffix = [name for name in keys if name != PIXEL_HASH], file.path.suffix.lower().removeprefix(".")
    picture = pixel_hash = None
    with suppress(*_DECODE_ERRORS), Image.open(file.path, formats=PICTURE_FORMATS) as image:
        check_pixels(image.size)
        picture = _to_rgb(image) if names else None
        pixel_hash = hash_frames(decode_frames(image, str(file.path))) if PIXEL_HASH in keys else None
    if PIXEL_HASH in keys:
        yield keys[PIXEL_HASH], PIXEL_HASH, pixel_hash
    for name in names:
        if picture is not None:
            try:
                yield keys[name], name, measure(picture, {name: metrics[name]}, file.params)[name]
            except ImageError as error:
                problems.setdefault(str(error), []).append(file.path)
        elif suffix not in PICTURE_TYPES:
            yield keys[name], name, None
    if names and picture is None and suffix not in _NEVER_MEASURED:
        problem = _UNREADABLE if suffix in PICTURE_TYPES else f"not measured: {suffix.upper() or 'unknown type'}"
        problems.setdefault(problem, []).append(file.path)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB (height, width, 3): without alpha, 16 bits scaled to 8, only the first frame.

    Raises ImageError if it cannot be read as a picture, or is too large.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            check_pixels(image.size)
            return _to_rgb(image)
    except _DECODE_ERRORS as error:
        raise ImageError(f"{path}: cannot be read as a picture: {error}") from error


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255 instead of scaling
        grey = np.asarray(image, dtype=np.float64) / 257.0
        levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
        return np.repeat(levels[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
