"""SIGMAS: schedulers that are nodes of their own, and the cutting and joining of schedules. float32 [n + 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion import schedules
from sweeper.embedded.diffusion.gits import LONGEST, search_levels
from sweeper.embedded.diffusion.models import Model
from sweeper.embedded.nodes.base import Context, NodeOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NONE: Array = np.zeros(0, np.float32)


def _end_with_zero(levels: Any) -> NodeOutput:
    return NodeOutput((np.append(np.asarray(levels), 0.0).astype(np.float32),))


def exponential(_context: Context, steps: int, sigma_max: float, sigma_min: float) -> NodeOutput:
    return polyexponential(_context, steps, sigma_max, sigma_min, 1.0)


def polyexponential(_context: Context, steps: int, sigma_max: float, sigma_min: float, rho: float) -> NodeOutput:
    """Polynomial of degree `rho` in log sigma (k-diffusion)."""
    high, low = math.log(sigma_max), math.log(sigma_min)
    return _end_with_zero(np.exp(np.linspace(1, 0, steps) ** rho * (high - low) + low))


def laplace(_context: Context, *, steps: int, sigma_max: float, sigma_min: float, mu: float, beta: float) -> NodeOutput:
    """Laplace noise schedule (Hang et al. 2024, arXiv:2407.03297); as in ComfyUI no zero is added, and it rises."""
    x = np.linspace(0, 1, steps)
    levels = mu - beta * np.sign(0.5 - x) * np.log(1 - 2 * np.abs(0.5 - x) + 1e-5)
    return NodeOutput((np.clip(np.exp(levels), sigma_min, sigma_max).astype(np.float32),))


def vp(_context: Context, steps: int, beta_d: float, beta_min: float, eps_s: float) -> NodeOutput:
    """The continuous variance preserving schedule (Song et al. 2021)."""
    t = np.linspace(1, eps_s, steps)
    return _end_with_zero(np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t)))


def sd_turbo(_context: Context, model: Model, steps: int, denoise: float) -> NodeOutput:
    """Every hundredth trained step from the top: 999, 899, ... (adversarial diffusion distillation)."""
    start = 10 - int(10 * denoise)
    times = [100 * k - 1 for k in range(10, 0, -1)][start : start + steps]
    return _end_with_zero([model.sampling.sigma(time) for time in times])


def beta_sampling(_context: Context, model: Model, steps: int, alpha: float, beta: float) -> NodeOutput:
    return NodeOutput((np.array(schedules.beta_levels(model.sampling, steps, alpha, beta), np.float32),))


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


def _interpolate_levels(published: tuple[float, ...], steps: int, denoise: float) -> NodeOutput:
    """Known levels, interpolated in their logarithm; `denoise` keeps so large a part of the end."""
    if denoise <= 0:
        return NodeOutput((_NONE,))
    count = round(steps * denoise) if denoise < 1 else steps
    levels = np.array(published)
    if steps + 1 != len(levels):
        positions = np.linspace(0, 1, steps + 1)
        levels = np.exp(np.interp(positions, np.linspace(0, 1, len(levels)), np.log(levels)[::-1]))[::-1]
    levels = levels[-(count + 1) :].copy()
    levels[-1] = 0
    return NodeOutput((levels.astype(np.float32),))


def align_your_steps(_context: Context, model_type: str, steps: int, denoise: float) -> NodeOutput:
    return _interpolate_levels(_ALIGNED[model_type], steps, denoise)


# Pei et al. 2025, "Optimal Stepsize for Diffusion Sampling" (arXiv:2503.21774): levels found for flow models.
_OPTIMAL = {
    "FLUX": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "Wan": (
        1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927, 0.902,
        0.864, 0.776, 0.539, 0.208, 0.001,
    ),
}  # fmt: skip


def optimal_steps(_context: Context, model_type: str, steps: int, denoise: float) -> NodeOutput:
    """The published levels. For Chroma, which was made from FLUX, none were published: it gets FLUX's."""
    levels = {**_OPTIMAL, "Chroma": _OPTIMAL["FLUX"]}
    if model_type not in levels:
        raise ValueError(f"unknown model_type {model_type!r}; there are {', '.join(levels)}")
    return _interpolate_levels(levels[model_type], steps, denoise)


def gits(_context: Context, coeff: float, steps: int, denoise: float) -> NodeOutput:
    """Levels by the search of `diffusion.gits`; above 20 steps those of 20, interpolated."""
    return _interpolate_levels(search_levels(round(coeff, 2), min(steps, LONGEST)), steps, denoise)


def ltxv(
    _context: Context,
    *,
    steps: int,
    max_shift: float,
    base_shift: float,
    stretch: bool,
    terminal: float,
    latent: dict[str, Any] | None = None,
) -> NodeOutput:
    """Lightricks' shift, linear in the latent's tokens between 1024 and 4096; stretched to end at `terminal`."""
    tokens = 4096 if latent is None else math.prod(latent["samples"].shape[2:])
    slope = (max_shift - base_shift) / (4096 - 1024)
    grown = math.exp(tokens * slope + base_shift - slope * 1024)
    levels = np.linspace(1.0, 0.0, steps + 1)[:-1]
    levels = grown / (grown + (1 / levels - 1))
    if stretch:
        levels = 1 - (1 - levels) * ((1 - terminal) / max(1 - levels[-1], 1e-12))
    return _end_with_zero(levels)


def split(_context: Context, sigmas: Array, step: int) -> NodeOutput:
    return NodeOutput((sigmas[: step + 1], sigmas[step:]))


def split_denoise(_context: Context, sigmas: Array, denoise: float) -> NodeOutput:
    """The last `denoise` part is the low half. At 0 ComfyUI's slice `[:-0]` leaves the high half empty."""
    total = round(max(len(sigmas) - 1, 0) * denoise)
    return NodeOutput((sigmas[:-total] if total else sigmas[:0], sigmas[-(total + 1) :]))


def flip(_context: Context, sigmas: Array) -> NodeOutput:
    """Rising levels, as unsampling wants them; a zero at the start becomes 0.0001."""
    turned = sigmas[::-1].copy()
    if len(turned) and turned[0] == 0:
        turned[0] = 0.0001
    return NodeOutput((turned,))


def set_first(_context: Context, sigmas: Array, sigma: float) -> NodeOutput:
    changed = sigmas.copy()
    changed[0] = sigma
    return NodeOutput((changed,))


def extend(
    _context: Context, *, sigmas: Array, steps: int, start_at_sigma: float, end_at_sigma: float, spacing: str
) -> NodeOutput:
    """`steps` steps for every one between the two levels, spaced linearly, by a sine or a cosine."""
    start = start_at_sigma if start_at_sigma >= 0 else math.inf
    x = np.linspace(0, 1, steps + 1)[1:-1]
    shares = {"linear": x, "cosine": np.sin(x * math.pi / 2), "sine": 1 - np.cos(x * math.pi / 2)}[spacing]
    levels: list[float] = []
    for now, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        levels.append(now)
        if end_at_sigma <= now <= start:
            levels.extend((shares * (after - now) + now).tolist())
    return NodeOutput((np.array([*levels, *sigmas[-1:].tolist()], np.float32),))


def percent_to_sigma(_context: Context, model: Model, sampling_percent: float, return_actual_sigma: bool) -> NodeOutput:
    if return_actual_sigma and sampling_percent in {0.0, 1.0}:
        return NodeOutput((model.sampling.sigma_max if sampling_percent == 0 else model.sampling.sigma_min,))
    return NodeOutput((model.sampling.percent_to_sigma(sampling_percent),))
