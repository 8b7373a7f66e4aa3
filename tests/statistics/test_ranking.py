from __future__ import annotations

import itertools

import numpy as np
import pytest

from sweeper.statistics.ranking import (
    ItemComparisons,
    compute_shares,
    compute_win_chances,
    estimate_share,
    find_cycle,
    fit_strengths,
    measure_agreement,
    rank,
    to_shares,
)

# Wins of the row against the column in the American League of 1987, and the strengths that A. Agresti gives for them:
# Categorical Data Analysis, 2nd edition (2002), table 10.10; also the data set `baseball` of R's BradleyTerry2.
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
STRENGTHS = (1.581, 1.436, 1.294, 1.248, 1.110, 0.684, 0.0)


def compare(count, wins):
    first, second = zip(*wins, strict=True) if wins else ((), ())
    return ItemComparisons(count, first, second, [1.0] * len(wins))


def test_strengths_are_those_of_a_published_example():
    games = [(one, other) for one, row in enumerate(WINS) for other, wins in enumerate(row) for _ in range(wins)]
    strengths, covariance = fit_strengths(compare(len(TEAMS), games * 50))  # so that the average item does not count
    assert strengths - strengths[-1] == pytest.approx(STRENGTHS, abs=0.015)
    # The standard error of a difference follows from the curvature: about 0.31 to 0.34 for these teams (Agresti: 0.3).
    errors = [np.sqrt(50 * (covariance[n, n] + covariance[6, 6] - 2 * covariance[n, 6])) for n in range(6)]
    assert all(0.29 < error < 0.36 for error in errors)


def test_tie_is_half_a_win():
    tied = compute_shares(ItemComparisons(2, [0] * 4, [1] * 4, [0.5] * 4))
    split = compute_shares(ItemComparisons(2, [0] * 4, [1, 1, 1, 1], [1.0, 0.0, 1.0, 0.0]))
    assert tied == pytest.approx([0.5, 0.5])
    assert split == pytest.approx([0.5, 0.5])
    more = compute_shares(ItemComparisons(2, [0] * 40, [1] * 40, [1.0, 0.5] * 20))
    assert more[0] == pytest.approx(0.75, abs=0.02)


def test_item_that_won_everything_has_an_interval_with_a_width():
    ranking = rank(compare(2, [(0, 1)] * 10), resamples=200)
    assert 0.6 < ranking.low[0] < ranking.shares[0] < ranking.high[0] <= 1.0
    assert ranking.apart == {(0, 1)}


def test_items_without_comparisons_are_undecided():
    assert rank(compare(0, [])).shares == ()
    ranking = rank(compare(3, [(0, 1), (1, 0)]), resamples=200)
    assert ranking.shares == pytest.approx((0.5, 0.5, 0.5))
    assert not ranking.apart
    apart = compute_shares(compare(4, [(0, 1), (2, 3)]))  # two pairs that nothing connects
    assert apart[0] == pytest.approx(apart[2])
    assert apart[1] < 0.5 < apart[0]


def test_intervals_cover_planted_shares():
    """A small share of tests/benchmarks/votes.py, which says how often: 95 % of the time."""
    random = np.random.default_rng(5)
    hits = []
    for _ in range(15):
        strengths = random.normal(size=4)
        first = random.integers(0, 4, 80)
        second = (first + random.integers(1, 4, 80)) % 4
        points = random.random(80) < compute_win_chances(strengths)[first, second]
        comparisons = ItemComparisons(4, first.tolist(), second.tolist(), points.astype(float).tolist())
        ranking = rank(comparisons, resamples=100)
        hits += [
            low <= share <= high
            for low, share, high in zip(ranking.low, to_shares(strengths), ranking.high, strict=True)
        ]
    assert 0.88 <= np.mean(hits) <= 1.0


def test_votes_of_one_prompt_count_as_alike():
    groups = [number // 10 for number in range(120)]
    points = [1.0 if group % 2 else 0.0 for group in groups]  # each prompt always answers the same
    alike = rank(ItemComparisons(2, [0] * 120, [1] * 120, points, groups), resamples=200)
    single = rank(ItemComparisons(2, [0] * 120, [1] * 120, points), resamples=200)
    assert (alike.by_groups, single.by_groups) == (True, False)
    assert alike.high[0] - alike.low[0] > 2 * (single.high[0] - single.low[0])


def test_ranking_is_the_same_each_time():
    games = [(one, other) for one, other in itertools.permutations(range(4), 2) if one < other] * 5
    assert rank(compare(4, games), resamples=50) == rank(compare(4, games), resamples=50)


def test_agreement_is_that_of_krippendorffs_example():
    # K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, nominal data.
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    answers = {
        f"observer {number}": {unit: value for unit, value in enumerate(row) if value != "."}
        for number, row in enumerate(rows)
    }
    assert measure_agreement(answers).alpha == pytest.approx(0.743, abs=0.0005)


def test_agreement_counts_pairs_of_answers():
    found = measure_agreement({"a": {1: "x", 2: "y", 3: "x"}, "b": {1: "x", 2: "x"}, "c": {1: "x", 9: "x"}})
    assert (found.same, found.pairs) == (3, 4)
    assert measure_agreement({"a": {1: "x"}, "b": {2: "y"}}) == measure_agreement({})
    assert measure_agreement({"a": {1: "x"}, "b": {1: "x"}}).alpha is None


@pytest.mark.parametrize(("won", "lost", "is_better"), [(2, 0, False), (5, 0, False), (6, 1, False), (20, 4, True)])
def test_better_needs_the_sign_test_too(won, lost, is_better):
    ranking = rank(compare(2, [(0, 1)] * won + [(1, 0)] * lost), resamples=400)
    assert ((0, 1) in ranking.apart) == is_better


def test_few_prompts_and_voters_are_told_and_many_are_drawn():
    random = np.random.default_rng(6)
    points = [float(random.random() < 0.7) for _ in range(120)]
    few = ItemComparisons(2, [0] * 120, [1] * 120, points, (), [n % 3 for n in range(120)], ["ana", "bo"] * 60)
    ranking = rank(few, resamples=100)
    assert (ranking.prompts, ranking.voters, ranking.by_groups) == (3, 2, False)
    own = [1.0 if n % 8 < 5 else 0.0 for n in range(120)]  # each of eight prompts always answers the same
    many = rank(ItemComparisons(2, [0] * 120, [1] * 120, own, (), [n % 8 for n in range(120)]), resamples=200)
    assert (many.prompts, many.by_groups) == (None, True)
    assert many.apart == frozenset()
    alone = rank(ItemComparisons(2, [0] * 120, [1] * 120, own), resamples=200)
    assert many.high[0] - many.low[0] > 2 * (alone.high[0] - alone.low[0])


def test_three_items_that_beat_each_other_in_turn_are_a_cycle():
    games = [(0, 1), (1, 2), (2, 0)] * 9
    assert find_cycle(compare(3, games).count_wins()) == (0, 1, 2)
    assert find_cycle(compare(3, games[:9]).count_wins()) is None  # three wins each may be chance
    assert find_cycle(compare(3, [(0, 1), (1, 2), (0, 2)] * 9).count_wins()) is None


# Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 5: the exact interval of a share.
@pytest.mark.parametrize(
    ("won", "count", "interval"),
    [(81, 263, (0.2527, 0.3676)), (15, 148, (0.0578, 0.1617)), (0, 20, (0, 0.1684)), (1, 29, (0.0009, 0.1776))],
)
def test_share_of_independent_points_has_the_exact_interval(won, count, interval):
    found = estimate_share([1.0] * won + [0.0] * (count - won), [range(count)])
    assert found == pytest.approx((won / count, *interval, count), abs=5e-5)


def test_interval_of_a_share_counts_points_that_are_alike_once():
    points, pairs = [1.0, 1.0, 1.0, 0.0] * 3, [0, 1, 2, 3] * 3
    _, low, high, effective = estimate_share(points, [pairs])
    single = estimate_share(points[:4], [pairs[:4]])
    assert (low, high) == pytest.approx(single[1:3], abs=0.02)
    assert effective == pytest.approx(4, abs=0.3)
    assert estimate_share([1.0] * 40, [[0, 1] * 20])[1] == pytest.approx(0.1581, abs=1e-4)  # two pairs, both won


def test_intervals_of_shares_contain_the_truth_in_95_of_100_cases():
    random = np.random.default_rng(3)
    chances = random.beta(3.5, 1.5, (400, 12))  # pairs differ: the mean is 0.7
    points = (random.random((400, 12, 4)) < chances[:, :, None]).reshape(400, -1)
    pairs = np.repeat(np.arange(12), 4).tolist()
    found = [estimate_share(row.astype(float).tolist(), [pairs]) for row in points]
    assert 0.93 < np.mean([low <= 0.7 <= high for _, low, high, _ in found]) < 0.99
