"""Pictures of every kind (files, Pillow images, arrays) brought to arrays on one scale, 0-255.

How each kind gets there:

- 8-bit greyscale, RGB, and both with alpha, stay as they are; black-and-white becomes greyscale of 0 and 255;
- a palette is looked up, so that two palettes in another order are one picture; a transparent colour becomes alpha;
- 16-bit greyscale is divided by 257 and keeps its fractions: 65535 is 255 exactly (PNG specification, 13.12). Colour of
  16 bits per channel comes out of Pillow as 8 bits already;
- CMYK, YCbCr, HSV and LAB are converted to RGB;
- each frame of an animation becomes RGBA, because one file may mix modes from frame to frame.

A plain PNG (8 bits, no palette, no transparent colour, one frame) is decoded by imagecodecs where that is installed
(the extra `fast`): libpng with SIMD takes half of Pillow's time, for the same values.

Nothing is resized, rotated or colour-managed: a picture with another size, or with alpha where the other has none, is
another picture, and that is said rather than repaired.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from sweeper.errors import ImageError
from sweeper.images.extras import load_imagecodecs

# (height, width, channels), 0-255: uint8, or float64 where some value lies between the levels of 8 bits.
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float64]
Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any]"

CHANNELS = {1: "greyscale", 2: "greyscale with alpha", 3: "RGB", 4: "RGBA"}
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
_CONVERTED_MODES = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
# Pillow gives a picture's memory back to the system at once, and gets the next one's page by page: a seventh of
# an SSIM's time. So it keeps this many blocks, each at most 16 MiB (its documentation, "Block Allocator").
_BLOCKS = 4
if "PILLOW_BLOCKS_MAX" not in os.environ:
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]  # what that documented variable sets
# What Pillow's decoders raise on broken files, beside OSError: found by cutting and flipping bytes.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises ImageError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_bytes(data: bytes, name: str) -> Image.Image:
    """An image whose header is read and whose pixels are not yet. Raises ImageError when it is no picture."""
    try:
        return Image.open(io.BytesIO(data))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: cannot be read as a picture: {error}") from error


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file, from its header. Raises ImageError, whose text does not name the file."""
    try:
        with Image.open(path) as image:
            return image.size
    except UnidentifiedImageError:  # its text has the whole path
        raise ImageError("cannot be read as a picture: it is of no format known here") from None
    except _DECODE_ERRORS as error:
        raise ImageError(f"cannot be read as a picture: {error}") from error


def count_file_frames(path: Path) -> int:
    """How many frames a picture file has, from its headers. Raises ImageError when it cannot be read as a picture."""
    try:
        with Image.open(path) as image:
            return count_image_frames(image, str(path))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{path}: cannot be read as a picture: {error}") from error


def count_image_frames(image: Image.Image, name: str) -> int:
    """How many frames a picture has; 1 for a still. Raises ImageError when the file breaks off while counting."""
    try:
        return int(getattr(image, "n_frames", 1))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: its frames cannot be counted: {error}") from error


def decode_frames(image: Image.Image, name: str, data: bytes | None = None) -> Iterator[Pixels]:
    """Every frame in turn, one in memory at a time; `data`: the file that the image was opened from.

    Raises ImageError at a frame that cannot be decoded.
    """
    if count_image_frames(image, name) == 1:
        fast = _decode_png(image, data) if data is not None else None
        yield decode_image(image, name) if fast is None else _to_pixels(fast, name)
        return
    try:
        for frame in ImageSequence.Iterator(image):
            yield np.asarray(frame.convert("RGBA"))
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: a frame cannot be decoded: {error}") from error


def decode_image(image: Image.Image, name: str) -> Pixels:
    """The frame that a Pillow image stands at. Raises ImageError for a mode without a scale, or broken data."""
    try:
        if image.mode == "F":
            raise ImageError(f"{name}: floating-point pictures have no scale; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            return _to_pixels(_scale_16_bit(np.asarray(image), name), name)
        return _to_pixels(np.asarray(_to_plain_mode(image)), name)
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {error}") from error


def _decode_png(image: Image.Image, data: bytes) -> NDArray[np.uint8] | None:
    """A plain PNG's pixels by imagecodecs; None for anything else, for trouble too: Pillow tells what is wrong."""
    codecs = load_imagecodecs()
    if codecs is None or image.format != "PNG" or image.mode not in _PLAIN_MODES or "transparency" in image.info:
        return None
    try:
        found: NDArray[np.uint8] = codecs.png_decode(data)
    except Exception:  # noqa: BLE001 - whatever it says, Pillow says it better
        return None
    shape = (image.height, image.width, *((len(image.getbands()),) if image.mode != "L" else ()))
    return found if found.dtype == np.uint8 and found.shape == shape else None


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """The image in one of the four modes that need no explanation."""
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in _PLAIN_MODES:
        return image
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return image.convert("RGBA")
    return image.convert(_CONVERTED_MODES.get(image.mode, "RGB"))


def convert_array(array: NDArray[Any], name: str) -> Pixels:
    """An array (height, width) or (height, width, 1-4) on the 0-255 scale; uint8 is not copied.

    bool is 0 or 255, uint16 is divided by 257, other integers and floats are taken as 0-255. Raises ImageError for
    another shape or type, a value outside the scale or not finite, and floats that are plainly on the 0-1 scale: taken
    as 0-255 such pictures would all look alike, and a check on them would never fail.
    """
    if array.dtype == np.bool_:
        return _to_pixels(array.astype(np.uint8) * np.uint8(255), name)
    if array.dtype == np.uint16:
        return _to_pixels(_scale_16_bit(array, name), name)
    if array.dtype == np.uint8:
        return _to_pixels(array, name)
    if array.dtype.kind not in "iuf":
        raise ImageError(f"{name}: an array of {array.dtype} is no picture; allowed: bool, integers, floats")
    values = array.astype(np.float64)
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise ImageError(f"{name}: holds values outside 0-255 ({values.min()} to {values.max()})")
    if values.size and 0 < values.max() <= 1 and (values % 1).any():
        raise ImageError(f"{name}: floats between 0 and 1 are on another scale; multiply them by 255")
    return _to_pixels(_to_uint8_if_exact(values), name)


def _scale_16_bit(array: NDArray[Any], name: str) -> Pixels:
    values = array.astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 65535):
        raise ImageError(f"{name}: holds values outside 0-65535 ({values.min():.0f} to {values.max():.0f})")
    return _to_uint8_if_exact(values / 257.0)


def _to_uint8_if_exact(values: NDArray[np.float64]) -> Pixels:
    """As uint8 where nothing is lost, so that one picture has one form whatever it was stored in."""
    whole = values.astype(np.uint8)
    return whole if np.array_equal(whole, values) else values


def _to_pixels(array: NDArray[Any], name: str) -> Pixels:
    shaped = array[:, :, None] if array.ndim == 2 else array
    if shaped.ndim != 3 or shaped.shape[2] not in CHANNELS:
        raise ImageError(
            f"{name}: an array of shape {array.shape} is no picture; allowed: (height, width) and (height, width, 1-4)"
        )
    if not shaped.size:
        raise ImageError(f"{name}: has no pixels (shape {array.shape})")
    return shaped
