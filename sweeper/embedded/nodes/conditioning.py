"""Text to conditioning, and the arithmetic on conditionings: lists of [embedding [1, T, F], options]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.models import Clip, embed
from sweeper.embedded.nodes.base import Context, NodeOutput

if TYPE_CHECKING:
    from sweeper.embedded.diffusion.guidance import Conditioning


def text_encode(_context: Context, text: str, clip: Clip) -> NodeOutput:
    return NodeOutput(([[embed(clip, text), {}]],))


def text_encode_flux(_context: Context, clip: Clip, clip_l: str, t5xxl: str, guidance: float) -> NodeOutput:
    """Both texts, each read by its half of the encoder: the two embeddings one after the other, at half weight."""
    both = np.concatenate([embed(clip, clip_l), embed(clip, t5xxl)], axis=1) * np.float32(0.5)
    return NodeOutput(([[both, {"guidance": guidance}]],))


def set_last_layer(_context: Context, clip: Clip, stop_at_clip_layer: int) -> NodeOutput:
    return NodeOutput((replace(clip, skip=-1 - stop_at_clip_layer),))


def with_options(conditioning: Conditioning, **options: Any) -> Conditioning:
    return [[embedding, {**old, **options}] for embedding, old in conditioning]


def flux_guidance(_context: Context, conditioning: Conditioning, guidance: float) -> NodeOutput:
    return NodeOutput((with_options(conditioning, guidance=guidance),))


def combine(_context: Context, conditioning_1: Conditioning, conditioning_2: Conditioning) -> NodeOutput:
    return NodeOutput((conditioning_1 + conditioning_2,))


def concat(_context: Context, conditioning_to: Conditioning, conditioning_from: Conditioning) -> NodeOutput:
    """Append the rows of the first `from` to every `to`, as ComfyUI does."""
    added = conditioning_from[0][0]
    joined = [[np.concatenate([rows, added], axis=1), dict(options)] for rows, options in conditioning_to]
    return NodeOutput((joined,))


def average(
    _context: Context,
    *,
    conditioning_to: Conditioning,
    conditioning_from: Conditioning,
    conditioning_to_strength: float,
) -> NodeOutput:
    """Mix to * strength + from * (1 - strength) row by row; `from` is cut or padded to the length of `to`."""
    share = np.float32(conditioning_to_strength)
    other = conditioning_from[0][0]
    mixed = []
    for rows, options in conditioning_to:
        count = rows.shape[1]
        fitted = np.pad(other[:, :count], ((0, 0), (0, max(count - other.shape[1], 0)), (0, 0)))
        mixed.append([rows * share + fitted * (1 - share), dict(options)])
    return NodeOutput((mixed,))


def zero_out(_context: Context, conditioning: Conditioning) -> NodeOutput:
    return NodeOutput(([[np.zeros_like(rows), dict(options)] for rows, options in conditioning],))
