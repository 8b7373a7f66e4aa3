"""What a workflow with a model is made of: loaders, LoRAs, conditioning, samplers, latents; and texts and primitives.

No model file is read. A conditioning is a list of [embedding [1, T, F], options], of
which `diffusion.painter` reads `guidance`. SIGMAS are the levels of `painter`, float32 [n + 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.arrays import Array, draw_normal, resize
from sweeper.embedded.diffusion.models import Clip, Model, Vae, embed, load_vae
from sweeper.embedded.diffusion.painter import (
    Canvas,
    Conditioning,
    Guider,
    Hand,
    draw_layouts,
    find_hand,
    make_levels,
    paint,
)
from sweeper.embedded.diffusion.vae import SCALE
from sweeper.embedded.diffusion.vocabulary import yuv_to_rgb
from sweeper.embedded.nodes import Context
from sweeper.embedded.nodes.images import to_planes

# Decimals of its style that a model keeps with each weight type.
_DECIMALS = {"fp8_e4m3fn": 2, "fp8_e4m3fn_fast": 2, "fp8_e5m2": 1}


def checkpoint(ckpt_name: str) -> tuple[Model, Clip, Vae]:
    return models.load_model(ckpt_name), models.load_clip(ckpt_name), load_vae(ckpt_name)


def unet(unet_name: str, weight_dtype: str) -> Model:
    model = models.load_model(unet_name)
    decimals = _DECIMALS.get(weight_dtype)
    return model if decimals is None else replace(model, style=tuple(round(value, decimals) for value in model.style))


def clip(type: str = "", device: str = "default", **names: str) -> Clip:
    """One text encoder of one to three files. `device` says where a real model would be computed."""
    return models.load_clip("|".join(names[name] for name in sorted(names)), type)


def lora(
    model: Model, lora_name: str, strength_model: float, clip: Clip | None = None, strength_clip: float = 0.0
) -> tuple[Any, ...]:
    changed = models.with_lora(model, clip, lora_name, (strength_model, strength_clip))
    return changed[:1] if clip is None else changed


def set_shift(model: Model, shift: float) -> Model:
    return replace(model, shift=shift)


def encode(text: str, clip: Clip) -> Conditioning:
    return [[embed(clip, text), {}]]


def set_last_layer(clip: Clip, stop_at_clip_layer: int) -> Clip:
    return replace(clip, skip=-1 - stop_at_clip_layer)


def set_guidance(conditioning: Conditioning, guidance: float) -> Conditioning:
    return [[embedding, {**old, "guidance": guidance}] for embedding, old in conditioning]


def combine(conditioning_1: Conditioning, conditioning_2: Conditioning) -> Conditioning:
    return conditioning_1 + conditioning_2


def concat(conditioning_to: Conditioning, conditioning_from: Conditioning) -> Conditioning:
    """Append the rows of the first `from` to every `to`, as ComfyUI does."""
    added = conditioning_from[0][0]
    return [[np.concatenate([rows, added], axis=1), dict(options)] for rows, options in conditioning_to]


def average(
    conditioning_to: Conditioning, conditioning_from: Conditioning, conditioning_to_strength: float
) -> Conditioning:
    """Mix to * strength + from * (1 - strength) row by row; `from` is cut or padded to the length of `to`."""
    share = np.float32(conditioning_to_strength)
    other = conditioning_from[0][0]
    mixed = []
    for rows, options in conditioning_to:
        count = rows.shape[1]
        fitted = np.pad(other[:, :count], ((0, 0), (0, max(count - other.shape[1], 0)), (0, 0)))
        mixed.append([rows * share + fitted * (1 - share), dict(options)])
    return mixed


def zero_out(conditioning: Conditioning) -> Conditioning:
    return [[np.zeros_like(rows), dict(options)] for rows, options in conditioning]


# --- samplers ---------------------------------------------------------------------------------------------------------

Latent = dict[str, Any]

_DRIFT, _DRIFT_USE = 0.06, 7  # how far the layout of a film drifts from one latent to the next, and its noise


@dataclass(frozen=True, slots=True)
class SeededNoise:
    """NOISE, of RandomNoise and DisableNoise: a seed 0 .. 2^64-1, or None for no noise at all."""

    noise_seed: int | None = None


def _make_canvas(latent: Latent, samples: Array, seed: int, *, noisy: bool) -> Canvas:
    """The latent as [B, 4, h, w]; the latents of a film follow each other, and its layout drifts slowly."""
    items = tuple(range(len(samples)))
    layouts = draw_layouts(seed, items)
    if samples.ndim == 5:
        length = samples.shape[2]
        aim = np.stack([draw_normal(seed, item, _DRIFT_USE, layouts.shape[1:]) for item in items])
        angle = np.tile(np.arange(length, dtype=np.float32) * np.float32(_DRIFT), len(items))[:, None]
        items = tuple(item for item in items for _ in range(length))
        layouts = np.repeat(layouts, length, axis=0) * np.cos(angle) + np.repeat(aim, length, axis=0) * np.sin(angle)
        samples = np.ascontiguousarray(np.moveaxis(samples, 2, 1)).reshape(-1, 4, *samples.shape[3:])
    mask = latent.get("noise_mask")
    if mask is not None:
        planes = mask.reshape(-1, 1, *mask.shape[-2:]).astype(np.float32)  # a video's [B, 1, t, 1, 1] too
        fitted = resize(planes, samples.shape[3], samples.shape[2], "bilinear")
        mask = fitted[np.arange(len(samples)) % len(fitted)]
    left, before = latent.get("unfinished") or (None, None)
    if left is not latent["samples"] or before is None:
        return Canvas(samples, layouts, seed, items, mask=mask)
    return Canvas(before.samples, layouts, seed, items, mask=mask) if noisy else replace(before, mask=mask)


def run_sampler(
    context: Context, guider: Guider, sampler: Hand, levels: Array, latent: Latent, seed: int, *, noisy: bool
) -> tuple[Latent, Latent]:
    """Sample; the latent that results, and the same without the noise that is left in it.

    `unfinished` has the latent with noise and the canvas without, from which a later run continues.
    """
    samples, total = latent["samples"], len(levels) - 1
    if total < 1:
        return latent, latent

    def report(step: int, estimate: Array) -> None:
        rgb = np.moveaxis(yuv_to_rgb(estimate[:3] / np.float32(SCALE)), 0, -1)
        preview = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
        context.progress(step + 1, total, preview)

    context.check()
    canvas = _make_canvas(latent, samples, seed, noisy=noisy)
    left, later = paint(guider, sampler, levels, canvas, noisy=noisy, report=report)
    result, clean = left, later.samples
    if samples.ndim == 5:
        result, clean = (
            np.ascontiguousarray(np.moveaxis(flat.reshape(-1, samples.shape[2], *flat.shape[1:]), 1, 2))
            for flat in (left, later.samples)
        )
    unfinished = (result, later) if levels[-1] > 0 else None
    return {**latent, "samples": result, "unfinished": unfinished}, {**latent, "samples": clean, "unfinished": None}


def schedule_named(model: Model, scheduler: str, steps: int, denoise: float) -> Array:
    """The last `steps` of a schedule that is 1 / `denoise` times as long; none at denoise 0."""
    if denoise <= 0:
        return np.zeros(0, np.float32)
    whole = int(steps / denoise) if denoise < 1 else steps
    return make_levels(scheduler, whole, model.shift)[-(steps + 1) :]


def ksampler(
    context: Context,
    *,
    model: Model,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int = 0,
    denoise: float = 1.0,
    noise_seed: int | None = None,
    add_noise: str = "enable",
    start_at_step: int = 0,
    end_at_step: int = 10000,
    return_with_leftover_noise: str = "disable",
) -> Latent:
    """KSampler, and KSamplerAdvanced: a part of a schedule. Without leftover noise it ends at level 0."""
    levels = schedule_named(model, scheduler, steps, denoise)
    if end_at_step < len(levels) - 1:
        levels = levels[: end_at_step + 1]
        if return_with_leftover_noise != "enable":
            levels[-1] = 0
    if start_at_step:  # a part that starts behind the end does nothing
        levels = levels[start_at_step:] if start_at_step < len(levels) - 1 else levels[:0]
    guider, noisy, chosen = Guider(model, positive, negative, cfg), add_noise != "disable", noise_seed or seed
    return run_sampler(context, guider, find_hand(sampler_name), levels, latent_image, chosen, noisy=noisy)[0]


def sampler_custom(
    context: Context,
    *,
    model: Model,
    add_noise: bool,
    noise_seed: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    sampler: Hand,
    sigmas: Array,
    latent_image: Latent,
) -> tuple[Latent, Latent]:
    guider = Guider(model, positive, negative, cfg)
    return run_sampler(context, guider, sampler, sigmas, latent_image, noise_seed, noisy=add_noise)


def sampler_custom_advanced(
    context: Context, noise: SeededNoise, guider: Guider, sampler: Hand, sigmas: Array, latent_image: Latent
) -> tuple[Latent, Latent]:
    noisy = noise.noise_seed is not None
    return run_sampler(context, guider, sampler, sigmas, latent_image, noise.noise_seed or 0, noisy=noisy)


def basic_guider(model: Model, conditioning: Conditioning) -> Guider:
    return Guider(model, conditioning, None, 1.0)


# --- latents ---------------------------------------------------------------------------------------------------------


_FRAME_STEP = 4  # frames of a video for each latent, as Wan's
_VIDEO_LARGEST = 120 * 10**6  # pixels of one decoded video: a gigabyte and a half as IMAGE


def empty(width: int, height: int, batch_size: int = 1) -> Latent:
    return {"samples": np.zeros((batch_size, 4, height // 8, width // 8), np.float32)}


def upscale(samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> Latent:
    """To `width` x `height` image pixels, at least 64; a side of 0 follows the other one, both 0 changes nothing."""
    array = samples["samples"]
    if width == 0 and height == 0:
        return samples
    ratio = array.shape[-1] / array.shape[-2]
    width, height = max(64, width or round(max(64, height) * ratio)), max(64, height or round(max(64, width) / ratio))
    return {**samples, "samples": resize(array, width // 8, height // 8, upscale_method, centre=crop == "center")}


def upscale_by(samples: Latent, upscale_method: str, scale_by: float) -> Latent:
    height, width = (round(side * scale_by) for side in samples["samples"].shape[-2:])
    return {**samples, "samples": resize(samples["samples"], width, height, upscale_method)}


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
        for place in range(count):
            context.check()
            low, part = divmod(place, _FRAME_STEP)
            step = video[:, min(low + 1, array.shape[2] - 1)] - video[:, low]
            frames.append(coder.decode((video[:, low] + step * np.float32(part / _FRAME_STEP))[None], vae)[0])
    return np.stack(frames)


def vae_encode(context: Context, pixels: Array, vae: Vae) -> Latent:
    context.check()
    samples, residue = coder.encode(pixels, vae)
    return {"samples": samples, "residue": residue}


def set_mask(samples: Latent, mask: Array) -> Latent:
    return {**samples, "noise_mask": to_planes(mask)[:, None]}


def encode_for_inpaint(context: Context, pixels: Array, vae: Vae, mask: Array, grow_mask_by: int = 6) -> Latent:
    """The picture, and a noise mask grown by about `grow_mask_by` pixels."""
    spread = ImageFilter.MaxFilter(grow_mask_by // 2 * 2 + 1)
    planes = [Image.fromarray(np.rint(plane * 255).astype(np.uint8)).filter(spread) for plane in to_planes(mask)]
    grown = np.stack([np.asarray(plane, np.float32) / np.float32(255) for plane in planes])
    return set_mask(vae_encode(context, pixels, vae), grown)


def inpaint_conditioning(
    context: Context, positive: Conditioning, negative: Conditioning, vae: Vae, pixels: Array, mask: Array,
    *, noise_mask: bool = True,
) -> tuple[Conditioning, Conditioning, Latent]:  # fmt: skip
    """Both conditionings as they are, and the latent of the whole picture."""
    latent = vae_encode(context, pixels, vae)
    return positive, negative, set_mask(latent, mask) if noise_mask else latent


# --- texts and primitives --------------------------------------------------------------------------------------------

# ComfyUI sets no limit, but a few nodes that each double their input would fill the memory.
MAX_LENGTH = 10_000_000  # characters of a text that a node makes


def hand_on(value: Any) -> Any:
    return value


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError(f"the result has {length} characters; at most {MAX_LENGTH} are allowed")


def concatenate(string_a: str, string_b: str, delimiter: str) -> str:
    _check_length(len(string_a) + len(delimiter) + len(string_b))
    return delimiter.join((string_a, string_b))


def replace_text(string: str, find: str, replace: str) -> str:
    # The count walks the whole text, so a text that cannot grow is not counted.
    if len(replace) > len(find):
        _check_length(len(string) + string.count(find) * (len(replace) - len(find)))
    return string.replace(find, replace)
