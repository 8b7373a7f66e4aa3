"""The layouts of scenes, and the small tools that scenes are drawn with.

Fields are float32 [K, h, w], one per layout; `x` runs over -aspect .. aspect, `y` over -1 (top) .. 1 (bottom).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, draw_normal
from sweeper.embedded.diffusion.vocabulary import HASHED

PARAMETERS = 48  # random numbers that make a layout
_TABLE_SEED = 0x5EEDED


@lru_cache(maxsize=1)
def _make_table() -> Array:
    return draw_normal(_TABLE_SEED, 1, 0, (HASHED, PARAMETERS))


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """Coordinates and the random parameters of every layout, moved by the unknown words of the prompt."""

    x: Array  # [1, 1, w]
    y: Array  # [1, h, 1]
    pixel: float  # size of one latent pixel in these coordinates
    parameters: Array  # [K, P], 0-1

    def scale_parameter(self, index: int, low: float = 0.0, high: float = 1.0) -> Array:
        """Parameter `index` of every layout, scaled to low .. high: [K, 1, 1]."""
        return (low + (high - low) * self.parameters[:, index])[:, None, None].astype(np.float32)


def make_layout(height: int, width: int, hashed: Array, drawn: Array) -> SceneLayout:
    """Layouts of a latent of this size: `hashed` are the hash dimensions of the embedding, `drawn` [K, P] is normal."""
    moved = drawn + 0.55 * np.tanh(hashed / 1.5) @ _make_table() * HASHED**-0.5
    # A triangle wave folds any number into 0-1, continuous in the words.
    parameters = np.abs((moved * 0.45 + 0.5) % 2.0 - 1.0)
    aspect = width / height
    shape = max(1.0, aspect), max(1.0, 1 / aspect)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1) * shape[0]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1) * shape[1]
    return SceneLayout(x[None, None, :], y[None, :, None], 2 * shape[1] / height, parameters.astype(np.float32))


def smooth(value: Array) -> Array:
    """Smoothstep of a field clipped to 0-1."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def rasterise(distance: Array, pixel: float) -> Array:
    """Coverage of a shape from its signed distance (negative inside), soft over about one latent pixel."""
    return smooth(0.5 - distance / (1.4 * pixel))


def wave(layout_: SceneLayout, along: Array, first: int, octaves: int, rough: float = 0.5) -> Array:
    """A smooth random line or field over `along`: a sum of sines with random phases, about -1 .. 1."""
    total: Array = np.zeros(1, np.float32)
    scale = 0.0
    for octave in range(octaves):
        gain = rough**octave
        phase = layout_.scale_parameter((first + octave) % PARAMETERS, 0, 6.2832)
        bend = layout_.scale_parameter((first + octave + 7) % PARAMETERS, 0.75, 1.35)
        total = total + gain * np.sin(along * (1.7 * 2.03**octave) * bend + phase)
        scale += gain
    return np.asarray(total / scale, np.float32)


def paint(picture: Array, mask: Array, colour: Array | tuple[float, float, float]) -> None:
    """Lay a colour (three numbers, or a field [K, 3, h, w]) over `picture` [K, 3, h, w] in place."""
    if isinstance(colour, tuple):
        colour = np.array(colour, np.float32)[None, :, None, None]
    picture += (colour - picture) * mask[:, None]
