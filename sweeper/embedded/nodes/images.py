"""Image nodes: IMAGE is float32 [B, H, W, C], 0-1. Sizes and orders are ComfyUI 0.3.64's, and so are the pixels, but
for those of a picture in a new size: Pillow makes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array, check_size, resize


def empty(width: int, height: int, batch_size: int = 1, color: int = 0) -> Array:
    """One colour, 0xRRGGBB."""
    check_size(batch_size, height, width, 3)
    rgb = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], np.float64) / 255
    return np.broadcast_to(rgb.astype(np.float32), (batch_size, height, width, 3)).copy()


def resize_image(image: Array, width: int, height: int, method: str, *, centre: bool = False) -> Array:
    """IMAGE [B, h, w, C] to [B, height, width, C]; see `arrays.resize`."""
    planes = resize(np.moveaxis(image, -1, 1), width, height, method, centre=centre)
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def scale(image: Array, upscale_method: str, width: int, height: int, crop: str) -> Array:
    """A side of 0 follows the other one; both 0 changes nothing."""
    if width == 0 and height == 0:
        return image
    if width == 0:
        width = max(1, round(image.shape[2] * height / image.shape[1]))
    elif height == 0:
        height = max(1, round(image.shape[1] * width / image.shape[2]))
    return resize_image(image, width, height, upscale_method, centre=crop == "center")


def scale_by(image: Array, upscale_method: str, scale_by: float) -> Array:
    width, height = round(image.shape[2] * scale_by), round(image.shape[1] * scale_by)
    return resize_image(image, width, height, upscale_method)


def invert(image: Array) -> Array:
    return 1.0 - image


def blur_image(image: Array, radius: int, sigma: float) -> Array:
    """Gaussian blur with reflected edges. `sigma` counts in kernels: the kernel spans -1 .. 1, whatever its radius.

    ComfyUI's kernel is exp(-(x^2 + y^2) / 2 sigma^2) normalised to 1, which is the product of two of one dimension.
    """
    if radius >= min(image.shape[1:3]):
        raise RuntimeError(f"the padding ({radius}) must be less than each side of the picture")  # as in ComfyUI
    offsets = np.linspace(-1, 1, 2 * radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="reflect")
    height, width = image.shape[1:3]
    rows = sum(padded[:, offset : offset + height] * weight for offset, weight in enumerate(kernel))
    return np.asarray(sum(rows[:, :, offset : offset + width] * weight for offset, weight in enumerate(kernel)))


def blur(image: Array, blur_radius: int, sigma: float) -> Array:
    return blur_image(image, blur_radius, sigma) if blur_radius else image


def sharpen(image: Array, sharpen_radius: int, sigma: float, alpha: float) -> Array:
    """Add ten times `alpha` of what blurring takes away, clipped to 0-1: ComfyUI's kernel as an unsharp mask."""
    if not sharpen_radius:
        return image
    added = (image - blur_image(image, sharpen_radius, sigma)) * np.float32(alpha * 10)
    return np.clip(image + added, 0, 1)


def _soft_light(under: Array, over: Array) -> Any:
    """W3C compositing's soft light."""
    curve = np.where(under <= 0.25, ((16 * under - 12) * under + 4) * under, np.sqrt(np.maximum(under, 0)))
    dark = under - (1 - 2 * over) * under * (1 - under)
    return np.where(over <= 0.5, dark, under + (2 * over - 1) * (curve - under))


_BLENDS: dict[str, Callable[[Array, Array], Any]] = {
    "normal": lambda _under, over: over,
    "multiply": lambda under, over: under * over,
    "screen": lambda under, over: 1 - (1 - under) * (1 - over),
    "overlay": lambda under, over: np.where(under <= 0.5, 2 * under * over, 1 - 2 * (1 - under) * (1 - over)),
    "soft_light": _soft_light,
    "difference": lambda under, over: under - over,
}


def blend(image1: Array, image2: Array, blend_factor: float, blend_mode: str) -> Array:
    """Blend `image2` over `image1`; it is scaled to the first one's size, and an alpha channel follows the first."""
    # ComfyUI fails if the second one has fewer channels.
    image2 = match_channels(image2, image1.shape[-1])
    if image1.shape != image2.shape:
        image2 = resize_image(image2, image1.shape[2], image1.shape[1], "bicubic", centre=True)
    factor, mode = np.float32(blend_factor), _BLENDS.get(blend_mode, _BLENDS["normal"])
    mixed = image1 * (1 - factor) + mode(image1, image2) * factor
    return np.asarray(np.clip(mixed, 0, 1).astype(np.float32))


def match_channels(image: Array, channels: int) -> Array:
    """The batch with `channels` channels: alpha is left out, or opaque."""
    if image.shape[-1] < 3 <= channels:
        image = np.repeat(image[..., :1], 3, axis=-1)
    if image.shape[-1] < channels:
        return np.concatenate([image, np.ones((*image.shape[:-1], channels - image.shape[-1]), np.float32)], axis=-1)
    return np.asarray(image[..., :channels])


def batch(image1: Array, image2: Array) -> Array:
    if image1.shape[1:] != image2.shape[1:]:
        image2 = resize_image(image2, image1.shape[2], image1.shape[1], "bilinear", centre=True)
    return np.concatenate([image1, image2], axis=0)


def crop(image: Array, width: int, height: int, x: int, y: int) -> Array:
    """Cut out; a corner outside is moved to the last pixel, and what hangs over is left out."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return np.ascontiguousarray(image[:, y : y + height, x : x + width])


def scale_to_pixels(image: Array, upscale_method: str, megapixels: float, resolution_steps: int = 1) -> Array:
    """To about `megapixels` x 1024 x 1024 pixels, the aspect ratio kept, with sides in multiples of the steps."""
    height, width = image.shape[1:3]
    by = math.sqrt(int(megapixels * 1024 * 1024) / (width * height))
    width, height = (round(side * by / resolution_steps) * resolution_steps for side in (width, height))
    return resize_image(image, width, height, upscale_method)


def size(image: Array) -> tuple[int, int, int]:
    return image.shape[2], image.shape[1], image.shape[0]


def repeat(image: Array, amount: int) -> Array:
    check_size(amount, *image.shape)
    return np.tile(image, (amount, 1, 1, 1))


def from_batch(image: Array, batch_index: int, length: int) -> Array:
    """`length` pictures from `batch_index` on, which counts from the end if it is negative, both in bounds."""
    start = max(0, min(len(image) - 1, batch_index + len(image) if batch_index < 0 else batch_index))
    return image[start : start + length].copy()


def flip(image: Array, flip_method: str) -> Array:
    return np.ascontiguousarray(np.flip(image, 1 if flip_method.startswith("x") else 2))


# --- masks: float32 [B, H, W], 0-1, alpha ----------------------------------------------------------------------------

CHANNELS = ("red", "green", "blue", "alpha")


def to_planes(mask: Array) -> Array:
    """A MASK of any number of dimensions as [B, H, W]."""
    return mask.reshape(-1, *mask.shape[-2:])


def solid(value: float, width: int, height: int) -> Array:
    check_size(height, width)
    return np.full((1, height, width), value, np.float32)


def invert_mask(mask: Array) -> Array:
    return 1.0 - mask


def to_image(mask: Array) -> Array:
    return np.repeat(to_planes(mask)[..., None], 3, axis=3)


def from_image(image: Array, channel: str) -> Array:
    """One channel. ComfyUI fails for the alpha of a picture without one, which is opaque here: stand-ins make none."""
    if channel == "alpha" and image.shape[-1] < 4:
        return np.ones(image.shape[:3], np.float32)
    return np.ascontiguousarray(image[..., CHANNELS.index(channel)])
