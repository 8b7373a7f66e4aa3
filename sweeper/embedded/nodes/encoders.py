"""Text encoders of other families: several texts, each read by its part of the encoder, or sizes beside a text.

What a family's sizes and scores do to a real model is slight; here the sizes move the framing a little (`size`,
`symmetry`) and the aesthetic score the crispness, smoothly and around nothing at the defaults.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import vae as coder
from sweeper.embedded.diffusion.hints import Reference, VisionOutput, look
from sweeper.embedded.diffusion.models import Clip, Vae, embed
from sweeper.embedded.diffusion.vocabulary import FEATURES, INDEX
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import with_reference, with_vision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweeper.embedded.diffusion.guidance import Conditioning

    Array = NDArray[Any]

_SYSTEM_PROMPTS = {"superior": 1.0, "alignment": 0.9}  # how much of a prompt Lumina's two system prompts leave


def _encode_texts(clip: Clip, *texts: str) -> Array:
    """[1, T, F]: the texts read one by one, each at an equal share; the same text twice is that text once."""
    share = np.float32(1 / len(texts))
    return np.concatenate([embed(clip, text) for text in texts], axis=1) * share


def _with_features(rows: Array, **features: float) -> Array:
    row = np.zeros((1, 1, len(FEATURES)), np.float32)
    for name, value in features.items():
        row[..., INDEX[name]] = value
    return np.concatenate([rows, row], axis=1)


def sdxl(
    _context: Context,
    *,
    clip: Clip,
    width: int,
    height: int,
    crop_w: int,
    crop_h: int,
    target_width: int,
    target_height: int,
    text_g: str,
    text_l: str,
) -> NodeOutput:
    """The original's size against the target's says how coarse, the crop how far off the middle."""
    coarse = math.log2(max(width * height, 1) / max(target_width * target_height, 1))
    off = (crop_w + crop_h) / 2048
    rows = _with_features(
        _encode_texts(clip, text_g, text_l), sharp=0.05 * math.tanh(coarse), size=0.3 * math.tanh(off)
    )
    return NodeOutput(([[rows, {}]],))


def sdxl_refiner(_context: Context, *, ascore: float, width: int, height: int, text: str, clip: Clip) -> NodeOutput:
    coarse = math.log2(max(width * height, 1) / 1024**2)
    sharp = 0.1 * math.tanh((ascore - 6.0) / 4) + 0.05 * math.tanh(coarse)
    return NodeOutput(([[_with_features(embed(clip, text), sharp=sharp), {}]],))


def sd3(_context: Context, *, clip: Clip, clip_l: str, clip_g: str, t5xxl: str, empty_padding: str) -> NodeOutput:
    """With `none`, texts that are empty are left out; with `empty_prompt` they are read as emptiness."""
    texts = [text for text in (clip_l, clip_g, t5xxl) if text.strip() or empty_padding != "none"]
    return NodeOutput(([[_encode_texts(clip, *(texts or [""])), {}]],))


def hunyuan_dit(_context: Context, clip: Clip, bert: str, mt5xl: str) -> NodeOutput:
    return NodeOutput(([[_encode_texts(clip, bert, mt5xl), {}]],))


def pixart(_context: Context, width: int, height: int, text: str, clip: Clip) -> NodeOutput:
    coarse = math.log2(max(width * height, 1) / 1024**2)
    return NodeOutput(([[_with_features(embed(clip, text), sharp=0.05 * math.tanh(coarse)), {}]],))


def lumina2(_context: Context, system_prompt: str, user_prompt: str, clip: Clip) -> NodeOutput:
    share = np.float32(_SYSTEM_PROMPTS.get(system_prompt, 1.0))
    return NodeOutput(([[embed(clip, user_prompt) * share, {}]],))


def hidream(_context: Context, *, clip: Clip, clip_l: str, clip_g: str, t5xxl: str, llama: str) -> NodeOutput:
    return NodeOutput(([[_encode_texts(clip, clip_l, clip_g, t5xxl, llama), {}]],))


def for_controlnet(_context: Context, clip: Clip, conditioning: Conditioning, text: str) -> NodeOutput:
    """A text for the control model alone: here it adds to the prompt at a small share."""
    added = embed(clip, text) * np.float32(0.25)
    return NodeOutput(([[np.concatenate([rows, added], axis=1), dict(old)] for rows, old in conditioning],))


def hunyuan_i2v(
    _context: Context, clip: Clip, clip_vision_output: VisionOutput, prompt: str, image_interleave: int
) -> NodeOutput:
    """The prompt with what was seen; the larger `image_interleave`, the more the text counts."""
    encoded: Conditioning = [[embed(clip, prompt), {}]]
    return NodeOutput((with_vision(encoded, clip_vision_output, 1 / max(image_interleave, 1)),))


def _encode_edit(clip: Clip, prompt: str, vae: Vae | None, images: list[Array]) -> NodeOutput:
    encoded: Conditioning = [[embed(clip, prompt), {}]]
    for image in images:
        encoded = with_vision(encoded, look(image, clip.name, crop=False), 0.3 / len(images))
        if vae is not None:
            encoded = with_reference(encoded, Reference(coder.encode(image[:1], vae)[0], 0.6 / len(images)))
    return NodeOutput((encoded,))


def qwen_edit(
    _context: Context, clip: Clip, prompt: str, vae: Vae | None = None, image: Array | None = None
) -> NodeOutput:
    """The instruction, with the picture that it is about; without a VAE only what the encoder sees of it."""
    return _encode_edit(clip, prompt, vae, [] if image is None else [image])


def qwen_edit_plus(
    _context: Context,
    *,
    clip: Clip,
    prompt: str,
    vae: Vae | None = None,
    image1: Array | None = None,
    image2: Array | None = None,
    image3: Array | None = None,
) -> NodeOutput:
    return _encode_edit(clip, prompt, vae, [image for image in (image1, image2, image3) if image is not None])


def nothing(_context: Context) -> NodeOutput:
    """LotusConditioning: that model's text is always empty."""
    return NodeOutput(([[np.zeros((1, 77, len(FEATURES)), np.float32), {}]],))


def ace_step(_context: Context, clip: Clip, tags: str, lyrics: str, lyrics_strength: float) -> NodeOutput:
    """Tags say what it sounds like; lyrics add to them by their strength, at a quarter of the weight."""
    rows = embed(clip, tags)
    if lyrics.strip():
        rows = np.concatenate([rows, embed(clip, lyrics) * np.float32(0.25 * lyrics_strength)], axis=1)
    return NodeOutput(([[rows, {"lyrics_strength": lyrics_strength}]],))


def stable_audio(
    _context: Context, positive: Conditioning, negative: Conditioning, seconds_start: float, seconds_total: float
) -> NodeOutput:
    """ConditioningStableAudio: told, and without effect: a procedural sound is as long as its latent."""
    times = {"seconds_start": seconds_start, "seconds_total": seconds_total}
    return NodeOutput(tuple([[rows, {**old, **times}] for rows, old in side] for side in (positive, negative)))


def without_guidance(_context: Context, conditioning: Conditioning) -> NodeOutput:
    """FluxDisableGuidance."""
    return NodeOutput(([[rows, {**old, "guidance": None}] for rows, old in conditioning],))


def frame_rate(_context: Context, positive: Conditioning, negative: Conditioning, frame_rate: float) -> NodeOutput:
    """LTXVConditioning: told, and without effect on procedural scenes, which have no speed."""
    sides = ([[rows, {**old, "frame_rate": frame_rate}] for rows, old in side] for side in (positive, negative))
    return NodeOutput(tuple(sides))


def told_nothing(_context: Context, conditioning: Conditioning, **_how: Any) -> NodeOutput:
    """A conditioning handed on: what the node sets has no counterpart in procedural models."""
    return NodeOutput((conditioning,))
