"""When a point of a search is clearly worse: by examples and by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeper.statistics.paired import ERROR_RATE, find_clearly_worse
from tests.statistics.simulated_searches import SCENARIOS, simulate

NAN = np.nan


def make_points(levels, combinations=4, noise=0.1, seed=3):
    """A point for each level; prompts differ by far more than the noise."""
    rng = np.random.default_rng(seed)
    prompts = rng.normal(0, 20, combinations)
    return np.array(levels, dtype=float)[:, None] + prompts + rng.normal(0, noise, (len(levels), combinations))


def test_one_trial_decides_when_others_tell_the_noise():
    values = make_points([5, 4, 3, 2, 0, 5])
    values[4:, 1:] = NAN
    assert find_clearly_worse([values], [True]) == [4]
    assert find_clearly_worse([-values], [False]) == [4]


def test_easy_prompt_does_not_make_a_point_better():
    values = np.array([[0.0, 10, 20, 30], [0.1, 10.2, 20.1, 30.2], [9, 19.1, 29.2, 39], [NAN, NAN, NAN, 30.1]])
    assert find_clearly_worse([values], [True]) == [3]  # its mean is higher than that of any other point


def test_nothing_is_clear_while_the_noise_is_unknown():
    assert find_clearly_worse([np.array([[5.0, NAN], [0.0, NAN]])], [True]) == []
    assert find_clearly_worse([np.full((3, 4), NAN)], [True]) == []


def test_complete_points_and_points_without_rival_stay():
    values = make_points([5, 5, 0, 0])
    values[:2, 3] = values[3, :3] = NAN  # only the complete point 2 has what point 3 has
    assert find_clearly_worse([values], [True]) == []


def test_points_without_noise_are_dropped_by_any_difference():
    assert find_clearly_worse([np.array([[0.3, 0.4], [0.3, 0.4], [0.2, NAN], [0.3, NAN]])], [True]) == [2]


def test_several_objectives_need_one_rival_better_in_each():
    sharp, bright = make_points([5, 0, 1, 1]), make_points([0, 5, 1, 1], seed=4)
    sharp[3, 2:] = bright[3, 2:] = NAN
    assert find_clearly_worse([sharp], [True]) == find_clearly_worse([bright], [True]) == [3]
    assert find_clearly_worse([sharp, bright], [True, True]) == []  # each rival is better in one of them
    sharp[1] = sharp[0]
    assert find_clearly_worse([sharp, bright], [True, True]) == [3]


@pytest.mark.parametrize("name", ["4 combinations, all points equal", "4 combinations, uneven noise", "4 combinations"])
def test_best_point_is_rarely_dropped(name):
    scenario = next((one for one in SCENARIOS if one.name == name), replace(SCENARIOS[1], uneven=0.5))
    lost, saved = simulate(scenario, 25, np.random.default_rng(1))
    assert lost <= 2 * ERROR_RATE
    assert saved >= (0 if "equal" in name else 0.25)
