"""Masks: float32 [B, H, W], 0-1. Semantics as ComfyUI 0.3.64's nodes_mask.py, its oddities included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.scaling import check_size, resize
from sweeper.embedded.nodes.base import Context, NodeOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CHANNELS = ("red", "green", "blue", "alpha")
# Rows or columns that a growing mask is worked on at once: one step of a whole picture at a time.
_STEPS = 16384


def to_planes(mask: Array) -> Array:
    """A MASK of any number of dimensions as [B, H, W]."""
    return mask.reshape(-1, *mask.shape[-2:])


def resize_mask(mask: Array, width: int, height: int) -> Array:
    """A MASK scaled bilinearly to [B, height, width]."""
    return resize(to_planes(mask)[:, None], width, height, "bilinear")[:, 0]


def repeat_batch(batch: Array, count: int) -> Array:
    """`count` items of a batch: cut, or said over again, as ComfyUI's repeat_to_batch_size does."""
    return batch[np.arange(count) % len(batch)]


def solid(_context: Context, value: float, width: int, height: int) -> NodeOutput:
    check_size(height, width)
    return NodeOutput((np.full((1, height, width), value, np.float32),))


def invert(_context: Context, mask: Array) -> NodeOutput:
    return NodeOutput((1.0 - mask,))


def to_image(_context: Context, mask: Array) -> NodeOutput:
    return NodeOutput((np.repeat(to_planes(mask)[..., None], 3, axis=3),))


def from_image(_context: Context, image: Array, channel: str) -> NodeOutput:
    """One channel. Raises IndexError for the alpha of a picture that has none, as ComfyUI does."""
    return NodeOutput((np.ascontiguousarray(image[..., CHANNELS.index(channel)]),))


def from_colour(_context: Context, image: Array, color: int) -> NodeOutput:
    """1 where the rounded 8-bit colour is exactly 0xRRGGBB."""
    levels = np.rint(np.clip(image[..., :3], 0, 1) * np.float32(255)).astype(np.int32)
    packed = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return NodeOutput(((packed == color).astype(np.float32),))


def crop(_context: Context, *, mask: Array, x: int, y: int, width: int, height: int) -> NodeOutput:
    return NodeOutput((np.ascontiguousarray(to_planes(mask)[:, y : y + height, x : x + width]),))


def _to_bool(mask: Array) -> Array:
    return np.rint(mask).astype(bool)


def combine(_context: Context, *, destination: Array, source: Array, x: int, y: int, operation: str) -> NodeOutput:
    """Combine `source` into `destination` at (x, y); what hangs over is left out. Raises ValueError when all does."""
    output = to_planes(destination).copy()
    over = to_planes(source)
    width, height = min(over.shape[2], output.shape[2] - x), min(over.shape[1], output.shape[1] - y)
    if width < 0 or height < 0:
        raise ValueError(f"the source lies outside the destination of {output.shape[2]} x {output.shape[1]}")
    over, under = over[:, :height, :width], output[:, y : y + height, x : x + width]
    if operation in {"and", "or", "xor"}:
        logic = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[operation]
        result = logic(_to_bool(under), _to_bool(over)).astype(np.float32)
    else:
        arithmetic = {"multiply": np.multiply, "add": np.add, "subtract": np.subtract}[operation]
        result = arithmetic(under, over)
    output[:, y : y + height, x : x + width] = result
    return NodeOutput((np.clip(output, 0, 1),))


def feather(_context: Context, *, mask: Array, left: int, top: int, right: int, bottom: int) -> NodeOutput:
    """Linear ramps at the edges. ComfyUI counts from the far edge with -x, so its first step lies on the near one."""
    output = to_planes(mask).copy()
    height, width = output.shape[1:]
    for index in range(min(left, width)):
        output[:, :, index] *= np.float32((index + 1.0) / min(left, width))
    for index in range(min(right, width)):
        output[:, :, -index] *= np.float32((index + 1) / min(right, width))
    for index in range(min(top, height)):
        output[:, index, :] *= np.float32((index + 1) / min(top, height))
    for index in range(min(bottom, height)):
        output[:, -index, :] *= np.float32((index + 1) / min(bottom, height))
    return NodeOutput((output,))


def _step(mask: Array, choose: Any, *, tapered: bool) -> Array:
    """Grey dilation (maximum) or erosion (minimum) by one pixel: a plus shape if tapered, a square otherwise."""
    # SciPy mirrors the picture at its edges; for a maximum or minimum over 3 pixels that is repeating the edge.
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = choose(choose(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]), mask)
    if tapered:
        return np.asarray(choose(rows, choose(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])))
    tall = choose(choose(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return np.asarray(choose(choose(tall[..., :-2], tall[..., 1:-1]), tall[..., 2:]))


def grow(context: Context, mask: Array, expand: int, tapered_corners: bool) -> NodeOutput:
    """Grow the light by `expand` pixels, or shrink it by as many if negative."""
    output = to_planes(mask)
    for _ in range(min(abs(expand), _STEPS)):
        context.check()
        grown = _step(output, np.minimum if expand < 0 else np.maximum, tapered=tapered_corners)
        if np.array_equal(grown, output):
            break  # nothing moves any more
        output = grown
    return NodeOutput((output,))


def threshold(_context: Context, mask: Array, value: float) -> NodeOutput:
    return NodeOutput(((mask > np.float32(value)).astype(np.float32),))
