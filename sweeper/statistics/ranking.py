"""Rank items by the answers to "which of these two is better?": Bradley-Terry strengths, intervals, agreement.

An item's number is its share: the part of its comparisons with the other items that it is expected to win, a tie being
half a win. Strengths are those of Bradley and Terry (1952), which evalica computes by Newman's method (2023,
https://www.jmlr.org/papers/v24/22-1086.html). Each item also has one win and one loss against an imagined average item.
So no strength is infinite, and items that nobody compared with each other still have a place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import Final

import evalica
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

RESAMPLES: Final = 1000
MIN_GROUPS: Final = 10  # with fewer groups, their resamples are too much alike, and the intervals too narrow
_TOLERANCE: Final = 1e-6  # of the strengths
_MAX_STEPS: Final = 1000
_RESAMPLED_PRIOR: Final = 1e-3  # wins against the average item that every resample keeps, so that strengths stay finite


@dataclass(frozen=True, slots=True)
class ItemComparisons:
    """Comparisons of items, which are numbered from 0. One entry of each list is one comparison.

    `points`: what the first item got: 1 for a win, 0.5 for a tie, 0 for a loss. `groups`: comparisons that are alike,
    such as those of the same prompt and seed, have the same value.
    """

    count: int
    first: Sequence[int]
    second: Sequence[int]
    points: Sequence[float]
    groups: Sequence[Hashable] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """The shares of the items, and the ends of their 95 % intervals. `apart`: pairs (better, worse) that differ surely.

    A pair is in `apart` if the better item is stronger in so many resamples that the chance of one wrong pair among all
    pairs is at most 5 % (Bonferroni). `by_groups`: the resamples draw groups, else single comparisons.
    """

    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    apart: frozenset[tuple[int, int]]
    by_groups: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far several voters agree on the units that at least two of them answered.

    `pairs` counts the pairs of answers to the same unit, `same` those that are equal. `alpha` is Krippendorff's: 1 is
    full agreement, 0 what chance would give; None if all answers are the same, or there are none to compare.
    """

    same: int
    pairs: int
    alpha: float | None


def compute_shares(comparisons: ItemComparisons) -> Floats:
    """The share of each item. An item without a comparison has what an average one would have."""
    return to_shares(_Model(comparisons).fit())


def fit_strengths(comparisons: ItemComparisons) -> tuple[Floats, Floats]:
    """The logarithms of the strengths, and their covariance by the curvature of the likelihood (one square matrix)."""
    strengths = _Model(comparisons).fit()
    wins = compute_win_chances(strengths)
    counts = np.zeros(wins.shape)
    np.add.at(counts, (list(comparisons.first), list(comparisons.second)), 1.0)
    curvature = (counts + counts.T) * wins * wins.T
    average = 1.0 / (1.0 + np.exp(-strengths))
    information = np.diag(curvature.sum(axis=1) + 2.0 * average * (1.0 - average)) - curvature
    return strengths, np.asarray(np.linalg.inv(information))


def compute_win_chances(strengths: Floats) -> Floats:
    """The chance that the item of the row beats that of the column, from logarithms of strengths."""
    return np.asarray(1.0 / (1.0 + np.exp(strengths[..., None, :] - strengths[..., :, None])))


def to_shares(strengths: Floats) -> Floats:
    """The mean chance of each item to beat one of the others; 0.5 if it is the only one."""
    count = strengths.shape[-1]
    return (compute_win_chances(strengths).sum(axis=-1) - 0.5) / (count - 1) if count > 1 else 0.0 * strengths + 0.5


def rank(comparisons: ItemComparisons, *, resamples: int = RESAMPLES, seed: int = 0) -> Ranking:
    """Rank the items, with intervals by a bootstrap: draw the groups of comparisons with replacement, and fit again.

    With fewer than ten groups, it draws single comparisons. It also draws the wins against the average item; without
    that, the interval of an item that won every comparison would have no width.
    """
    model, random = _Model(comparisons), np.random.default_rng(seed)
    numbers: dict[Hashable, int] = {}
    group_of = np.array([numbers.setdefault(group, len(numbers)) for group in comparisons.groups], dtype=int)
    by_groups = len(numbers) >= MIN_GROUPS
    if not by_groups:
        group_of = np.arange(len(comparisons.first))
    size = len(numbers) if by_groups else len(group_of)
    drawn = random.multinomial(size, np.full(size, 1 / size), resamples) if size else np.zeros((resamples, 0))
    prior = random.poisson(1.0, (resamples, 2, comparisons.count)) + _RESAMPLED_PRIOR
    fits = [model.fit(weights[group_of], wins) for weights, wins in zip(drawn, prior, strict=True)]
    fitted = model.fit()
    wider = _compute_t_factor(size) if by_groups else 1.0
    strengths = fitted + wider * (np.array(fits).reshape(resamples, comparisons.count) - fitted)
    low, high = np.quantile(to_shares(strengths), [0.025, 0.975], axis=0)
    return Ranking(
        tuple(to_shares(fitted).tolist()), tuple(low.tolist()), tuple(high.tolist()),
        _find_apart(strengths), by_groups,
    )  # fmt: skip


def _compute_t_factor(count: int) -> float:
    """How much wider the 95 % interval of a mean of `count` values is than the resamples of the values make it."""
    quantile = special.stdtrit(count - 1, 0.975)
    return float(quantile / NormalDist().inv_cdf(0.975) * sqrt(count / (count - 1)))


def _find_apart(strengths: Floats) -> frozenset[tuple[int, int]]:
    count = strengths.shape[1]
    if count < 2:
        return frozenset()
    better = (strengths[:, :, None] > strengths[:, None, :]).mean(axis=0)
    limit = 1.0 - 0.05 / (count * (count - 1))  # one end of the interval of each of the count * (count - 1) / 2 pairs
    return frozenset((this, other) for this in range(count) for other in range(count) if better[this, other] >= limit)


def measure_agreement(answers: Mapping[str, Mapping[Hashable, str]]) -> Agreement:
    """Compare the answers of voters: voter -> unit -> answer."""
    by_unit: dict[Hashable, Counter[str]] = {}
    for given in answers.values():
        for unit, answer in given.items():
            by_unit.setdefault(unit, Counter())[answer] += 1
    shared = {unit: counts for unit, counts in by_unit.items() if counts.total() > 1}
    same = sum(comb(number, 2) for counts in shared.values() for number in counts.values())
    pairs = sum(comb(counts.total(), 2) for counts in shared.values())
    names = sorted({answer for counts in shared.values() for answer in counts})
    if len(names) < 2:
        return Agreement(same, pairs, None)
    codes = {name: float(code) for code, name in enumerate(names)}
    columns = {
        number: [codes[given[unit]] if unit in given else None for given in answers.values()]
        for number, unit in enumerate(shared)
    }
    table = pd.DataFrame(columns, dtype="float64")
    return Agreement(same, pairs, float(evalica.alpha(table, distance="nominal").alpha))


class _Model:
    """Comparisons as evalica takes them: one row for each two items and result, with a weight.

    The last item is the average one. The last rows are the win and the loss of each item against it.
    """

    def __init__(self, comparisons: ItemComparisons) -> None:
        win, loss, tie = (evalica.Winner[name] for name in ("X", "Y", "Draw"))
        count = comparisons.count
        rows: dict[tuple[int, int, float], int] = {}
        keys = zip(comparisons.first, comparisons.second, comparisons.points, strict=True)
        self._row_of = np.array([rows.setdefault(key, len(rows)) for key in keys], dtype=int)
        self._row_count = len(rows)
        self._index = pd.RangeIndex(count + 1)
        self._first = [first for first, _, _ in rows] + [*range(count)] * 2
        self._second = [second for _, second, _ in rows] + [count] * (2 * count)
        winners = [{1.0: win, 0.0: loss}.get(points, tie) for _, _, points in rows]
        self._winners = [*winners, *[win] * count, *[loss] * count]
        self._prior = np.ones((2, count))

    def fit(self, weights: Floats | None = None, prior: Floats | None = None) -> Floats:
        """The logarithms of the strengths, that of the average item being 0.

        `weights`: one for each comparison. `prior`: the wins and the losses of each item against the average item.
        """
        if len(self._index) == 1:
            return np.zeros(0)
        counts = np.bincount(self._row_of, weights, self._row_count)
        scores = evalica.bradley_terry(
            self._first, self._second, self._winners, index=self._index,
            weights=[*counts, *(self._prior if prior is None else prior).ravel()],
            tolerance=_TOLERANCE, limit=_MAX_STEPS,
        ).scores  # fmt: skip
        strengths = np.log(scores.sort_index().to_numpy())
        return np.asarray(strengths[:-1] - strengths[-1])
