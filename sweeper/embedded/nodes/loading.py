"""Loaders: names to procedural models. No file is read; a name that climbs out of its folder is refused."""

from __future__ import annotations

from sweeper.embedded.diffusion import models
from sweeper.embedded.nodes.base import Context, NodeOutput

# Bits of mantissa that each weight type keeps.
_MANTISSA = {"fp8_e4m3fn": 3, "fp8_e4m3fn_fast": 3, "fp8_e5m2": 2}


def checkpoint(_context: Context, ckpt_name: str) -> NodeOutput:
    return NodeOutput((models.load_model(ckpt_name), models.load_clip(ckpt_name), models.load_vae(ckpt_name)))


def unet(_context: Context, unet_name: str, weight_dtype: str) -> NodeOutput:
    model = models.load_model(unet_name)
    bits = _MANTISSA.get(weight_dtype)
    return NodeOutput((models.quantise(model, bits) if bits else model,))


def clip(_context: Context, clip_name: str, type: str, device: str = "default") -> NodeOutput:
    """`device` says where a real model would be computed; the numbers are the same."""
    return NodeOutput((models.load_clip(clip_name, type),))


def dual_clip(
    _context: Context,
    *,
    clip_name1: str,
    clip_name2: str,
    type: str,
    device: str = "default",
) -> NodeOutput:
    return NodeOutput((models.load_clip(f"{clip_name1}|{clip_name2}", type),))


def vae(_context: Context, vae_name: str) -> NodeOutput:
    return NodeOutput((models.load_vae(vae_name),))


def lora(
    _context: Context,
    *,
    model: models.Model,
    clip: models.Clip,
    lora_name: str,
    strength_model: float,
    strength_clip: float,
) -> NodeOutput:
    return NodeOutput(models.with_lora(model, clip, lora_name, (strength_model, strength_clip)))


def lora_model_only(_context: Context, model: models.Model, lora_name: str, strength_model: float) -> NodeOutput:
    return NodeOutput(models.with_lora(model, None, lora_name, (strength_model, 0.0))[:1])
