"""`Array`: any array of NumPy; noise that depends on its key alone; resizing; and the parts of scenes.

Docstrings say shapes and units. The centre crop is ComfyUI's own (comfy/utils.py of 0.3.64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from sweeper.embedded.diffusion.vocabulary import HASHED

Array: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]
SEED_MAX = 2**64 - 1  # the largest seed that ComfyUI's object_info allows

_MAX_NUMBERS = 2**28  # numbers in one array: a gigabyte of float32


def draw_normal(seed: int, item: int, use: int, shape: tuple[int, ...]) -> Array:
    """Standard normal float32 noise of `shape` for an item of a batch. `seed` is taken modulo 2^64.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed with seed and item, and `use`
    tells apart what the noise is for, so that no process, batch size or order of calls changes it.
    """
    key = np.array([seed & SEED_MAX, item], np.uint64)  # a list would pass through float and lose bits above 2^53
    bits = np.random.Philox(counter=np.array([0, 0, 0, use], np.uint64), key=key)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


def check_size(*shape: int) -> None:
    """Raise ValueError for an array too large to make: a graph of a few lines must not take the server's memory."""
    numbers = math.prod(shape)
    if numbers > _MAX_NUMBERS:
        raise ValueError(
            f"{' x '.join(map(str, shape))} is {numbers / 1e6:.0f} million numbers; "
            f"the most is {_MAX_NUMBERS / 1e6:.0f}"
        )


_FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(images: Array, width: int, height: int, method: str, *, centre: bool = False) -> Array:
    """float32 [..., h, w] to [..., height, width] by Pillow; `centre` first crops to the new aspect ratio.

    Methods of newer servers count as bicubic. Raises ValueError for a side below 1.
    """
    if width < 1 or height < 1:
        raise ValueError(f"cannot scale to {width} x {height}: each side must be at least 1")
    kernel = _FILTERS.get(method, Image.Resampling.BICUBIC)
    shape = *images.shape[:-2], height, width
    check_size(*shape)
    if centre:
        images = _crop_to_aspect(images, width, height)
    planes = np.ascontiguousarray(images, np.float32).reshape(-1, *images.shape[-2:])
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), kernel)) for plane in planes]
    return np.array(resized, np.float32).reshape(shape)


def _crop_to_aspect(images: Array, width: int, height: int) -> Array:
    old_height, old_width = images.shape[-2:]
    old, new = old_width / old_height, width / height
    x = round((old_width - old_width * (new / old)) / 2) if old > new else 0
    y = round((old_height - old_height * (old / new)) / 2) if old < new else 0
    return images[..., y : old_height - y, x : old_width - x]


# --- scenes ----------------------------------------------------------------------------------------------------------

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
