"""Loaders, LoRAs, conditioning, texts and primitives. No file is read; a name that climbs is refused.

A conditioning is a list of [embedding [1, T, F], options], of which `diffusion.painter` reads `guidance`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion.models import Clip, Model, Vae, embed, load_vae
from sweeper.embedded.diffusion.painter import Conditioning

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
