"""The measures of two pictures by name, their values for equal pictures, and which direction is worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeper.images import colour, neural, ssim
from sweeper.images.decoding import Pixels

_WINDOW = 16  # pixels
_SIDE, _FREQUENCIES = 32, 8  # of a perceptual hash: the side of the reduced picture, and its low frequencies


def absolute_difference(a: Pixels, b: Pixels) -> Pixels:
    """|a - b|, 0-255, exact. uint8 if both are, which is several times faster than wider types."""
    if a.dtype == np.uint8 and b.dtype == np.uint8:
        lower: NDArray[np.uint8] = np.minimum(a, b)
        return np.maximum(a, b) - lower
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


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


def _count_differing_bits(a: Pixels, b: Pixels) -> int:
    """The distance of two perceptual hashes; with alpha, in the worse of two views."""
    return max(int((x != y).sum()) for x, y in zip(phash(a), phash(b), strict=True))


class ImagePair:
    """Two arrays of the same shape, and values that several measures need, computed when first used."""

    def __init__(self, a: Pixels, b: Pixels) -> None:
        self.a = a
        self.b = b

    @cached_property
    def distance(self) -> Pixels:
        return absolute_difference(self.a, self.b)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels (height, width) of which any channel differs."""
        return np.asarray(self.distance.any(axis=2))

    @cached_property
    def similarity(self) -> tuple[ssim.Plane, ssim.Plane]:
        return ssim.ssim(self.a, self.b)


MEASURES: Final[Mapping[str, Callable[[ImagePair], float]]] = {
    "psnr": lambda pair: psnr(pair.distance),
    "ssim": lambda pair: float(pair.similarity[0].mean()),
    "ms_ssim": lambda pair: ssim.ms_ssim(pair.a, pair.b, pair.similarity),
    "mae": lambda pair: float(pair.distance.mean(dtype=np.float64)),
    "max_abs": lambda pair: float(pair.distance.max()),
    "differing": lambda pair: float(pair.mask.mean()),
    "ciede2000": lambda pair: colour.mean_ciede2000(pair.a, pair.b, pair.mask),
    "phash": lambda pair: _count_differing_bits(pair.a, pair.b),
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
