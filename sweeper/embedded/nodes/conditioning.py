"""Text to conditioning, and what is done to conditionings: lists of [embedding [1, T, F], options].

The options say where, when and by which picture an entry acts. They have ComfyUI's own names where it has them;
`diffusion.conditions` reads them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.guidance import Conditioning
from sweeper.embedded.diffusion.hints import ControlNet, Hint, Reference, load_control
from sweeper.embedded.diffusion.models import Clip, Vae, embed
from sweeper.embedded.nodes.mask_nodes import to_planes


def encode(text: str, clip: Clip) -> Conditioning:
    return [[embed(clip, text), {}]]


def encode_flux(clip: Clip, clip_l: str, t5xxl: str, guidance: float) -> Conditioning:
    """Both texts, each read by its half of the encoder: the two embeddings one after the other, at half weight."""
    both = np.concatenate([embed(clip, clip_l), embed(clip, t5xxl)], axis=1) * np.float32(0.5)
    return [[both, {"guidance": guidance}]]


def set_last_layer(clip: Clip, stop_at_clip_layer: int) -> Clip:
    return replace(clip, skip=-1 - stop_at_clip_layer)


def set_options(conditioning: Conditioning, **options: Any) -> Conditioning:
    return [[embedding, {**old, **options}] for embedding, old in conditioning]


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


def set_area(
    unit: str, *, conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float
) -> Conditioning:
    """In pixels, or in shares of the picture."""
    sides = (height, width, y, x)
    area = ("percentage", *sides) if unit == "share" else tuple(int(side) // 8 for side in sides)
    return set_options(conditioning, area=area, strength=strength, set_area_to_bounds=False)


def set_mask(conditioning: Conditioning, mask: Array, strength: float, set_cond_area: str) -> Conditioning:
    bounds = set_cond_area != "default"
    return set_options(conditioning, mask=to_planes(mask), mask_strength=strength, set_area_to_bounds=bounds)


def set_range(conditioning: Conditioning, start: float, end: float) -> Conditioning:
    return set_options(conditioning, start_percent=start, end_percent=end)


def _append_option(conditioning: Conditioning, name: str, entry: Any) -> Conditioning:
    """One more entry in a tuple among the options."""
    return [[rows, {**old, name: (*old.get(name, ()), entry)}] for rows, old in conditioning]


def with_reference(conditioning: Conditioning, reference: Reference) -> Conditioning:
    return _append_option(conditioning, "references", reference)


def load_control_net(control_net_name: str) -> ControlNet:
    return load_control(control_net_name)


def apply_control(conditioning: Conditioning, control_net: ControlNet, image: Array, strength: float) -> Conditioning:
    hint = Hint(control_net, image, strength)
    return conditioning if strength == 0 else _append_option(conditioning, "hints", hint)


def apply_control_advanced(
    *,
    positive: Conditioning,
    negative: Conditioning,
    control_net: ControlNet,
    image: Array,
    strength: float,
    start_percent: float,
    end_percent: float,
    vae: Vae | None = None,  # hints are read as pictures, not as latents
) -> tuple[Conditioning, Conditioning]:
    if strength == 0:
        return positive, negative
    hint = Hint(control_net, image, strength, start_percent, end_percent)
    return _append_option(positive, "hints", hint), _append_option(negative, "hints", hint)
