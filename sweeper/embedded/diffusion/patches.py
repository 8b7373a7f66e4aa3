"""Model patches that act on guidance, in ComfyUI 0.3.64's arithmetic: `Model.patches` holds (kind, numbers).

`linear` and `triangle` vary cfg over the frames of a video; `rescale` is Lin et al. 2023 ("Common diffusion noise
schedules and sample steps are flawed", section 3.4); `norm` keeps the length of the conditional estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Patch = tuple[str, tuple[float, ...]]


def cfg_of_frame(patches: Sequence[Patch], cfg: float, index: int, count: int) -> float:
    """Cfg for item `index` of `count`."""
    position = index / max(count - 1, 1)
    for kind, numbers in patches:
        if kind == "linear":
            cfg = numbers[0] + position * (cfg - numbers[0])
        elif kind == "triangle":
            cfg = 2 * abs(position - math.floor(position + 0.5)) * (cfg - numbers[0]) + numbers[0]
    return cfg


def apply_patches(patches: Sequence[Patch], guided: Array, positive: Array, x: Array, sigma: float) -> Array:
    """The guided estimate [4, h, w] after the patches, given the conditional one and the noisy latent `x`."""
    for kind, numbers in patches:
        if kind == "rescale":
            guided = _rescale(guided, positive, x, sigma, numbers[0])
        elif kind == "norm":
            lengths = [np.sqrt(np.square(side).sum(axis=0, keepdims=True)) for side in (positive, guided)]
            scale = np.clip(lengths[0] / (lengths[1] + 1e-8), 0, 1)
            guided = np.asarray(guided * (scale * np.float32(numbers[0])))
    return guided


def _rescale(guided: Array, positive: Array, x: Array, sigma: float, share: float) -> Array:
    """Bring the guided v-prediction's deviation back to the conditional one's, by `share`."""
    root = math.sqrt(sigma**2 + 1)
    scaled = x / np.float32(sigma**2 + 1)

    def velocity(estimate: Array) -> Array:
        return np.asarray((scaled - (x - estimate)) * np.float32(root / sigma))

    v, own = velocity(guided), velocity(positive)
    ratio = float(own.std()) / max(float(v.std()), 1e-12)
    final = v * np.float32(share * ratio + 1 - share)
    return np.asarray(x - (scaled - final * np.float32(sigma / root)))
