"""From a model and its conditionings to the denoiser that a solver calls, and the sampling run around it.

Classifier-free guidance (Ho & Salimans 2022) as ComfyUI applies it, D = D_ref + cfg (D_pos - D_ref). The unguided
reference knows most of what the prompt asks for, as an unconditional model was trained on the same pictures; a share
`_apart(sigma)` of it knows only what the negative prompt's pictures have in common (grey, if there is none). That share
peaks at the middle noise levels: at high noise neither side knows much, at low noise both see the same picture
(Kynkaanniemi et al. 2024 measure where guidance acts).

img2img: a picture that is noised and given back constrains the answer to the segment between itself and what the
prompt asks for; how far along is again a posterior mean, with a prior that favours the prompt more the more noise
there is. That keeps 1 - sigma^2 / (2 SOURCE^2) of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.conditions import ConditioningPart
from sweeper.embedded.diffusion.latent_noise import LatentNoise, ScaledNoise
from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.diffusion.patches import apply_patches, cfg_of_frame
from sweeper.embedded.diffusion.prior import DEVIATION, get_prior
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.solvers import SOLVERS, UNLISTED, SolverRun
from sweeper.embedded.diffusion.text import pool
from sweeper.embedded.diffusion.vocabulary import INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Conditioning = list[list[Any]]  # [[embedding, options], ...]

APART, APART_AT = 0.08, 1.2  # how far the sides are apart, and about where most (see `_apart`)
SOURCE = 2.4  # noise level of the img2img prior
# Guidance moves light and colour; on the amount of detail it acts little, or every guided picture were all edges.
_GUIDED = np.array([1.0, 1.15, 1.15, 0.12], np.float32)[:, None, None]
_NOTHING = 1e-37  # ComfyUI's weight where no conditioning speaks: the estimate is 0 there
_AVOIDED = 0.3  # how much of a negative prompt's light and style features is taken off the positive's


@dataclass(frozen=True, slots=True)
class Guider:
    """A model with what to draw, what to avoid (None: BasicGuider) and how strongly.

    `middle` is DualCFGGuider's second conditioning: `cfg` then pushes from it to `positive`, `cfg_middle` from
    `negative` to it; `nested` multiplies the two, as its style of that name does. With `empty` it is PerpNegGuider's:
    guidance starts from that conditioning, and the negative acts, `neg_scale` times, only where it is not along the
    positive (Armandpour et al. 2023, arXiv:2304.04968).
    """

    model: Model
    positive: Conditioning
    negative: Conditioning | None
    cfg: float
    middle: Conditioning | None = None
    cfg_middle: float = 1.0
    nested: bool = False
    empty: Conditioning | None = None
    neg_scale: float = 1.0


def _apart(sigma: float) -> float:
    ratio = sigma / APART_AT
    return 1.5 * APART * math.sqrt(ratio) / (1 + ratio**2)


def _apply_held(
    features: Array, options: Mapping[str, Any], patch: Mapping[str, Any]
) -> tuple[Array, Mapping[str, Any]]:
    """A part's features and options with what a model patch holds every prompt to (`Model.held`)."""
    if "features" in patch:
        features = features + patch["features"]
    more = {name: (*options.get(name, ()), patch[name]) for name in ("hints", "references") if name in patch}
    return features, {**options, **more}


def _subtract_avoided(features: Array, avoided: Array) -> Array:
    """Features with some of a negative prompt's light, style and colours taken off."""
    features = features.copy()
    style = slice(INDEX["dark"], INDEX["sharp"] + 1)
    features[style] -= np.float32(_AVOIDED) * avoided[style]
    for channel in "uv":  # a colour to avoid is taken out of the subject's too
        features[INDEX[f"subject_{channel}"]] -= np.float32(0.6) * avoided[INDEX[f"tint_{channel}"]]
    return features


def _remove_parallel(side: Array, along: Array) -> Array:
    """What of `side` is not along the other one."""
    length = float(np.square(along).sum(dtype=np.float64))
    share = float((side * along).sum(dtype=np.float64)) / length if length else 0.0
    return side - along * np.float32(share)


class _Denoiser:
    """D(x, sigma) of one guider at one latent size, for solvers.

    `source` [B, 4, h, w] is an img2img picture, `mask` [B, 1, h, w] where it may change; `frames` is how many items
    in a row are one video.
    """

    def __init__(
        self, guider: Guider, size: tuple[int, int], source: Array | None, mask: Array | None, *, frames: int
    ) -> None:
        patch = guider.model.perpendicular
        if patch is not None and guider.empty is None and guider.negative is not None:
            guider = replace(guider, empty=patch[0], neg_scale=patch[1])
        self._guider = guider
        self._flow = guider.model.sampling.flow
        self._source = source
        self._mask = mask
        self._frames = frames
        self._size = size
        negative = [pool(embedding) for embedding, _ in guider.negative or []]
        avoided = np.stack(negative).mean(axis=0, dtype=np.float32) if negative and guider.cfg > 1 else None
        self._positive = self._build_parts(guider.positive, avoided)
        self._middle = self._build_parts(guider.middle or [], avoided)
        self._negative = self._build_parts(guider.negative or [], None) if guider.empty is not None else []
        unguided = negative if guider.empty is None else [pool(embedding) for embedding, _ in guider.empty]
        self._reference = self._find_centre(unguided)

    def _build_parts(self, conditioning: Conditioning, avoided: Array | None) -> list[ConditioningPart]:
        guider = self._guider
        style = np.array(guider.model.style, np.float32)
        parts = []
        for embedding, own_options in conditioning:
            options, own = own_options, pool(embedding)
            features = own + style
            if avoided is not None:
                shared = guider.empty is not None
                features = _subtract_avoided(
                    features, _remove_parallel(avoided, own) * np.float32(guider.neg_scale) if shared else avoided
                )
            for patch in guider.model.held:
                features, options = _apply_held(features, options, patch)
            part = ConditioningPart(
                features, options, size=self._size, sampling=guider.model.sampling, frames=self._frames
            )
            parts.append(part)
        return parts

    def _find_centre(self, negative: list[Array]) -> Array:
        """The centre of the unguided reference; grey where nothing is to be avoided."""
        total = np.zeros((4, *self._size), np.float32)
        for features in negative:
            amount = float(np.tanh(np.abs(features).sum() / 2))
            if amount:
                total += get_prior(features, *self._size).centre() * np.float32(amount / len(negative))
        return total

    def __call__(self, x: Array, sigma: float) -> tuple[Array, Array]:
        level = sigma
        if self._flow:  # (1-s) x0 + s n is the same observation as x0 + s/(1-s) n
            signal = max(1.0 - sigma, 1e-4)
            x, sigma = x / np.float32(signal), sigma / signal
        pairs = [self._denoise_item(item, sigma, level, index, len(x)) for index, item in enumerate(x)]
        return np.stack([guided for guided, _ in pairs]), np.stack([reference for _, reference in pairs])

    def _denoise_item(self, x: Array, sigma: float, level: float, index: int, count: int) -> tuple[Array, Array]:
        guider = self._guider
        positive, away = self._estimate_side(self._positive, x, sigma, level, index)
        if guider.negative is None:
            return positive, positive
        for operation in guider.model.operations:
            # On what guidance adds: the unguided estimate plus the operation of the way from there.
            changed = operation(away[None])[0]
            positive, away = positive - away + changed, changed
        cfg = cfg_of_frame(guider.model.patches, guider.cfg, index // self._frames, count // self._frames)
        if guider.empty is not None:
            _, negative = self._estimate_side(self._negative, x, sigma, level, index)
            sideways = _remove_parallel(negative, away) * np.float32(guider.neg_scale)
            guided = positive + away * np.float32(cfg - 1) - sideways * np.float32(cfg)
        elif guider.middle is not None:
            middle, away_middle = self._estimate_side(self._middle, x, sigma, level, index)
            between = (positive - middle) * (_GUIDED * np.float32(_apart(sigma)))
            push = cfg * guider.cfg_middle if guider.nested else cfg
            guided = positive + between * np.float32(push - 1) + away_middle * np.float32(guider.cfg_middle - 1)
        else:
            guided = positive + away * np.float32(cfg - 1)
        return apply_patches(guider.model.patches, guided, positive, x, sigma), positive - away

    def _estimate_side(
        self, parts: list[ConditioningPart], x: Array, sigma: float, level: float, index: int
    ) -> tuple[Array, Array]:
        """The estimate of one conditioning, its parts averaged by weight, and how far it is from the reference."""
        apart = _GUIDED * np.float32(_apart(sigma))
        total, away, weights = np.zeros_like(x), np.zeros_like(x), np.full(x.shape[1:], _NOTHING, np.float32)
        for part in parts:
            if not part.is_active(level):
                continue
            box, weight = part.box, part.weight(index)
            estimate, new = self._posterior(part, x, sigma, level, index)
            pushed = (estimate - box.view(self._reference)) * (apart * np.float32(new))
            if part.distilled > 1:  # a guidance-distilled model has the guidance inside (FluxGuidance)
                estimate = estimate + pushed * np.float32(part.distilled - 1)
            box.view(total)[...] += estimate * weight
            box.view(away)[...] += pushed * weight
            box.view(weights)[...] += weight
        return total / weights, away / weights

    def _posterior(
        self, part: ConditioningPart, x: Array, sigma: float, level: float, index: int
    ) -> tuple[Array, float]:
        """The posterior mean, and how much of it is the prompt's (the rest is the img2img picture, not guided)."""
        x = part.box.view(x)
        frame = index % self._frames if self._frames > 1 else index
        mean, new = part.steer(part.prior.mean(x, sigma), level, index, frame)
        spread = np.square(DEVIATION)[:, None, None] + np.float32(sigma**2)
        if self._source is not None:
            apart = part.box.view(self._source[index]) - mean
            # What a mask keeps says nothing of whether the rest is to be kept.
            visible = apart if self._mask is None else apart * part.box.view(self._mask[index])
            weight = float((visible * apart / spread).sum(dtype=np.float64))
            if weight > 0:
                along = float(((x - mean) * visible / spread).sum(dtype=np.float64)) / weight
                pull = float((visible * apart).sum(dtype=np.float64)) / weight / SOURCE**2
                share = min(max(along - pull, 0.0), 1.0)
                mean, new = mean + apart * np.float32(share), new * (1.0 - share)
        own = np.square(DEVIATION)[:, None, None] / spread
        return x * own + mean * (1 - own), new


def _fit(planes: Array, height: int, width: int) -> Array:
    return planes if planes.shape[2:] == (height, width) else resize(planes, width, height, "bilinear")


def sample(
    guider: Guider,
    sampler: str,
    sigmas: Sequence[float],
    latent: Array,
    noise: Array,
    *,
    later: LatentNoise | ScaledNoise,
    report: Callable[[int, Array, Array], None],
    mask: Array | None = None,
    frames: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Array:
    """Run a sampler from `latent` [B, 4, h, w] with `noise` of the same shape added at the first of `sigmas`.

    `later` gives the noise of later steps, `report(step, x, denoised)` is called once per step. `mask` [B, 1, h, w],
    1 where the picture may change, keeps the rest as it was (inpainting). `frames` items in a row are one video;
    `options` go to the solver. Raises ValueError for an unknown sampler.
    """
    solver = SOLVERS.get(sampler) or UNLISTED.get(sampler)
    if solver is None:
        raise ValueError(f"invalid sampler {sampler!r}; there are {', '.join(SOLVERS)}")
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        return latent
    sampling = guider.model.sampling
    picture = latent if bool(np.any(latent)) and bool(np.any(noise)) else None

    @lru_cache(maxsize=1)
    def make_denoiser(height: int, width: int) -> _Denoiser:
        sides = (None if side is None else _fit(side, height, width) for side in (picture, mask))
        return _Denoiser(guider, (height, width), *sides, frames=frames)

    def denoise(x: Array, sigma: float) -> tuple[Array, Array]:
        if mask is None or x.shape != latent.shape:  # a sampler that grows the picture leaves the mask behind
            return make_denoiser(*x.shape[2:])(x, sigma)
        noisy = latent * np.float32(sampling.alpha(sigma)) + noise * np.float32(sigma)
        guided, reference = make_denoiser(*x.shape[2:])(x * mask + noisy * (1 - mask), sigma)
        return guided * mask + latent * (1 - mask), reference * mask + latent * (1 - mask)

    x: Array
    if sampling.flow:
        x = noise * np.float32(levels[0]) + latent * np.float32(1 - levels[0])
    else:
        # At full noise the model has seen x0 + sigma n scaled to variance 1 + sigma^2 (ComfyUI's max_denoise).
        full = levels[0] > sampling.sigma_max * (1 - 1e-5)
        x = noise * np.float32((1 + levels[0] ** 2) ** 0.5 if full else levels[0]) + latent
    result = solver(SolverRun(denoise, later, sampling, report), x, levels, **(options or {}))
    if sampling.flow and levels[-1] < 1:
        result = result / np.float32(1 - levels[-1])
    return np.ascontiguousarray(result, np.float32)
