"""Latents: empty ones, sizes, arithmetic, batches, inpainting, and the way to pictures and back.

A LATENT is {"samples": float32 [B, 4, h, w]} with, where it came from a picture, a "residue" (see `diffusion.vae`)
that travels along and is ignored once the size has changed. Semantics as ComfyUI 0.3.64's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.painter import Conditioning
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.images import find_start
from sweeper.embedded.nodes.mask_nodes import repeat_batch, resize_mask, to_planes

Latent = dict[str, Any]

_FRAME_STEP = 4  # frames of a video for each latent, as Wan's
_VIDEO_LARGEST = 120 * 10**6  # pixels of one decoded video: a gigabyte and a half as IMAGE


def empty(channels: str, width: int, height: int, batch_size: int = 1) -> Latent:
    """Samplers refill an empty latent with their model's own number of channels."""
    return {"samples": np.zeros((batch_size, int(channels), height // 8, width // 8), np.float32)}


def get_picture_samples(latent: Latent) -> Array:
    """[B, C, h, w]. Raises ValueError for the latent of a video, whose frames are no batch."""
    samples: Array = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(f"this node takes latents of pictures, [B, C, h, w]; this one is {list(samples.shape)}")
    return samples


def upscale(samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> Latent:
    """To `width` x `height` image pixels, at least 64; a side of 0 follows the other one, both 0 changes nothing."""
    array = get_picture_samples(samples)
    if width == 0 and height == 0:
        return samples
    if width == 0:
        height = max(64, height)
        width = max(64, round(array.shape[3] * height / array.shape[2]))
    elif height == 0:
        width = max(64, width)
        height = max(64, round(array.shape[2] * width / array.shape[3]))
    width, height = max(64, width), max(64, height)
    resized = resize(array, width // 8, height // 8, upscale_method, centre=crop == "center")
    return {**samples, "samples": resized}


def upscale_by(samples: Latent, upscale_method: str, scale_by: float) -> Latent:
    array = get_picture_samples(samples)
    resized = resize(array, round(array.shape[3] * scale_by), round(array.shape[2] * scale_by), upscale_method)
    return {**samples, "samples": resized}


def repeat(samples: Latent, amount: int) -> Latent:
    """The batch `amount` times in a row; each copy counts on in the batch index, so that it gets noise of its own."""
    array: Array = samples["samples"]
    result = {**samples, "samples": np.tile(array, (amount, 1, 1, 1))}
    mask = samples.get("noise_mask")
    if mask is not None and len(mask) > 1:
        fitted = mask[np.arange(len(array)) % len(mask)] if len(mask) < len(array) else mask
        result["noise_mask"] = np.tile(fitted, (amount,) + (1,) * (fitted.ndim - 1))
    indices = samples.get("batch_index")
    if indices is not None:
        span = max(indices) - min(indices) + 1
        result["batch_index"] = [index + copy * span for copy in range(amount) for index in indices]
    return result


def vae_decode(context: Context, samples: Latent, vae: Vae) -> Array:
    """IMAGE float32 [B, 8h, 8w, 3], 0-1."""
    context.check()
    array: Array = samples["samples"]
    if array.ndim == 5:
        return _decode_video(context, array, vae)
    return coder.decode(array, vae, samples.get("residue"))


def _decode_video(context: Context, array: Array, vae: Vae) -> Array:
    """IMAGE [B * n, 8h, 8w, 3] of [B, 4, t, h, w]: n = (t - 1) * 4 + 1, the latents between two mixed evenly.

    Raises ValueError for more than `_VIDEO_LARGEST` pixels in all.
    """
    count = (array.shape[2] - 1) * _FRAME_STEP + 1
    pixels = len(array) * count * array.shape[3] * array.shape[4] * 64
    if pixels > _VIDEO_LARGEST:
        raise ValueError(
            f"a video of {count} frames of {array.shape[4] * 8} x {array.shape[3] * 8} has {pixels / 1e6:.0f} "
            f"megapixels; this server decodes up to {_VIDEO_LARGEST // 10**6}"
        )
    frames = []
    for video in array:
        for index in range(count):
            context.check()
            low, part = divmod(index, _FRAME_STEP)
            latent = video[:, low]
            if part:
                latent = latent + (video[:, low + 1] - latent) * np.float32(part / _FRAME_STEP)
            frames.append(coder.decode(latent[None], vae)[0])
    return np.stack(frames)


def vae_encode(context: Context, pixels: Array, vae: Vae) -> Latent:
    context.check()
    samples, residue = coder.encode(pixels, vae)
    return {"samples": samples, "residue": residue}


def from_batch(samples: Latent, batch_index: int, length: int) -> Latent:
    array: Array = samples["samples"]
    start = find_start(array, batch_index)
    stop = min(start + length, len(array))
    result = {**samples, "samples": array[start:stop].copy()}
    mask = samples.get("noise_mask")
    if mask is not None and len(mask) > 1:
        result["noise_mask"] = repeat_batch(mask, len(array))[start:stop].copy()
    indices = samples.get("batch_index")
    result["batch_index"] = indices[start:stop] if indices else list(range(start, stop))
    return result


def set_mask(samples: Latent, mask: Array) -> Latent:
    return {**samples, "noise_mask": to_planes(mask)[:, None]}


def _crop_to_factor(pixels: Array, mask: Array) -> tuple[Array, Array]:
    """Both cut evenly to multiples of 8; the mask [B, H, W] first scaled to the picture."""
    height, width = pixels.shape[1:3]
    mask = resize_mask(mask, width, height)
    top, left = (height % 8) // 2, (width % 8) // 2
    area = (slice(None), slice(top, top + height // 8 * 8), slice(left, left + width // 8 * 8))
    return pixels[area], mask[area]


def _grey_out(pixels: Array, mask: Array) -> Array:
    keep = (1.0 - np.rint(mask))[..., None]
    greyed = pixels.copy()
    greyed[..., :3] = (pixels[..., :3] - np.float32(0.5)) * keep + np.float32(0.5)
    return greyed


def _grow_mask(mask: Array, by: int) -> Array:
    """A mask rounded and widened by a square of `by` pixels, as ComfyUI's convolution with ones does."""
    if by == 0:
        return mask
    pad = math.ceil((by - 1) / 2)
    padded = np.pad(np.rint(mask), ((0, 0), (pad, pad), (pad, pad)))
    for axis in (1, 2):
        count = padded.shape[axis] - by + 1
        parts = [np.take(padded, range(i, i + count), axis=axis) for i in range(by)]
        padded = np.maximum.reduce(parts)
    return padded[:, : mask.shape[1], : mask.shape[2]]


def encode_for_inpaint(pixels: Array, vae: Vae, mask: Array, grow_mask_by: int = 6) -> Latent:
    """The picture with what is masked made grey, and a noise mask grown by `grow_mask_by` pixels."""
    pixels, mask = _crop_to_factor(pixels, mask)
    samples, residue = coder.encode(_grey_out(pixels, mask), vae)
    grown = np.rint(_grow_mask(mask, grow_mask_by))[:, None]
    return {"samples": samples, "residue": residue, "noise_mask": grown}


def inpaint_conditioning(
    positive: Conditioning, negative: Conditioning, vae: Vae, pixels: Array, mask: Array, *, noise_mask: bool = True
) -> tuple[Conditioning, Conditioning, Latent]:
    """Both conditionings are held to the picture outside the mask; the latent is the whole picture."""
    samples, residue = coder.encode(pixels, vae)
    cut_pixels, cut_mask = _crop_to_factor(pixels, mask)
    greyed, _ = coder.encode(_grey_out(cut_pixels, cut_mask), vae)
    held = greyed, 1.0 - np.rint(cut_mask)[:, None]
    sides = [[[rows, {**old, "held": held}] for rows, old in side] for side in (positive, negative)]
    latent: Latent = {"samples": samples, "residue": residue}
    if noise_mask:
        latent["noise_mask"] = cut_mask[:, None]
    return sides[0], sides[1], latent
