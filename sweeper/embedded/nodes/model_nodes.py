"""Loaders, LoRAs, conditioning, upscale models, texts and primitives. No file is read; a name that climbs is refused.

A conditioning is a list of [embedding [1, T, F], options], of which `diffusion.painter` reads `guidance`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Clip, Model, Vae, digest_normals, embed, load_vae
from sweeper.embedded.diffusion.painter import Conditioning
from sweeper.embedded.diffusion.vocabulary import check_name
from sweeper.embedded.nodes.base import Context
from sweeper.embedded.nodes.images import resize_image

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


_LARGEST = 64 * 10**6  # pixels of one upscaled picture


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """UPSCALE_MODEL: how many times larger, and how much contrast it adds."""

    name: str
    factor: int
    crisp: float

    def __repr__(self) -> str:
        return f"<procedural upscaler {self.name!r}>"


def load_upscaler(model_name: str) -> UpscaleModel:
    """`4x-UltraSharp`, `RealESRGAN_x2`, `x8`: the factor in the name, 4 where it names none."""
    check_name(model_name)
    match = re.search(r"(?<!\d)([1248])\s*x|x\s*([1248])(?!\d)", re.split(r"[\\/]", model_name)[-1].lower())
    factor = int(match.group(1) or match.group(2)) if match else 4
    return UpscaleModel(model_name, factor, 0.05 * float(np.tanh(digest_normals(f"upscale/{model_name}", 1)[0])))


def upscale(context: Context, upscale_model: UpscaleModel, image: Array) -> Array:
    """Lanczos. Raises ValueError for a picture that would be larger than `_LARGEST`."""
    height, width = (side * upscale_model.factor for side in image.shape[1:3])
    if height * width > _LARGEST:
        raise ValueError(f"a picture of {width} x {height} is larger than this server makes one")
    done = []
    for number, picture in enumerate(image[..., :3]):
        large = resize_image(picture[None], width, height, "lanczos")[0]
        done.append(np.clip(large + (large - np.float32(0.5)) * np.float32(upscale_model.crisp), 0, 1))
        context.progress(number + 1, len(image))
    return np.stack(done)


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
