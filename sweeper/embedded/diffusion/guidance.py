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
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.latent_noise import LatentNoise
from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.diffusion.prior import DEVIATION, Prior, get_prior
from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.solvers import SOLVERS, SolverRun
from sweeper.embedded.diffusion.text import pool
from sweeper.embedded.diffusion.vocabulary import INDEX

Conditioning = list[list[Any]]  # [[embedding, options], ...]

APART, APART_AT = 0.08, 1.2  # how far the sides are apart, and about where most (see `_apart`)
SOURCE = 2.4  # noise level of the img2img prior
# Guidance moves light and colour; on the amount of detail it acts little, or every guided picture were all edges.
_GUIDED = np.array([1.0, 1.15, 1.15, 0.12], np.float32)[:, None, None]
_HELD = np.float32(0.9)  # how much an inpainting model keeps of what its mask does not cover
_AVOIDED = 0.3  # how much of a negative prompt's light and style features is taken off the positive's


@dataclass(frozen=True, slots=True)
class Guider:
    """A model with what to draw, what to avoid (None: BasicGuider) and how strongly."""

    model: Model
    positive: Conditioning
    negative: Conditioning | None
    cfg: float


def _apart(sigma: float) -> float:
    ratio = sigma / APART_AT
    return 1.5 * APART * math.sqrt(ratio) / (1 + ratio**2)


def _subtract_avoided(features: Array, avoided: Array) -> Array:
    """Features with some of a negative prompt's light, style and colours taken off."""
    features = features.copy()
    style = slice(INDEX["dark"], INDEX["sharp"] + 1)
    features[style] -= np.float32(_AVOIDED) * avoided[style]
    for channel in "uv":  # a colour to avoid is taken out of the subject's too
        features[INDEX[f"subject_{channel}"]] -= np.float32(0.6) * avoided[INDEX[f"tint_{channel}"]]
    return features


@dataclass(frozen=True, slots=True)
class _Part:
    """One entry of a conditioning at one latent size."""

    prior: Prior
    distilled: float  # a guidance-distilled model has the guidance inside (FluxGuidance); 0 or 1: none
    held: list[Array]  # InpaintModelConditioning: a picture [n, 4, h, w] and how far it holds, [n, 1, h, w]; or nothing


class _Denoiser:
    """D(x, sigma) of one guider at one latent size, for solvers.

    `source` [B, 4, h, w] is an img2img picture, `mask` [B, 1, h, w] where it may change.
    """

    def __init__(self, guider: Guider, size: tuple[int, int], source: Array | None, mask: Array | None) -> None:
        self._guider = guider
        self._flow = guider.model.sampling.flow
        self._source = source
        self._mask = mask
        self._size = size
        negative = [pool(embedding) for embedding, _ in guider.negative or []]
        avoided = np.stack(negative).mean(axis=0, dtype=np.float32) if negative and guider.cfg > 1 else None
        self._positive = self._build_parts(guider.positive, avoided)
        self._reference = self._find_centre(negative)

    def _build_parts(self, conditioning: Conditioning, avoided: Array | None) -> list[_Part]:
        style = np.array(self._guider.model.style, np.float32)
        parts = []
        for embedding, options in conditioning:
            features = pool(embedding) + style
            if avoided is not None:
                features = _subtract_avoided(features, avoided)
            prior = get_prior(features, *self._size)
            held = [resize(one, self._size[1], self._size[0], "area") for one in options.get("held", ())]
            parts.append(_Part(prior, float(options.get("guidance", 0.0) or 0.0), held))
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
        if self._flow:  # (1-s) x0 + s n is the same observation as x0 + s/(1-s) n
            signal = max(1.0 - sigma, 1e-4)
            x, sigma = x / np.float32(signal), sigma / signal
        pairs = [self._denoise_item(item, sigma, index) for index, item in enumerate(x)]
        return np.stack([guided for guided, _ in pairs]), np.stack([reference for _, reference in pairs])

    def _denoise_item(self, x: Array, sigma: float, index: int) -> tuple[Array, Array]:
        """The guided estimate and the reference: the mean over all entries, and how far it is from the reference."""
        guider = self._guider
        strength = _GUIDED * np.float32(_apart(sigma))
        positive, away = np.zeros_like(x), np.zeros_like(x)
        for part in self._positive:
            estimate, new = self._posterior(part, x, sigma, index)
            pushed = (estimate - self._reference) * (strength * np.float32(new))
            if part.distilled > 1:
                estimate = estimate + pushed * np.float32(part.distilled - 1)
            positive += estimate / np.float32(len(self._positive))
            away += pushed / np.float32(len(self._positive))
        if guider.negative is None:
            return positive, positive
        return positive + away * np.float32(guider.cfg - 1), positive - away

    def _posterior(self, part: _Part, x: Array, sigma: float, index: int) -> tuple[Array, float]:
        """The posterior mean, and how much of it is the prompt's: a picture that is given or held is not guided."""
        mean, new = part.prior.mean(x, sigma), 1.0
        if part.held:
            picture, kept = (one[index % len(one)] for one in part.held)
            mean[:3] += (_HELD * kept) * (picture[:3] - mean[:3])
            new -= float(_HELD) * float(kept.mean())
        spread = np.square(DEVIATION)[:, None, None] + np.float32(sigma**2)
        if self._source is not None:
            apart = self._source[index] - mean
            # What a mask keeps says nothing of whether the rest is to be kept.
            visible = apart if self._mask is None else apart * self._mask[index]
            weight = float((visible * apart / spread).sum(dtype=np.float64))
            if weight > 0:
                along = float(((x - mean) * visible / spread).sum(dtype=np.float64)) / weight
                pull = float((visible * apart).sum(dtype=np.float64)) / weight / SOURCE**2
                share = min(max(along - pull, 0.0), 1.0)
                mean, new = mean + apart * np.float32(share), new * (1.0 - share)
        own = np.square(DEVIATION)[:, None, None] / spread
        return x * own + mean * (1 - own), new


def sample(
    guider: Guider,
    sampler: str,
    sigmas: Sequence[float],
    latent: Array,
    noise: Array,
    *,
    later: LatentNoise,
    s_noise: float = 1.0,
    report: Callable[[int, Array, Array], None],
    mask: Array | None = None,
    options: Mapping[str, Any] | None = None,
) -> Array:
    """Run a sampler from `latent` [B, 4, h, w] with `noise` of the same shape added at the first of `sigmas`.

    `later` gives the noise of later steps, `s_noise` times as strong. `report(step, x, denoised)` is called once per
    step. `mask` [B, 1, h, w], 1 where the picture may change, keeps the rest as it was (inpainting). `options` go to
    the solver. Raises ValueError for an unknown sampler.
    """
    solver = SOLVERS.get(sampler)
    if solver is None:
        raise ValueError(f"invalid sampler {sampler!r}; there are {', '.join(SOLVERS)}")
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        return latent
    sampling = guider.model.sampling
    picture = latent if bool(np.any(latent)) and bool(np.any(noise)) else None

    evaluate = _Denoiser(guider, (latent.shape[2], latent.shape[3]), picture, mask)

    def denoise(x: Array, sigma: float) -> tuple[Array, Array]:
        if mask is None:
            return evaluate(x, sigma)
        noisy = latent * np.float32(sampling.alpha(sigma)) + noise * np.float32(sigma)
        guided, reference = evaluate(x * mask + noisy * (1 - mask), sigma)
        return guided * mask + latent * (1 - mask), reference * mask + latent * (1 - mask)

    x: Array
    if sampling.flow:
        x = noise * np.float32(levels[0]) + latent * np.float32(1 - levels[0])
    else:
        # At full noise the model has seen x0 + sigma n scaled to variance 1 + sigma^2 (ComfyUI's max_denoise).
        full = levels[0] > sampling.sigma_max * (1 - 1e-5)
        x = noise * np.float32((1 + levels[0] ** 2) ** 0.5 if full else levels[0]) + latent
    result = solver(SolverRun(denoise, later, sampling, report, s_noise), x, levels, **(options or {}))
    if sampling.flow and levels[-1] < 1:
        result = result / np.float32(1 - levels[-1])
    return np.ascontiguousarray(result, np.float32)
