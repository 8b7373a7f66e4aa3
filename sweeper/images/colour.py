"""Colour difference as people see it: sRGB to CIELAB, and CIEDE2000 between two colours.

A transparent picture looks different on each background, so `flatten_alpha` shows it over black and over white.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeper.images.decoding import Pixels

Values: TypeAlias = NDArray[np.float64]

# sRGB (IEC 61966-2-1) to XYZ, for the primaries of ITU-R BT.709 and D65 white; the digits that scikit-image uses.
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degree observer
_CUBE = 0.008856  # below this CIELAB's cube root gives way to a line (CIE 15:2004, to four digits)
_CHUNK = 8192  # pixels at a time, so that three dozen temporary arrays stay in the cache


def flatten_alpha(pixels: Pixels) -> list[Pixels]:
    """The views of a picture without alpha: itself if it has none, or else how it looks over black and over white.

    Takes arrays of shape (..., 1-4), and returns arrays with 1 or 3 channels, 0-255.
    """
    if pixels.shape[-1] in (1, 3):
        return [pixels]
    alpha = pixels[..., -1:] / 255.0
    over_black = pixels[..., :-1] * alpha
    return [over_black, over_black + 255.0 * (1.0 - alpha)]


def mean_ciede2000(a: Pixels, b: Pixels, mask: NDArray[np.bool_]) -> float:
    """The mean CIEDE2000 over all pixels; those outside `mask` are equal. With alpha, the worse of two views."""
    sums = []
    for this, other in zip(flatten_alpha(a[mask]), flatten_alpha(b[mask]), strict=True):
        parts = (slice(at, at + _CHUNK) for at in range(0, len(this), _CHUNK))
        sums.append(math.fsum(float(ciede2000(to_lab(this[part]), to_lab(other[part])).sum()) for part in parts))
    return max(sums) / mask.size


def to_lab(pixels: Pixels) -> Values:
    """CIELAB (3, n) of pixels (n, 1 or 3) in sRGB, 0-255; L 0-100."""
    linear = _LINEAR[pixels] if pixels.dtype == np.uint8 else _to_linear(pixels / 255.0)
    if linear.shape[-1] == 1:
        linear = np.repeat(linear, 3, axis=-1)
    scaled = (_TO_XYZ / _WHITE[:, None]) @ linear.T
    x, y, z = np.where(scaled > _CUBE, np.cbrt(scaled), 7.787 * scaled + 16.0 / 116.0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])


def _to_linear(encoded: Values) -> Values:
    """Apply the transfer function of IEC 61966-2-1, 0-1 to 0-1."""
    return np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)


_LINEAR = _to_linear(np.arange(256) / 255.0)


def ciede2000(this: Values, other: Values) -> Values:
    """CIEDE2000 between CIELAB colours (3, n), with all weights 1: an array (n,), 0 for equal colours.

    G. Sharma, W. Wu and E. N. Dalal, "The CIEDE2000 color-difference formula: implementation notes, supplementary test
    data, and mathematical observations", Color Research and Application 30 (2005), 21-30. Numbers in
    parentheses are its equations.
    """
    chroma, hue = _chroma_and_hue(this, other)
    lightness = (this[0] + other[0]) / 2.0
    product = chroma[0] * chroma[1]
    turn = hue[1] - hue[0]  # (10): the shorter angle, 0 if a colour is grey
    turn = np.where(turn > math.pi, turn - 2.0 * math.pi, np.where(turn < -math.pi, turn + 2.0 * math.pi, turn))
    turn = np.where(product == 0.0, 0.0, turn)
    total = hue[0] + hue[1]  # (14): twice the middle of the shorter angle; if a colour is grey, the other hue
    around = np.where(total < 2.0 * math.pi, total + 2.0 * math.pi, total - 2.0 * math.pi)
    middle = np.where(np.abs(hue[0] - hue[1]) > math.pi, around, total) / 2.0
    mean_hue = np.where(product == 0.0, total, middle)
    mean_chroma = (chroma[0] + chroma[1]) / 2.0
    tint = np.ones_like(mean_hue)  # T of (15); weight, multiple of the angle, degrees
    for weight, multiple, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63)):
        tint += weight * np.cos(multiple * mean_hue + math.radians(shift))
    rotation = math.radians(60) * np.exp(-(((np.degrees(mean_hue) - 275.0) / 25.0) ** 2))  # twice (16)
    offset = (lightness - 50.0) ** 2
    by_lightness = (other[0] - this[0]) / (1.0 + 0.015 * offset / np.sqrt(20.0 + offset))  # (8), (18)
    by_chroma = (chroma[1] - chroma[0]) / (1.0 + 0.045 * mean_chroma)  # (9), (19)
    by_hue = 2.0 * np.sqrt(product) * np.sin(turn / 2.0) / (1.0 + 0.015 * mean_chroma * tint)  # (11), (20)
    coupling = -2.0 * np.sin(rotation) * _saturation(mean_chroma) * by_chroma * by_hue  # (17), (21)
    square = by_lightness**2 + by_chroma**2 + by_hue**2 + coupling  # (22)
    difference: Values = np.sqrt(np.maximum(square, 0.0))
    return difference


def _saturation(chroma: Values) -> Values:
    """sqrt(C^7 / (C^7 + 25^7)), of equations 4 and 17."""
    seventh = chroma**7
    return np.sqrt(seventh / (seventh + 25.0**7))


def _chroma_and_hue(this: Values, other: Values) -> tuple[Values, Values]:
    """C' and h' (2, n) of both colours by equations 2 to 7; h' in radians, 0 to 2 pi."""
    red_green, yellow_blue = np.stack([this[1], other[1]]), np.stack([this[2], other[2]])
    mean_chroma = np.hypot(red_green, yellow_blue).mean(axis=0)
    red_green *= 1.5 - 0.5 * _saturation(mean_chroma)
    angle = np.arctan2(yellow_blue, red_green)
    return np.hypot(red_green, yellow_blue), np.where(angle < 0.0, angle + 2.0 * math.pi, angle)
