"""Masks: float32 [B, H, W], 0-1, alpha, and laying pictures over one another. Semantics as ComfyUI 0.3.64's."""

from __future__ import annotations

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.scaling import check_size, resize
from sweeper.embedded.nodes.images import resize_image, same_channels

CHANNELS = ("red", "green", "blue", "alpha")


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


def lay_over(
    *, destination: Array, source: Array, x: int, y: int, resize_source: bool, mask: Array | None = None
) -> Array:
    """Lay `source` over `destination` at (x, y), as far as `mask` says; what hangs over is cut."""
    under, over = same_channels(destination, source)
    under = under.copy()
    height, width = under.shape[1:3]
    if resize_source:
        over = resize_image(over, width, height, "bilinear")
    over = repeat_batch(over, len(under))
    share = np.ones(over.shape[:3], np.float32) if mask is None else resize_mask(mask, over.shape[2], over.shape[1])
    share = repeat_batch(share, len(over))[..., None]
    left, top = max(-over.shape[2], min(x, width)), max(-over.shape[1], min(y, height))
    seen = (slice(None), slice(0, max(height - top, 0)), slice(0, max(width - left, 0)))
    share, over = share[seen], over[seen]
    area = (slice(None), slice(top, top + over.shape[1]), slice(left, left + over.shape[2]))
    under[area] = share * over + (1 - share) * under[area]
    return under


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
