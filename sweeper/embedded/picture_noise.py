"""Noise in pictures, as a server has whose GPU does not compute the same sum twice. A scenario asks for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.embedded.diffusion.arrays import Array


def add_noise(images: Array, deviation: float, seed: str) -> Array:
    """Add normal noise to the colours of IMAGE [B, H, W, C]. `deviation` is of 255; the same seed adds the same."""
    import numpy as np

    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    colours = images[..., :3]
    noise = random.normal(0.0, deviation / 255, colours.shape)
    noisy = np.clip(colours + noise, 0.0, 1.0).astype(images.dtype)
    return np.concatenate([noisy, images[..., 3:]], axis=-1)
