"""Structural similarity: SSIM (Wang, Bovik, Sheikh and Simoncelli 2004) and MS-SSIM (Wang, Simoncelli and Bovik 2003).

The window is a Gaussian of sigma 1.5 cut at 3.5 sigma (11 taps), the data range is 255, variances are those of a
population, and only windows inside the picture count. This equals scikit-image's `structural_similarity(
gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)`, up to rounding in double precision.

It cannot use single precision, because cancellation in E[x^2] - E[x]^2 costs the sixth decimal. It is still fast:

- with s = a + b and d = a - b, four filtered fields (s, s^2, d, d^2) suffice instead of five, and where d is zero the
  result is 1 without a filter;
- a filter along an axis is a product with a narrow band matrix, done by BLAS in blocks (8 outputs from 18 inputs). This
  needs more multiplications, but no other routine reaches the machine's speed;
- the picture is processed in strips that stay in the cache. Their products are too small for BLAS to use threads, so
  that several comparisons can share the cores.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sweeper.images.decoding import Pixels

_RADIUS = 5  # int(3.5 sigma + 0.5)
_TAPS = 2 * _RADIUS + 1
_BLOCK = 8  # outputs of one product; measured: longer blocks waste multiplications
_BLOCK_INPUTS = _BLOCK + 2 * _RADIUS  # inputs of them
_MAX_COLUMNS = 1024  # columns of one product down: below the 2^18 multiplications from which OpenBLAS may use threads
_STRIP_ROWS = 64  # rows of one strip: four fields of 64 x 1024 doubles are 2 MB
_BUFFER_SIZE = 4 * (_STRIP_ROWS + 2 * _RADIUS) * 2048  # doubles that are reused for the next picture, 5 MB
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # K1 and K2 of the 2004 paper

# The exponents of the five scales, finest first: Wang, Simoncelli and Bovik 2003, section 3.2. They sum to 1.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Plane = NDArray[np.float64]


class _BufferPool(threading.local):
    """Three arrays for each thread, reused for every strip of every picture.

    New arrays of this size would double the time, because the system allocates them page by page. Very wide pictures
    get their own arrays, which are freed afterwards.
    """

    def __init__(self) -> None:
        self._arrays = [np.empty(_BUFFER_SIZE) for _ in range(3)]

    def get_arrays(self, size: int) -> list[Plane]:
        return self._arrays if size <= _BUFFER_SIZE else [np.empty(size) for _ in range(3)]


_BUFFERS = _BufferPool()


def ssim(a: Pixels, b: Pixels) -> tuple[Plane, Plane]:
    """(SSIM, contrast-structure term), each the mean over the windows, one value per channel, -1 to 1.

    A side shorter than the 11 taps is mirrored outward by 5 pixels (edge pixel repeated), so that each of its pixels
    has a window. Single pixels are therefore compared only by their luminance.
    """
    a, b = _pad(a), _pad(b)
    store = _BUFFERS.get_arrays(4 * min(_STRIP_ROWS + 2 * _RADIUS, a.shape[0]) * a.shape[1])
    exact = np.int16 if a.dtype == b.dtype == np.uint8 else np.float64  # the narrower, the faster
    strips = _make_strips(store, a.shape[0] - 2 * _RADIUS, a.shape[1], exact)
    sums = np.array([_sum_channel(a[:, :, at], b[:, :, at], strips) for at in range(a.shape[2])])
    windows = (a.shape[0] - 2 * _RADIUS) * (a.shape[1] - 2 * _RADIUS)
    return sums[:, 0] / windows, sums[:, 1] / windows


def ms_ssim(a: Pixels, b: Pixels, finest: tuple[Plane, Plane]) -> float:
    """MS-SSIM, 0 to 1, the mean over channels; `finest` is `similarity(a, b)`.

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
    if short == [(0, 0), (0, 0)]:
        return pixels
    padded: Pixels = np.pad(pixels, [*short, (0, 0)], mode="symmetric")  # type: ignore[assignment]  # the stub's dtype
    return padded


def _halve(pixels: Pixels) -> Plane:
    odd = [(0, side % 2) for side in pixels.shape[:2]]
    even = np.pad(pixels, [*odd, (0, 0)], mode="edge")
    rows = np.add(even[0::2], even[1::2], dtype=np.float64)
    half: Plane = (rows[:, 0::2] + rows[:, 1::2]) / 4.0
    return half


def _sum_channel(a: NDArray[np.generic], b: NDArray[np.generic], strips: list[_Strip]) -> tuple[float, float]:
    """Sum SSIM and its contrast-structure term over all windows of one channel."""
    total = structure = 0.0
    top = 0
    for strip in strips:
        reach = slice(top, top + strip.rows + 2 * _RADIUS)
        top += strip.rows
        this, other, mixed = strip.levels
        this[:], other[:] = a[reach], b[reach]
        if np.equal(this, other, out=strip.mask).all():
            total += strip.windows
            structure += strip.windows
            continue
        fields = strip.fields
        fields[0] = np.add(this, other, out=mixed)
        fields[2] = np.subtract(this, other, out=mixed)
        np.square(fields[0], out=fields[1])
        np.square(fields[2], out=fields[3])
        strip.filter()
        of_strip = _sum_terms(strip.filtered, strip.spare)
        total += of_strip[0]
        structure += of_strip[1]
    return total, structure


_Product = tuple[Plane, Plane, Plane]  # two factors, and where their product goes


class _Strip:
    """The arrays and the products that filter a strip, prepared once for all strips of the same height.

    This helps threads: Python code between two NumPy calls blocks the other threads, and so does the system's lock when
    arrays are allocated and freed for each strip.

    `levels` are those of the two pictures and one more array of the same type, and `mask` is True where they are equal.
    `fields` (n, rows + 10, columns) are filtered into `filtered`, with 10 rows and 10 columns less. `spare` is one more
    array of that size; it reuses the memory of `fields`, which are no longer needed then.
    """

    def __init__(self, store: list[Plane], rows: int, columns: int, exact: type[np.generic]) -> None:
        width = columns - 2 * _RADIUS
        self.rows, self.windows = rows, rows * width
        self.levels = np.empty((3, rows + 2 * _RADIUS, columns), exact)
        self.mask = np.empty((rows + 2 * _RADIUS, columns), np.bool_)
        self.fields = _reshape(store[0], 4, rows + 2 * _RADIUS, columns)
        self.spare = _reshape(store[0], rows, width)
        self.filtered = _reshape(store[2], 4, rows, width)
        down = _reshape(store[1], 4, rows, columns)
        self._products: list[_Product] = []
        for left in range(0, columns, _MAX_COLUMNS):
            of = slice(left, left + _MAX_COLUMNS)
            self._products += _vertical_products(self.fields[:, :, of], down[:, :, of])
        self._products += _horizontal_products(
            down.reshape(-1, columns), self.filtered.reshape(-1, width)
        )  # one for all fields

    def filter(self) -> None:
        for this, other, product in self._products:
            np.matmul(this, other, out=product)


def _make_strips(store: list[Plane], height: int, columns: int, exact: type[np.generic]) -> list[_Strip]:
    """Strips from top to bottom. Full-height strips share one buffer, since they are processed in turn."""
    whole, rest = divmod(height, _STRIP_ROWS)
    strips = [_Strip(store, _STRIP_ROWS, columns, exact)] * whole if whole else []
    return [*strips, _Strip(store, rest, columns, exact)] if rest else strips


def _reshape(store: Plane, *shape: int) -> Plane:
    return store[: math.prod(shape)].reshape(shape)


# Both pass all whole blocks of 8 outputs to NumPy in one call, which passes each to BLAS; then the rest.


def _vertical_products(fields: Plane, result: Plane) -> list[_Product]:
    count, height, columns = result.shape
    whole = height // _BLOCK
    end = whole * _BLOCK
    products: list[_Product] = []
    if whole:
        windows = sliding_window_view(fields, _BLOCK_INPUTS, axis=1)[:, ::_BLOCK].swapaxes(2, 3)
        # A view, because the axis is only split.
        products.append((_VERTICAL_BAND, windows, result[:, :end].reshape(count, whole, _BLOCK, columns)))
    if end < height:
        products.append(
            (_VERTICAL_BAND[: height - end, : height - end + 2 * _RADIUS], fields[:, end:], result[:, end:])
        )
    return products


def _horizontal_products(lines: Plane, result: Plane) -> list[_Product]:
    count, width = result.shape
    whole = width // _BLOCK
    end = whole * _BLOCK
    products: list[_Product] = []
    if whole:
        windows = sliding_window_view(lines, _BLOCK_INPUTS, axis=1)[:, ::_BLOCK].swapaxes(0, 1)
        products.append((windows, _HORIZONTAL_BAND, result[:, :end].reshape(count, whole, _BLOCK).swapaxes(0, 1)))
    if end < width:
        products.append((lines[:, end:], _HORIZONTAL_BAND[: width - end + 2 * _RADIUS, : width - end], result[:, end:]))
    return products


def _sum_terms(fields: Plane, structure: Plane) -> tuple[float, float]:
    """Sum SSIM and its contrast-structure term from the filtered fields, which are overwritten.

    4 E[a]E[b] = s^2 - d^2 and 2 (E[a]^2 + E[b]^2) = s^2 + d^2, and the same for (co)variances, so all terms
    are doubled.
    """
    s, s2, d, d2 = fields
    np.square(s, out=s)
    np.square(d, out=d)
    s2 -= s
    d2 -= d
    s2 += 2.0 * _C2
    s += 2.0 * _C1
    np.subtract(s2, d2, out=structure)
    s2 += d2
    structure /= s2
    luminance = np.subtract(s, d, out=d2)
    s += d
    luminance /= s
    luminance *= structure  # not `vdot`, because BLAS would start its threads for it
    return float(luminance.sum()), float(structure.sum())


def _make_band() -> Plane:
    """A matrix whose product with `outputs + 10` values filters them into `outputs` values.

    It is (outputs, outputs + 10); row i holds the taps from column i on, and otherwise 0.
    """
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
    taps /= taps.sum()
    band = np.zeros((_BLOCK, _BLOCK_INPUTS))
    for row in range(_BLOCK):
        band[row, row : row + _TAPS] = taps
    return band


_VERTICAL_BAND = _make_band()
_HORIZONTAL_BAND = np.ascontiguousarray(_VERTICAL_BAND.T)  # a copy, because BLAS is slow on a transposed view
