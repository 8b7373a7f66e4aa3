"""Exponential multistep solvers and the CFG++ forms, which renoise with the unguided side's estimate.

Sources: Lu et al. 2022b (DPM-Solver++ 2M), Zhang et al. 2023 (RES, "refined exponential solver", arXiv:2308.02157),
Chung et al. 2024 (CFG++, arXiv:2406.08070); the semantics are ComfyUI 0.3.64's.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sweeper.embedded.diffusion.solvers.solver_run import SolverRun, ancestral_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def dpmpp_2m(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    """DPM-Solver++(2M) in t = -ln sigma."""
    before: tuple[Array, float] | None = None
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        h = math.log(sigma / after)
        ahead = denoised
        if before is not None:
            ahead = denoised + (denoised - before[0]) * (h / (2 * before[1]))
        x = x * (after / sigma) + ahead * (1 - after / sigma)
        before = denoised, h
    return x


def dpmpp_2m_cfg_pp(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    before: tuple[Array, float] | None = None
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        unguided = run.unguided
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        h, share = math.log(sigma / after), after / sigma
        mixed = unguided * -share
        if before is not None:
            mixed = mixed + (denoised - before[0]) * ((1 - share) * h / (2 * before[1]))
        x = denoised + mixed + x * share
        before = unguided, h
    return x


def euler_cfg_pp(run: SolverRun, x: Array, sigmas: list[float], *, eta: float = 0.0) -> Array:
    """Euler (eta 0) or ancestral Euler (eta 1), each step going back along the unguided noise."""
    space = run.sampling
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        # A flow model starts at alpha 0; a tiny one stands for it, as at 1 - 1e-4 in ComfyUI's log SNR.
        alpha, alpha_after = max(space.alpha(sigma), 1e-4), space.alpha(after)
        noise = (x - run.unguided * alpha) / sigma
        down, up = (after / alpha_after, 0.0) if eta == 0 else ancestral_step(sigma / alpha, after / alpha_after, eta)
        x = denoised * alpha_after + noise * (alpha_after * down)
        if eta > 0:
            x = x + run.noise.draw_step(sigma, after) * (alpha_after * up)
    return x


def euler_ancestral_cfg_pp(run: SolverRun, x: Array, sigmas: list[float], *, eta: float = 1.0) -> Array:
    return euler_cfg_pp(run, x, sigmas, eta=eta)


def dpmpp_2s_ancestral_cfg_pp(run: SolverRun, x: Array, sigmas: list[float]) -> Array:
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        down, up = ancestral_step(sigma, after)
        if down == 0:
            x = denoised
        else:
            middle = (sigma * down) ** 0.5
            pushed = x + (denoised - run.unguided)
            second = run.denoise(pushed * (middle / sigma) + denoised * (1 - middle / sigma), middle)
            # `unguided` is the second evaluation's by now, and ComfyUI takes that one here.
            x = (x + (denoised - run.unguided)) * (down / sigma) + second * (1 - down / sigma)
        x = x + run.noise.draw_step(sigma, after) * up
    return x


def res_multistep(run: SolverRun, x: Array, sigmas: list[float], *, eta: float = 0.0, plus: bool = False) -> Array:
    """RES of order 2 over the last two estimates; `eta` 1 is ancestral, `plus` is CFG++."""
    old: tuple[Array, float] | None = None  # the last estimate, and the level the last step went down to
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        run.report(i, x, denoised)
        if after == 0:
            return denoised
        down, up = ancestral_step(sigma, after, eta) if eta else (after, 0.0)
        own = run.unguided if plus else denoised
        if down == 0 or old is None:
            x = denoised + (x - own) * (down / sigma)
        else:
            h = math.log(sigma / down)
            # Where the last estimate stands on this step, in units of it.
            position = math.log(old[1] / sigmas[i - 1]) / h
            phi_1 = math.expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            older = phi_2 / position if position else 0.0
            if plus:
                x = x + (denoised - own)
            x = x * math.exp(-h) + (own * (phi_1 - older) + old[0] * older) * h
        if up:
            x = x + run.noise.draw_step(sigma, after) * up
        old = own, down
    return x
