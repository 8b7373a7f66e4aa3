"""Decode pictures of every type (files, Pillow images, arrays) to arrays on one scale, 0-255.

Each type is converted as follows:

- 8-bit greyscale and RGB, with or without alpha, stay unchanged; black-and-white becomes greyscale of 0 and 255;
- a palette is looked up, so that its order does not matter; a transparent colour becomes alpha;
- 16-bit greyscale is divided by 257 and keeps its fractions: 65535 is 255 exactly (PNG specification, 13.12). Pillow
  itself reduces colour of 16 bits per channel to 8 bits;
- CMYK, YCbCr, HSV and LAB are converted to RGB;
- each frame of an animation becomes RGBA, because the frames of one file may have different modes.

Nothing is resized, rotated or colour-managed. Pictures differ if their sizes differ, or if only one has alpha.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from sweeper.errors import ImageError
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels

# (height, width, channels), 0-255: uint8, or float64 if some value is not an integer.
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float64]
Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any]"

CHANNELS = {1: "greyscale", 2: "greyscale with alpha", 3: "RGB", 4: "RGBA"}
_CONVERTED_MODES = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
# The exceptions of Pillow's decoders on broken files, found by truncating files and flipping bytes.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_bytes(data: bytes, name: str) -> Image.Image:
    """Open a picture without decoding its pixels. Raises ImageError if it is not a picture, or too large."""
    try:
        image = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
        check_pixels(image.size)
    except (*_DECODE_ERRORS, ImageError) as error:
        cause = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(f"{name}: cannot be read as a picture: {cause}") from error
    return image


def check_whole(data: bytes, name: str) -> None:
    """Raise ImageError if the first frame of a picture cannot be decoded."""
    image = open_bytes(data, name)
    try:
        image.load()
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {error}") from error


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file, from its header. Raises ImageError, whose text does not name the file."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            return image.size
    except UnidentifiedImageError:  # its message contains the whole path
        raise ImageError("cannot be read as a picture: unknown format") from None
    except _DECODE_ERRORS as error:
        raise ImageError(f"cannot be read as a picture: {error}") from error


def decode_frames(image: Image.Image, name: str) -> Iterator[Pixels]:
    """Decode the frames one by one. Raises ImageError at a frame that cannot be decoded."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: its frames cannot be counted: {error}") from error
    try:
        check_pixels(image.size, count)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    if count == 1:
        yield decode_image(image, name)
        return
    try:
        for frame in ImageSequence.Iterator(image):
            yield np.asarray(frame.convert("RGBA"))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: a frame cannot be decoded: {error}") from error


def hash_frames(frames: Iterable[Pixels]) -> str:
    """SHA-256, as 64 hex digits, of decoded frames in their order: scale, height, width, channels and values of each.

    So pictures are equal if they have the same size, the same channels (grey or colour, with or without alpha), the
    same number of frames, and equal values of all pixels. Compression, text (such as the workflow that ComfyUI writes
    into a file), the order of a palette and the time between frames do not matter.
    """
    digest = hashlib.sha256()
    for frame in frames:
        # Little-endian and row by row on every machine. The shape distinguishes 2 x 8 from 4 x 4.
        plain = np.ascontiguousarray(frame, dtype=np.uint8 if frame.dtype == np.uint8 else "<f8")
        digest.update(f"{plain.dtype.str} {plain.shape}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def decode_image(image: Image.Image, name: str) -> Pixels:
    """Decode the current frame of a Pillow image. Raises ImageError for a mode without a scale, or broken data."""
    try:
        if image.mode == "F":
            raise ImageError(f"{name}: floating-point pictures have no fixed scale; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            return _to_pixels(_scale_16_bit(np.asarray(image), name), name)
        return _to_pixels(np.asarray(_to_plain_mode(image)), name)
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {error}") from error


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert to greyscale or RGB, with or without alpha."""
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return image.convert("RGBA")
    return image.convert(_CONVERTED_MODES.get(image.mode, "RGB"))


def convert_array(array: NDArray[Any], name: str) -> Pixels:
    """Convert an array (height, width) or (height, width, 1-4) to the scale 0-255; uint8 is not copied.

    bool becomes 0 or 255, uint16 is divided by 257, and other integers and floats must be 0-255. Raises ImageError for
    another shape or type, for values outside the scale, and for floats that are obviously on the scale 0-1: as 0-255
    such pictures would all look the same, and a check on them would never fail.
    """
    if array.dtype == np.bool_:
        return _to_pixels(array.astype(np.uint8) * np.uint8(255), name)
    if array.dtype == np.uint16:
        return _to_pixels(_scale_16_bit(array, name), name)
    if array.dtype == np.uint8:
        return _to_pixels(array, name)
    if array.dtype.kind not in "iuf":
        raise ImageError(f"{name}: an array of {array.dtype} is not a picture; allowed: bool, integers, floats")
    values = array.astype(np.float64)
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise ImageError(f"{name}: holds values outside 0-255 ({values.min()} to {values.max()})")
    if values.size and 0 < values.max() <= 1 and (values % 1).any():
        raise ImageError(f"{name}: its floats are between 0 and 1; multiply them by 255")
    return _to_pixels(_to_uint8_if_exact(values), name)


def _scale_16_bit(array: NDArray[Any], name: str) -> Pixels:
    values = array.astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 65535):
        raise ImageError(f"{name}: holds values outside 0-65535 ({values.min():.0f} to {values.max():.0f})")
    return _to_uint8_if_exact(values / 257.0)


def _to_uint8_if_exact(values: NDArray[np.float64]) -> Pixels:
    """Convert to uint8 if this loses nothing, so that equal pictures have equal arrays."""
    whole = values.astype(np.uint8)
    return whole if np.array_equal(whole, values) else values


def _to_pixels(array: NDArray[Any], name: str) -> Pixels:
    shaped = array[:, :, None] if array.ndim == 2 else array
    if shaped.ndim != 3 or shaped.shape[2] not in CHANNELS:
        raise ImageError(
            f"{name}: an array of shape {array.shape} is not a picture; "
            "allowed: (height, width) and (height, width, 1-4)"
        )
    if not shaped.size:
        raise ImageError(f"{name}: has no pixels (shape {array.shape})")
    return shaped
