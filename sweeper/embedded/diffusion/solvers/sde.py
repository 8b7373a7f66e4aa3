"""Solvers of the reverse SDE: DPM-Solver++ SDE family, ER-SDE, SEEDS.

Sources: Lu et al. 2022b (DPM-Solver++, arXiv:2211.01095) and k-diffusion's SDE forms of it, Cui et al. 2023 (ER-SDE,
arXiv:2309.06169), Gonzalez et al. 2023 (SEEDS, arXiv:2305.14267). Everything is written in lambda = ln(alpha / sigma),
so that one formula serves both kinds of model. The DPM-Solver++ family reads its noise off one Brownian path, which
makes it converge as steps grow; the `gpu` forms read another path, as ComfyUI's GPU noise differs from its CPU noise.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeper.embedded.diffusion.solvers.solver_run import SolverRun, StepNoise, ancestral_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def _path(run: SolverRun, *, gpu: bool) -> StepNoise:
    return run.noise.brownian(run.sampling.sigma_max, stream=1 if gpu else 0)


def _one_minus_exp(value: float) -> float:
    """1 - exp(-value)."""
    return -math.expm1(-value)


def dpmpp_2s_ancestral(run: SolverRun, x: Array, sigmas: list[float], *, eta: float = 1.0) -> Array:
    """DPM-Solver++(2S) to an ancestral step's lower level, then noise; on flow models by the flow's own step."""
    space, flow = run.sampling, run.sampling.flow
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        if flow:
            ratio = 1 + (after / sigma - 1) * eta
            down = after * ratio
            scale = (1 - after) / (1 - down)
            up = max(after**2 - down**2 * scale**2, 0.0) ** 0.5
            middle = 0.9999 if sigma >= 1 else space.from_log_snr((space.log_snr(sigma) + space.log_snr(down)) / 2)
        else:
            down, up = ancestral_step(sigma, after, eta)
            scale, middle = 1.0, (sigma * down) ** 0.5
        if down == 0:
            x = denoised
        else:
            inner = x * (middle / sigma) + denoised * (1 - middle / sigma)
            x = x * (down / sigma) + run.denoise(inner, middle) * (1 - down / sigma)
        x = x * scale + run.noise.draw_step(sigma, after) * up
    return x


def dpmpp_sde(
    run: SolverRun, x: Array, sigmas: list[float], *, gpu: bool = False, eta: float = 1.0, r: float = 0.5
) -> Array:
    """DPM-Solver++ (stochastic): `r` is where between two levels, in lambda, the second estimate is made."""
    noise, space = _path(run, gpu=gpu), run.sampling
    sigmas = run.with_finite_start(sigmas)

    def step(x: Array, denoised: Array, sigma: float, after: float) -> Array:
        start, end = space.log_snr(sigma), space.log_snr(after)
        down, up = ancestral_step(math.exp(-start), math.exp(-end), eta)
        h = -math.log(max(down, 1e-30)) - start
        alpha, alpha_after = space.alpha(sigma), space.alpha(after)
        x = x * (alpha_after / alpha * math.exp(-h)) + denoised * (alpha_after * _one_minus_exp(h))
        return x + noise(sigma, after) * (alpha_after * up)

    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        start = space.log_snr(sigma)
        middle = space.from_log_snr(start + (space.log_snr(after) - start) * r)
        second = run.denoise(step(x, denoised, sigma, middle), middle)
        share = 1 / (2 * r)
        x = step(x, second if share == 1 else denoised * (1 - share) + second * share, sigma, after)
    return x


def dpmpp_2m_sde(
    run: SolverRun, x: Array, sigmas: list[float], *, midpoint: bool = True, gpu: bool = False, eta: float = 1.0
) -> Array:
    """DPM-Solver++(2M) SDE; the correction by the midpoint or by Heun's rule."""
    noise, space = _path(run, gpu=gpu), run.sampling
    sigmas = run.with_finite_start(sigmas)
    before: tuple[Array, float] | None = None
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        h = space.log_snr(after) - space.log_snr(sigma)
        alpha, full = space.alpha(after), h * (eta + 1)
        x = x * (after / sigma * math.exp(-h * eta)) + denoised * (alpha * _one_minus_exp(full))
        if before is not None:
            bend = 0.5 * _one_minus_exp(full) if midpoint else 1 - _one_minus_exp(full) / full
            x = x + (denoised - before[0]) * (alpha * bend * h / before[1])
        x = x + noise(sigma, after) * (after * _one_minus_exp(2 * h * eta) ** 0.5)
        before = denoised, h
    return x


def dpmpp_3m_sde(run: SolverRun, x: Array, sigmas: list[float], *, gpu: bool = False, eta: float = 1.0) -> Array:
    """DPM-Solver++(3M) SDE."""
    noise, space = _path(run, gpu=gpu), run.sampling
    sigmas = run.with_finite_start(sigmas)
    before: list[tuple[Array, float]] = []  # newest first
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        h = space.log_snr(after) - space.log_snr(sigma)
        alpha, full = space.alpha(after), h * (eta + 1)
        x = x * (after / sigma * math.exp(-h * eta)) + denoised * (alpha * _one_minus_exp(full))
        phi_2 = 1 - _one_minus_exp(full) / full
        if len(before) == 2:
            r0, r1 = before[0][1] / h, before[1][1] / h
            near = (denoised - before[0][0]) / r0
            far = (before[0][0] - before[1][0]) / r1
            first = near + (near - far) * (r0 / (r0 + r1))
            second = (near - far) / (r0 + r1)
            x = x + first * (alpha * phi_2) - second * (alpha * (phi_2 / full - 0.5))
        elif before:
            x = x + (denoised - before[0][0]) * (alpha * phi_2 * h / before[0][1])
        x = x + noise(sigma, after) * (after * _one_minus_exp(2 * h * eta) ** 0.5)
        before = [(denoised, h), *before[:1]]
    return x


def _er_scale(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """The noise scaling of the authors' solver ER-SDE 5: v (exp(v^0.3) + 10)."""
    return np.asarray(value * (np.exp(value**0.3) + 10.0))


def er_sde(run: SolverRun, x: Array, sigmas: list[float], *, order: int = 3, eta: float | None = None) -> Array:
    """Extended reverse-time SDE solver of order 1 to 3, integrals by 200 points as in the authors' code.

    With an `eta` the noise scaling is v^(eta + 1): the plain reverse-time SDE at 1, the probability flow ODE at 0.
    """
    space = run.sampling

    def scale(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return _er_scale(value) if eta is None else np.asarray(value ** (eta + 1))

    sigmas = run.with_finite_start(sigmas)
    levels = np.array([math.exp(-space.log_snr(s)) if s > 0 else 0.0 for s in sigmas])  # sigma / alpha
    scales = scale(levels)
    old: Array | None = None
    old_slope: Array | None = None
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        alpha = space.alpha(after)
        ratio = float(scales[i + 1] / scales[i])
        x = x * (alpha / space.alpha(sigma) * ratio) + denoised * (alpha * (1 - ratio))
        if old is not None and order > 1:
            dt = float(levels[i + 1] - levels[i])
            width = -dt / 200
            points = levels[i + 1] + np.arange(200) * width
            integral = float(np.sum(1 / scale(points))) * width
            slope = (denoised - old) / float(levels[i] - levels[i - 1])
            x = x + slope * (alpha * (dt + integral * float(scales[i + 1])))
            if old_slope is not None and order > 2:
                moment = float(np.sum((points - levels[i]) / scale(points))) * width
                bend = (slope - old_slope) / float((levels[i] - levels[i - 2]) / 2)
                x = x + bend * (alpha * (dt**2 / 2 + moment * float(scales[i + 1])))
            old_slope = slope
        up = max(float(levels[i + 1] ** 2 - levels[i] ** 2 * ratio**2), 0.0) ** 0.5
        x = x + run.noise.draw_step(sigma, after) * (alpha * up)
        old = denoised
    return x


def _seeds(run: SolverRun, x: Array, sigmas: list[float], shares: tuple[float, ...]) -> Array:
    """SEEDS with inner points at `shares` of each step in lambda, eta 1; noise is carried from point to point."""
    space = run.sampling
    sigmas = run.with_finite_start(sigmas)
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        start = space.log_snr(sigma)
        h = space.log_snr(after) - start
        estimate, noise, last_share, last_sigma = denoised, None, 0.0, sigma
        for share in (*shares, 1.0):
            level = after if share == 1.0 else space.from_log_snr(start + share * h)
            fresh = run.noise.draw_step(last_sigma, level) * _one_minus_exp(2 * (share - last_share) * h) ** 0.5
            noise = fresh if noise is None else noise * math.exp(-(share - last_share) * h) + fresh
            grown = _one_minus_exp(2 * share * h)
            if share == shares[0] or len(shares) == 1:
                # Order 2: the midpoint's estimate replaces the first one (fac = 1 / 2r = 1).
                mixed = estimate * grown
            else:
                weight = (1 - grown / (2 * share * h)) * (share / shares[0] if share < 1 else 1.0)
                weight /= 1.0 if share < 1 else shares[-1]
                mixed = denoised * (grown - weight) + estimate * weight
            point = x * (level / sigma * math.exp(-share * h)) + mixed * space.alpha(level) + noise * level
            if share == 1.0:
                x = point
            else:
                estimate, last_share, last_sigma = run.denoise(point, level), share, level
    return x


def seeds_2(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    return _seeds(run, x, sigmas, (0.5,))


def seeds_3(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    return _seeds(run, x, sigmas, (1 / 3, 2 / 3))
