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


# NVIDIA, "Align Your Steps" (Sabour et al. 2024), the published levels for 10 steps.
_ALIGNED = {
    "SD1": (
        14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
        0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582,
    ),
    "SDXL": (
        14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
        0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
    ),
    "SVD": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip


def _interpolate_levels(published: tuple[float, ...], steps: int, denoise: float) -> Array:
    """Known levels, interpolated in their logarithm; `denoise` keeps so large a part of the end."""
    if denoise <= 0:
        return _NONE
    count = round(steps * denoise) if denoise < 1 else steps
    levels = np.array(published)
    if steps + 1 != len(levels):
        positions = np.linspace(0, 1, steps + 1)
        levels = np.exp(np.interp(positions, np.linspace(0, 1, len(levels)), np.log(levels)[::-1]))[::-1]
    levels = levels[-(count + 1) :].copy()
    levels[-1] = 0
    return levels.astype(np.float32)


def align_your_steps(model_type: str, steps: int, denoise: float) -> Array:
    return _interpolate_levels(_ALIGNED[model_type], steps, denoise)


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
