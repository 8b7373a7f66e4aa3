"""Choose the pair of pictures whose answer says most. The choice depends only on the pictures, the votes and the voter.

All pairs that a voter has not answered come before any pair is repeated. Among them, in this order:

1. One pair in four is one that another voter answered, so that their agreement can be measured.
2. In the results of a search, a point that lacks votes; then any that the search asked for.
3. The two values whose order is least known: the expected gain of information about their strengths. In the results of
   a search it counts more for good points, because the search learns from the best.
4. The prompt, the seed and the values of the other axes that votes have met least often.
5. The pair that was answered least often.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sweeper.statistics.ranking import Floats, compute_win_chances, fit_strengths
from sweeper.store.votes import Vote
from sweeper.tables.vote_pictures import VoteAxis, VotePictures, list_answers, review_points, to_comparisons

_MAX_PAIRS: Final = 200_000  # with more, a sample is taken, so that a choice takes milliseconds
_SHARED_EVERY: Final = 4
_GAIN_STEP: Final = 0.8  # gains within this factor count as equal, so that prompts and seeds decide
_GOOD_WEIGHT: Final = 0.5  # a gain counts as much as this power of the strengths of the two points

Integers: TypeAlias = NDArray[np.int64]
Pair = tuple[str, int, int]  # the name of the axis, and the indices of two pictures


class PairChoice:
    """All pairs of pictures that differ in one of some axes and in nothing else.

    Pairs of equal pictures are left out, because nobody can tell them apart; `equal_count` counts them.
    """

    def __init__(self, pictures: VotePictures, axes: Sequence[VoteAxis]) -> None:
        self._pictures = pictures
        self._axes = axes
        self.equal_count = 0
        self._rows: dict[tuple[str, str], int] = {}  # by the content of both pictures, sorted
        pairs: list[tuple[int, int, int]] = []
        for number, axis in enumerate(axes):
            for this, other in _list_pairs(axis, _MAX_PAIRS // len(axes)):
                first, second = sorted(pictures.get_content(pictures.all[index].sha256) for index in (this, other))
                if first == second:
                    self.equal_count += 1
                elif self._rows.setdefault((first, second), len(pairs)) == len(pairs):
                    pairs.append((number, this, other))
        self.count = len(pairs)
        table = np.array(pairs, dtype=np.int64).reshape(-1, 3)
        self._axis_of, self._first, self._second = table.T
        self._order = np.random.default_rng(0).permutation(self.count)

    def has_pair(self, vote: Vote) -> bool:
        return self._pictures.get_pair(vote) in self._rows

    def count_answered(self, votes: Sequence[Vote], voter: str) -> int:
        own = {self._pictures.get_pair(vote) for vote in votes if vote.counts and vote.voter == voter}
        return len(own & self._rows.keys())

    def fit(self, votes: Sequence[Vote]) -> list[tuple[Floats, Floats]]:
        """What is known about the values of each axis: the strengths, and the variance of each difference of two."""
        fits = []
        for axis in self._axes:
            comparisons = to_comparisons(axis, list_answers(self._pictures, axis, votes))
            strengths, covariance = fit_strengths(comparisons)
            own = np.diag(covariance)
            fits.append((strengths, np.maximum(own[:, None] + own[None, :] - 2.0 * covariance, 0.0)))
        return fits

    def count_settled(self, fits: Sequence[tuple[Floats, Floats]]) -> tuple[int, int]:
        """How many pairs of values the votes tell apart, and how many pairs of values there are, on all axes."""
        settled = total = 0
        for strengths, variances in fits:
            pairs = len(strengths) * (len(strengths) - 1) // 2
            limit = NormalDist().inv_cdf(1.0 - 0.025 / pairs)  # 95 % for all pairs of an axis together (Bonferroni)
            differences = np.abs(strengths[:, None] - strengths[None, :])
            settled += int(np.triu(differences > limit * np.sqrt(variances), 1).sum())
            total += pairs
        return settled, total

    def choose(
        self,
        votes: Sequence[Vote],
        voter: str,
        fits: Sequence[tuple[Floats, Floats]],
        *,
        again: bool = False,
        skip: Collection[str] = (),
    ) -> Pair | None:
        """The next pair, or None if there is none. `fits`: what `fit` returns for these votes.

        `again`: repeat pairs when the voter has answered all. `skip`: the SHA-256 of pictures that cannot be shown.
        """
        own, others = np.zeros(self.count, dtype=np.int64), np.zeros(self.count, dtype=np.int64)
        counted = [vote for vote in votes if vote.counts]
        for vote in counted:
            row = self._rows.get(self._pictures.get_pair(vote))
            if row is not None:
                (own if vote.voter == voter else others)[row] += 1
        left = np.arange(self.count)
        if skip:
            broken = set(map(self._pictures.get_content, skip))
            left = np.array([row for key, row in self._rows.items() if not {*key} & broken], dtype=np.int64)
        left = _keep_least(left, own)
        if not len(left) or (own[left[0]] and not again):
            return None
        if sum(vote.voter == voter for vote in counted) % _SHARED_EVERY == _SHARED_EVERY - 1:
            left = _keep_least(left, others == 0)
        left = _keep_least(left, self._rank_points(counted))
        left = _keep_least(left, self._rank_gains(fits, left))
        left = _keep_least(left, self._count_uses(own + others))
        left = _keep_least(left, own + others)
        turn = (self._order + zlib.crc32(voter.encode())) % self.count  # voters begin with different pairs
        (row, *_) = _keep_least(left, turn)
        return self._axes[self._axis_of[row]].name, int(self._first[row]), int(self._second[row])

    def _rank_points(self, votes: Sequence[Vote]) -> Integers:
        """A number for each pair, by the points of a search that it compares.

        Those with a point that lacks votes come first. Then points that the search asked for are compared with each
        other and with older ones that have votes; older ones among themselves come late, and those without votes last.
        """
        ranks = np.zeros(self.count, dtype=np.int64)
        for number, axis in enumerate(self._axes):
            if axis.is_point:
                found, every = review_points(self._pictures, axis, votes), range(len(axis.values))
                lacks = np.array([point in found.lacking for point in every])
                is_old = np.array([point not in found.asked for point in every])
                is_unknown = is_old & ~np.array([point in found.scored for point in every])
                rows = self._axis_of == number
                this, other = (np.asarray(axis.value_of)[side[rows]] for side in (self._first, self._second))
                late = np.where(is_unknown[this] | is_unknown[other], 2, is_old[this] & is_old[other])
                ranks[rows] = late + 3 * ~(lacks[this] | lacks[other])
        return ranks

    def _rank_gains(self, fits: Sequence[tuple[Floats, Floats]], left: Integers) -> Integers:
        """A number for each pair: 0 for those with the largest expected gain of information, more for others."""
        gains = np.zeros(self.count)
        for number, (axis, (strengths, variances)) in enumerate(zip(self._axes, fits, strict=True)):
            wins = compute_win_chances(strengths)
            by_values = np.log1p(wins * wins.T * variances)  # for a Gaussian approximation of what is known
            if axis.is_point:
                by_values *= np.exp(_GOOD_WEIGHT * (strengths[:, None] + strengths[None, :]))
            values, rows = np.asarray(axis.value_of), self._axis_of == number
            gains[rows] = by_values[values[self._first[rows]], values[self._second[rows]]]
        steps = np.log(np.maximum(gains, 1e-300) / gains[left].max()) / np.log(_GAIN_STEP)
        return np.asarray(np.floor(steps + 1e-9), dtype=np.int64)

    def _count_uses(self, counts: Integers) -> Floats:
        """For each pair, how often votes met its values of the other axes, compared with an equal share."""
        uses = np.zeros(self.count)
        for axis in self._pictures.axes:
            values = np.asarray(axis.value_of)[self._first]
            varies = np.array([axis.name == candidate.name for candidate in self._axes])[self._axis_of]
            met = np.bincount(values, np.where(varies, 0, counts), len(axis.values))
            uses += np.where(varies, 0.0, met[values] * len(axis.values))
        return uses


def _keep_least(rows: Integers, key: NDArray[np.generic]) -> Integers:
    """Those of some rows whose key is the smallest."""
    keys = key[rows]
    return rows[keys == keys.min()] if len(rows) else rows


def _list_pairs(axis: VoteAxis, limit: int) -> Iterator[tuple[int, int]]:
    """The pairs of pictures with different values in the same context; with more than `limit`, a sample of them."""
    members = axis.group_contexts()
    random = np.random.default_rng(0)
    share = limit / max(sum(len(group) * (len(group) - 1) // 2 for group in members.values()), 1)
    for group in members.values():
        count = len(group) * (len(group) - 1) // 2
        if share >= 1.0:
            drawn = np.column_stack(np.triu_indices(len(group), 1))
        else:
            drawn = random.integers(0, len(group), (int(np.ceil(count * share)), 2))
        for this, other in drawn.tolist():
            if axis.value_of[group[this]] != axis.value_of[group[other]]:
                yield group[this], group[other]
