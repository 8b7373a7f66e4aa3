"""The samplers on a Gaussian, where the exact solution is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sweeper.embedded.diffusion.latent_noise import LatentNoise
from sweeper.embedded.diffusion.schedules import Sampling, sampler_sigmas
from sweeper.embedded.diffusion.solvers import SOLVERS, SolverRun

MEAN, DEVIATION = 1.3, 0.5
SHAPE = (4, 24, 24)


def gaussian(sampling: Sampling) -> Callable[[Any, float], tuple[Any, Any]]:
    """The exact denoiser of N(MEAN, DEVIATION^2)."""

    def denoise(x: Any, sigma: float) -> tuple[Any, Any]:
        alpha = sampling.alpha(sigma)
        gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
        clean = (MEAN + (x - alpha * MEAN) * gain).astype(np.float32)
        return clean, clean

    return denoise


def solve(name: str, sigmas: list[float], x: Any, sampling: Sampling, seed: int = 5) -> Any:
    reports: list[int] = []
    run = SolverRun(
        gaussian(sampling), LatentNoise(seed, [0], SHAPE), sampling, lambda step, _x, _d: reports.append(step)
    )
    result = SOLVERS[name](run, x, sigmas)
    assert result.dtype == np.float32
    assert reports == sorted(reports)
    return result


def error(name: str, steps: int) -> float:
    """Distance from the exact flow x(s) = m + (x0 - m) sqrt((d^2 + s^2) / (d^2 + s0^2)), between 10 and 0.2."""
    sigmas = np.exp(np.linspace(np.log(10), np.log(0.2), steps + 1)).tolist()
    start = (LatentNoise(1, [0], SHAPE).draw_initial() * np.float32(10)).astype(np.float32)
    exact = MEAN + (start - MEAN) * ((DEVIATION**2 + 0.04) / (DEVIATION**2 + 100)) ** 0.5
    return float(np.abs(solve(name, sigmas, start, Sampling()) - exact).mean())


ORDERS = {"euler": 1, "ddim": 1, "gradient_estimation": 1, "heun": 2, "dpm_2": 2, "dpmpp_2m": 2, "res_multistep": 2}
ORDERS |= {"lms": 2, "ipndm_v": 2, "deis": 2, "uni_pc": 2, "uni_pc_bh2": 2}


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_deterministic_samplers_converge_with_their_order(name: str, order: int) -> None:
    coarse, fine = error(name, 12), error(name, 48)
    # With four times the steps, a method of order p is 4^p times better. The test requires 0.7 of the exponent.
    assert fine < coarse / 4 ** (0.7 * order)


def test_heun_beats_euler_at_equal_evaluations() -> None:
    assert error("heun", 20) < error("euler", 40) / 4


# These do not converge: lcm ends below the data's deviation by construction, the error of dpm_adaptive does not depend
# on the number of steps, and dpmpp_2s_ancestral_cfg_pp mixes the sides of two evaluations, as in ComfyUI, and also ends
# below the data's deviation.
ODD = ("lcm", "dpm_adaptive", "dpm_fast", "dpmpp_2s_ancestral_cfg_pp")
CONVERGING = [name for name in SOLVERS if name not in ODD]
# As in ComfyUI, these exist for variance exploding noise only.
ONLY_DISCRETE = ("ddpm", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp")


CASES = [("discrete", name) for name in CONVERGING]
CASES += [("flow", name) for name in CONVERGING if name not in ONLY_DISCRETE]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_many_steps_reach_the_distribution(kind: str, name: str) -> None:
    sampling = Sampling(kind, 3.0)
    sigmas = sampler_sigmas(sampling, "karras" if kind == "discrete" else "simple", name, 160).tolist()
    noise = LatentNoise(5, [0], SHAPE).draw_initial()
    start = noise if kind == "flow" else noise * np.float32((1 + sigmas[0] ** 2) ** 0.5)
    result = solve(name, sigmas, start, sampling)
    assert result.mean() == pytest.approx(MEAN, abs=0.06)
    assert result.std() == pytest.approx(DEVIATION, rel=0.14)


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_dpm_solver_stops_at_the_last_level_above_zero(name: str) -> None:
    sigmas = sampler_sigmas(Sampling(), "karras", name, 40).tolist()
    start = LatentNoise(5, [0], SHAPE).draw_initial() * np.float32((1 + sigmas[0] ** 2) ** 0.5)
    result = solve(name, sigmas, start, Sampling())
    assert result.mean() == pytest.approx(MEAN, abs=0.06)
    assert result.std() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_sde_samplers_converge_as_steps_grow(name: str) -> None:
    def at(steps: int) -> Any:
        sigmas = sampler_sigmas(Sampling(), "karras", name, steps).tolist()
        return solve(name, sigmas, LatentNoise(5, [0], SHAPE).draw_initial() * np.float32(14.65), Sampling())

    results = [at(steps) for steps in (10, 40, 160)]
    first, second = (float(np.abs(b - a).mean()) for a, b in pairwise(results))
    assert second < 0.7 * first  # one Brownian path for all of them


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_solver_is_deterministic(name: str) -> None:
    sigmas = sampler_sigmas(Sampling(), "karras", name, 5).tolist()
    start = LatentNoise(5, [0], SHAPE).draw_initial() * np.float32(14.65)
    assert np.array_equal(solve(name, sigmas, start, Sampling()), solve(name, sigmas, start, Sampling()))


@pytest.mark.parametrize("stem", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"])
def test_gpu_samplers_use_another_brownian_path(stem: str) -> None:
    sigmas = sampler_sigmas(Sampling(), "karras", stem, 8).tolist()
    start = LatentNoise(5, [0], SHAPE).draw_initial() * np.float32(14.65)
    one, other = (solve(name, sigmas, start, Sampling()) for name in (stem, f"{stem}_gpu"))
    assert np.abs(one - other).mean() > 0.05


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_schedule_that_stops_above_zero_leaves_noise(name: str) -> None:
    stop = 0.6
    sigmas = np.exp(np.linspace(np.log(14.6), np.log(stop), 41)).tolist()
    start = LatentNoise(5, [0], SHAPE).draw_initial() * np.float32(14.65)
    result = solve(name, sigmas, start, Sampling())
    assert result.mean() == pytest.approx(MEAN, abs=0.15)
    # lcm estimates and adds noise again, which reduces the deviation of the data.
    data = 0.0 if name == "lcm" else DEVIATION
    assert result.std() == pytest.approx((data**2 + stop**2) ** 0.5, rel=0.15)
