"""Rank items by the answers to "which of these two is better?": Bradley-Terry strengths, intervals, agreement.

An item's number is its share: the part of its comparisons with the other items that it is expected to win, a tie being
half a win. Strengths are those of Bradley and Terry (1952), which evalica computes by Newman's method (2023,
https://www.jmlr.org/papers/v24/22-1086.html). Each item also has one win and one loss against an imagined average item.
So no strength is infinite, and items that nobody compared with each other still have a place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import comb, perm, sqrt
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sweeper.statistics.codes import LEVEL

Floats: TypeAlias = NDArray[np.float64]

MIN_GROUPS: Final = 10  # with fewer groups, their resamples are too much alike, and the intervals too narrow
MIN_SAMPLE: Final = 6  # of prompts or of voters: fewer say nothing about others, so what is said is about these alone
_FEWEST_DIRECT: Final = 6  # with fewer votes, even a sign test that all of them agree on finds nothing
_MIN_SIDES: Final = 12  # votes for a side, from which on a voter's habit is looked for
_ONE_SIDED_P: Final = 0.001  # of the sign test; small, because everybody is tested at each look at the votes
_TIE: Final = 0.5  # points of a tie
_TOLERANCE: Final = 1e-6  # of the strengths
_MAX_STEPS: Final = 1000
_RESAMPLED_PRIOR: Final = 1e-3  # wins against the average item that every resample keeps, so that strengths stay finite


@dataclass(frozen=True, slots=True)
class ItemComparisons:
    """Comparisons of items, which are numbered from 0. One entry of each list is one comparison.

    `points`: what the first item got: 1 for a win, 0.5 for a tie, 0 for a loss. `groups`: comparisons that are alike,
    such as those of the same prompt and seed, have the same value; `prompts` and `voters` say of whom each is.
    """

    count: int
    first: Sequence[int]
    second: Sequence[int]
    points: Sequence[float]
    groups: Sequence[Hashable] = ()
    prompts: Sequence[Hashable] = ()
    voters: Sequence[Hashable] = ()

    def count_wins(self) -> Floats:
        """How often the item of the row won against that of the column. Ties do not count."""
        wins = np.zeros((self.count, self.count))
        for first, second, points in zip(self.first, self.second, self.points, strict=True):
            if points != _TIE:
                wins[(first, second) if points > _TIE else (second, first)] += 1
        return wins


@dataclass(frozen=True, slots=True)
class Ranking:
    """The shares of the items, and the ends of their 95 % intervals. `apart`: pairs (better, worse) that differ surely.

    A pair is in `apart` if the better item is stronger in so many resamples that the chance of one wrong pair among all
    pairs is at most 5 % (Bonferroni), and the exact sign test agrees at 5 %. `by_groups`: the resamples draw groups,
    else single comparisons. `prompts` and `voters`: how many there are, if they are too few to speak for others.
    """

    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    apart: frozenset[tuple[int, int]]
    by_groups: bool
    prompts: int | None
    voters: int | None


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


def rank(comparisons: ItemComparisons, *, resamples: int = 1000, seed: int = 0) -> Ranking:
    """Rank the items, with intervals by a bootstrap: draw comparisons with replacement, and fit again.

    What is drawn are the prompts, and the voters, if there are at least six of each (of both, the numbers of their
    draws are multiplied: Owen, Annals of Applied Statistics 1, 2007, 386-411). With fewer prompts it is the groups,
    and with fewer than ten of these, single comparisons. It also draws the wins against the average item; without that,
    the interval of an item that won every comparison would have no width.
    """
    model, random = _Model(comparisons), np.random.default_rng(seed)
    count = len(comparisons.first)
    prompts, voters, groups = (
        _number(codes) if len(codes) else np.zeros(count, dtype=int)
        for codes in (comparisons.prompts, comparisons.voters, comparisons.groups)
    )
    sizes = [int(codes.max(initial=-1)) + 1 for codes in (prompts, voters, groups)]
    drawn_by = [codes for codes, size in zip((prompts, voters), sizes, strict=False) if size >= MIN_SAMPLE]
    if sizes[0] < MIN_SAMPLE and sizes[2] >= MIN_GROUPS:
        drawn_by.append(groups)
    draws = [(codes, int(codes.max(initial=-1)) + 1) for codes in drawn_by or [np.arange(count)]]
    fits = []
    for prior in random.poisson(1.0, (resamples, 2, comparisons.count)) + _RESAMPLED_PRIOR:
        drawn = [random.multinomial(size, np.full(size, 1 / size))[codes] for codes, size in draws if size]
        fits.append(model.fit(np.prod(drawn, axis=0, dtype=float) if drawn else np.zeros(0), prior))
    fitted = model.fit()
    wider = max((_compute_t_factor(size) for _, size in draws), default=1.0) if drawn_by else 1.0
    strengths = fitted + wider * (np.array(fits).reshape(resamples, comparisons.count) - fitted)
    low, high = np.quantile(to_shares(strengths), [0.025, 0.975], axis=0)
    wins, better = comparisons.count_wins(), (strengths[:, :, None] > strengths[:, None, :]).mean(axis=0)
    limit = 1 - LEVEL / max(perm(comparisons.count, 2), 1)  # one end of the interval of each pair
    apart = frozenset(
        pair
        for pair in permutations(range(comparisons.count), 2)
        if better[pair] >= limit and _compute_sign_p(wins, *pair) <= LEVEL
    )
    few = [size if size < MIN_SAMPLE else None for size in sizes[:2]]
    return Ranking(
        tuple(to_shares(fitted).tolist()), tuple(low.tolist()), tuple(high.tolist()), apart, bool(drawn_by), *few,
    )  # fmt: skip


def _number(codes: Sequence[Hashable]) -> NDArray[np.int64]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(code, len(numbers)) for code in codes], dtype=np.int64)


def find_cycle(wins: Floats) -> tuple[int, int, int] | None:
    """Three items that each won against the next more often than chance allows (sign test at 5 %), if there are any."""
    beats = {
        (item, other)
        for item, other in zip(*np.nonzero(wins > wins.T), strict=True)
        if compute_sign_p(wins[item, other], wins[other, item]) <= LEVEL
    }
    cycles = ((a, b, c) for a, b in beats for c in range(len(wins)) if a < min(b, c) and {(b, c), (c, a)} <= beats)
    return next(cycles, None)


def _compute_sign_p(wins: Floats, better: int, worse: int) -> float:
    """The sign test of two items: of their direct comparisons or, if these are few, of all that one of them is in."""
    won, lost = wins[better, worse], wins[worse, better]
    if won + lost < _FEWEST_DIRECT:
        won, lost = (
            wins[a].sum() + wins[:, b].sum() - wins[a, b] for a, b in ((better, worse), (worse, better))
        )  # fmt: skip
    return compute_sign_p(won, lost) if won > lost else 1.0


def compute_sign_p(won: float, lost: float) -> float:
    """The two-sided p-value of the exact sign test."""
    return min(1.0, 2 * float(special.bdtr(int(min(won, lost)), int(won + lost), 0.5)))


def find_one_sided(choices: Iterable[tuple[str, str]]) -> dict[str, Mapping[str, int]]:
    """Return the voters who chose one of two sides so often that they seem not to look, each with the counts.

    `choices`: the voter and the side of each vote for a side, which is drawn at random.
    """
    counts: dict[str, Counter[str]] = {}
    for voter, side in choices:
        counts.setdefault(voter, Counter())[side] += 1
    return {
        voter: sides
        for voter, sides in counts.items()
        if sides.total() >= _MIN_SIDES
        and compute_sign_p(most := max(sides.values()), sides.total() - most) < _ONE_SIDED_P
    }


def _compute_t_factor(count: int) -> float:
    """How much wider the 95 % interval of a mean of `count` values is than the resamples of the values make it."""
    quantile = special.stdtrit(count - 1, 0.975)
    return float(quantile / NormalDist().inv_cdf(0.975) * sqrt(count / (count - 1)))


def estimate_share(
    points: Sequence[float], clusterings: Iterable[Sequence[Hashable]]
) -> tuple[float, float, float, float]:
    """The mean of points from 0 to 1, the ends of its 95 % interval, and how many independent points say as much.

    Points of the same cluster may be alike. The exact interval of a binomial share (Clopper and Pearson, Biometrika 26,
    1934, 404-413), for that many points (Korn and Graubard, Survey Methodology 24, 1998, 193-201). Of several
    clusterings, the one with the fewest counts; no cluster says less than one point.
    """
    values = np.asarray(points, dtype=float)
    count, share = len(values), float(values.mean())
    squares, effective = float(np.square(values - share).sum()), float(count)
    for codes in map(_number, clusterings):
        clusters = int(codes.max()) + 1
        fewest = count**2 / float(np.square(np.bincount(codes)).sum())
        sums = float(np.square(np.bincount(codes, values - share)).sum())
        if clusters > 1 and sums:
            inflation = sums / squares * clusters / (clusters - 1) * (count - 1) / count
            ratio = float(special.stdtrit(count - 1, 0.975) / special.stdtrit(clusters - 1, 0.975))
            fewest = max(fewest, count / inflation * ratio**2)
        effective = min(effective, fewest)
    won = share * effective
    low = float(special.betaincinv(won, effective - won + 1, LEVEL / 2)) if won > 0 else 0.0
    high = float(special.betaincinv(won + 1, effective - won, 1 - LEVEL / 2)) if won < effective else 1.0
    return share, low, high, effective


def measure_agreement(answers: Mapping[str, Mapping[Hashable, str]]) -> Agreement:
    """Compare the answers of voters: voter -> unit -> answer."""
    by_unit: dict[Hashable, Counter[str]] = {}
    for given in answers.values():
        for unit, answer in given.items():
            by_unit.setdefault(unit, Counter())[answer] += 1
    shared = {unit: counts for unit, counts in by_unit.items() if counts.total() > 1}
    same = sum(comb(number, 2) for counts in shared.values() for number in counts.values())
    pairs = sum(comb(counts.total(), 2) for counts in shared.values())
    codes = {name: float(code) for code, name in enumerate(sorted(set[str]().union(*shared.values())))}
    if len(codes) < 2:
        return Agreement(same, pairs, None)
    import evalica  # noqa: PLC0415 - it and pandas take one to three seconds
    import pandas as pd  # noqa: PLC0415

    rows = [[codes.get(given.get(unit, "")) for unit in shared] for given in answers.values()]
    return Agreement(same, pairs, float(evalica.alpha(pd.DataFrame(rows, dtype="float64"), distance="nominal").alpha))


class _Model:
    """Comparisons as evalica takes them: one row for each two items and result, with a weight.

    The last item is the average one. The last rows are the win and the loss of each item against it.
    """

    def __init__(self, comparisons: ItemComparisons) -> None:
        import evalica  # noqa: PLC0415
        from pandas import Index, RangeIndex  # noqa: PLC0415

        self._fit = evalica.bradley_terry
        win, loss, tie = (evalica.Winner[name] for name in ("X", "Y", "Draw"))
        count = comparisons.count
        rows: dict[tuple[int, int, float], int] = {}
        keys = zip(comparisons.first, comparisons.second, comparisons.points, strict=True)
        self._row_of = np.array([rows.setdefault(key, len(rows)) for key in keys], dtype=int)
        self._row_count = len(rows)
        self._index = RangeIndex(count + 1)
        self._first = Index([*(first for first, _, _ in rows), *[*range(count)] * 2])
        self._second = Index([*(second for _, second, _ in rows), *[count] * (2 * count)])
        winners = [{1.0: win, 0.0: loss}.get(points, tie) for _, _, points in rows]
        self._winners = [*winners, *[win] * count, *[loss] * count]

    def fit(self, weights: Floats | None = None, prior: Floats | None = None) -> Floats:
        """The logarithms of the strengths, that of the average item being 0.

        `weights`: one for each comparison. `prior`: the wins and the losses of each item against the average item.
        """
        if len(self._index) == 1:
            return np.zeros(0)
        counts = np.bincount(self._row_of, weights, self._row_count)
        scores = self._fit(
            self._first, self._second, self._winners, index=self._index,
            weights=[*counts, *(np.ones(2 * len(self._index) - 2) if prior is None else prior.ravel())],
            tolerance=_TOLERANCE, limit=_MAX_STEPS,
        ).scores  # fmt: skip
        strengths = np.empty(len(scores))
        strengths[scores.index] = np.log(scores.to_numpy())
        return np.asarray(strengths[:-1] - strengths[-1])
