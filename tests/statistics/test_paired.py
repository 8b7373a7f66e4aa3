"""Comparisons of values: against published output, textbook formulas, scipy and statsmodels, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sweeper.statistics.codes import Replicates
from sweeper.statistics.paired import compare_means, compare_values, compute_studentized_range
from sweeper.statistics.variance_shares import adjust_p_values
from tests.statistics.simulated_sweeps import Scenario, simulate
from tests.statistics.simulated_verdicts import TRUTHS, count_false

# R's data set `sleep`: extra hours of sleep of ten patients with two drugs (Student, Biometrika 6, 1908).
FIRST_DRUG = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SECOND_DRUG = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def make_rows(settings, prompts, seeds):
    """The setting, prompt and seed of each row of a complete table."""
    grid = np.meshgrid(np.arange(settings), np.arange(prompts), np.arange(seeds), indexing="ij")
    return [axis.ravel() for axis in grid]


def make_table(values, settings, prompts, seeds, rng):
    """Numbers that depend on all, and the replicates of the rows."""
    of_setting, of_prompt, of_seed = make_rows(settings, prompts, seeds)
    table = rng.normal(0, 1, (len(of_seed), values)) + np.arange(values)
    table += rng.normal(0, 2, (prompts, values))[of_prompt] + rng.normal(0, 2, (seeds, values))[of_seed]
    return table + 10 * of_setting[:, None], Replicates(of_setting, of_prompt, of_seed)


def test_sleep_data_give_the_interval_of_r():
    # `with(sleep, t.test(extra[group == 1], extra[group == 2], paired = TRUE))` in R's help page of `sleep`
    rows = Replicates(np.zeros(10, dtype=int), seeds=np.arange(10))
    (found,) = compare_values(np.column_stack([FIRST_DRUG, SECOND_DRUG]), rows).pairs
    assert (found.mean, found.df) == (pytest.approx(-1.58), pytest.approx(9))
    assert found.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert (found.higher, found.lower, found.pairs, found.differs) == (0, 9, 10, True)


def test_seeds_alone_give_the_t_test_of_their_means():
    rng = np.random.default_rng(1)
    table, rows = make_table(2, 6, 1, 4, rng)
    (found,) = compare_values(table, Replicates(rows.settings, None, rows.seeds)).pairs
    differences = (table[:, 0] - table[:, 1]).reshape(6, 4).mean(axis=0)
    expected = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found.df == pytest.approx(3)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.others is None


def test_values_of_one_factor_have_the_intervals_of_tukey():
    # A two-way layout without replicates: the mean square of value x seed, and the studentized range of 4 values
    rng = np.random.default_rng(2)
    table, rows = make_table(4, 1, 1, 5, rng)
    found = compare_values(table, Replicates(rows.settings, None, rows.seeds)).pairs
    rest = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
    margin = stats.studentized_range.ppf(0.95, 4, 12) * math.sqrt((rest**2).sum() / 12 / 5)
    assert len(found) == 6
    for pair in found:
        mean = table[:, pair.value].mean() - table[:, pair.other].mean()
        assert pair.interval == pytest.approx((mean - margin, mean + margin), rel=1e-4)


def test_prompts_and_seeds_give_the_textbook_mean_squares():
    rng = np.random.default_rng(3)
    table, rows = make_table(3, 2, 6, 5, rng)
    found = compare_values(table, rows).pairs[0]
    cells = table.reshape(2, 6, 5, 3).mean(axis=0).transpose(2, 0, 1)  # value, prompt, seed
    cells = cells - cells.mean(axis=0)
    by_prompt, by_seed = cells.mean(axis=2), cells.mean(axis=1)
    means = cells.mean(axis=(1, 2))
    of_prompt = 5 * ((by_prompt - means[:, None]) ** 2).sum() / (2 * 5)
    of_seed = 6 * ((by_seed - means[:, None]) ** 2).sum() / (2 * 4)
    rest = cells - by_prompt[:, :, None] - by_seed[:, None, :] + means[:, None, None]
    both = (rest**2).sum() / (2 * 5 * 4)
    margin = stats.studentized_range.ppf(0.95, 3, 8) * math.sqrt(of_seed / 30)
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * margin, rel=1e-4)
    terms = np.array([of_prompt, of_seed, -both])
    df = terms.sum() ** 2 / (terms**2 / [10, 8, 40]).sum()
    margin = stats.studentized_range.ppf(0.95, 3, df) * math.sqrt(terms.sum() / 30)
    assert found.others[1] - found.others[0] == pytest.approx(2 * margin, rel=1e-4)


def test_two_prompts_say_nothing_about_others():
    table, rows = make_table(2, 1, 2, 5, np.random.default_rng(4))
    (found,) = compare_values(table, rows).pairs
    assert (found.interval is None, found.others) == (False, None)


def test_only_matched_trials_are_compared():
    # Value 1 ran only with setting 1, where every number is 100 higher; its difference from value 0 is -5.
    table = np.array([[1.0, np.nan], [2.0, np.nan], [101.0, 96.0], [102.0, 97.5]])
    rows = Replicates(np.array([0, 0, 1, 1]), None, np.array([0, 1, 0, 1]))
    (found,) = compare_values(table, rows).pairs
    assert (found.mean, found.pairs) == (pytest.approx(4.75), 2)
    table[3, 1] = np.nan
    (found,) = compare_values(table, rows).pairs
    assert (found.mean, found.pairs, found.interval) == (5, 1, None)


def test_values_without_a_partner_are_left_out():
    table = np.array([[0.0, 1.0, np.nan], [np.nan, np.nan, 2.0], [np.nan, np.nan, 3.0]])
    found = compare_values(table, Replicates(np.array([0, 1, 1]), None, np.array([0, 0, 1]))).pairs
    assert [(pair.value, pair.other) for pair in found] == [(0, 1)]


def test_without_replicates_the_settings_are_the_sample():
    differences = np.array([1.0, 2.0, 4.0, 3.0])
    table = np.column_stack([differences, np.zeros(4)])
    (found,) = compare_values(table, Replicates(np.arange(4))).pairs
    expected = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_equal_differences_have_an_interval_without_width():
    settings, prompts, seeds = make_rows(2, 3, 3)
    table = np.column_stack([np.full(18, 2.0), np.zeros(18)])
    (found,) = compare_values(table, Replicates(settings, prompts, seeds)).pairs
    assert (found.interval, found.others, found.differs) == ((2.0, 2.0), (2.0, 2.0), True)


def test_slope_is_that_of_the_least_squares_line():
    rng = np.random.default_rng(5)
    numbers, seeds = [1.0, 2.0, 4.0, 8.0], 6
    table = rng.normal(0, 1, (seeds, 1)) + 0.5 * np.array(numbers) + rng.normal(0, 0.3, (seeds, 4))
    rows = Replicates(np.zeros(seeds, dtype=int), None, np.arange(seeds))
    found = compare_values(table, rows, numbers=numbers)
    line = stats.linregress(numbers, table.mean(axis=0))
    assert sum(found.slope) / 2 == pytest.approx(line.slope)
    rest = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
    squares = ((np.array(numbers) - np.mean(numbers)) ** 2).sum()
    margin = stats.t.ppf(0.9875, 15) * math.sqrt((rest**2).sum() / 15 / seeds / squares)  # half of the 5 %
    assert found.slope[1] - found.slope[0] == pytest.approx(2 * margin)
    assert compare_values(table[:, :3], rows, numbers=numbers[:3]).slope is None


def test_reach_is_the_margin_of_twice_the_seeds():
    rng = np.random.default_rng(6)
    table, rows = make_table(2, 1, 1, 4, rng)
    found = compare_values(table, Replicates(rows.settings, None, rows.seeds))
    spread = np.std(table[:, 0] - table[:, 1], ddof=1)
    assert found.reach == pytest.approx(stats.t.ppf(0.975, 7) * spread / math.sqrt(8))


@pytest.mark.parametrize("sizes", [(4, 4), (3, 9)])
def test_values_with_seeds_of_their_own_get_welchs_interval(sizes):
    rng = np.random.default_rng(7)
    own, other = (rng.normal(mean, 1 + mean, size) for mean, size in zip((0, 3), sizes, strict=True))
    (found,) = compare_means([own, other]).pairs
    expected = stats.ttest_ind(own, other, equal_var=False).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("values", "df"), [(2, 3.3), (3, 1.0), (3, 8), (6, 40.5), (30, 290)])
@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_studentized_range_is_that_of_scipy(values, df, level):
    expected = stats.studentized_range.ppf(level, values, df)
    assert compute_studentized_range(level, values, df) == pytest.approx(expected, rel=1e-4)


@given(
    st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.floats(0, 0.7),
    st.integers(0, 9),
)
def test_any_loss_of_trials_leaves_intervals_around_the_mean(sizes, lost, seed):
    rng = np.random.default_rng(seed)
    values = sizes[0]
    table, rows = make_table(*sizes, rng)
    table[rng.random(table.shape) < lost] = np.nan
    found = compare_values(table, rows, numbers=list(range(values)))
    for pair in found.pairs:
        assert pair.higher + pair.lower == pair.pairs
        for interval in (pair.interval, pair.others):
            assert interval is None or interval[0] <= pair.mean <= interval[1]
        assert pair.df >= 1 or pair.interval is None


def test_holm_gives_the_adjusted_values_of_r():
    # the output of R for `p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")`
    assert adjust_p_values([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert adjust_p_values([]) == []
    p_values = np.random.default_rng(1).random(40) ** 4
    assert adjust_p_values(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@pytest.mark.parametrize(
    "scenario",
    [Scenario("3 x 3", 3, 3), Scenario("3 seeds", 1, 3), Scenario("4 x 4, 20 % missing", 4, 4, 0.2)],
    ids=lambda scenario: scenario.name,
)
def test_simulated_sweeps_are_judged_rightly(scenario):
    # tests/benchmarks/effects.py simulates many more, which tests the numbers; here 60 show a gross mistake.
    found = simulate(scenario, 60, np.random.default_rng(1))
    assert found.these.coverage >= 0.93
    assert found.these.alarms <= 0.12
    assert found.these.power >= 0.2


@pytest.mark.parametrize("truth", [TRUTHS[0], TRUTHS[5]], ids=lambda truth: truth.name)
def test_false_verdicts_are_rare(truth):
    false, _ = count_false(truth, 100)
    assert false <= 0.12  # 5 % are allowed; more than 12 % of 100 happen by chance once in 300 times
