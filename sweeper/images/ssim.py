"""Structural similarity: SSIM (Wang, Bovik, Sheikh and Simoncelli 2004) and MS-SSIM (Wang, Simoncelli and Bovik 2003).

The window is a Gaussian of sigma 1.5 cut at 3.5 sigma (11 taps), the data range is 255, variances are those of a
population, and only windows inside the picture count. This equals scikit-image's `structural_similarity(
gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)`, up to rounding in double precision.

It cannot use single precision, because cancellation in E[x^2] - E[x]^2 costs the sixth decimal. It is still fast: the
picture is processed in tiles that stay in the cache, equal tiles are not filtered, and a filter is a product with a
band matrix. These products are too small for BLAS to use threads, so that several comparisons can share the cores.
"""

from __future__ import annotations

from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeper.images.decoding import Pixels

_RADIUS = 5  # int(3.5 sigma + 0.5)
_TAPS = 2 * _RADIUS + 1
_TILE = 48  # windows along each side of a tile; measured
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # K1 and K2 of the 2004 paper

# The exponents of the five scales, finest first: Wang, Simoncelli and Bovik 2003, section 3.2. They sum to 1.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Plane: TypeAlias = NDArray[np.float64]


def ssim(a: Pixels, b: Pixels) -> tuple[Plane, Plane]:
    """(SSIM, contrast-structure term), each the mean over the windows, one value per channel, -1 to 1.

    A side shorter than the 11 taps is mirrored outward by 5 pixels (edge pixel repeated), so that each of its pixels
    has a window. Single pixels are therefore compared only by their luminance.
    """
    a, b = (np.moveaxis(_pad(pixels), 2, 0) for pixels in (a, b))
    channels, height, width = a.shape[0], a.shape[1] - 2 * _RADIUS, a.shape[2] - 2 * _RADIUS
    sums = np.zeros((2, channels))
    for top, left in product(range(0, height, _TILE), range(0, width, _TILE)):
        tile = np.s_[:, top : top + _TILE + 2 * _RADIUS, left : left + _TILE + 2 * _RADIUS]
        sums += _sum_tile(a[tile], b[tile])
    whole, structure = sums / (height * width)
    return whole, structure


def ms_ssim(a: Pixels, b: Pixels, finest: tuple[Plane, Plane]) -> float:
    """MS-SSIM, 0 to 1, the mean over channels; `finest` is `ssim(a, b)`.

    Each coarser scale averages 2 x 2 pixels (an odd side repeats its last), as long as no side falls below the 11
    taps. From 176 pixels on there are all five scales. A smaller picture has fewer, and their exponents are scaled to
    sum to 1. A negative mean, which has no real power, counts as 0.
    """
    scales = [finest]
    while len(scales) < len(SCALES) and min(a.shape[0], a.shape[1]) >= 2 * _TAPS:
        a, b = _halve(a), _halve(b)
        scales.append(ssim(a, b))
    weights = np.array(SCALES[: len(scales)])
    terms = np.array([structure for _, structure in scales[:-1]] + [scales[-1][0]])
    powers = np.maximum(terms, 0.0) ** (weights / weights.sum())[:, None]
    return float(powers.prod(axis=0).mean())


def _pad(pixels: Pixels) -> Pixels:
    short = [(_RADIUS, _RADIUS) if side < _TAPS else (0, 0) for side in pixels.shape[:2]]
    padded: Pixels = np.pad(pixels, [*short, (0, 0)], mode="symmetric")  # type: ignore[assignment]  # the stub's dtype
    return padded


def _halve(pixels: Pixels) -> Plane:
    odd = [(0, side % 2) for side in pixels.shape[:2]]
    even = np.pad(pixels, [*odd, (0, 0)], mode="edge")
    rows = np.add(even[0::2], even[1::2], dtype=np.float64)
    half: Plane = (rows[:, 0::2] + rows[:, 1::2]) / 4.0
    return half


def _sum_tile(a: Pixels, b: Pixels) -> Plane:
    """Sum SSIM and its contrast-structure term (2, channels) over the windows of a tile (channels, height, width).

    With s = a + b and d = a - b, four filtered fields suffice instead of five: 4 E[a]E[b] = E[s]^2 - E[d]^2 and
    2 (E[a]^2 + E[b]^2) = E[s]^2 + E[d]^2, and the same for (co)variances, so all terms are doubled.
    """
    height, width = a.shape[1] - 2 * _RADIUS, a.shape[2] - 2 * _RADIUS
    if np.array_equal(a, b):
        return np.full((2, a.shape[0]), float(height * width))
    fields = np.empty((4, *a.shape))
    np.add(a, b, out=fields[0], dtype=np.float64)
    np.subtract(a, b, out=fields[1], dtype=np.float64)
    np.square(fields[:2], out=fields[2:])
    fields = _BAND[:height, : height + 2 * _RADIUS] @ fields @ _TRANSPOSED[: width + 2 * _RADIUS, :width]
    s, d = np.square(fields[:2])
    s2, d2 = fields[2] - s, fields[3] - d
    structure = (s2 - d2 + 2.0 * _C2) / (s2 + d2 + 2.0 * _C2)
    whole = (s - d + 2.0 * _C1) / (s + d + 2.0 * _C1) * structure
    sums: Plane = np.stack([whole, structure]).sum(axis=(2, 3))
    return sums


def _make_band() -> Plane:
    """A matrix (outputs, outputs + 10), whose product filters values: row i holds the taps from column i on."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
    band = np.zeros((_TILE, _TILE + 2 * _RADIUS))
    for row in range(_TILE):
        band[row, row : row + _TAPS] = taps / taps.sum()
    return band


_BAND = _make_band()
_TRANSPOSED = np.ascontiguousarray(_BAND.T)  # a copy, because BLAS is slow on a transposed view
