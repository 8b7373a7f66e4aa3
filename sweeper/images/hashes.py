"""Hashes of pictures: the exact hash of their pixels, and the perceptual hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.images.colour import flatten_alpha
from sweeper.images.decoding import Pixels

_SIDE, _FREQUENCIES = 32, 8  # the side of the reduced picture, and the number of its low frequencies


def hash_pixels(frames: Iterable[Pixels]) -> str:
    """SHA-256, as 64 hex digits, of each frame's shape, scale and pixels."""
    digest = hashlib.sha256()
    for frame in frames:
        # Little-endian and row by row on every machine. The shape distinguishes 2 x 8 from 4 x 4.
        plain = np.ascontiguousarray(frame, dtype=np.uint8 if frame.dtype == np.uint8 else "<f8")
        digest.update(f"{plain.dtype.str} {plain.shape}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()


def phash(pixels: Pixels) -> list[NDArray[np.bool_]]:
    """The 64 bits of the DCT perceptual hash, for each view of the picture without alpha.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), as the ImageHash package
    computes it: luma reduced to 32 x 32 (Lanczos), DCT-II, the 8 x 8 lowest frequencies with the constant one. A bit is
    set if its coefficient is above their median. Coefficients are rounded to six decimals first, because those of a
    constant picture are zero except for rounding errors, and the hash would be noise.
    """
    return [_hash_view(view) for view in flatten_alpha(pixels)]


def _hash_view(view: Pixels) -> NDArray[np.bool_]:
    levels = view if view.dtype == np.uint8 else np.rint(view).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = np.round(_COSINES @ np.asarray(small, dtype=np.float64) @ _COSINES.T, 6)
    bits: NDArray[np.bool_] = low > np.median(low)
    return bits


_COSINES = 2.0 * np.cos(math.pi * np.arange(_FREQUENCIES)[:, None] * (2 * np.arange(_SIDE)[None, :] + 1) / (2 * _SIDE))
