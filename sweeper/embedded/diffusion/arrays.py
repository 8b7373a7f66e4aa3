"""`Array`: any array of NumPy, and noise that depends on its key alone. Docstrings say shapes and units."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
SEED_MAX = 2**64 - 1  # the largest seed that ComfyUI's object_info allows


def draw_normal(seed: int, item: int, use: int, shape: tuple[int, ...]) -> Array:
    """Standard normal float32 noise of `shape` for an item of a batch. `seed` is taken modulo 2^64.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed with seed and item, and `use`
    tells apart what the noise is for, so that no process, batch size or order of calls changes it.
    """
    key = np.array([seed & SEED_MAX, item], np.uint64)  # a list would pass through float and lose bits above 2^53
    bits = np.random.Philox(counter=np.array([0, 0, 0, use], np.uint64), key=key)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)
