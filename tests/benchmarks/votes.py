"""How often the intervals of a ranking hold the planted share, how often two equal values are called different, and how
long a ranking takes.

    python tests/benchmarks/votes.py [--simulations N]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sweeper.statistics.ranking import (
    ItemComparisons,
    compute_sign_p,
    compute_win_chances,
    fit_strengths,
    rank,
    to_shares,
)

CASES = ((2, 20, 1.0), (3, 60, 1.0), (4, 60, 1.0), (4, 200, 2.0), (8, 200, 1.0), (8, 400, 2.0))


def vote(random, strengths, count, ties=0.0):
    """Comparisons of random pairs; a part of them ends in a tie, whoever is better."""
    items = len(strengths)
    first = random.integers(0, items, count)
    second = (first + random.integers(1, items, count)) % items
    points = (random.random(count) < compute_win_chances(strengths)[first, second]).astype(float)
    points[random.random(count) < ties] = 0.5
    return ItemComparisons(items, first.tolist(), second.tolist(), points.tolist())


def measure_coverage(random, simulations):
    print(f"share of {simulations} simulations in which an interval of 95 % holds the planted share")
    for items, count, spread in CASES:
        hits = []
        for _ in range(simulations):
            strengths = random.normal(0, spread, items)
            ranking = rank(vote(random, strengths, count), resamples=300)
            true = to_shares(strengths)
            hits += [a <= share <= b for a, share, b in zip(ranking.low, true, ranking.high, strict=True)]
        print(f"  {items} values, {count} votes, strengths ±{spread}: {np.mean(hits):.1%}")


def measure_coverage_of_groups(random, simulations):
    """Here every prompt has strengths of its own, around those of the values."""
    print(f"the same where prompts differ much: 3 values, 8 votes about each prompt, {simulations} simulations")
    for prompts in (10, 30):
        hits = []
        for _ in range(simulations):
            own = np.array([0.4, 0.0, -0.4]) + random.normal(0, 1.0, (4000, 3))
            true = to_shares(own).mean(axis=0)  # over as many prompts as nobody tries
            votes = [(group, vote(random, own[group], 8)) for group in range(prompts)]
            first, second, points = (
                [cell for _, some in votes for cell in getattr(some, name)] for name in ("first", "second", "points")
            )
            groups = [group for group, some in votes for _ in some.first]
            ranking = rank(ItemComparisons(3, first, second, points, groups), resamples=300)
            hits += [a <= share <= b for a, share, b in zip(ranking.low, true, ranking.high, strict=True)]
        print(f"  {prompts} prompts: {np.mean(hits):.1%}")


def measure_false_alarms(random, simulations):
    print(f"share of {simulations} simulations in which equal values are called different (at most 5 % is right)")
    for items, count, ties in ((2, 40, 0.0), (4, 100, 0.3), (8, 200, 0.0)):
        wrong = [bool(rank(vote(random, np.zeros(items), count, ties)).apart) for _ in range(simulations)]
        print(f"  {items} values, {count} votes, {ties:.0%} ties: {np.mean(wrong):.1%}")


def measure_false_alarms_of_few(random, simulations):
    """Prompts or voters have tastes of their own, and the values are equal over all of them."""
    print(f"the same where prompts or voters differ: 3 values, 10 votes each, {simulations} simulations")
    for kind, size in (("prompts", 6), ("prompts", 20), ("voters", 6), ("voters", 20)):
        wrong = []
        for _ in range(simulations):
            own = random.normal(0, 1.0, (size, 3))
            votes = [(who, vote(random, own[who], 10)) for who in range(size)]
            first, second, points = (
                [cell for _, some in votes for cell in getattr(some, name)] for name in ("first", "second", "points")
            )
            whose = [who for who, some in votes for _ in some.first]
            wrong.append(bool(rank(ItemComparisons(3, first, second, points, **{kind: whose}), resamples=300).apart))
        print(f"  {size} {kind}: {np.mean(wrong):.1%}")
    stopped = [
        any(compute_sign_p(won := answers[:end].sum(), end - won) <= 0.05 for end in range(6, 61))
        for answers in (random.random((simulations, 60)) < 0.5).astype(float)
    ]
    print(f"  a voter who looks after each of 60 votes and stops at the first *better*: {np.mean(stopped):.1%}")


def measure_speed(random):
    comparisons = vote(random, random.normal(size=6), 2000)
    fit_strengths(comparisons)
    start = time.perf_counter()
    rank(comparisons)
    print(f"a ranking of 6 values with intervals from 2,000 votes: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=200)
    given = parser.parse_args()
    source = np.random.default_rng(1)
    measure_speed(source)
    measure_coverage(source, given.simulations)
    measure_coverage_of_groups(source, given.simulations)
    measure_false_alarms(source, given.simulations)
    measure_false_alarms_of_few(source, given.simulations)
