"""What steers a picture beside text: control hints, reference pictures, and what a picture says of itself.

Nothing is learned here. A control hint pulls the luma of the estimate towards the hint's structure, by a share that
rises smoothly from 0 with the strength (1 - exp(-1.2 strength)); a reference pulls all of it towards a latent. A
picture that is read becomes one row of an embedding: its mean colours, light and a hash-like but smooth
projection of its coarse layout, so that two similar pictures give similar rows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.latent_noise import draw_normal
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.prior import SCALE
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.text import digest_normals
from sweeper.embedded.diffusion.vocabulary import FEATURES, HASHED, INDEX, to_yuv

_PROJECTION_SEED = 0x1A6E
_LINES = ("canny", "line", "scribble", "sketch", "edge", "hed", "mlsd", "pose", "pidi", "teed")
_PICTURES = ("tile", "color", "colour", "inpaint", "ip2p", "blur", "repaint", "upscal", "shuffle", "recolor")
_SHADES = ("depth", "normal", "qr", "bright", "illumin", "segment", "seg_")


@dataclass(frozen=True, slots=True)
class ControlNet:
    """A control model: its name, and how it reads a hint: `lines`, `shade`, `picture`, or `auto` by the hint itself."""

    name: str
    reading: str

    def __repr__(self) -> str:
        return f"<procedural control {self.name!r}>"


def _detect_reading(words: str) -> str:
    for reading, marks in (("lines", _LINES), ("picture", _PICTURES), ("shade", _SHADES)):
        if any(mark in words for mark in marks):
            return reading
    return "auto"


def load_control(name: str) -> ControlNet:
    """Raises ValueError for a name that climbs."""
    check_name(name)
    return ControlNet(name, _detect_reading(re.split(r"[\\/]", name)[-1].lower()))


@dataclass(frozen=True, slots=True, eq=False)
class Hint:
    """One control hint on a conditioning, active between two shares of the model's time (0 start, 1 end)."""

    control: ControlNet
    image: Array  # [B, H, W, 3], 0-1
    strength: float
    start: float = 0.0
    end: float = 1.0

    @property
    def style(self) -> Array:
        """The features that this control model adds, as every model file has a style of its own: [F]."""
        delta = np.zeros(len(FEATURES), np.float32)
        draw = digest_normals(f"control/{self.control.name}", 4) * np.float32(0.12 * math.tanh(self.strength))
        for name, value in zip(("warm", "saturation", "contrast", "facets"), draw.tolist(), strict=True):
            delta[INDEX[name]] = value
        return delta


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A latent [n, 4, h, w] that draws the estimate by `weight` (0-1)."""

    samples: Array
    weight: float
    where: Array | None = None  # [n, H, W], 1 where it holds; everywhere if None

    @property
    def extent(self) -> float:
        """The share of the picture that it holds."""
        return 1.0 if self.where is None else float(self.where.mean())


def _resize(planes: Array, height: int, width: int, method: str = "area") -> Array:
    return resize(np.ascontiguousarray(planes, np.float32), width, height, method, centre=True)


def _soften(field: Array, times: int) -> Array:
    for _ in range(times):
        for axis in (0, 1):
            pads = [(1, 1) if axis == i else (0, 0) for i in (0, 1)]
            padded = np.pad(field, pads, mode="edge")
            low, high = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            field = (low + field * 2 + high) / 4
    return field


class Structure:
    """What a hint asks of a latent of one size: `pull(mean)` for batch item `index`."""

    def __init__(self, hint: Hint, height: int, width: int) -> None:
        self._share = np.float32(1 - math.exp(-1.2 * max(hint.strength, 0.0)))
        planes = np.moveaxis(hint.image[..., :3], -1, 1)
        self._planes = _resize(planes, height, width)
        # Thin lines must not vanish in the mean of a block: the lightest pixel of each counts too.
        self._peaks = _find_peaks(planes.mean(axis=1), height, width)
        reading = hint.control.reading
        sparse = float(planes.mean()) < 0.22
        self._reading = reading if reading != "auto" else ("lines" if sparse else "shade")

    def pull(self, mean: Array, index: int) -> Array:
        """`mean` [4, h, w] moved towards the hint."""
        planes = self._planes[index % len(self._planes)]
        red, green, blue = planes
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        pulled = mean.copy()
        level = mean[0].mean(dtype=np.float32)
        if self._reading == "picture":
            target = np.stack(to_yuv(red, green, blue)) * np.float32(SCALE)
            pulled[:3] += self._share * (target - mean[:3])
        elif self._reading == "shade":
            shade = level + np.float32(0.5 * SCALE) * (luma - luma.mean(dtype=np.float32))
            pulled[0] += self._share * (shade - mean[0])
        else:  # dark contours, and light between them
            lines = self._peaks[index % len(self._peaks)]
            lines = lines / max(float(lines.max()), 1e-3)
            near = _soften(lines, max(min(lines.shape) // 4, 2))
            near = near / max(float(near.max()), 1e-3)
            drawn = np.float32(2.2) * (near - near.mean(dtype=np.float32)) - np.float32(3.2) * lines
            pulled[0] += self._share * (drawn - np.float32(0.35) * (mean[0] - level))
        return pulled


def _find_peaks(luma: Array, height: int, width: int) -> Array:
    """[B, H, W] to the lightest pixel of each block, [B, height, width], cropped as the picture is."""
    tall, wide = max(luma.shape[1] // height, 1), max(luma.shape[2] // width, 1)
    rows, columns = luma.shape[1] // tall, luma.shape[2] // wide
    blocks = luma[:, : rows * tall, : columns * wide].reshape(len(luma), rows, tall, columns, wide).max(axis=(2, 4))
    return _resize(blocks[:, None], height, width, "bilinear")[:, 0]


def draw_to_reference(mean: Array, reference: Reference, index: int) -> Array:
    """`mean` [4, h, w] drawn to a reference; the amount of detail stays the model's."""
    samples = reference.samples[index % len(reference.samples)][None]
    if samples.shape[2:] != mean.shape[1:]:
        samples = _resize(samples, mean.shape[1], mean.shape[2], "bilinear")
    share: Array = np.full(mean.shape[1:], reference.weight, np.float32)
    if reference.where is not None:
        mask = reference.where[index % len(reference.where)][None, None]
        share = share * _resize(mask, mean.shape[1], mean.shape[2])[0, 0]
    result = mean.copy()
    result[:3] += share * (samples[0, :3] - mean[:3])
    return result


@lru_cache(maxsize=1)
def _projection() -> Array:
    return draw_normal(_PROJECTION_SEED, 0, 0, 0, (HASHED, 3 * 64)) * np.float32(1 / 8)


def look(image: Array, name: str) -> Array:
    """What a vision model of this name sees in pictures [B, H, W, 3], 0-1: one row of an embedding each, [B, F]."""
    planes = np.moveaxis(image[..., :3], -1, 1).astype(np.float32)
    small = resize(np.ascontiguousarray(planes), 8, 8, "area")
    rows = np.zeros((len(image), len(FEATURES)), np.float32)
    turn = np.float32(1) + np.float32(0.1) * digest_normals(f"vision/{name}", HASHED)
    for row, picture in zip(rows, small, strict=True):
        y, u, v = to_yuv(*picture)
        row[INDEX["tint_y"]], row[INDEX["tint_u"]], row[INDEX["tint_v"]] = y.mean(), u.mean(), v.mean()
        row[INDEX["tint"]] = 0.8
        row[INDEX["dark"]] = -1.6 * y.mean()
        row[INDEX["contrast"]] = 2 * (y.std() - 0.18)
        row[INDEX["saturation"]] = 2 * (np.sqrt(u * u + v * v).mean() - 0.1)
        row[-HASHED:] = turn * (_projection() @ (picture.ravel() - np.float32(0.5)))
    return rows
