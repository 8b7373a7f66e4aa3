"""Paired differences: against published output, textbook formulas, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sweeper.errors import UsageError
from sweeper.statistics.corrections import adjust_in_steps, adjust_p_values
from sweeper.statistics.extra_packages import load_stats_package
from sweeper.statistics.paired import PairDesign

# R's data set `sleep`: extra hours of sleep of ten patients with two drugs (Student, Biometrika 6, 1908).
FIRST_DRUG = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SECOND_DRUG = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def make_cells(settings, prompts, seeds):
    """The setting, prompt and seed of each pair of a complete design."""
    grid = np.meshgrid(np.arange(settings), np.arange(prompts), np.arange(seeds), indexing="ij")
    return [axis.ravel() for axis in grid]


def test_sleep_data_give_the_interval_of_r():
    # `with(sleep, t.test(extra[group == 1], extra[group == 2], paired = TRUE))` in R's help page of `sleep`
    patients = np.arange(10)
    result = PairDesign(np.zeros(10, dtype=int), [patients]).estimate(FIRST_DRUG - SECOND_DRUG)
    assert result.mean == pytest.approx(-1.58)
    assert result.df == pytest.approx(9)
    assert result.p == pytest.approx(0.002833, abs=5e-7)
    assert (result.low, result.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_seeds_alone_give_the_t_test_of_their_means():
    settings, _, seeds = make_cells(6, 1, 4)
    rng = np.random.default_rng(1)
    differences = rng.normal(2, 1, 24) + rng.normal(0, 2, 4)[seeds] + 10 * settings
    result = PairDesign(settings, [seeds]).estimate(differences)
    expected = stats.ttest_1samp(differences.reshape(6, 4).mean(axis=0), 0)
    interval = expected.confidence_interval()
    assert result.p == pytest.approx(expected.pvalue)
    assert result.df == pytest.approx(3)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))


def test_prompts_and_seeds_give_the_textbook_variance():
    settings, prompts, seeds = make_cells(3, 6, 5)
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 3, 6)[prompts] + rng.normal(0, 3, 5)[seeds] + rng.normal(0, 2, (6, 5))[prompts, seeds]
    differences = noise + rng.normal(0, 0.1, 90) + settings
    result = PairDesign(settings, [prompts, seeds]).estimate(differences)
    cells = differences.reshape(3, 6, 5).mean(axis=0)
    by_prompt, by_seed = cells.mean(axis=1), cells.mean(axis=0)
    rest = cells - by_prompt[:, None] - by_seed + cells.mean()
    terms = np.array([15 * by_prompt.var(ddof=1), 18 * by_seed.var(ddof=1), -3 * (rest**2).sum() / 20])
    assert result.standard_error**2 == pytest.approx(terms.sum() / 90)
    assert result.df == pytest.approx(terms.sum() ** 2 / (terms**2 / [5, 4, 20]).sum())


def test_two_seeds_stand_for_themselves_beside_many_prompts():
    settings, prompts, seeds = make_cells(2, 8, 2)
    rng = np.random.default_rng(3)
    differences = rng.normal(0, 1, 8)[prompts] + rng.normal(0, 0.1, 32) + 50 * seeds
    design = PairDesign(settings, [prompts, seeds])
    assert design.sampled == (0,)
    expected = stats.ttest_1samp(differences.reshape(2, 8, 2).mean(axis=(0, 2)), 0).confidence_interval()
    result = design.estimate(differences)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))


def test_without_replicates_the_settings_are_the_sample():
    differences = np.array([1.0, 2.0, 4.0, 3.0])
    result = PairDesign(np.arange(4), [np.zeros(4, dtype=int)]).estimate(differences)
    assert result.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_single_pair_has_a_mean_and_no_interval():
    result = PairDesign(np.array([0]), [np.array([7])]).estimate(np.array([2.5]))
    assert (result.mean, result.low, result.high, result.p) == (2.5, None, None, None)


def test_equal_differences_have_an_interval_without_width():
    settings, prompts, seeds = make_cells(2, 3, 3)
    result = PairDesign(settings, [prompts, seeds]).estimate(np.full(18, 2.0))
    assert (result.low, result.high, result.p) == (2.0, 2.0, 0.0)


def test_holm_gives_the_adjusted_values_of_r():
    # the output of R for `p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")`
    adjusted = adjust_p_values([0.03, None, 0.01, 0.05, 0.02, 0.04])
    assert adjusted == [pytest.approx(0.09), None, *map(pytest.approx, [0.05, 0.09, 0.08, 0.09])]
    assert adjust_p_values([None]) == [None]
    p_values = np.random.default_rng(1).random(40) ** 4
    assert adjust_p_values(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_missing_package_says_what_to_install():
    with pytest.raises(UsageError, match=r'no_such_package, which is not installed; run: .*"comfy-sweeper\[stats\]"'):
        load_stats_package("no_such_package.special")


def test_comparisons_are_corrected_within_their_axis_and_not_below_it():
    axes, comparisons = adjust_in_steps([0.004, 0.03, None], [[0.001, 0.02], [0.001], [0.2, 0.5]])
    assert axes == pytest.approx([0.012, 0.06, 0.4])  # the third has no test: its smallest comparison stands for it
    assert comparisons == [pytest.approx([0.012, 0.02]), pytest.approx([0.06]), pytest.approx([0.4, 0.5])]
