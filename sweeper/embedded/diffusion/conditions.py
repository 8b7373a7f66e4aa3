"""One entry of a conditioning as the denoiser needs it: where it acts, when, how strongly, and on which prior.

The options and their arithmetic are ComfyUI 0.3.64's (comfy/samplers.py, `get_area_and_mult` and `calc_cond_batch`):
entries are averaged pixel by pixel with their weights; an entry with an area is asked for a whole picture of that
area; the area's edges inside the picture are feathered over 8 latent pixels; outside its share of the model's time an
entry is silent; where no entry speaks the estimate is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.hints import Hint, Reference, Structure, draw_to_reference
from sweeper.embedded.diffusion.prior import Prior, get_prior
from sweeper.embedded.diffusion.scaling import make_ramp, resize
from sweeper.embedded.diffusion.schedules import Sampling

_FEATHER = 8  # latent pixels


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a latent."""

    top: int
    left: int
    height: int
    width: int

    def view(self, planes: Array) -> Array:
        """What the box holds of [..., h, w]."""
        return planes[..., self.top : self.top + self.height, self.left : self.left + self.width]


def _find_box(options: Mapping[str, Any], mask: Array | None, size: tuple[int, int]) -> Box:
    area = options.get("area")
    if area is not None and area[0] == "percentage":
        height, width, top, left = (round(area[1 + i] * size[i % 2]) for i in range(4))
    elif area is not None:
        height, width, top, left = area
    elif mask is not None and options.get("set_area_to_bounds") and mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
        height, width, top, left = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1, int(rows[0]), int(columns[0])
    else:
        return Box(0, 0, *size)
    top, left = min(max(top, 0), size[0] - 1), min(max(left, 0), size[1] - 1)
    return Box(top, left, max(min(height, size[0] - top), 1), max(min(width, size[1] - left), 1))


def _weight(options: Mapping[str, Any], mask: Array | None, box: Box, size: tuple[int, int]) -> Array:
    """[B or 1, h, w] of the box."""
    strength = np.float32(options.get("strength", 1.0))
    if mask is not None:
        return box.view(mask) * np.float32(options.get("mask_strength", 1.0)) * strength
    rows = make_ramp(box.height, _FEATHER, start=box.top > 0, end=box.top + box.height < size[0])
    columns = make_ramp(box.width, _FEATHER, start=box.left > 0, end=box.left + box.width < size[1])
    return (rows[:, None] * columns[None] * strength)[None]


def _mask(options: Mapping[str, Any], size: tuple[int, int]) -> Array | None:
    mask = options.get("mask")
    if mask is None:
        return None
    planes = np.asarray(mask, np.float32).reshape(-1, 1, *mask.shape[-2:])
    if planes.shape[2:] != size:
        planes = resize(planes, size[1], size[0], "bilinear")
    return planes[:, 0]


class ConditioningPart:
    """One entry at one latent size. `features` [F] are those of its text and of the model."""

    def __init__(
        self, features: Array, options: Mapping[str, Any], *, size: tuple[int, int], sampling: Sampling
    ) -> None:
        mask = _mask(options, size)
        self.box = _find_box(options, mask, size)
        self._weights = _weight(options, mask, self.box, size)
        self.distilled = float(options.get("guidance", 0.0) or 0.0)
        self._span = _levels(sampling, options.get("start_percent", 0.0), options.get("end_percent", 1.0))
        hints: tuple[Hint, ...] = options.get("hints", ())
        for hint in hints:
            features = features + hint.style
        self.prior: Prior = get_prior(features, self.box.height, self.box.width)
        self._hints = [(Structure(hint, *size), _levels(sampling, hint.start, hint.end)) for hint in hints]
        self._references: tuple[Reference, ...] = options.get("references", ())
        self._size = size

    def weight(self, index: int) -> Array:
        """The weight of each pixel of the box, [h, w], for a batch item."""
        return np.asarray(self._weights[index % len(self._weights)])

    def is_active(self, level: float) -> bool:
        return self._span[1] <= level <= self._span[0]

    def steer(self, mean: Array, level: float, index: int) -> tuple[Array, float]:
        """The prior's mean [4, h, w] of the box after references and hints have drawn on it.

        The second value is how much of it is still the prompt's: guidance does not push what a reference holds.
        """
        active = [structure for structure, span in self._hints if span[1] <= level <= span[0]]
        if not active and not self._references:
            return mean, 1.0
        if self.box == Box(0, 0, *self._size):
            canvas = mean
        else:  # hints lie on the whole picture
            canvas = np.zeros((4, *self._size), np.float32)
            self.box.view(canvas)[...] = mean
        own = 1.0
        for reference in sorted(self._references, key=lambda one: one.weight):  # the strongest has its way
            own *= 1 - reference.weight * reference.extent
            canvas = draw_to_reference(canvas, reference, index)
        for structure in active:
            canvas = structure.pull(canvas, index)
        return self.box.view(canvas), own


def _levels(sampling: Sampling, start: float, end: float) -> tuple[float, float]:
    return sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
