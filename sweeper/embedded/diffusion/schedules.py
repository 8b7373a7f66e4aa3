"""Noise levels: what a model's training schedule looks like, and the schedulers that pick steps from it.

The nine schedulers are those of ComfyUI 0.3.64 (`comfy/samplers.py`), with the same formulae; results are float32.
Samplers live in `solvers`. Here nothing is random and no picture is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sweeper.embedded.diffusion.arrays import Array


@lru_cache(maxsize=1)
def _scaled_linear() -> Array:
    """Stable Diffusion's sigmas: betas linear in their square root from 0.00085 to 0.012, 1000 steps (Rombach 2022)."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = np.cumprod(1.0 - betas)
    return np.asarray(np.sqrt((1.0 - signal) / signal))


@lru_cache(maxsize=64)
def _make_table(kind: str, shift: float) -> Array:
    if kind == "flux":
        return np.array([_time_shift_flux(shift, t / 10000) for t in range(1, 10001)])
    t = np.arange(1, 1001) / 1000
    return np.asarray(shift * t / (1 + (shift - 1) * t))


def _time_shift_flux(mu: float, t: float) -> float:
    """Black Forest Labs' shift of time: exp(mu) / (exp(mu) + 1/t - 1)."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1)) if t > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model mixes picture and noise.

    `discrete`: x0 + sigma n; `flow`, `flux`: (1-s) x0 + s n.
    """

    kind: str = "discrete"
    shift: float = 1.0  # of `flow` (SD3's time shift) and `flux` (its mu)

    @property
    def flow(self) -> bool:
        """True for rectified flow (ComfyUI's CONST), where sigma runs from 1 to 0."""
        return self.kind in {"flow", "flux"}

    @property
    def sigmas(self) -> Array:
        """Every trained noise level, rising."""
        return _scaled_linear() if self.kind == "discrete" else _make_table(self.kind, self.shift)

    @property
    def sigma_min(self) -> float:
        return float(np.float32(self.sigmas[0]))

    @property
    def sigma_max(self) -> float:
        return float(np.float32(self.sigmas[-1]))

    def timestep(self, sigma: float) -> float:
        """The model's time for a noise level."""
        if not self.flow:
            return float(np.argmin(np.abs(np.log(sigma) - np.log(self.sigmas))))
        return sigma * 1000 if self.kind == "flow" else sigma

    def sigma(self, timestep: float) -> float:
        """The noise level at a model's time; linear in log sigma between trained levels."""
        if not self.flow:
            logs = np.log(self.sigmas)
            return float(np.exp(np.interp(timestep, np.arange(len(logs)), logs)))
        if self.kind == "flux":
            return _time_shift_flux(self.shift, timestep)
        t = timestep / 1000
        return self.shift * t / (1 + (self.shift - 1) * t)

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level after `percent` (0-1) of the trained time; ComfyUI's percent_to_sigma."""
        if percent <= 0:
            return 1.0 if self.flow else 999999999.9
        if percent >= 1:
            return 0.0
        if not self.flow:
            return self.sigma((1 - percent) * (len(self.sigmas) - 1.0))
        return self.sigma((1 - percent) * (1000 if self.kind == "flow" else 1))

    def alpha(self, sigma: float) -> float:
        """The share of the picture in x at this noise level."""
        return 1.0 - sigma if self.flow else 1.0

    def log_snr(self, sigma: float) -> float:
        """Half the log of signal to noise: ln(alpha / sigma)."""
        return math.log(self.alpha(sigma) / sigma)

    def from_log_snr(self, value: float) -> float:
        return 1 / (1 + math.exp(value)) if self.flow else math.exp(-value)


def _simple(sampling: Sampling, steps: int) -> list[float]:
    table = sampling.sigmas
    stride = len(table) / steps
    return [float(table[-(1 + int(i * stride))]) for i in range(steps)] + [0.0]


def _ddim_uniform(sampling: Sampling, steps: int) -> list[float]:
    table = sampling.sigmas
    zero_start = math.isclose(float(table[1]), 0, abs_tol=1e-5)
    stride = max(len(table) // (steps + 1 if zero_start else steps), 1)
    picked = [float(table[i]) for i in range(1, len(table), stride)]
    return (picked if zero_start else [0.0, *picked])[::-1]


def _normal(sampling: Sampling, steps: int, *, sgm: bool = False) -> list[float]:
    start, end = sampling.timestep(sampling.sigma_max), sampling.timestep(sampling.sigma_min)
    if sgm:
        times = np.linspace(start, end, steps + 1)[:-1]
    elif math.isclose(sampling.sigma(end), 0, abs_tol=1e-5):
        return [sampling.sigma(float(t)) for t in np.linspace(start, end, steps + 1)]
    else:
        times = np.linspace(start, end, steps)
    return [*(sampling.sigma(float(t)) for t in times), 0.0]


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Array:
    """Karras et al. 2022, eq. 5, and a zero: [steps + 1]."""
    ramp = np.linspace(0, 1, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return np.append((high + ramp * (low - high)) ** rho, 0.0).astype(np.float32)


def _karras(sampling: Sampling, steps: int) -> list[float]:
    return [float(sigma) for sigma in karras(steps, sampling.sigma_min, sampling.sigma_max)]


def _exponential(sampling: Sampling, steps: int) -> list[float]:
    logs = np.linspace(math.log(sampling.sigma_max), math.log(sampling.sigma_min), steps)
    return [*(float(sigma) for sigma in np.exp(logs)), 0.0]


def _kl_optimal(sampling: Sampling, steps: int) -> list[float]:
    """Equal steps of arctan sigma ("Align Your Steps", Sabour 2024). One step, 0/0 in ComfyUI, is sigma_max here."""
    share = np.arange(steps) / max(steps - 1, 1)
    angles = share * math.atan(sampling.sigma_min) + (1 - share) * math.atan(sampling.sigma_max)
    return [*(float(sigma) for sigma in np.tan(angles)), 0.0]


def _linear_quadratic(sampling: Sampling, steps: int) -> list[float]:
    """Mochi's schedule: linear down to 1 - 0.025, then quadratic to zero."""
    if steps == 1:
        return [sampling.sigma_max, 0.0]
    threshold, linear = 0.025, steps // 2
    quadratic = steps - linear
    difference = linear - threshold * steps
    square = difference / (linear * quadratic**2)
    slope = threshold / linear - 2 * difference / quadratic**2
    risen = [i * threshold / linear for i in range(linear)]
    risen += [square * i**2 + slope * i + square * linear**2 for i in range(linear, steps)]
    return [(1.0 - value) * sampling.sigma_max for value in [*risen, 1.0]]


def _beta_quantile(share: Array, a: float, b: float) -> Array:
    """Inverse of the beta distribution's CDF, whose density over the logit of x is smooth for any `a` and `b`."""
    reach = 40 / min(a, b, 1)  # where what is left of the density is below 1e-17
    logit = np.linspace(-reach, reach, 2**17 + 1)
    logs = -a * np.logaddexp(0, -logit) - b * np.logaddexp(0, logit)
    density = np.exp(logs - logs.max())
    below = np.append(0, np.cumsum(density[1:] + density[:-1]))
    result = 1 / (1 + np.exp(-np.interp(share, below / below[-1], logit)))
    # By symmetry the median is one half, exactly: just below, it would round to another index.
    return np.asarray(np.where(share == 0.5, 0.5, result) if a == b else result)


def _beta(sampling: Sampling, steps: int) -> list[float]:
    return beta_levels(sampling, steps, 0.6, 0.6)


def beta_levels(sampling: Sampling, steps: int, alpha: float, beta: float) -> list[float]:
    """Steps at the quantiles of a beta distribution (arXiv:2407.12173); equal neighbours are kept once, as in ComfyUI.

    Raises ValueError unless `alpha` and `beta` are positive.
    """
    if alpha <= 0 or beta <= 0:
        raise ValueError(f"a beta distribution needs alpha and beta above 0; given were {alpha} and {beta}")
    table = sampling.sigmas
    share = 1 - np.linspace(0, 1, steps, endpoint=False)
    indices = np.rint(_beta_quantile(share, alpha, beta) * (len(table) - 1)).astype(int)
    distinct = [i for i, last in zip(indices, [-1, *indices[:-1]], strict=True) if i != last]
    return [*(float(table[i]) for i in distinct), 0.0]


# The order of ComfyUI's combo.
_SCHEDULERS: dict[str, Callable[[Sampling, int], list[float]]] = {
    "simple": _simple,
    "sgm_uniform": lambda sampling, steps: _normal(sampling, steps, sgm=True),
    "karras": _karras,
    "exponential": _exponential,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "normal": _normal,
    "linear_quadratic": _linear_quadratic,
    "kl_optimal": _kl_optimal,
}
# These samplers take half steps, and ComfyUI leaves out the last but one sigma for them.
_SKIP_PENULTIMATE = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})


def schedule(sampling: Sampling, scheduler: str, steps: int) -> Array:
    """Falling noise levels ending in 0, float32; usually [steps + 1] (`beta`, `ddim_uniform` may differ).

    Raises ValueError for a scheduler that does not exist.
    """
    if scheduler not in _SCHEDULERS:
        raise ValueError(f"invalid scheduler {scheduler!r}; there are {', '.join(_SCHEDULERS)}")
    return np.array(_SCHEDULERS[scheduler](sampling, steps), np.float32)


def sampler_sigmas(sampling: Sampling, scheduler: str, sampler: str, steps: int, denoise: float = 1.0) -> Array:
    """The noise levels of a KSampler: with `denoise` below 1 the last `steps` of a longer schedule, at 0 none."""
    if denoise <= 0:
        return np.zeros(0, np.float32)
    whole = steps if denoise > 0.9999 else int(steps / denoise)
    if sampler in _SKIP_PENULTIMATE:
        sigmas = schedule(sampling, scheduler, whole + 1)
        sigmas = np.append(sigmas[:-2], sigmas[-1:])
    else:
        sigmas = schedule(sampling, scheduler, whole)
    return sigmas[-(steps + 1) :]
