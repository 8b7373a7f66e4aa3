"""Arithmetic on latents: sums, cuts, batches, turns, masks, inpainting. Semantics as ComfyUI 0.3.64's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.hints import Reference
from sweeper.embedded.diffusion.models import Vae
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import with_reference
from sweeper.embedded.nodes.editing import count_turns
from sweeper.embedded.nodes.latents import get_picture_samples
from sweeper.embedded.nodes.mask_ops import repeat_batch, resize_mask, to_planes
from sweeper.embedded.nodes.pictures import blur_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Latent = dict[str, Any]
    Operation = Callable[[Array], Array]


def _with_samples(latent: Latent, samples: Array) -> NodeOutput:
    return NodeOutput(({**latent, "samples": np.ascontiguousarray(samples, np.float32)},))


def _match_shape(first: Array, second: Array, *, repeat: bool = True) -> Array:
    """`second` scaled (bilinear, centre crop) and repeated to the shape of `first`."""
    if second.shape[1:] != first.shape[1:]:
        second = resize(second, first.shape[-1], first.shape[-2], "bilinear", centre=True)
    return repeat_batch(second, len(first)) if repeat else second


def add(_context: Context, samples1: Latent, samples2: Latent) -> NodeOutput:
    first: Array = samples1["samples"]
    return _with_samples(samples1, first + _match_shape(first, samples2["samples"]))


def subtract(_context: Context, samples1: Latent, samples2: Latent) -> NodeOutput:
    first: Array = samples1["samples"]
    return _with_samples(samples1, first - _match_shape(first, samples2["samples"]))


def multiply(_context: Context, samples: Latent, multiplier: float) -> NodeOutput:
    return _with_samples(samples, samples["samples"] * np.float32(multiplier))


def _length(samples: Array) -> Array:
    return np.asarray(np.sqrt(np.square(samples).sum(axis=1, keepdims=True)))


def _unit(samples: Array) -> Array:
    lengths = _length(samples)
    return np.asarray(np.where(lengths > 0, samples / np.where(lengths > 0, lengths, 1), 0))


def interpolate(_context: Context, samples1: Latent, samples2: Latent, ratio: float) -> NodeOutput:
    """Directions and lengths of the channel vectors mixed apart; `ratio` 1 is the first."""
    first: Array = samples1["samples"]
    second = _match_shape(first, samples2["samples"])
    share = np.float32(ratio)
    direction = _unit(_unit(first) * share + _unit(second) * (1 - share))
    return _with_samples(samples1, direction * (_length(first) * share + _length(second) * (1 - share)))


def blend(_context: Context, samples1: Latent, samples2: Latent, blend_factor: float) -> NodeOutput:
    first: Array = samples1["samples"]
    second: Array = samples2["samples"]
    if first.shape != second.shape:
        second = resize(second, first.shape[3], first.shape[2], "bicubic", centre=True)
    share = np.float32(blend_factor)
    return _with_samples(samples1, first * share + second * (1 - share))


_AXES = {"x": -1, "y": -2, "t": -3}


def concat(_context: Context, samples1: Latent, samples2: Latent, dim: str) -> NodeOutput:
    """One beside the other along x, y or t; a minus puts the second in front."""
    first: Array = samples1["samples"]
    sides = [first, repeat_batch(samples2["samples"], len(first))]
    return _with_samples(samples1, np.concatenate(sides[::-1] if "-" in dim else sides, axis=_AXES[dim[-1]]))


def cut(_context: Context, samples: Latent, dim: str, index: int, amount: int) -> NodeOutput:
    """`amount` from `index` on along x, y or t; a negative index counts from the end."""
    array: Array = samples["samples"]
    size = array.shape[_AXES[dim]]
    start = min(index, size - 1) if index >= 0 else max(index, -size) + size
    return _with_samples(samples, np.take(array, range(start, min(start + amount, size)), axis=_AXES[dim]))


def batch(_context: Context, samples1: Latent, samples2: Latent) -> NodeOutput:
    first: Array = samples1["samples"]
    second = _match_shape(first, samples2["samples"], repeat=False)
    indices = [latent.get("batch_index") or list(range(len(latent["samples"]))) for latent in (samples1, samples2)]
    joined = np.concatenate([first, second])
    return NodeOutput(({**samples1, "samples": joined, "batch_index": indices[0] + indices[1]},))


def from_batch(_context: Context, samples: Latent, batch_index: int, length: int) -> NodeOutput:
    array: Array = samples["samples"]
    start = min(len(array) - 1, batch_index)
    stop = min(start + length, len(array))
    result = {**samples, "samples": array[start:stop].copy()}
    mask = samples.get("noise_mask")
    if mask is not None and len(mask) > 1:
        result["noise_mask"] = repeat_batch(mask, len(array))[start:stop].copy()
    indices = samples.get("batch_index")
    result["batch_index"] = indices[start:stop] if indices else list(range(start, stop))
    return NodeOutput((result,))


def seed_behavior(_context: Context, samples: Latent, seed_behavior: str) -> NodeOutput:
    """`fixed`: every item gets the noise of the first; `random`: each its own."""
    result = dict(samples)
    if seed_behavior == "random":
        result.pop("batch_index", None)
    else:
        result["batch_index"] = [samples.get("batch_index", [0])[0]] * len(samples["samples"])
    return NodeOutput((result,))


def rotate(_context: Context, samples: Latent, rotation: str) -> NodeOutput:
    return _with_samples(samples, np.rot90(samples["samples"], count_turns(rotation), axes=(3, 2)))


def flip(_context: Context, samples: Latent, flip_method: str) -> NodeOutput:
    return _with_samples(samples, np.flip(samples["samples"], 2 if flip_method.startswith("x") else 3))


def crop(_context: Context, *, samples: Latent, width: int, height: int, x: int, y: int) -> NodeOutput:
    """In image pixels; the corner is kept at least 64 pixels inside."""
    array = get_picture_samples(samples)
    x, y = min(x // 8, array.shape[3] - 8), min(y // 8, array.shape[2] - 8)
    return _with_samples(samples, array[:, :, y : y + height // 8, x : x + width // 8])


def set_mask(_context: Context, samples: Latent, mask: Array) -> NodeOutput:
    return NodeOutput(({**samples, "noise_mask": to_planes(mask)[:, None]},))


def trim_video(_context: Context, samples: Latent, trim_amount: int) -> NodeOutput:
    return _with_samples(samples, samples["samples"][:, :, trim_amount:])


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


def encode_for_inpaint(_context: Context, pixels: Array, vae: Vae, mask: Array, grow_mask_by: int = 6) -> NodeOutput:
    """The picture with what is masked made grey, and a noise mask grown by `grow_mask_by` pixels."""
    pixels, mask = _crop_to_factor(pixels, mask)
    samples, residue = coder.encode(_grey_out(pixels, mask), vae)
    grown = np.rint(_grow_mask(mask, grow_mask_by))[:, None]
    return NodeOutput(({"samples": samples, "residue": residue, "noise_mask": grown},))


def inpaint_conditioning(
    _context: Context,
    *,
    positive: Any,
    negative: Any,
    vae: Vae,
    pixels: Array,
    mask: Array,
    noise_mask: bool = True,
) -> NodeOutput:
    """Both conditionings are held to the picture outside the mask; the latent is the whole picture."""
    samples, residue = coder.encode(pixels, vae)
    cut_pixels, cut_mask = _crop_to_factor(pixels, mask)
    greyed, _ = coder.encode(_grey_out(cut_pixels, cut_mask), vae)
    reference = Reference(greyed, 0.9, where=1.0 - np.rint(cut_mask))
    sides = with_reference(positive, reference), with_reference(negative, reference)
    latent: Latent = {"samples": samples, "residue": residue}
    if noise_mask:
        latent["noise_mask"] = cut_mask[:, None]
    return NodeOutput((*sides, latent))


def encode_tiled(
    context: Context,
    pixels: Array,
    vae: Vae,
    tile_size: int,  # tiles save a GPU's memory; the latent is the same without
    overlap: int,
    temporal_size: int = 64,
    temporal_overlap: int = 8,
) -> NodeOutput:
    context.check()
    samples, residue = coder.encode(pixels, vae)
    return NodeOutput(({"samples": samples, "residue": residue},))


def apply_operation(_context: Context, samples: Latent, operation: Operation) -> NodeOutput:
    return _with_samples(samples, operation(samples["samples"]))


def tonemap(_context: Context, multiplier: float) -> NodeOutput:
    """Reinhard's curve (2002) on the lengths of the channel vectors; white is 5 deviations above the mean."""

    def apply(samples: Array) -> Array:
        lengths = _length(samples) + np.float32(1e-10)
        axes = tuple(range(1, samples.ndim))
        top = (lengths.std(axis=axes, keepdims=True, ddof=1) * 5 + lengths.mean(axis=axes, keepdims=True)) * multiplier
        scaled = lengths / np.maximum(top, 1e-10)
        return np.asarray(samples / lengths * (scaled / (scaled + 1) * top), np.float32)

    return NodeOutput((apply,))


def sharpen(_context: Context, sharpen_radius: int, sigma: float, alpha: float) -> NodeOutput:
    """Unsharp masking of the directions of the channel vectors; their lengths stay."""

    def apply(samples: Array) -> Array:
        lengths = _length(samples) + np.float32(1e-6)
        units = np.moveaxis(samples / lengths, 1, -1)
        added = (units - blur_image(units, sharpen_radius, sigma)) * np.float32(alpha * 10)
        return np.asarray(np.moveaxis(units + added, -1, 1) * lengths, np.float32)

    return NodeOutput((apply,))
