"""The measures of two pictures by name, their values for equal pictures, and which direction is worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import product
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.images import colour, neural
from sweeper.images.decoding import Pixels

_WINDOW = 16  # pixels
_SIDE, _FREQUENCIES = 32, 8  # of a perceptual hash: the side of the reduced picture, and its low frequencies


def psnr(distance: Pixels) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255 over all pixels and channels; infinite for equal pictures."""
    square = float(np.square(distance, dtype=np.float64).mean())
    return math.inf if square == 0 else 10.0 * math.log10(255.0**2 / square)


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
    sums = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))  # of each rectangle from the top left corner
    sums = sums[height:] - sums[:-height]
    return float((sums[:, width:] - sums[:, :-width]).max() / (height * width))


def phash(pixels: Pixels) -> list[NDArray[np.bool_]]:
    """The 64 bits of the DCT perceptual hash, for each view of the picture without alpha.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), as the ImageHash package
    computes it: luma reduced to 32 x 32 (Lanczos), DCT-II, the 8 x 8 lowest frequencies with the constant one. A bit is
    set if its coefficient is above their median. Coefficients are rounded to six decimals first, because those of a
    constant picture are zero except for rounding errors, and the hash would be noise.
    """
    return [_hash_view(view) for view in colour.flatten_alpha(pixels)]


def _hash_view(view: Pixels) -> NDArray[np.bool_]:
    levels = view if view.dtype == np.uint8 else np.rint(view).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = np.round(_COSINES @ np.asarray(small, dtype=np.float64) @ _COSINES.T, 6)
    bits: NDArray[np.bool_] = low > np.median(low)
    return bits


_COSINES = 2.0 * np.cos(math.pi * np.arange(_FREQUENCIES)[:, None] * (2 * np.arange(_SIDE)[None, :] + 1) / (2 * _SIDE))


_RADIUS = 5  # of SSIM's window: int(3.5 sigma + 0.5)
_TAPS = 2 * _RADIUS + 1
_TILE = 48  # windows along each side of a tile; measured
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of SSIM: K1 and K2 of its paper

# The exponents of the five scales, finest first: Wang, Simoncelli and Bovik 2003, section 3.2. They sum to 1.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Plane: TypeAlias = NDArray[np.float64]


def ssim(a: Pixels, b: Pixels) -> tuple[Plane, Plane]:
    """(SSIM, contrast-structure term), each the mean over the windows, one value per channel, -1 to 1.

    Wang, Bovik, Sheikh and Simoncelli 2004. The window is a Gaussian of sigma 1.5 cut at 3.5 sigma (11 taps), the data
    range is 255, variances are those of a population, and only windows inside the picture count. This equals
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=255)`, up to rounding in double precision. Single precision does not suffice, because cancellation in
    E[x^2] - E[x]^2 costs the sixth decimal. To be fast, it takes tiles that stay in the cache, and filters by products
    with a band matrix, which are too small for BLAS to use threads: several comparisons can share the cores.

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


class ImagePair:
    """Two arrays of the same shape, and values that several measures need, computed when first used."""

    def __init__(self, a: Pixels, b: Pixels) -> None:
        self.a = a
        self.b = b

    @cached_property
    def distance(self) -> Pixels:
        """|a - b|, 0-255, exact. uint8 if both are, which is several times faster than wider types."""
        if self.a.dtype == np.uint8 and self.b.dtype == np.uint8:
            lower: NDArray[np.uint8] = np.minimum(self.a, self.b)
            return np.maximum(self.a, self.b) - lower
        return np.abs(self.a.astype(np.float64) - self.b.astype(np.float64))

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels (height, width) of which any channel differs."""
        return np.asarray(self.distance.any(axis=2))

    @cached_property
    def similarity(self) -> tuple[Plane, Plane]:
        return ssim(self.a, self.b)


MEASURES: Final[Mapping[str, Callable[[ImagePair], float]]] = {
    "psnr": lambda pair: psnr(pair.distance),
    "ssim": lambda pair: float(pair.similarity[0].mean()),
    "ms_ssim": lambda pair: ms_ssim(pair.a, pair.b, pair.similarity),
    "mae": lambda pair: float(pair.distance.mean(dtype=np.float64)),
    "max_abs": lambda pair: float(pair.distance.max()),
    "differing": lambda pair: float(pair.mask.mean()),
    "ciede2000": lambda pair: colour.mean_ciede2000(pair.a, pair.b, pair.mask),
    # With alpha, the worse of two views
    "phash": lambda pair: max(int((x != y).sum()) for x, y in zip(phash(pair.a), phash(pair.b), strict=True)),
    "windowed": lambda pair: worst_window(pair.mask),
    "lpips": lambda pair: neural.lpips_distance(pair.a, pair.b),
    "clip": lambda pair: neural.clip_similarity(pair.a, pair.b),
}

# The measures that need no model. The others are computed only if they are named.
DEFAULT_NAMES: Final = tuple(name for name in MEASURES if name not in neural.MODELS)

# The values for equal pictures, so that equal files need no decoding. Property tests verify them.
EQUAL_VALUES: Final[Mapping[str, float]] = {
    "psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0, "mae": 0.0, "max_abs": 0.0, "differing": 0.0, "ciede2000": 0.0,
    "phash": 0, "windowed": 0.0, "lpips": 0.0, "clip": 1.0,
}  # fmt: skip

HIGHER_IS_CLOSER: Final = ("psnr", "ssim", "ms_ssim", "clip")


def measure_pair(a: Pixels, b: Pixels, names: Iterable[str]) -> dict[str, float]:
    """Compute these measures for two arrays of the same shape."""
    pair = ImagePair(a, b)
    return {name: MEASURES[name](pair) for name in names}


def take_worse(this: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """For each measure, the value that means the greater difference."""
    return {name: (min if name in HIGHER_IS_CLOSER else max)(this[name], other[name]) for name in this}
