"""Measures of the pixels of two pictures: how much they differ, how many, and how densely.

The arrays are `decoding.Pixels` of the same shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper.images.decoding import Pixels

_WINDOW = 16  # pixels


def absolute_difference(a: Pixels, b: Pixels) -> Pixels:
    """|a - b|, 0-255, exact. uint8 if both are, which is several times faster than wider types."""
    if a.dtype == np.uint8 and b.dtype == np.uint8:
        lower: NDArray[np.uint8] = np.minimum(a, b)
        return np.maximum(a, b) - lower
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


def mean_square(distance: Pixels) -> float:
    """The mean of the squares over pixels and channels, 0-65025; exact for uint8."""
    if distance.dtype == np.uint8:
        wide = distance.astype(np.uint16)
        return int(np.multiply(wide, wide).sum(dtype=np.uint64)) / distance.size  # 255 squared fits 16 bits
    return float(np.square(distance).mean())


def psnr(distance: Pixels) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255 over all pixels and channels; infinite for equal pictures."""
    square = mean_square(distance)
    return math.inf if square == 0 else 10.0 * math.log10(255.0**2 / square)


def mean(distance: Pixels) -> float:
    """The mean over pixels and channels, 0-255."""
    total: Any = distance.sum(dtype=np.uint64 if distance.dtype == np.uint8 else np.float64)
    return float(total) / distance.size


def find_differing(distance: Pixels) -> NDArray[np.bool_]:
    """A mask (height, width) of the pixels of which any channel differs."""
    mask: NDArray[np.bool_] = distance[:, :, 0] != 0
    for channel in range(1, distance.shape[2]):  # ten times faster than any(axis=2)
        mask |= distance[:, :, channel] != 0
    return mask


def worst_window(mask: NDArray[np.bool_]) -> float:
    """The largest share, 0-1, of True in any 16 x 16 window inside the picture.

    If the picture is smaller, so is the window. This distinguishes a local defect from speckle, like the `windowSize`
    of pixelmatch.
    """
    if not mask.any():
        return 0.0
    if mask.all():
        return 1.0
    height, width = min(_WINDOW, mask.shape[0]), min(_WINDOW, mask.shape[1])
    down, across = mask.shape[0] - height + 1, mask.shape[1] - width + 1
    rows = np.zeros((down, mask.shape[1]), dtype=np.uint8)  # a sum of 16 fits 8 bits, a sum of 256 does not
    for shift in range(height):
        rows += mask[shift : shift + down].view(np.uint8)
    counts = np.zeros((down, across), dtype=np.uint16)
    for shift in range(width):
        counts += rows[:, shift : shift + across]
    share: float = int(counts.max()) / (height * width)
    return share
