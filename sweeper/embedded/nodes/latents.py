"""Latents: empty ones, resizing, batches, and the way to pictures and back.

A LATENT is {"samples": float32 [B, 4, h, w]} with, where it came from a picture, a "residue" (see `diffusion.vae`)
that travels along and is ignored once the size has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.nodes.base import Context, NodeOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]

_VIDEO_LARGEST = 120 * 10**6  # pixels of one decoded video: a gigabyte and a half as IMAGE


def empty(_context: Context, *, width: int, height: int, batch_size: int = 1) -> NodeOutput:
    return NodeOutput(({"samples": np.zeros((batch_size, 4, height // 8, width // 8), np.float32)},))


def empty_sd3(_context: Context, width: int, height: int, batch_size: int = 1) -> NodeOutput:
    """16 channels, as SD3's; samplers refill an empty latent with their model's own."""
    return NodeOutput(({"samples": np.zeros((batch_size, 16, height // 8, width // 8), np.float32)},))


def get_picture_samples(latent: Latent) -> Array:
    """[B, C, h, w]. Raises ValueError for the latent of a video, whose frames are no batch."""
    samples: Array = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(f"this node takes latents of pictures, [B, C, h, w]; this one is {list(samples.shape)}")
    return samples


def upscale(
    _context: Context, *, samples: Latent, upscale_method: str, width: int, height: int, crop: str
) -> NodeOutput:
    """To `width` x `height` image pixels, at least 64; a side of 0 follows the other one, both 0 changes nothing."""
    array = get_picture_samples(samples)
    if width == 0 and height == 0:
        return NodeOutput((samples,))
    if width == 0:
        height = max(64, height)
        width = max(64, round(array.shape[3] * height / array.shape[2]))
    elif height == 0:
        width = max(64, width)
        height = max(64, round(array.shape[2] * width / array.shape[3]))
    width, height = max(64, width), max(64, height)
    resized = resize(array, width // 8, height // 8, upscale_method, centre=crop == "center")
    return NodeOutput(({**samples, "samples": resized},))


def upscale_by(_context: Context, samples: Latent, upscale_method: str, scale_by: float) -> NodeOutput:
    array = get_picture_samples(samples)
    resized = resize(array, round(array.shape[3] * scale_by), round(array.shape[2] * scale_by), upscale_method)
    return NodeOutput(({**samples, "samples": resized},))


def repeat(_context: Context, samples: Latent, amount: int) -> NodeOutput:
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
    return NodeOutput((result,))


def vae_decode(context: Context, samples: Latent, vae: Vae) -> NodeOutput:
    """IMAGE float32 [B, 8h, 8w, 3], 0-1."""
    context.check()
    array: Array = samples["samples"]
    if array.ndim == 5:
        return NodeOutput((_decode_video(context, array, vae, int(samples.get("frame_step", 4))),))
    return NodeOutput((coder.decode(array, vae, samples.get("residue")),))


def _decode_video(context: Context, array: Array, vae: Vae, step: int) -> Array:
    """IMAGE [B * n, 8h, 8w, 3] of [B, 4, t, h, w]: n = (t - 1) * step + 1, the latents between two mixed evenly.

    Raises ValueError for more than `_VIDEO_LARGEST` pixels in all.
    """
    count = (array.shape[2] - 1) * step + 1
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
            low, part = divmod(index, step)
            latent = video[:, low]
            if part:
                latent = latent + (video[:, low + 1] - latent) * np.float32(part / step)
            frames.append(coder.decode(latent[None], vae)[0])
    return np.stack(frames)


def vae_decode_tiled(
    context: Context,
    *,
    samples: Latent,
    vae: Vae,
    tile_size: int,  # tiles save a GPU's memory; the picture is the same without
    overlap: int = 64,
    temporal_size: int = 64,
    temporal_overlap: int = 8,
) -> NodeOutput:
    return vae_decode(context, samples, vae)


def vae_encode(context: Context, pixels: Array, vae: Vae) -> NodeOutput:
    context.check()
    samples, residue = coder.encode(pixels, vae)
    return NodeOutput(({"samples": samples, "residue": residue},))
