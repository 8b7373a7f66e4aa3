"""Noise that depends on seed, batch index and use alone: never on the process, the batch size or the order of calls.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed with seed and batch index; the
counter's upper words tell apart initial noise, step noise and the nodes of a Brownian path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array

SEED_MAX = 2**64 - 1  # the largest seed that ComfyUI's object_info allows
_INITIAL, _STEP, _BROWNIAN = 1, 2, 3
# A Brownian path is halved this often: 14.6 / 2^14 is finer than the smallest step of any schedule of 1000 steps.
_DEPTH = 14
_KEY = 48  # frames of a video between two that have noise of their own


def draw_normal(seed: int, item: int, use: int, counter: int, shape: tuple[int, ...]) -> Array:
    """Standard normal float32 noise of `shape` for one batch item. `seed` is taken modulo 2^64."""
    key = np.array([seed & SEED_MAX, item], np.uint64)  # a list would pass through float and lose bits above 2^53
    bits = np.random.Philox(counter=np.array([0, 0, counter, use], np.uint64), key=key)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


class LatentNoise:
    """All the noise of one job: `seed` (0 .. 2^64-1), the batch indices, and the shape [C, h, w] of one item."""

    def __init__(self, seed: int, items: Sequence[int], shape: tuple[int, ...]) -> None:
        self.seed = seed
        self.items = tuple(items)
        self.shape = shape
        self._steps = 0

    def draw_initial(self) -> Array:
        """[B, C, h, w]: item i is the same whatever the batch size."""
        return self.draw_batch(_INITIAL, 0)

    def draw_step(self) -> Array:
        """Fresh noise [B, C, h, w] for one sampler step, as ancestral samplers want it."""
        self._steps += 1
        return self.draw_batch(_STEP, self._steps)

    def draw_batch(self, use: int, counter: int) -> Array:
        return np.stack([draw_normal(self.seed, item, use, counter, self.shape) for item in self.items])

    def brownian(self, sigma_max: float, *, stream: int = 0) -> BrownianPath:
        """The Brownian path over 0 .. sigma_max that the SDE samplers read; another `stream` is another path."""
        return BrownianPath(self, sigma_max, stream)


class FrameNoise(LatentNoise):
    """Noise of videos: `frames` items in a row are one video, and neighbouring frames have almost the same noise.

    Every `_KEY`-th frame has noise of its own; between two, the noise turns from one to the other along a circle, which
    keeps it standard normal. So a video moves instead of flickering.
    """

    def __init__(self, seed: int, items: Sequence[int], shape: tuple[int, ...], frames: int) -> None:
        super().__init__(seed, [item for item in items for _ in range(frames)], shape)
        self._frames = frames

    def draw_batch(self, use: int, counter: int) -> Array:
        drawn = []
        for index, item in enumerate(self.items):
            key, between = divmod(index % self._frames, _KEY)
            first = draw_normal(self.seed, item + (key << 32), use, counter, self.shape)
            if between:
                angle = between / _KEY * math.pi / 2
                second = draw_normal(self.seed, item + ((key + 1) << 32), use, counter, self.shape)
                first = first * np.float32(math.cos(angle)) + second * np.float32(math.sin(angle))
            drawn.append(first)
        return np.stack(drawn)


class BrownianPath:
    """Increments of one Brownian path, the same for every number of steps.

    Midpoints are drawn from the Brownian bridge (Lévy's construction), each keyed by its position in the binary tree,
    so that runs with 10 and with 20 steps see one path, and SDE samplers converge as steps grow.
    """

    def __init__(self, noise: LatentNoise, sigma_max: float, stream: int) -> None:
        self._noise = noise
        self._span = sigma_max
        self._use = _BROWNIAN + stream
        self._node = lru_cache(maxsize=64)(self._draw)

    def _draw(self, index: int) -> Any:
        return self._noise.draw_batch(self._use, index)

    def _value_at(self, sigma: float) -> Array:
        """W(sigma), with W(0) = 0."""
        low, high = 0.0, self._span
        w_low: Array = np.zeros((len(self._noise.items), *self._noise.shape), np.float32)
        w_high: Array = self._node(1) * np.float32(self._span**0.5)
        node = 1
        for _ in range(_DEPTH):
            if sigma >= high:
                return w_high
            middle = (low + high) / 2
            w_middle = (w_low + w_high) / 2 + self._node(2**_DEPTH + node) * np.float32((high - low) ** 0.5 / 2)
            if sigma < middle:
                high, w_high, node = middle, w_middle, node * 2
            else:
                low, w_low, node = middle, w_middle, node * 2 + 1
        share = np.float32((sigma - low) / (high - low))
        return w_low + share * (w_high - w_low)

    def __call__(self, sigma: float, sigma_next: float) -> Array:
        """(W(next) - W(sigma)) / sqrt(|next - sigma|): standard normal, [B, C, h, w]."""
        increment = self._value_at(sigma_next) - self._value_at(sigma)
        return increment / np.float32(max(abs(sigma_next - sigma), 1e-12) ** 0.5)
