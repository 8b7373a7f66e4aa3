"""Steps that need no history: Euler, Heun and kin, their ancestral and CFG++ forms, the SDE solvers of one step.

Sources: Karras et al. 2022 (Algorithm 2 without churn), k-diffusion's ancestral steps, Lu et al. 2022 (DPM-Solver-2
midpoint in log sigma), Lu et al. 2022b (DPM-Solver++, arXiv:2211.01095) and k-diffusion's SDE form of it, Ho et al.
2020 (DDPM), Luo et al. 2023 (LCM), Chung et al. 2024 (CFG++, arXiv:2406.08070, which renoises with the unguided side's
estimate), Gonzalez et al. 2023 (SEEDS, arXiv:2305.14267); the semantics are ComfyUI 0.3.64's.
"""

from __future__ import annotations

import math

import numpy as np

from sweeper.embedded.diffusion.arrays import Array
from sweeper.embedded.diffusion.solvers.solver_run import Step, ancestral_step


def euler(now: Step) -> Array:
    return now.x + now.slope * (now.after - now.sigma)


def euler_ancestral(now: Step, *, eta: float = 1.0) -> Array:
    down, scale, up = now.split(eta)
    return now.renoise(now.x + now.slope * (down - now.sigma), scale, up)


def euler_cfg_pp(now: Step, *, eta: float = 0.0) -> Array:
    """Euler (eta 0) or ancestral Euler (eta 1), each step going back along the unguided noise."""
    space, sigma, after = now.run.sampling, now.sigma, now.after
    # A flow model starts at alpha 0; a tiny one stands for it, as at 1 - 1e-4 in ComfyUI's log SNR.
    alpha, alpha_after = max(space.alpha(sigma), 1e-4), space.alpha(after)
    noise = (now.x - now.unguided * alpha) / sigma
    down, up = (after / alpha_after, 0.0) if eta == 0 else ancestral_step(sigma / alpha, after / alpha_after, eta)
    x = now.denoised * alpha_after + noise * (alpha_after * down)
    return x + now.draw_noise() * (alpha_after * up) if eta > 0 else x


def heun(now: Step) -> Array:
    slope, by = now.slope, now.after - now.sigma
    if now.after > 0:
        slope = (slope + now.run.slope(now.x + slope * by, now.after)[0]) / 2
    return now.x + slope * by


def heunpp2(now: Step) -> Array:
    """Heun++: slopes at this, the next and the one after next level, weighted by their share of sigma_max."""
    sigmas, slope, after = now.sigmas, now.slope, now.after
    if after != sigmas[-1]:
        second_x = now.x + slope * (after - now.sigma)
        second, _ = now.run.slope(second_x, after)
        beyond = sigmas[now.index + 2]
        if beyond == sigmas[-1]:
            weight = after / (2 * sigmas[0])
            slope = slope * (1 - weight) + second * weight
        else:
            third, _ = now.run.slope(second_x + second * (beyond - after), beyond)
            weight, last = after / (3 * sigmas[0]), beyond / (3 * sigmas[0])
            slope = slope * (1 - weight - last) + second * weight + third * last
    return now.x + slope * (after - now.sigma)


def _midpoint(now: Step, to: float) -> Array:
    """One DPM-Solver-2 step: the slope at the geometric mean of the two levels."""
    middle = (now.sigma * to) ** 0.5
    return now.x + now.run.slope(now.x + now.slope * (middle - now.sigma), middle)[0] * (to - now.sigma)


def dpm_2(now: Step) -> Array:
    return _midpoint(now, now.after)


def dpm_2_ancestral(now: Step) -> Array:
    down, scale, up = now.split()
    return now.renoise(_midpoint(now, down) if down > 0 else now.denoised, scale, up)


def ddpm(now: Step) -> Array:
    """Ancestral sampling of the discrete chain (Ho et al. 2020, Algorithm 2), in its variance preserving scale."""
    signal, signal_after = 1 / (now.sigma**2 + 1), 1 / (now.after**2 + 1)
    alpha = signal / signal_after
    x = (now.x * signal**0.5 - now.slope * ((1 - alpha) / (1 - signal) ** 0.5)) / alpha**0.5
    if now.after > 0:
        x = x + now.draw_noise() * ((1 - alpha) * (1 - signal_after) / (1 - signal)) ** 0.5
        x = x * (1 + now.after**2) ** 0.5
    return np.asarray(x)


def lcm(now: Step) -> Array:
    """Jump to the estimate, add fresh noise of the next level (multistep consistency sampling)."""
    return now.denoised * now.run.sampling.alpha(now.after) + now.draw_noise() * now.after


def dpmpp_2s_ancestral(now: Step, *, eta: float = 1.0) -> Array:
    """DPM-Solver++(2S) to an ancestral step's lower level, then noise; on flow models by the flow's own step."""
    space, sigma = now.run.sampling, now.sigma
    down, scale, up = now.split(eta)
    middle = (sigma * down) ** 0.5
    if space.flow:
        middle = 0.9999 if sigma >= 1 else space.from_log_snr((space.log_snr(sigma) + space.log_snr(down)) / 2)
    x = now.denoised
    if down != 0:
        inner = now.x * (middle / sigma) + now.denoised * (1 - middle / sigma)
        x = now.x * (down / sigma) + now.run.denoise(inner, middle) * (1 - down / sigma)
    return x * scale + now.draw_noise() * up


def dpmpp_2s_ancestral_cfg_pp(now: Step) -> Array:
    run, sigma = now.run, now.sigma
    down, up = ancestral_step(sigma, now.after)
    x = now.denoised
    if down != 0:
        middle = (sigma * down) ** 0.5
        pushed = now.x + (now.denoised - now.unguided)
        second = run.denoise(pushed * (middle / sigma) + now.denoised * (1 - middle / sigma), middle)
        # The unguided side of the second evaluation, as in ComfyUI.
        x = (now.x + (now.denoised - run.unguided)) * (down / sigma) + second * (1 - down / sigma)
    return x + now.draw_noise() * up


def dpmpp_sde(now: Step, *, stream: int = 0, eta: float = 1.0, r: float = 0.5) -> Array:
    """DPM-Solver++ (stochastic): `r` is where between two levels, in lambda, the second estimate is made."""
    run, space, sigma = now.run, now.run.sampling, now.sigma

    def go(denoised: Array, after: float) -> Array:
        start, end = space.log_snr(sigma), space.log_snr(after)
        down, up = ancestral_step(math.exp(-start), math.exp(-end), eta)
        h = -math.log(max(down, 1e-30)) - start
        alpha, alpha_after = space.alpha(sigma), space.alpha(after)
        x = now.x * (alpha_after / alpha * math.exp(-h)) + denoised * (alpha_after * -math.expm1(-h))
        return x + run.draw_from_path(sigma, after, stream) * (alpha_after * up)

    middle = space.from_log_snr(space.log_snr(sigma) + now.log_step * r)
    second = run.denoise(go(now.denoised, middle), middle)
    share = 1 / (2 * r)
    return go(second if share == 1 else now.denoised * (1 - share) + second * share, now.after)


def seeds(now: Step, *, shares: tuple[float, ...]) -> Array:
    """SEEDS with inner points at `shares` of each step in lambda, eta 1; noise is carried from point to point."""
    run, space, h = now.run, now.run.sampling, now.log_step
    estimate, noise, last_share, point = now.denoised, None, 0.0, now.x
    for share in (*shares, 1.0):
        level = now.after if share == 1.0 else space.from_log_snr(space.log_snr(now.sigma) + share * h)
        fresh = run.draw_noise() * (-math.expm1(-2 * (share - last_share) * h)) ** 0.5
        noise = fresh if noise is None else noise * math.exp(-(share - last_share) * h) + fresh
        grown = -math.expm1(-2 * share * h)
        if share == shares[0] or len(shares) == 1:
            # Order 2: the midpoint's estimate replaces the first one (fac = 1 / 2r = 1).
            mixed = estimate * grown
        else:
            weight = (1 - grown / (2 * share * h)) * (share / shares[0] if share < 1 else 1.0)
            weight /= 1.0 if share < 1 else shares[-1]
            mixed = now.denoised * (grown - weight) + estimate * weight
        point = now.x * (level / now.sigma * math.exp(-share * h)) + mixed * space.alpha(level) + noise * level
        if share < 1:
            estimate, last_share = run.denoise(point, level), share
    return point
