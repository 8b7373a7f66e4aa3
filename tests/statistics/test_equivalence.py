"""Decisions about differences: against published output, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from sweeper.statistics.equivalence import EQUIVALENT, HIGHER, LOWER, UNDECIDED, decide_all
from sweeper.statistics.paired import PairDesign
from tests.statistics.simulated_verdicts import TRUTHS, count_false
from tests.statistics.test_paired import FIRST_DRUG, SECOND_DRUG


def estimate(differences):
    count = len(differences)
    return PairDesign(np.zeros(count, dtype=int), [np.arange(count)]).estimate(np.asarray(differences, dtype=float))


@pytest.mark.parametrize("margin", [1.0, 2.0, 2.5, 3.0])
def test_p_values_are_those_of_statsmodels(margin):
    difference = estimate(FIRST_DRUG - SECOND_DRUG)
    (decision,) = decide_all([difference], [margin])
    assert decision.p_equivalence == pytest.approx(ttost_paired(FIRST_DRUG, SECOND_DRUG, -margin, margin)[0])
    assert decision.p_difference == pytest.approx(0.002833, abs=5e-7)  # R's help page of `sleep`
    assert decision.word == (EQUIVALENT if decision.p_equivalence <= 0.05 else LOWER)


def test_decisions_are_corrected_for_the_number_of_metrics():
    difference = estimate(SECOND_DRUG - FIRST_DRUG)
    alone, *many = (decide_all([difference] * count, [1.0] * count)[0] for count in (1, 20))
    assert (alone.word, many[0].word) == (HIGHER, UNDECIDED)
    assert many[0].p_difference == pytest.approx(20 * alone.p_difference)


def test_needed_pairs_give_the_wanted_power():
    rng = np.random.default_rng(3)
    seen = rng.normal(0, 1, 16)
    seen += 0.3 - seen.mean()
    (decision,) = decide_all([estimate(seen)], [0.1])
    count = 16 + decision.more_pairs
    drawn = rng.normal(0.3, seen.std(ddof=1), (4000, count))
    power = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean()
    assert 0.77 < power < 0.83
    near = seen - seen.mean()
    assert decide_all([estimate(near)], [0.4])[0].more_pairs > 0
    assert decide_all([estimate(near + 0.4)], [0.4])[0].more_pairs is not None


def test_equal_differences_are_decided_by_their_number():
    assert decide_all([estimate([1.0] * 5)], [0.1])[0].word == UNDECIDED
    assert decide_all([estimate([1.0] * 6)], [0.1])[0].word == HIGHER


@pytest.mark.parametrize("truth", [TRUTHS[0], TRUTHS[5]], ids=lambda truth: truth.name)
def test_false_verdicts_are_rare(truth):
    false, _ = count_false(truth, 150)
    assert false <= 0.1  # 5 % are allowed; more than 10 % of 150 happen by chance once in 300 times
