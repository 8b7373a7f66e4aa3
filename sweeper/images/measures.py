"""The measures of two pictures by name, their values for equal pictures, and which direction is worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sweeper.images import colour, hashes, neural, pixel_distance, ssim
from sweeper.images.decoding import Pixels


class ImagePair:
    """Two arrays of the same shape, and values that several measures need, computed when first used."""

    def __init__(self, a: Pixels, b: Pixels) -> None:
        self.a = a
        self.b = b

    @cached_property
    def distance(self) -> Pixels:
        return pixel_distance.absolute_difference(self.a, self.b)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        return pixel_distance.find_differing(self.distance)

    @cached_property
    def similarity(self) -> tuple[ssim.Plane, ssim.Plane]:
        return ssim.ssim(self.a, self.b)


MEASURES: Final[Mapping[str, Callable[[ImagePair], float]]] = {
    "psnr": lambda pair: pixel_distance.psnr(pair.distance),
    "ssim": lambda pair: float(pair.similarity[0].mean()),
    "ms_ssim": lambda pair: ssim.ms_ssim(pair.a, pair.b, pair.similarity),
    "mae": lambda pair: pixel_distance.mean(pair.distance),
    "max_abs": lambda pair: float(pair.distance.max()),
    "differing": lambda pair: float(pair.mask.mean()),
    "ciede2000": lambda pair: colour.mean_ciede2000(pair.a, pair.b, pair.mask),
    "phash": lambda pair: hashes.phash_distance(pair.a, pair.b),
    "windowed": lambda pair: pixel_distance.worst_window(pair.mask),
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
