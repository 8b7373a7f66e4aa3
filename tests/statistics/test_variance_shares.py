"""Shares of the variance: against R's documented output, against statsmodels, and by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from sweeper.statistics.variance_shares import Factor, VarianceModel

# R's data set `warpbreaks`: breaks of yarn by wool (A, B) and tension (L, M, H), nine looms each
WARPBREAKS = [
    *(26, 30, 54, 25, 70, 52, 51, 26, 67), *(18, 21, 29, 17, 12, 18, 35, 30, 36), *(36, 21, 24, 18, 10, 43, 28, 15, 26),
    *(27, 14, 29, 19, 29, 31, 41, 20, 44), *(42, 26, 19, 16, 39, 28, 21, 39, 29), *(20, 21, 24, 17, 13, 15, 15, 16, 28),
]  # fmt: skip
# R's data set `ToothGrowth`: length of teeth by supplement (VC, OJ) and dose (0.5, 1, 2), ten guinea pigs each
TOOTH_GROWTH = [
    *(4.2, 11.5, 7.3, 5.8, 6.4, 10, 11.2, 11.2, 5.2, 7, 16.5, 16.5, 15.2, 17.3, 22.5, 17.3, 13.6, 14.5, 18.8, 15.5),
    *(23.6, 18.5, 33.9, 25.5, 26.4, 32.5, 26.7, 21.5, 23.3, 29.5, 15.2, 21.5, 17.6, 9.7, 14.5, 10, 8.2, 9.4, 16.5, 9.7),
    *(19.7, 23.3, 23.6, 26.4, 20, 25.2, 25.8, 21.2, 14.5, 27.3, 25.5, 26.4, 22.4, 24.5, 24.8, 30.9, 26.4, 27.3),
    *(29.4, 23),
]  # fmt: skip


def compute_variance_shares(factors, numbers):
    return VarianceModel(factors).share_out(numbers)


def make_factor(name, codes, *, is_replicate=False):
    return Factor(name, np.asarray(codes), is_replicate)


# (numbers, how many per cell, (sum of squares, p) of the factors and their interaction, the rest): the output of R
# for `anova(lm(breaks ~ wool*tension, warpbreaks))` and `summary(aov(len ~ supp*factor(dose), ToothGrowth))`
PUBLISHED = {
    "warpbreaks": (
        WARPBREAKS, 9, [(450.7, 0.058213), (2034.3, 0.0006926), (1002.8, 0.0210442)], 5745.1,
    ),
    "ToothGrowth": (TOOTH_GROWTH, 10, [(205.4, 0.000231), (2426.4, 0), (108.3, 0.02186)], 712.1),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_sums_of_squares_and_f_are_those_of_r(name):
    numbers, size, expected, rest = PUBLISHED[name]
    rows = np.arange(len(numbers))
    factors = [make_factor("first", rows // (3 * size)), make_factor("second", rows // size % 3)]
    shares, total = compute_variance_shares(factors, np.array(numbers, dtype=float)), np.var(numbers) * len(numbers)
    for term, (squares, p) in zip(shares.terms, expected, strict=True):
        assert term.share * total == pytest.approx(squares, abs=0.06)
        assert term.p == pytest.approx(p, abs=5e-7)
        assert term.low <= term.share <= term.high
    assert shares.rest == pytest.approx(rest / (rest + sum(squares for squares, _ in expected)), abs=1e-4)
    assert sum(term.share for term in shares.terms) + shares.rest == pytest.approx(1)


def test_incomplete_factorial_gives_type_two_of_statsmodels():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(range(3), range(4), range(2), range(3), indexing="ij"), axis=-1).reshape(-1, 4)
    grid = grid[rng.random(len(grid)) > 0.2]
    numbers = grid @ [2.0, 1.0, 0.5, 0.0] + grid[:, 0] * grid[:, 1] + rng.normal(0, 1, len(grid))
    factors = [make_factor(name, grid[:, index]) for index, name in enumerate("abcd")]
    shares = compute_variance_shares(factors, numbers)
    frame = pd.DataFrame(grid, columns=list("abcd")).assign(y=numbers)
    formula = "y ~ (C(a, Sum) + C(b, Sum) + C(c, Sum) + C(d, Sum))**2"
    pairs = anova_lm(ols(formula, frame).fit(), typ=2)
    mains = anova_lm(ols("y ~ C(a, Sum) + C(b, Sum) + C(c, Sum) + C(d, Sum)", frame).fit(), typ=2)
    found = {":".join(f"C({name}, Sum)" for name in term.axes): term for term in shares.terms}
    assert len(found) == 10
    for name, term in found.items():
        table = pairs if ":" in name else mains
        assert term.share * numbers.var() * len(numbers) == pytest.approx(table.loc[name, "sum_sq"])
        if ":" in name:
            assert term.p == pytest.approx(table.loc[name, "PR(>F)"])


def test_factor_is_tested_against_its_interaction_with_replicates():
    rng = np.random.default_rng(2)
    value, seed, setting = (axis.ravel() for axis in np.meshgrid(range(2), range(6), range(5), indexing="ij"))
    numbers = rng.normal(0, 1, 60) + 3 * rng.normal(0, 1, (2, 6))[value, seed]
    factors = [make_factor("value", value), make_factor("setting", setting)]
    shares = compute_variance_shares([*factors, make_factor("seed", seed, is_replicate=True)], numbers)
    ratio = 5 * shares.get("value").share / shares.get("value", "seed").share
    assert shares.get("value").p == pytest.approx(stats.f.sf(ratio, 1, 5))


def test_share_interval_covers_the_true_share():
    value, seed = (axis.ravel() for axis in np.meshgrid(range(4), range(8), indexing="ij"))
    factors = [make_factor("value", value), make_factor("seed", seed, is_replicate=True)]
    effects = np.array([-1.0, -0.5, 0.5, 1.0])
    truth = effects.var() / (effects.var() + 1)
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        shares = compute_variance_shares(factors, effects[value] + rng.normal(0, 1, 32))
        covered += shares.terms[0].low <= truth <= shares.terms[0].high
    assert covered >= 364  # 380 expected


def test_factor_that_another_one_determines_explains_nothing():
    codes = np.repeat(np.arange(4), 5)
    factors = [make_factor("a", codes), make_factor("b", codes // 2), make_factor("c", np.tile(np.arange(5), 4))]
    shares = compute_variance_shares(factors, np.random.default_rng(4).normal(0, 1, 20))
    assert [term.axes for term in shares.terms] == [("a",), ("c",), ("b", "c")]


@pytest.mark.parametrize("numbers", [[3.0] * 6, [1.0, 2.0]])
def test_constant_or_too_few_numbers_have_no_shares(numbers):
    assert (
        compute_variance_shares([make_factor("a", [0, 1, 1, 2, 2, 0][: len(numbers)])], np.array(numbers)).rest is None
    )
