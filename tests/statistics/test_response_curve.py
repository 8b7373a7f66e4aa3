"""Curves over the points of a search: against statsmodels, and where they say that the best value is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from sweeper.statistics.variance_shares import (
    ENDS,
    FALLING,
    INSIDE,
    RISING,
    Curve,
    Factor,
    LinearFit,
    VarianceModel,
    code_factor,
)
from tests.statistics.simulated_searches import PlantedAxes, find_effects

CFG = np.linspace(1, 12, 40)


def draw_points(rng, count=40):
    frame = pd.DataFrame({"cfg": rng.uniform(1, 12, count), "steps": rng.integers(4, 40, count).astype(float)})
    frame["sampler"] = rng.integers(0, 3, count)
    frame["y"] = -((frame.cfg - 6) ** 2) / 5 + 0.1 * frame.steps + frame.sampler + rng.normal(0, 0.5, count)
    return frame, [*(Curve(name, frame[name].to_numpy()) for name in ("cfg", "steps")), make_sampler(frame.sampler)]


def make_sampler(codes):
    return Factor("sampler", np.asarray(codes))


def fit(factors, numbers):
    return LinearFit([code_factor(factor) for factor in factors], numbers)


def test_shares_and_differences_are_those_of_statsmodels():
    frame, factors = draw_points(np.random.default_rng(1))
    plain = ols("y ~ cfg + I(cfg**2) + steps + I(steps**2) + C(sampler)", frame).fit()
    own = VarianceModel(factors).share_out(frame.y.to_numpy()).get("sampler")
    table = anova_lm(plain, typ=2)
    assert own.share * frame.y.var() * 39 == pytest.approx(table.loc["C(sampler)", "sum_sq"])
    found = fit(factors, frame.y.to_numpy())
    first, last = (int(np.flatnonzero(frame.sampler == code)[0]) for code in (0, 2))
    low, high = plain.conf_int().loc["C(sampler)[T.2]"]
    assert found.compare(2, last, first)[1] == pytest.approx((low, high))
    one, other = frame.loc[0, "cfg"], frame.loc[1, "cfg"]
    test = plain.t_test(f"{one - other} * cfg + {one**2 - other**2} * I(cfg ** 2) = 0")
    mean, interval = found.compare(0, 0, 1)
    assert mean == pytest.approx(float(test.effect[0]))
    assert interval == pytest.approx(tuple(test.conf_int()[0]))


@pytest.mark.parametrize(
    ("numbers", "sign", "word", "value"),
    [
        (-((CFG - 5) ** 2), 1, INSIDE, 5),
        (-((CFG - 5) ** 2), -1, ENDS, 5),
        ((CFG - 8) ** 2, -1, INSIDE, 8),
        (CFG, 1, RISING, 12),
        (CFG, -1, FALLING, 1),
        (-((CFG - 13) ** 2), 1, RISING, 12),
        (-((CFG - 11.95) ** 2), 1, RISING, 12),  # the last number is the nearest to the top
    ],
)
def test_best_value_is_the_planted_one(numbers, sign, word, value):
    noise = np.random.default_rng(2).normal(0, 0.3, len(CFG))
    found, point = fit([Curve("cfg", CFG)], numbers + noise).find_largest(0, sign)
    assert found == word
    assert CFG[point] == pytest.approx(value, abs=0.4)


def test_curve_over_decades_is_one_of_logarithms():
    numbers = np.geomspace(0.001, 10, 40)
    found, point = fit([Curve("rate", numbers)], -((np.log10(numbers) + 1) ** 2)).find_largest(0, 1)
    assert found == INSIDE
    assert numbers[point] == pytest.approx(0.1, rel=0.3)


def test_axis_that_moves_with_another_is_not_bounded_by_its_own_share():
    rng = np.random.default_rng(3)
    cfg = rng.uniform(1, 12, 60)
    alone, tied = rng.uniform(1, 12, 60), cfg + rng.normal(0, 0.3, 60)
    numbers = cfg + rng.normal(0, 0.3, 60)
    curves = [[Curve("cfg", cfg), Curve("other", other)] for other in (alone, tied)]
    bounds = [VarianceModel(pair, 10).share_out_whole(1, numbers).high for pair in curves]
    assert bounds[0] < 0.05 < bounds[1]


def test_whole_share_needs_points_for_all_pairs():
    frame, factors = draw_points(np.random.default_rng(4), 20)
    assert VarianceModel(factors, 10).share_out_whole(2, frame.y.to_numpy()) is None
    assert VarianceModel(factors, 5).share_out_whole(2, frame.y.to_numpy()).share > 0.02


def test_axis_without_effect_is_rarely_found():
    planted = PlantedAxes("parabola", method="random")
    found = [find_effects(planted, seed) for seed in range(60)]
    assert sum(effects["steps"].differs or effects["sampler"].differs for effects in found) <= 8  # 3 expected at most
    assert all(effects["cfg"].differs and not effects["cfg"].idle for effects in found)
    assert sum(effects["steps"].idle for effects in found) >= 10
