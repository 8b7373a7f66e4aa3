"""SIGMAS: schedulers that are nodes of their own, and the cutting and joining of schedules. float32 [n + 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sweeper.embedded.diffusion import schedules
from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.models import Model

_NONE: Array = np.zeros(0, np.float32)


def _end_with_zero(levels: Any) -> Array:
    return np.append(np.asarray(levels), 0.0).astype(np.float32)


def karras(steps: int, sigma_max: float, sigma_min: float, rho: float) -> Array:
    return schedules.karras(steps, sigma_min, sigma_max, rho)


def polyexponential(steps: int, sigma_max: float, sigma_min: float, rho: float = 1.0) -> Array:
    """Polynomial of degree `rho` in log sigma (k-diffusion)."""
    high, low = math.log(sigma_max), math.log(sigma_min)
    return _end_with_zero(np.exp(np.linspace(1, 0, steps) ** rho * (high - low) + low))


def basic(model: Model, scheduler: str, steps: int, denoise: float) -> Array:
    """None at denoise 0."""
    if denoise <= 0:
        return _NONE
    whole = int(steps / denoise) if denoise < 1 else steps
    return schedules.schedule(model.sampling, scheduler, whole)[-(steps + 1) :]


def beta_sampling(model: Model, steps: int, alpha: float, beta: float) -> Array:
    return np.array(schedules.beta_levels(model.sampling, steps, alpha, beta), np.float32)


def split(sigmas: Array, step: int) -> tuple[Array, Array]:
    return sigmas[: step + 1], sigmas[step:]


def split_denoise(sigmas: Array, denoise: float) -> tuple[Array, Array]:
    """The last `denoise` part is the low half. At 0 ComfyUI's slice `[:-0]` leaves the high half empty."""
    total = round(max(len(sigmas) - 1, 0) * denoise)
    return sigmas[:-total] if total else sigmas[:0], sigmas[-(total + 1) :]


def flip(sigmas: Array) -> Array:
    """Rising levels, as unsampling wants them; a zero at the start becomes 0.0001."""
    turned = sigmas[::-1].copy()
    if len(turned) and turned[0] == 0:
        turned[0] = 0.0001
    return turned
