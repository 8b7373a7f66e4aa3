"""Comparisons over matched trials, the number of seeds that a difference needs, and a share of the simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from sweeper.statistics.factorial import Factor, Factorial, count_needed_values
from sweeper.statistics.paired import PairDesign
from tests.statistics.simulated_sweeps import Scenario, simulate


def make_factorial(*columns, replicates=1):
    """A factorial of these columns of codes; the last ones are replicates."""
    codes = [np.array(column) for column in columns]
    last = len(codes) - replicates
    return Factorial([Factor(f"f{i}", c, int(c.max()) + 1, i >= last) for i, c in enumerate(codes)])


def test_only_matched_trials_are_compared():
    # Value 1 ran only with setting 1, where every number is 100 higher; its difference from value 0 is -5.
    values, settings, seeds = [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1]
    factorial = make_factorial(values, settings, seeds)
    numbers = np.array([1.0, 2.0, 101.0, 102.0, 96.0, 97.0])
    (comparison,) = factorial.compare(0, numbers)
    assert comparison.difference.mean == pytest.approx(5)
    assert comparison.difference.pairs == 2
    numbers[5] = np.nan
    assert factorial.compare(0, numbers)[0].difference.pairs == 1


def test_values_without_a_partner_are_left_out():
    factorial = make_factorial([0, 1, 2, 2], [0, 0, 1, 1], [0, 0, 0, 1])
    assert [(found.value, found.other) for found in factorial.compare(0, np.arange(4.0))] == [(0, 1)]


def test_value_is_compared_with_the_mean_of_the_others():
    factorial = make_factorial([0, 1, 2] * 4, np.repeat(np.arange(4), 3))
    numbers = np.tile([1.0, 2.0, 6.0], 4) + np.repeat(np.arange(4), 3)
    found = {(one.value, one.other): one.difference.mean for one in factorial.compare(0, numbers)}
    assert found == {
        (0, None): -3, (1, None): -1.5, (2, None): 4.5, (0, 1): -1, (0, 2): -5, (1, 2): -4,
    }  # fmt: skip


@pytest.mark.parametrize(("mean", "sd"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8)])
def test_needed_seeds_are_those_of_the_power_of_a_t_test(mean, sd):
    sample = np.array([-1.0, 0, 1.0])
    differences = mean + sd * sample
    found = PairDesign(np.zeros(3, dtype=int), [np.arange(3)]).estimate(differences)
    expected = math.ceil(TTestPower().solve_power(effect_size=mean / sd, alpha=0.01, power=0.8))
    assert count_needed_values(found, 0, 0.01, 1000) == expected
    assert count_needed_values(found, 0, 0.01, expected - 1) is None


def test_more_seeds_do_not_help_where_prompts_differ():
    prompts, seeds = np.repeat(np.arange(4), 5), np.tile(np.arange(5), 4)
    rng = np.random.default_rng(1)
    differences = np.array([5.0, -4.0, 3.0, -1.0])[prompts] + rng.normal(0, 0.1, 20)
    found = PairDesign(np.zeros(20, dtype=int), [prompts, seeds]).estimate(differences)
    assert count_needed_values(found, 1, 0.05, 500) is None
    assert count_needed_values(found, 0, 0.05, 500) > 4


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("3 seeds, effects vary", 1, 3, 0.0, (0.0, 0.7, 0.0)),
        Scenario("4 prompts x 4 seeds, effects vary, 20 % missing", 4, 4, 0.2, (0.5, 0.5, 0.5)),
    ],
    ids=lambda scenario: scenario.name,
)
def test_simulated_sweeps_are_judged_rightly(scenario):
    # tests/benchmarks/effects.py simulates many more, which tests the numbers; here 80 show a gross mistake.
    assert simulate(scenario, 80, np.random.default_rng(1), planted=True).coverage >= 0.9
    assert simulate(scenario, 80, np.random.default_rng(2), planted=False).alarms <= 0.1
