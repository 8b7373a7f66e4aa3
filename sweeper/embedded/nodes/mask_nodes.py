"""Masks: float32 [B, H, W], 0-1. Semantics as ComfyUI 0.3.64's nodes_mask.py, its oddities included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.scaling import check_size, resize
from sweeper.embedded.nodes.base import Context

CHANNELS = ("red", "green", "blue", "alpha")
# Rows or columns that a growing mask is worked on at once: one step of a whole picture at a time.
_STEPS = 16384
_LOGIC: dict[str, Any] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
_ARITHMETIC: dict[str, Any] = {"multiply": np.multiply, "add": np.add, "subtract": np.subtract}


def to_planes(mask: Array) -> Array:
    """A MASK of any number of dimensions as [B, H, W]."""
    return mask.reshape(-1, *mask.shape[-2:])


def resize_mask(mask: Array, width: int, height: int) -> Array:
    """A MASK scaled bilinearly to [B, height, width]."""
    return resize(to_planes(mask)[:, None], width, height, "bilinear")[:, 0]


def repeat_batch(batch: Array, count: int) -> Array:
    """`count` items of a batch: cut, or said over again, as ComfyUI's repeat_to_batch_size does."""
    return batch[np.arange(count) % len(batch)]


def solid(value: float, width: int, height: int) -> Array:
    check_size(height, width)
    return np.full((1, height, width), value, np.float32)


def invert(mask: Array) -> Array:
    return 1.0 - mask


def to_image(mask: Array) -> Array:
    return np.repeat(to_planes(mask)[..., None], 3, axis=3)


def from_image(image: Array, channel: str) -> Array:
    """One channel. Raises IndexError for the alpha of a picture that has none, as ComfyUI does."""
    return np.ascontiguousarray(image[..., CHANNELS.index(channel)])


def from_colour(image: Array, color: int) -> Array:
    """1 where the rounded 8-bit colour is exactly 0xRRGGBB."""
    levels = np.rint(np.clip(image[..., :3], 0, 1) * np.float32(255)).astype(np.int32)
    packed = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return np.asarray((packed == color).astype(np.float32))


def crop(mask: Array, x: int, y: int, width: int, height: int) -> Array:
    return np.ascontiguousarray(to_planes(mask)[:, y : y + height, x : x + width])


def _to_bool(mask: Array) -> Array:
    return np.rint(mask).astype(bool)


def combine(destination: Array, source: Array, x: int, y: int, operation: str) -> Array:
    """Combine `source` into `destination` at (x, y); what hangs over is left out. Raises ValueError when all does."""
    output = to_planes(destination).copy()
    over = to_planes(source)
    width, height = min(over.shape[2], output.shape[2] - x), min(over.shape[1], output.shape[1] - y)
    if width < 0 or height < 0:
        raise ValueError(f"the source lies outside the destination of {output.shape[2]} x {output.shape[1]}")
    over, under = over[:, :height, :width], output[:, y : y + height, x : x + width]
    if operation in _LOGIC:
        result = _LOGIC[operation](_to_bool(under), _to_bool(over)).astype(np.float32)
    else:
        result = _ARITHMETIC[operation](under, over)
    output[:, y : y + height, x : x + width] = result
    return np.clip(output, 0, 1)


def feather(mask: Array, left: int, top: int, right: int, bottom: int) -> Array:
    """Linear ramps at the edges. ComfyUI counts from the far edge with -x, so its first step lies on the near one."""
    output = to_planes(mask).copy()
    height, width = output.shape[1:]
    sides: list[tuple[int, int, Callable[[int], Any]]] = [
        (left, width, lambda index: (..., index)),
        (right, width, lambda index: (..., -index)),
        (top, height, lambda index: (..., index, slice(None))),
        (bottom, height, lambda index: (..., -index, slice(None))),
    ]
    for wanted, size, select in sides:
        for index in range(min(wanted, size)):
            output[select(index)] *= np.float32((index + 1) / min(wanted, size))
    return output


def _step(mask: Array, choose: Any, *, tapered: bool) -> Array:
    """Grey dilation (maximum) or erosion (minimum) by one pixel: a plus shape if tapered, a square otherwise."""
    # SciPy mirrors the picture at its edges; for a maximum or minimum over 3 pixels that is repeating the edge.
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = choose(choose(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]), mask)
    if tapered:
        return np.asarray(choose(rows, choose(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])))
    tall = choose(choose(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return np.asarray(choose(choose(tall[..., :-2], tall[..., 1:-1]), tall[..., 2:]))


def grow(context: Context, mask: Array, expand: int, tapered_corners: bool) -> Array:
    """Grow the light by `expand` pixels, or shrink it by as many if negative."""
    output = to_planes(mask)
    for _ in range(min(abs(expand), _STEPS)):
        context.check()
        grown = _step(output, np.minimum if expand < 0 else np.maximum, tapered=tapered_corners)
        if np.array_equal(grown, output):
            break  # nothing moves any more
        output = grown
    return output


def threshold(mask: Array, value: float) -> Array:
    return (mask > np.float32(value)).astype(np.float32)
