"""Noise is the same everywhere and different for every seed, and Brownian paths have the right statistics."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.embedded.diffusion.latent_noise import FrameNoise, LatentNoise, draw_normal
from sweeper.embedded.diffusion.schedules import Sampling
from sweeper.embedded.diffusion.solvers import SolverRun

SHAPE = (4, 16, 16)


def test_first_numbers_never_change() -> None:
    # Recorded once. If another NumPy or machine changes them, it changes every picture of every baseline.
    assert draw_normal(7, 0, 1, 0, (4,)).tolist() == pytest.approx([1.2810302, 2.4797926, -0.7845169, -0.5120691])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_seeds_differ_to_the_last_bit(one: int, other: int) -> None:
    equal = np.array_equal(draw_normal(one, 0, 1, 0, (8,)), draw_normal(other, 0, 1, 0, (8,)))
    assert equal == (one == other)


def test_item_is_the_same_in_every_batch() -> None:
    alone, batch = LatentNoise(3, [2], SHAPE).draw_initial(), LatentNoise(3, range(5), SHAPE).draw_initial()
    assert np.array_equal(alone[0], batch[2])
    assert abs(float((batch[0] * batch[1]).mean())) < 0.1


def test_noise_is_standard_normal() -> None:
    sample = LatentNoise(11, range(8), (4, 64, 64)).draw_initial()
    assert sample.dtype == np.float32
    assert float(sample.mean()) == pytest.approx(0, abs=0.01)
    assert float(sample.std()) == pytest.approx(1, abs=0.01)


def test_steps_get_fresh_but_reproducible_noise() -> None:
    noise = LatentNoise(3, [0], SHAPE)
    first, second = noise.draw_step(), noise.draw_step()
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, noise.draw_initial())
    assert np.array_equal(first, LatentNoise(3, [0], SHAPE).draw_step())


@given(st.lists(st.floats(0.01, 14.6), min_size=3, max_size=3, unique=True))
def test_increments_of_a_path_add_up(points: list[float]) -> None:
    path = LatentNoise(4, [0], (1, 4, 4)).brownian(14.6)
    a, b, c = sorted(points, reverse=True)

    def increment(start: float, end: float) -> object:
        return path(start, end) * np.float32((start - end) ** 0.5)

    assert np.allclose(increment(a, b) + increment(b, c), increment(a, c), atol=1e-4)


def test_increments_are_standard_normal_and_independent() -> None:
    path = LatentNoise(4, range(4), (4, 32, 32)).brownian(14.6)
    steps = [path(10.0, 6.0), path(6.0, 1.0), path(1.0, 0.5)]
    for i, one in enumerate(steps):
        assert float(one.std()) == pytest.approx(1, abs=0.03)
        for other in steps[:i]:
            assert abs(float((one * other).mean())) < 0.03
    assert not np.array_equal(steps[0], LatentNoise(4, range(4), (4, 32, 32)).brownian(14.6, stream=1)(10.0, 6.0))


def test_video_noise_changes_slowly_and_is_standard_normal() -> None:
    frames = FrameNoise(3, [0, 5], (4, 32, 32), 60).draw_initial()
    assert frames.shape == (120, 4, 32, 32)
    assert frames.std(axis=(1, 2, 3)) == pytest.approx(1, abs=0.06)
    near = [float((one * other).mean()) for one, other in pairwise(frames[:60])]
    assert min(near) > 0.95
    assert abs(float((frames[0] * frames[48]).mean())) < 0.08
    assert abs(float((frames[0] * frames[60]).mean())) < 0.08  # another video of the batch
    assert np.array_equal(FrameNoise(3, [5], (4, 32, 32), 60).draw_initial(), frames[60:])


def test_scaled_noise_is_the_noise_times_its_scale() -> None:
    plain, scaled = (
        SolverRun(lambda x, _: (x, x), LatentNoise(3, [0], SHAPE), Sampling(), lambda *_: None, scale)
        for scale in (1.0, 0.5)
    )
    assert np.array_equal(scaled.draw_noise(), plain.draw_noise() * np.float32(0.5))
    assert np.array_equal(scaled.draw_from_path(4.0, 2.0, 0), plain.draw_from_path(4.0, 2.0, 0) * np.float32(0.5))
