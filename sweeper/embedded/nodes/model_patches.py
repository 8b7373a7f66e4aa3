"""MODEL, CLIP and VAE beyond the plain loaders: more loaders, noise schedules, merging, patches.

Patches of a network's inside (attention, layers, caches, compilation) have nothing to act on in a procedural model:
they hand it on unchanged, as their names in `catalog.implementations` say ("unpatched").
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sweeper.embedded.diffusion import models
from sweeper.embedded.diffusion.models import Clip, Model
from sweeper.embedded.diffusion.names import check_name
from sweeper.embedded.diffusion.schedules import Sampling
from sweeper.embedded.nodes.base import Context, NodeOutput
from sweeper.embedded.nodes.conditioning_extras import VisionModel


def checkpoint_with_config(_context: Context, config_name: str, ckpt_name: str) -> NodeOutput:
    """The old loader: a `v_prediction` configuration and all others make one procedural model, by the file's name."""
    check_name(config_name)
    return NodeOutput((models.load_model(ckpt_name), models.load_clip(ckpt_name), models.load_vae(ckpt_name)))


def diffusers(_context: Context, model_path: str) -> NodeOutput:
    return NodeOutput((models.load_model(model_path), models.load_clip(model_path), models.load_vae(model_path)))


def unclip_checkpoint(_context: Context, ckpt_name: str) -> NodeOutput:
    parts = models.load_model(ckpt_name), models.load_clip(ckpt_name), models.load_vae(ckpt_name)
    return NodeOutput((*parts, VisionModel(ckpt_name)))


def image_checkpoint(_context: Context, ckpt_name: str) -> NodeOutput:
    return NodeOutput((models.load_model(ckpt_name), VisionModel(ckpt_name), models.load_vae(ckpt_name)))


def clips(_context: Context, **names: str) -> NodeOutput:
    """TripleCLIPLoader and QuadrupleCLIPLoader."""
    return NodeOutput((models.load_clip("|".join(names.values())),))


def hypernetwork(_context: Context, model: Model, hypernetwork_name: str, strength: float) -> NodeOutput:
    return NodeOutput(models.with_lora(model, None, hypernetwork_name, (strength, 0.0))[:1])


def _with_sampling(model: Model, sampling: Sampling) -> NodeOutput:
    return NodeOutput((replace(model, sampling=sampling),))


def sampling_aura_flow(_context: Context, model: Model, shift: float) -> NodeOutput:
    return _with_sampling(model, Sampling("flow", shift))


def sampling_cascade(_context: Context, model: Model, shift: float) -> NodeOutput:
    return _with_sampling(model, Sampling("cascade", shift))


def sampling_discrete(_context: Context, model: Model, sampling: str, zsnr: bool) -> NodeOutput:
    """What a network predicts (`sampling`) is all one to an exact denoiser; `zsnr` changes the schedule."""
    if sampling not in {"eps", "v_prediction", "lcm", "x0", "img_to_img"}:
        raise ValueError(f"unknown sampling {sampling!r}")
    return _with_sampling(model, Sampling("zsnr") if zsnr else Sampling())


def sampling_continuous(
    _context: Context, model: Model, sampling: str, sigma_max: float, sigma_min: float
) -> NodeOutput:
    """EDM's range of levels (Karras et al. 2022); `cosmos_rflow` mixes as the others do here."""
    if not sampling or sigma_min <= 0 or sigma_max <= sigma_min:
        raise ValueError(f"sigma_max {sigma_max} must be above sigma_min {sigma_min}, and that above 0")
    return _with_sampling(model, Sampling("edm", sigma_max, sigma_min))


def sampling_ltxv(
    _context: Context, model: Model, max_shift: float, base_shift: float, latent: dict[str, Any] | None = None
) -> NodeOutput:
    """Linear in the latent's tokens between 1024 and 4096, as in Lightricks' scheduler."""
    tokens = 4096 if latent is None else math.prod(latent["samples"].shape[2:])
    slope = (max_shift - base_shift) / (4096 - 1024)
    return _with_sampling(model, Sampling("flux", tokens * slope + base_shift - slope * 1024))


def _with_patch(model: Model, kind: str, *numbers: float) -> NodeOutput:
    return NodeOutput((replace(model, patches=(*model.patches, (kind, numbers))),))


def linear_cfg(_context: Context, model: Model, min_cfg: float) -> NodeOutput:
    return _with_patch(model, "linear", min_cfg)


def triangle_cfg(_context: Context, model: Model, min_cfg: float) -> NodeOutput:
    return _with_patch(model, "triangle", min_cfg)


def rescale_cfg(_context: Context, model: Model, multiplier: float) -> NodeOutput:
    return _with_patch(model, "rescale", multiplier)


def norm_cfg(_context: Context, model: Model, strength: float) -> NodeOutput:
    return _with_patch(model, "norm", strength)


def unpatched(_context: Context, model: Model, **_inside: Any) -> NodeOutput:
    """A patch of what a procedural model does not have."""
    return NodeOutput((model,))


def unpatched_clip(_context: Context, clip: Clip, **_inside: Any) -> NodeOutput:
    return NodeOutput((clip,))


def _mix(first: models.Features, second: models.Features, share: float, weight: float) -> models.Features:
    return tuple(a * share + b * weight for a, b in zip(first, second, strict=True))


def merge(_context: Context, model1: Model, model2: Model, ratio: float) -> NodeOutput:
    """`ratio` of the first."""
    return NodeOutput((replace(model1, style=_mix(model1.style, model2.style, ratio, 1 - ratio)),))


def merge_blocks(_context: Context, model1: Model, model2: Model, **blocks: float) -> NodeOutput:
    """Per block in a network; here the features are dealt out to the blocks in turn, each with its block's ratio."""
    ratios = list(blocks.values()) or [1.0]
    pairs = zip(model1.style, model2.style, strict=True)
    style = tuple(a * ratios[i % len(ratios)] + b * (1 - ratios[i % len(ratios)]) for i, (a, b) in enumerate(pairs))
    return NodeOutput((replace(model1, style=style),))


def merge_add(_context: Context, model1: Model, model2: Model) -> NodeOutput:
    return NodeOutput((replace(model1, style=_mix(model1.style, model2.style, 1, 1)),))


def merge_subtract(_context: Context, model1: Model, model2: Model, multiplier: float) -> NodeOutput:
    """(first - second) * multiplier."""
    return NodeOutput((replace(model1, style=_mix(model1.style, model2.style, multiplier, -multiplier)),))


def merge_clip(_context: Context, clip1: Clip, clip2: Clip, ratio: float) -> NodeOutput:
    return NodeOutput((replace(clip1, bias=_mix(clip1.bias, clip2.bias, ratio, 1 - ratio)),))


def merge_clip_add(_context: Context, clip1: Clip, clip2: Clip) -> NodeOutput:
    return NodeOutput((replace(clip1, bias=_mix(clip1.bias, clip2.bias, 1, 1)),))


def merge_clip_subtract(_context: Context, clip1: Clip, clip2: Clip, multiplier: float) -> NodeOutput:
    return NodeOutput((replace(clip1, bias=_mix(clip1.bias, clip2.bias, multiplier, -multiplier)),))
