"""The distribution of clean latents that a prompt stands for, and its exact posterior mean.

Given a prompt, the colours of a clean latent are: one of K composed pictures (`scene`), on top of it, in each patch of
a fixed irregular mosaic independently, one of J tonal variants (lighter, darker, warmer), and white Gaussian noise of
a small deviation. The fourth channel, detail, is plus or minus one amount, each pixel for itself (`vae` reads its
absolute value). That is a Gaussian mixture of K * J^patches * 2^pixels components, whose posterior mean under added
white noise has a closed form, because patches and pixels are independent given the composition:

    D(x, s) = W x + (1 - W) E[mean | x],   W = d^2 / (d^2 + s^2)     (d: the channel's own deviation)

So the seed chooses the composition at high noise, the variants at middle and the detail at low noise: pictures go from
blurred to sharp as steps grow, as with real models, and nothing in it is chaotic. Channels: luma, U, V times SCALE,
and detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.latent_noise import draw_normal
from sweeper.embedded.diffusion.layout import CANDIDATES
from sweeper.embedded.diffusion.scene import compose
from sweeper.embedded.diffusion.vocabulary import FEATURES, INDEX

SCALE = 6.0  # latent units per unit of luma; black to white is 6
VARIANTS = 4
DEVIATION = np.array([0.1, 0.07, 0.07, 0.3], np.float32)  # of each channel, in latent units
_UNGUIDED = 0.84  # contrast of a picture without guidance: cfg about 5 brings it to what was composed
_LARGEST = 512 * 512  # latent pixels of the largest picture: composing it takes about a gigabyte
_PATCH = 5  # mean width of a patch in latent pixels
_SIGMA_MAX = 14.614642  # compositions are made equally likely at this noise level
_MOSAIC_SEED = 0x3053A1C


@dataclass(frozen=True, slots=True)
class _Mosaic:
    """Patches of a latent of one size; pixels are kept sorted by patch, so that sums over patches are `reduceat`."""

    order: Array  # pixel at each sorted position
    inverse: Array  # inverse of order
    starts: Array
    label: Array  # patch of each sorted pixel
    variants: Array  # [J, 3, P], zero mean over J


@lru_cache(maxsize=16)
def _mosaic(height: int, width: int) -> _Mosaic:
    """A jittered Voronoi mosaic and its variants."""
    rows, columns = height // _PATCH + 3, width // _PATCH + 3
    jitter = np.clip(draw_normal(_MOSAIC_SEED, 0, 0, 0, (2, rows, columns)) * 0.28, -0.49, 0.49)
    y, x = np.divmod(np.arange(height * width), width)
    cell_y, cell_x = y // _PATCH + 1, x // _PATCH + 1
    nearest = np.full(height * width, np.inf)
    labels = np.zeros(height * width, np.intp)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            j, i = cell_y + dy, cell_x + dx
            centre_y, centre_x = (j - 0.5 + jitter[0, j, i]) * _PATCH, (i - 0.5 + jitter[1, j, i]) * _PATCH
            distance = (y + 0.5 - centre_y) ** 2 + (x + 0.5 - centre_x) ** 2
            closer = distance < nearest
            nearest, labels = np.where(closer, distance, nearest), np.where(closer, j * columns + i, labels)
    order = np.argsort(labels, kind="stable")
    patches, starts, label = np.unique(labels[order], return_index=True, return_inverse=True)
    tones = draw_normal(_MOSAIC_SEED, 1, 0, 0, (VARIANTS, 3, rows * columns))[:, :, patches]
    tones = tones - tones.mean(axis=0)
    slope = draw_normal(_MOSAIC_SEED, 2, 0, 0, (VARIANTS, rows * columns))[:, patches]
    across = ((y + x) % (2 * _PATCH) / _PATCH - 1).astype(np.float32)[order]
    variants = tones[:, :, label]
    variants[:, 0] += 0.5 * (slope - slope.mean(axis=0))[:, label] * across
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return _Mosaic(order, inverse, starts, label, np.ascontiguousarray(variants, np.float32))


class Prior:
    """The mixture of one prompt at one latent size. Latents are float32 [4, h, w]."""

    def __init__(self, features: Array, height: int, width: int) -> None:
        self.shape = (4, height, width)
        self._mosaic = _mosaic(height, width)
        pictures = compose(features, height, width).reshape(CANDIDATES, 3, -1)[:, :, self._mosaic.order]
        self._modes = np.ascontiguousarray(pictures * np.float32(SCALE * _UNGUIDED))
        facets = max(0.0, 0.4 + 0.8 * float(np.tanh(features[INDEX["facets"]])))
        tone = np.array([0.24, 0.08, 0.08], np.float32) * np.float32(facets)
        self._variants = self._mosaic.variants * tone[:, None]
        self._detail = np.float32(max(0.0, 1.0 + 0.9 * float(np.tanh(features[INDEX["sharp"]]))))
        self._mode_power = np.square(self._modes).sum(axis=2, dtype=np.float64)  # [K, 3]
        self._variant_power = self._per_patch(np.square(self._variants))  # [J, 3, C]
        self._mode_variant = np.stack([self._per_patch(self._variants * mode) for mode in self._modes])  # [K, J, 3, C]
        self._log_weight = 0.5 * (self._mode_power / (DEVIATION[:3] ** 2 + _SIGMA_MAX**2)).sum(axis=1)

    def _per_patch(self, values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, self._mosaic.starts, axis=-1))

    def centre(self) -> Array:
        """The mean over everything, [4, h, w]: what the prompt's pictures have in common."""
        centre = np.zeros(self.shape, np.float32)
        centre[:3] = self._modes.mean(axis=0)[:, self._mosaic.inverse].reshape(3, *self.shape[1:])
        return centre

    def weights(self, x: Array, sigma: float) -> tuple[Array, Array]:
        """How likely each composition [K], and each variant of each patch [J, C], is given the noisy latent `x`."""
        flat = x[:3].reshape(3, -1)[:, self._mosaic.order]
        spread = (DEVIATION[:3].astype(np.float64) ** 2 + sigma**2)[:, None]
        overlap = np.einsum("kcp,cp->kc", self._modes, flat).astype(np.float64)
        own = self._per_patch(self._variants * flat) - self._variant_power / 2
        # [K, J, C]: how well each variant explains each patch, were the composition k.
        fits = ((own[None] - self._mode_variant) / spread).sum(axis=2)
        best = fits.max(axis=1, keepdims=True)
        odds = np.exp(fits - best)
        total = odds.sum(axis=1, keepdims=True)
        evidence = (best + np.log(total)).sum(axis=(1, 2))
        logits = ((overlap - self._mode_power / 2) / spread[:, 0]).sum(axis=1) + evidence + self._log_weight
        chosen = np.exp(logits - logits.max())
        chosen /= chosen.sum()
        likely = chosen > 1e-6
        chosen = np.where(likely, chosen, 0)
        chosen /= chosen.sum()
        variants = np.einsum("k,kjc->jc", chosen[likely], (odds / total)[likely])
        return chosen, variants.astype(np.float32)

    def mean(self, x: Array, sigma: float) -> Array:
        """The expected mean of the component that `x` came from, [4, h, w]."""
        chosen, variants = self.weights(x, sigma)
        flat = np.zeros((3, self._modes.shape[2]), np.float32)
        for k in np.flatnonzero(chosen):
            flat += self._modes[k] * np.float32(chosen[k])
        for j in range(VARIANTS):
            flat += self._variants[j] * variants[j][self._mosaic.label]
        result = np.empty(self.shape, np.float32)
        result[:3] = flat[:, self._mosaic.inverse].reshape(3, *self.shape[1:])
        # Two Gaussians at +a and -a: the posterior mean of their centres is a tanh(a x / variance).
        result[3] = self._detail * np.tanh(x[3] * (self._detail / np.float32(DEVIATION[3] ** 2 + sigma**2)))
        return result


@lru_cache(maxsize=24)
def _make_cached(features: bytes, height: int, width: int) -> Prior:
    return Prior(np.frombuffer(features, np.float32), height, width)


def get_prior(features: Array, height: int, width: int) -> Prior:
    """The prior of a pooled embedding [F]; the latest ones are kept, as a sweep asks for few prompts often."""
    if len(features) != len(FEATURES):
        raise ValueError(f"an embedding of {len(features)} features; these models have {len(FEATURES)}")
    if height * width > _LARGEST:
        raise ValueError(
            f"a picture of {width * 8} x {height * 8} needs more memory than this server spends on one: "
            f"the procedural models draw up to {_LARGEST * 64 // 10**6} megapixels"
        )
    # A megapixel's prior takes 6 MB: what is larger than that is made anew rather than kept.
    if height * width > 128 * 128:
        return Prior(features, height, width)
    return _make_cached(np.ascontiguousarray(features, np.float32).tobytes(), height, width)
