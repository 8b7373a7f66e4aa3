"""Text to conditioning, and what is done to conditionings: lists of [embedding [1, T, F], options].

`diffusion.guidance` reads the options: `guidance`, as ComfyUI names it, and `held` (see `InpaintModelConditioning`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sweeper.embedded.diffusion.guidance import Conditioning
from sweeper.embedded.diffusion.models import Clip, embed


def encode(text: str, clip: Clip) -> Conditioning:
    return [[embed(clip, text), {}]]


def encode_flux(clip: Clip, clip_l: str, t5xxl: str, guidance: float) -> Conditioning:
    """Both texts, each read by its half of the encoder: the two embeddings one after the other, at half weight."""
    both = np.concatenate([embed(clip, clip_l), embed(clip, t5xxl)], axis=1) * np.float32(0.5)
    return [[both, {"guidance": guidance}]]


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
