"""Loaders, LoRAs, text to conditioning, and upscale models. No file is read; a name that climbs is refused.

A conditioning is a list of [embedding [1, T, F], options]. `diffusion.painter` reads the options: `guidance`, as
ComfyUI names it, and `held` (see `InpaintModelConditioning`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Clip, Model, Vae, embed
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.painter import Conditioning
from sweeper.embedded.diffusion.text import digest_normals
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.images import blur_image, resize_image

# Bits of mantissa that each weight type keeps.
_MANTISSA = {"fp8_e4m3fn": 3, "fp8_e4m3fn_fast": 3, "fp8_e5m2": 2}


def checkpoint(ckpt_name: str) -> tuple[Model, Clip, Vae]:
    return models.load_model(ckpt_name), models.load_clip(ckpt_name), models.load_vae(ckpt_name)


def unet(unet_name: str, weight_dtype: str) -> Model:
    model = models.load_model(unet_name)
    bits = _MANTISSA.get(weight_dtype)
    return models.quantise(model, bits) if bits else model


def clip(type: str = "", device: str = "default", **names: str) -> Clip:
    """One text encoder of one to three files. `device` says where a real model would be computed."""
    return models.load_clip("|".join(names[name] for name in sorted(names)), type)


def vae(vae_name: str) -> Vae:
    return models.load_vae(vae_name)


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


_LARGEST = 64 * 10**6  # pixels of one upscaled picture


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """UPSCALE_MODEL: how many times larger, and how much it sharpens (0-1)."""

    name: str
    factor: int
    crisp: float

    def __repr__(self) -> str:
        return f"<procedural upscaler {self.name!r}>"


def load_upscaler(model_name: str) -> UpscaleModel:
    """`4x-UltraSharp`, `RealESRGAN_x2`, `x8`: the factor in the name, 4 where it names none."""
    check_name(model_name)
    stem = re.split(r"[\\/]", model_name)[-1].lower()
    match = re.search(r"(?<!\d)([1248])\s*x|x\s*([1248])(?!\d)", stem)
    factor = int(match.group(1) or match.group(2)) if match else 4
    crisp = 0.45 + 0.15 * float(np.tanh(digest_normals(f"upscale/{model_name}", 1)[0]))
    return UpscaleModel(model_name, factor, crisp)


def upscale(context: Context, upscale_model: UpscaleModel, image: Array) -> Array:
    """Bicubic, then unsharp masking; raises ValueError for a picture that would be larger than `_LARGEST`."""
    height, width = (side * upscale_model.factor for side in image.shape[1:3])
    if height * width > _LARGEST:
        raise ValueError(f"a picture of {width} x {height} is larger than this server makes one")
    done = []
    for number, picture in enumerate(image[..., :3]):
        large = resize_image(picture[None], width, height, "bicubic")
        if min(height, width) > 2 * upscale_model.factor:
            large += (large - blur_image(large, 2, 0.6)) * np.float32(upscale_model.crisp * 2)
        done.append(np.clip(large[0], 0, 1))
        context.progress(number + 1, len(image))
    return np.stack(done)
