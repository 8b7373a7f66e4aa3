"""Loaders, merging and sampling of models. No file is read; a name that climbs out of its folder is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion.models import Clip, Model, Vae
from sweeper.embedded.diffusion.schedules import Sampling

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


def merge(how: str, *, ratio: float = 1.0, multiplier: float = 1.0, **sides: Any) -> Model | Clip:
    """Two models or text encoders: `ratio` of the first, their sum, or (first - second) * multiplier."""
    weights = {"mix": (ratio, 1 - ratio), "add": (1, 1), "subtract": (multiplier, -multiplier)}[how]
    first, second = (sides[name] for name in sorted(sides))
    features = "style" if isinstance(first, Model) else "bias"
    pairs = zip(getattr(first, features), getattr(second, features), strict=True)
    merged: Model | Clip = replace(first, **{features: tuple(a * weights[0] + b * weights[1] for a, b in pairs)})
    return merged


def set_flow(model: Model, shift: float) -> Model:
    return replace(model, sampling=Sampling("flow", shift))


def set_flux(model: Model, max_shift: float, base_shift: float, width: int, height: int) -> Model:
    """Flux's time shift, linear in the number of 16 x 16 patches between 256 and 4096 (Black Forest Labs)."""
    slope = (max_shift - base_shift) / (4096 - 256)
    shift = width * height / 256 * slope + base_shift - slope * 256
    return replace(model, sampling=Sampling("flux", shift))
