"""Noise levels against published values and independent formulae."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.embedded.diffusion.names import SCHEDULERS
from sweeper.embedded.diffusion.schedules import Sampling, karras, sampler_sigmas, schedule

DISCRETE, SD3, FLUX = Sampling(), Sampling("flow", 3.0), Sampling("flux", 1.15)


def test_levels_are_those_of_stable_diffusion() -> None:
    # 14.6146 and 0.0292 are k-diffusion's values for Stable Diffusion 1.x.
    assert pytest.approx(14.614642, abs=2e-5) == DISCRETE.sigma_max
    assert pytest.approx(0.0291675, abs=1e-6) == DISCRETE.sigma_min
    assert len(DISCRETE.sigmas) == 1000
    assert SD3.sigma_max == 1.0
    assert FLUX.sigma_max == 1.0


@given(st.sampled_from(SCHEDULERS), st.integers(1, 60), st.sampled_from([DISCRETE, SD3, FLUX, Sampling("flow", 1.0)]))
def test_levels_fall_to_zero(name: str, steps: int, sampling: Sampling) -> None:
    sigmas = schedule(sampling, name, steps)
    assert sigmas.dtype == np.float32
    assert sigmas[-1] == 0
    assert sigmas[0] <= np.float32(sampling.sigma_max) * 1.0001
    assert (np.diff(sigmas) < 0).all()
    if name not in ("beta", "ddim_uniform"):  # these two may have another number of steps, as in ComfyUI
        assert len(sigmas) == steps + 1


def test_normal_is_even_in_time_and_sgm_uniform_stops_one_before() -> None:
    index = np.linspace(999, 0, 5)
    logs = np.log(DISCRETE.sigmas)
    expected = np.exp(np.interp(index, np.arange(1000), logs))
    assert np.allclose(schedule(DISCRETE, "normal", 5), [*expected, 0], rtol=1e-5)
    assert np.allclose(schedule(DISCRETE, "sgm_uniform", 4), [*expected[:4], 0], rtol=1e-5)


def test_simple_and_ddim_take_trained_levels() -> None:
    table = DISCRETE.sigmas.astype(np.float32)
    assert schedule(DISCRETE, "simple", 4).tolist() == [*table[[999, 749, 499, 249]], 0]
    assert schedule(DISCRETE, "ddim_uniform", 4).tolist() == [*table[[751, 501, 251, 1]], 0]


def test_karras_is_equation_five() -> None:
    n, low, high, rho = 7, 0.1, 10.0, 7.0
    expected = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    assert np.allclose(karras(n, low, high, rho), [*expected, 0], rtol=1e-5)
    assert np.allclose(np.diff(np.log(schedule(DISCRETE, "exponential", 6)[:-1])), -1.2433, atol=1e-3)


def test_beta_steps_are_the_quantiles_of_the_distribution() -> None:
    # An independent quantile: integrate the density t^(a-1) (1-t)^(a-1) with t = sin^2(u), which has no poles.
    u = np.linspace(0, np.pi / 2, 400_001)
    density = 2 * (np.sin(u) * np.cos(u)) ** (2 * 0.6 - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    quantile = np.interp((1 - np.arange(9) / 9) * mass[-1], mass, np.sin(u) ** 2)
    expected = DISCRETE.sigmas[np.rint(quantile * 999).astype(int)]
    assert np.allclose(schedule(DISCRETE, "beta", 9), [*expected, 0], rtol=1e-5)


def test_linear_quadratic_and_kl_optimal_have_their_published_shape() -> None:
    levels = schedule(DISCRETE, "linear_quadratic", 8) / DISCRETE.sigma_max
    assert np.allclose(1 - levels[:5], np.arange(5) * 0.025 / 4, atol=1e-6)
    angles = np.arctan(schedule(DISCRETE, "kl_optimal", 6)[:-1])
    assert np.allclose(np.diff(angles), np.diff(angles)[0], atol=1e-4)


def test_denoise_is_the_end_of_a_longer_schedule() -> None:
    half = sampler_sigmas(DISCRETE, "normal", "euler", 10, 0.5)
    assert half.tolist() == schedule(DISCRETE, "normal", 20)[-11:].tolist()
    assert sampler_sigmas(DISCRETE, "normal", "euler", 10, 0.0).tolist() == []
    # Two-stage samplers skip the last but one level.
    assert sampler_sigmas(DISCRETE, "normal", "dpm_2", 5).tolist() == [
        *schedule(DISCRETE, "normal", 6)[:-2].tolist(),
        0.0,
    ]


def test_an_unknown_scheduler_is_named() -> None:
    with pytest.raises(ValueError, match="invalid scheduler 'nope'; there are simple, "):
        schedule(DISCRETE, "nope", 4)


@given(st.floats(0.01, 0.99))
def test_percent_falls_through_the_levels(percent: float) -> None:
    for sampling in (DISCRETE, SD3, FLUX):
        assert 0 < sampling.percent_to_sigma(percent) <= sampling.sigma_max
        assert sampling.percent_to_sigma(percent) > sampling.percent_to_sigma(min(percent + 0.01, 1.0))
        assert sampling.from_log_snr(sampling.log_snr(0.4)) == pytest.approx(0.4)
