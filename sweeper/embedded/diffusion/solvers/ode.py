"""Solvers of the probability flow ODE that need no history: Euler, Heun and kin, and their ancestral forms.

Sources: Karras et al. 2022 (Algorithm 2 without churn), k-diffusion's ancestral steps, Lu et al. 2022 (DPM-Solver-2
midpoint in log sigma), Ho et al. 2020 (DDPM), Luo et al. 2023 (LCM); the semantics are ComfyUI 0.3.64's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.scaling import resize
from sweeper.embedded.diffusion.solvers.solver_run import SolverRun, ancestral_flow_step, ancestral_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def euler(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        x = x + slope * (after - sigma)
    return x


def _renoise(run: SolverRun, x: Array, scale: float, up: float, sigma: float, after: float) -> Array:
    return x * scale + run.noise.draw_step(sigma, after) * up if after > 0 else x


def _down(run: SolverRun, sigma: float, after: float, eta: float = 1.0) -> tuple[float, float, float]:
    """Sigma to go down to, factor on x and noise on the way up again, for either kind of model."""
    if run.sampling.flow:
        return ancestral_flow_step(sigma, after, eta)
    down, up = ancestral_step(sigma, after, eta)
    return down, 1.0, up


def euler_ancestral(run: SolverRun, x: Array, sigmas: list[float], *, eta: float = 1.0) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        down, scale, up = _down(run, sigma, after, eta)
        x = _renoise(run, x + slope * (down - sigma), scale, up, sigma, after)
    return x


def heun(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        if after > 0:
            slope = (slope + run.slope(x + slope * (after - sigma), after)[0]) / 2
        x = x + slope * (after - sigma)
    return x


def heunpp2(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """Heun++: slopes at this, the next and the one after next level, weighted by their share of sigma_max."""
    end = sigmas[-1]
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        if after != end:
            second_x = x + slope * (after - sigma)
            second, _ = run.slope(second_x, after)
            beyond = sigmas[i + 2]
            if beyond == end:
                weight = after / (2 * sigmas[0])
                slope = slope * (1 - weight) + second * weight
            else:
                third, _ = run.slope(second_x + second * (beyond - after), beyond)
                weight, last = after / (3 * sigmas[0]), beyond / (3 * sigmas[0])
                slope = slope * (1 - weight - last) + second * weight + third * last
        x = x + slope * (after - sigma)
    return x


def _midpoint(run: SolverRun, x: Array, slope: Array, sigma: float, to: float) -> Array:
    """One DPM-Solver-2 step: the slope at the geometric mean of the two levels."""
    middle = (sigma * to) ** 0.5
    return x + run.slope(x + slope * (middle - sigma), middle)[0] * (to - sigma)


def dpm_2(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        x = _midpoint(run, x, slope, sigma, after) if after > 0 else denoised
    return x


def dpm_2_ancestral(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        slope, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        down, scale, up = _down(run, sigma, after)
        x = _midpoint(run, x, slope, sigma, down) if down > 0 else denoised
        x = _renoise(run, x, scale, up, sigma, after)
    return x


def ddpm(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """Ancestral sampling of the discrete chain (Ho et al. 2020, Algorithm 2), in its variance preserving scale."""
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        eps, denoised = run.slope(x, sigma)
        run.report(i, x, denoised)
        signal, signal_after = 1 / (sigma**2 + 1), 1 / (after**2 + 1)
        alpha = signal / signal_after
        x = (x * signal**0.5 - eps * ((1 - alpha) / (1 - signal) ** 0.5)) / alpha**0.5
        if after > 0:
            x = x + run.noise.draw_step(sigma, after) * ((1 - alpha) * (1 - signal_after) / (1 - signal)) ** 0.5
            x = x * (1 + after**2) ** 0.5
    return x


def lcm_upscale(
    run: SolverRun, x: Array, sigmas: list[float], *, scale: float, steps: int | None, method: str
) -> Array:
    """LCM that grows the estimate to `scale` times its sides over the first `steps` (None: half) of its steps."""
    count = max(len(sigmas) // 2 + 1, 2) if steps is None else min(steps + 1, len(sigmas) + 1)
    scales = np.linspace(1.0, scale, count)[1:].tolist()
    height, width = x.shape[-2:]
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x = run.denoise(x, sigma)
        run.report(i, x, x)
        if i < len(scales):
            x = resize(x, round(width * scales[i]), round(height * scales[i]), method)
        if after > 0:
            x = x * run.sampling.alpha(after) + run.noise.draw_step(sigma, after, x.shape[-2:]) * after
    return x


def lcm(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """Jump to the estimate, add fresh noise of the next level (multistep consistency sampling)."""
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x = run.denoise(x, sigma)
        run.report(i, x, x)
        if after > 0:
            x = x * run.sampling.alpha(after) + run.noise.draw_step(sigma, after) * after
    return x
