"""Laying pictures and latents over one another: masks, alpha, padding, stitching (ComfyUI 0.3.64's semantics)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.scaling import check_size, resize
from sweeper.embedded.nodes.images import resize_image, same_channels
from sweeper.embedded.nodes.mask_nodes import repeat_batch, resize_mask, to_planes


def composite(under: Array, over: Array, x: int, y: int, mask: Array | None, unit: int, *, fit: bool) -> Array:
    """Lay `over` [.., C, h, w] over `under` at (x, y) / `unit`; what hangs over is cut. `fit` scales it to `under`."""
    under = under.copy()
    height, width = under.shape[-2:]
    if fit:
        over = resize(over, width, height, "bilinear")
    over = repeat_batch(over, len(under))
    left = max(-over.shape[-1] * unit, min(x, width * unit)) // unit
    top = max(-over.shape[-2] * unit, min(y, height * unit)) // unit
    if mask is None:
        share: Array = np.ones(over.shape, np.float32)
    else:
        share = repeat_batch(resize_mask(mask, over.shape[-1], over.shape[-2])[:, None], len(over))
    seen_height, seen_width = max(height - top, 0), max(width - left, 0)
    share, over = share[..., :seen_height, :seen_width], over[..., :seen_height, :seen_width]
    area = (..., slice(top, top + over.shape[-2]), slice(left, left + over.shape[-1]))
    under[area] = share * over + (1 - share) * under[area]
    return under


def images_masked(
    *,
    destination: Array,
    source: Array,
    x: int,
    y: int,
    resize_source: bool,
    mask: Array | None = None,
) -> Array:
    destination, source = same_channels(destination, source)
    sides = np.moveaxis(destination, -1, 1), np.moveaxis(source, -1, 1)
    laid = composite(*sides, x, y, mask, 1, fit=resize_source)
    return np.ascontiguousarray(np.moveaxis(laid, 1, -1))


def latents_masked(
    *,
    destination: dict[str, Any],
    source: dict[str, Any],
    x: int,
    y: int,
    resize_source: bool,
    mask: Array | None = None,
) -> dict[str, Any]:
    laid = composite(destination["samples"], source["samples"], x, y, mask, 8, fit=resize_source)
    return {**destination, "samples": laid}


def pad_for_outpaint(
    image: Array, left: int, top: int, right: int, bottom: int, feathering: int
) -> tuple[Array, Array]:
    """The picture on grey, and a mask that is 1 on the new ground and rises squared towards it over `feathering`."""
    count, height, width, channels = image.shape
    check_size(count, height + top + bottom, width + left + right, channels)
    canvas = np.full((count, height + top + bottom, width + left + right, channels), 0.5, np.float32)
    canvas[:, top : top + height, left : left + width] = image
    mask = np.ones(canvas.shape[1:3], np.float32)
    inner = np.zeros((height, width), np.float32)
    if feathering > 0 and feathering * 2 < height and feathering * 2 < width:
        row, column = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
        down = np.minimum(row if top else np.full(height, height), height - row if bottom else np.full(height, height))
        across = np.minimum(
            column if left else np.full(width, width), width - column if right else np.full(width, width)
        )
        distance = np.minimum(down[:, None], across[None])
        rise = np.maximum(feathering - distance, 0) / feathering
        inner = (rise * rise).astype(np.float32)
    mask[top : top + height, left : left + width] = inner
    return canvas, mask[None]


def join_alpha(image: Array, alpha: Array) -> Array:
    """RGBA with 1 - `alpha` (a MASK) as its alpha."""
    count = min(len(image), len(to_planes(alpha)))
    opacity = 1.0 - resize_mask(alpha, image.shape[2], image.shape[1])[:count, ..., None]
    return np.concatenate([image[:count, ..., :3], opacity], axis=-1)


def split_alpha(image: Array) -> tuple[Array, Array]:
    """The colours, and 1 - alpha as a MASK; nothing masked where there is no alpha."""
    alpha = image[..., 3] if image.shape[-1] > 3 else np.ones(image.shape[:3], np.float32)
    return np.ascontiguousarray(image[..., :3]), 1.0 - alpha


def resize_and_pad(
    image: Array, target_width: int, target_height: int, padding_color: str, interpolation: str
) -> Array:
    """Scale to fit inside, keep the aspect ratio, and fill what is left evenly on both sides."""
    count, height, width, channels = image.shape
    scale = min(target_width / width, target_height / height)
    inner = int(width * scale), int(height * scale)
    check_size(count, target_height, target_width, channels)
    canvas = np.full(
        (count, target_height, target_width, channels), 0.0 if padding_color == "black" else 1.0, np.float32
    )
    y, x = (target_height - inner[1]) // 2, (target_width - inner[0]) // 2
    canvas[:, y : y + inner[1], x : x + inner[0]] = resize_image(image, inner[0], inner[1], interpolation)
    return canvas


_INKS = {"white": (1, 1, 1), "black": (0, 0, 0), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def _pad_evenly(image: Array, size: int, axis: int, grey: float) -> Array:
    """Pad one axis to `size`, evenly on both sides."""
    missing = size - image.shape[axis]
    pads = [(0, 0)] * image.ndim
    pads[axis] = (missing // 2, missing - missing // 2)
    return np.pad(image, pads, constant_values=grey) if missing > 0 else image


def stitch(
    *,
    image1: Array,
    direction: str,
    match_image_size: bool,
    spacing_width: int,
    spacing_color: str,
    image2: Array | None = None,
) -> Array:
    """Two pictures side by side; the shorter batch repeats its last, a missing alpha is opaque."""
    if image2 is None:
        return image1
    most = max(len(image1), len(image2))
    first, second = (side[np.minimum(np.arange(most), len(side) - 1)] for side in (image1, image2))
    level = direction in {"left", "right"}
    height, width = first.shape[1:3]
    ink = _INKS[spacing_color]
    if match_image_size:
        ratio = second.shape[2] / second.shape[1]
        size = (int(height * ratio), height) if level else (width, int(width / ratio))
        second = resize_image(second, size[0], size[1], "lanczos")
    else:
        across = 1 if level else 2
        grey = float(ink[0]) if len(set(ink)) == 1 else 0.0  # ComfyUI pads with black for a coloured gap
        tall = max(first.shape[across], second.shape[across])
        first, second = _pad_evenly(first, tall, across, grey), _pad_evenly(second, tall, across, grey)
    if first.shape[-1] < second.shape[-1]:
        second, first = same_channels(second, first)
    else:
        first, second = same_channels(first, second)
    parts = [second, first] if direction in {"left", "up"} else [first, second]
    if spacing_width > 0:
        gap = spacing_width + spacing_width % 2
        shape = (most, first.shape[1], gap) if level else (most, gap, first.shape[2])
        colour = np.array([*ink, 1.0][: first.shape[-1]], np.float32)
        parts.insert(1, np.broadcast_to(colour, (*shape, first.shape[-1])))
    return np.concatenate(parts, axis=2 if level else 1)
