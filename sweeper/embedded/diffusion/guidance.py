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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.diffusion.noise import Noise
from sweeper.embedded.diffusion.prior import DEVIATION, Prior, prior_of
from sweeper.embedded.diffusion.solvers import SOLVERS, Run
from sweeper.embedded.diffusion.text import pooled
from sweeper.embedded.diffusion.vocabulary import INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Conditioning = list[list[Any]]  # [[embedding, options], ...]

APART, APART_AT = 0.08, 1.2  # how far the sides are apart, and about where most (see `_apart`)
SOURCE = 2.4  # noise level of the img2img prior
# Guidance moves light and colour; on the amount of detail it acts little, or every guided picture were all edges.
_GUIDED = np.array([1.0, 1.15, 1.15, 0.12], np.float32)[:, None, None]
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


def _features(model: Model, conditioning: Conditioning) -> list[Array]:
    style = np.array(model.style, np.float32)
    return [pooled(embedding) + style for embedding, _ in conditioning]


class _Denoiser:
    """D(x, sigma) of one guider at one latent size, for solvers; `source` [B, 4, h, w] is an img2img picture."""

    def __init__(self, guider: Guider, height: int, width: int, source: Array | None) -> None:
        self._guider = guider
        self._flow = guider.model.sampling.flow
        self._source = source
        negative = [pooled(embedding) for embedding, _ in guider.negative or []]
        positive = _features(guider.model, guider.positive)
        if negative and guider.cfg > 1:
            style = slice(INDEX["dark"], INDEX["sharp"] + 1)
            avoided: Array = np.stack(negative).mean(axis=0, dtype=np.float32)
            for features in positive:
                features[style] -= np.float32(_AVOIDED) * avoided[style]
                for channel in "uv":  # a colour to avoid is taken out of the subject's too
                    features[INDEX[f"subject_{channel}"]] -= np.float32(0.6) * avoided[INDEX[f"tint_{channel}"]]
        self._positive = [prior_of(features, height, width) for features in positive]
        self._distilled = [float(options.get("guidance", 0.0)) for _, options in guider.positive]
        self._reference = self._centre(negative, height, width)

    def _centre(self, negative: list[Array], height: int, width: int) -> Array:
        """The centre of the unguided reference; grey where nothing is to be avoided."""
        total = np.zeros((4, height, width), np.float32)
        for features in negative:
            amount = float(np.tanh(np.abs(features).sum() / 2))
            if amount:
                total += prior_of(features, height, width).centre() * np.float32(amount / len(negative))
        return total

    def __call__(self, x: Array, sigma: float) -> tuple[Array, Array]:
        if self._flow:  # (1-s) x0 + s n is the same observation as x0 + s/(1-s) n
            kept = max(1.0 - sigma, 1e-4)
            x, sigma = x / np.float32(kept), sigma / kept
        pairs = [self._one(item, sigma, index) for index, item in enumerate(x)]
        return np.stack([guided for guided, _ in pairs]), np.stack([reference for _, reference in pairs])

    def _one(self, x: Array, sigma: float, index: int) -> tuple[Array, Array]:
        apart = _GUIDED * np.float32(_apart(sigma))
        total, away = np.zeros_like(x), np.zeros_like(x)
        share = np.float32(1 / len(self._positive))
        for prior, distilled in zip(self._positive, self._distilled, strict=True):
            estimate, new = self._posterior(prior, x, sigma, index)
            pushed = (estimate - self._reference) * (apart * np.float32(new))
            if distilled > 1:  # a guidance-distilled model has the guidance inside (FluxGuidance)
                estimate = estimate + pushed * np.float32(distilled - 1)
            total += estimate * share
            away += pushed * share
        positive = total
        if self._guider.negative is None:
            return positive, positive
        return positive + away * np.float32(self._guider.cfg - 1), positive - away

    def _posterior(self, prior: Prior, x: Array, sigma: float, index: int) -> tuple[Array, float]:
        """The posterior mean, and how much of it is the prompt's (the rest is the img2img picture, not guided)."""
        mean, new = prior.mean(x, sigma), 1.0
        spread = np.square(DEVIATION)[:, None, None] + np.float32(sigma**2)
        if self._source is not None:
            apart = self._source[index] - mean
            weight = float((np.square(apart) / spread).sum(dtype=np.float64))
            if weight > 0:
                along = float(((x - mean) * apart / spread).sum(dtype=np.float64)) / weight
                pull = float(np.square(apart).sum(dtype=np.float64)) / weight / SOURCE**2
                kept = min(max(along - pull, 0.0), 1.0)
                mean, new = mean + apart * np.float32(kept), 1.0 - kept
        own = np.square(DEVIATION)[:, None, None] / spread
        return x * own + mean * (1 - own), new


def sample(
    guider: Guider,
    sampler: str,
    sigmas: Sequence[float],
    latent: Array,
    noise: Array,
    *,
    later: Noise,
    report: Callable[[int, Array, Array], None],
    mask: Array | None = None,
) -> Array:
    """Run a sampler from `latent` [B, 4, h, w] with `noise` of the same shape added at the first of `sigmas`.

    `later` gives the noise of later steps, `report(step, x, denoised)` is called once per step. `mask` [B, 1, h, w],
    1 where the picture may change, keeps the rest as it was (inpainting). Raises ValueError for an unknown sampler.
    """
    if sampler not in SOLVERS:
        raise ValueError(f"invalid sampler {sampler!r}; there are {', '.join(SOLVERS)}")
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        return latent
    sampling = guider.model.sampling
    picture = latent if bool(np.any(latent)) and bool(np.any(noise)) else None
    denoiser = _Denoiser(guider, latent.shape[2], latent.shape[3], picture)

    def denoise(x: Array, sigma: float) -> tuple[Array, Array]:
        if mask is None:
            return denoiser(x, sigma)
        known = latent * np.float32(sampling.alpha(sigma)) + noise * np.float32(sigma)
        guided, reference = denoiser(x * mask + known * (1 - mask), sigma)
        return guided * mask + latent * (1 - mask), reference * mask + latent * (1 - mask)

    x: Array
    if sampling.flow:
        x = noise * np.float32(levels[0]) + latent * np.float32(1 - levels[0])
    else:
        # At full noise the model has seen x0 + sigma n scaled to variance 1 + sigma^2 (ComfyUI's max_denoise).
        full = levels[0] > sampling.sigma_max * (1 - 1e-5)
        x = noise * np.float32((1 + levels[0] ** 2) ** 0.5 if full else levels[0]) + latent
    result = SOLVERS[sampler](Run(denoise, later, sampling, report), x, levels)
    if sampling.flow and levels[-1] < 1:
        result = result / np.float32(1 - levels[-1])
    return np.ascontiguousarray(result, np.float32)
