"""What the votes of a folder say: about the values of an axis, about single pictures, and how far voters agree.

"Both bad" counts as a tie, because it does not say which picture is better. It is also counted on its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np

from sweeper.model.search_columns import ROUND, VOTES_METRIC
from sweeper.statistics.extra_packages import load_stats_package
from sweeper.statistics.ranking import Agreement, ItemComparisons, Ranking, compute_shares, measure_agreement, rank
from sweeper.store import Store
from sweeper.store.votes import BAD, LEFT, RIGHT, TIE, Vote
from sweeper.tables.vote_pictures import VoteAxis, VotePictures

VOTES_PER_POINT: Final = 2.5  # before a search goes on; tests/benchmarks/search_votes.py compares other numbers
_POINTS: Final = {LEFT: 1.0, TIE: 0.5, BAD: 0.5, RIGHT: 0.0}  # of the left picture, by answer
_OF_RIGHT: Final = {LEFT: RIGHT, RIGHT: LEFT}  # the answer as the right picture sees it


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """How often something won, was as good as the other, lost, and was one of two bad ones."""

    won: int = 0
    tied: int = 0
    lost: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class ValueRanking:
    """The ranking of the values of an axis, and the counts of each. `votes` is the number of votes that it uses."""

    axis: VoteAxis
    ranking: Ranking
    counts: tuple[AnswerCounts, ...]
    votes: int


def rank_values(pictures: VotePictures, axis: VoteAxis, votes: Iterable[Vote]) -> ValueRanking:
    """Rank the values of an axis by the votes about it, over all prompts, seeds and other axes."""
    answers = _list_answers(pictures, axis, votes)
    by_value = _count_answers((left, right, answer) for left, right, _, answer in answers)
    counts = tuple(by_value.get(value, AnswerCounts()) for value in range(len(axis.values)))
    return ValueRanking(axis, rank(_to_comparisons(axis, answers)), counts, len(answers))


def compare_values(pictures: VotePictures, axis: VoteAxis, votes: Iterable[Vote]) -> ItemComparisons:
    """The votes about an axis as comparisons of its values. A group is what is equal on both sides."""
    return _to_comparisons(axis, _list_answers(pictures, axis, votes))


def _to_comparisons(axis: VoteAxis, answers: Sequence[tuple[int, int, int, str]]) -> ItemComparisons:
    left, right, groups, given = zip(*answers, strict=True) if answers else ((), (), (), ())
    return ItemComparisons(len(axis.values), left, right, [_POINTS[answer] for answer in given], groups)


def _list_answers(pictures: VotePictures, axis: VoteAxis, votes: Iterable[Vote]) -> list[tuple[int, int, int, str]]:
    """(left value, right value, context, answer) of each vote that counts, if its trials are still in the table."""
    answers = []
    for vote in votes:
        if vote.answer is None or not vote.counts:
            continue
        left = pictures.find(vote.left_digest, vote.left_sha256)
        right = pictures.find(vote.right_digest, vote.right_sha256)
        # Whatever the axis was called when the vote was given: axes may vary together now that did not then.
        if left is not None and right is not None and axis.separates(left, right):
            answers.append((axis.value_of[left], axis.value_of[right], axis.context_of[left], vote.answer))
    return answers


def count_pictures(votes: Iterable[Vote]) -> dict[Hashable, AnswerCounts]:
    """The counts of each picture, by SHA-256."""
    return _count_answers((v.left_sha256, v.right_sha256, v.answer) for v in votes if v.answer and v.counts)


def _count_answers(answers: Iterable[tuple[Hashable, Hashable, str]]) -> dict[Hashable, AnswerCounts]:
    counts: dict[Hashable, Counter[str]] = {}
    for left, right, answer in answers:
        counts.setdefault(left, Counter())[answer] += 1
        counts.setdefault(right, Counter())[_OF_RIGHT.get(answer, answer)] += 1
    return {item: AnswerCounts(c[LEFT], c[TIE], c[RIGHT], c[BAD]) for item, c in counts.items()}


@dataclass(frozen=True, slots=True)
class PointVotes:
    """What the votes about the points of a search still lack. Points are numbered as the values of their axis.

    `asked`: the points that the search asked for; others were done before it and need no votes, because a grid may have
    thousands. `lacking`: those of `asked` that no vote is about, though a voter could compare them with another point.
    `scored`: the points whose share says something. `needed`: about how many more votes let a search by votes go on.
    """

    asked: AbstractSet[int]
    lacking: AbstractSet[int]
    scored: AbstractSet[int]
    needed: int


def review_points(pictures: VotePictures, points: VoteAxis, votes: Iterable[Vote]) -> PointVotes:
    """Find out what the votes about points lack: one about each, and `VOTES_PER_POINT` on average."""
    asked = {points.value_of[index] for index, picture in enumerate(pictures.all) if picture.row.metrics.get(ROUND)}
    sides = [{left, right} for left, right, _, _ in _list_answers(pictures, points, votes)]
    voted = {value for pair in sides for value in pair}
    wanted = math.ceil(VOTES_PER_POINT * len(asked))
    comparable, pairs = _find_comparable(pictures, points, asked, wanted)
    lacking = comparable - voted
    needed = min(wanted, pairs) - sum(bool(pair & asked) for pair in sides)
    return PointVotes(asked, lacking, voted | (asked - comparable), max(needed, math.ceil(len(lacking) / 2)))


def _find_comparable(
    pictures: VotePictures, points: VoteAxis, asked: AbstractSet[int], enough: int
) -> tuple[set[int], int]:
    """Find the points that have a pair with another one, and count the pairs of files until there are enough."""
    groups: dict[int, list[int]] = {}
    for index, context in enumerate(points.context_of):
        groups.setdefault(context, []).append(index)
    found: set[int] = set()
    pairs: set[frozenset[str]] = set()
    for index, (value, context) in enumerate(zip(points.value_of, points.context_of, strict=True)):
        for other in groups[context] if value in asked else ():
            if value in found and len(pairs) >= enough:
                break
            files = frozenset({pictures.all[index].sha256, pictures.all[other].sha256})
            if points.value_of[other] != value and len(files) > 1:
                found.add(value)
                pairs.add(files)
    return found, len(pairs)


def count_votes_needed(pictures: VotePictures, votes: Iterable[Vote]) -> int | None:
    """About how many more votes let a search by votes go on; None if the results are not those of one."""
    search, points = pictures.layout.search, pictures.points
    if search is None or points is None or all(objective.metric != VOTES_METRIC for objective in search.objectives):
        return None
    return review_points(pictures, points, votes).needed


def _score_points(pictures: VotePictures, points: VoteAxis, votes: Sequence[Vote]) -> dict[str, float]:
    """The share of the point of each picture, by SHA-256, for points with votes.

    The share is fitted over all points, so it stays comparable when a search adds some. A file that several points
    have gets the mean of theirs.
    """
    shares = compute_shares(compare_values(pictures, points, votes))
    scored = review_points(pictures, points, votes).scored
    found: dict[str, set[int]] = {}
    for picture, value in zip(pictures.all, points.value_of, strict=True):
        if value in scored:
            found.setdefault(picture.sha256, set()).add(value)
    return {sha256: round(float(np.mean(shares[[*values]])), 4) for sha256, values in found.items()}


def compare_voters(votes: Iterable[Vote]) -> Agreement:
    """How far voters agree about the same two pictures. A voter's last answer about them counts."""
    answers: dict[str, dict[Hashable, str]] = {}
    for vote in votes:
        if vote.answer is not None and vote.counts:
            is_first_left = vote.left_sha256 == vote.pictures[0]
            answer = vote.answer if is_first_left else _OF_RIGHT.get(vote.answer, vote.answer)
            answers.setdefault(vote.voter, {})[vote.pictures] = answer
    return measure_agreement(answers)


def score_pictures(votes: Iterable[Vote]) -> dict[str, float]:
    """The share of each picture that has a vote, by SHA-256: see `sweeper.statistics.ranking`.

    Pictures are compared with those that votes connect with them, which are usually those of the same prompt and seed.
    """
    counted = [vote for vote in votes if vote.counts]
    if not counted:
        return {}
    numbers: dict[str, int] = {}
    first = [numbers.setdefault(vote.left_sha256, len(numbers)) for vote in counted]
    second = [numbers.setdefault(vote.right_sha256, len(numbers)) for vote in counted]
    matrix = load_stats_package("scipy.sparse").coo_matrix
    links = matrix((np.ones(len(first)), (first, second)), shape=(len(numbers), len(numbers)))
    count, component_of = load_stats_package("scipy.sparse.csgraph").connected_components(links, directed=False)
    members: list[list[str]] = [[] for _ in range(count)]
    for sha256, number in numbers.items():
        members[component_of[number]].append(sha256)
    votes_of: list[list[Vote]] = [[] for _ in range(count)]
    for vote, number in zip(counted, first, strict=True):
        votes_of[component_of[number]].append(vote)
    return {
        sha256: share
        for shas, group in zip(members, votes_of, strict=True)
        for sha256, share in _score_component(shas, group).items()
    }


def _score_component(shas: Sequence[str], votes: Sequence[Vote]) -> dict[str, float]:
    numbers = {sha256: number for number, sha256 in enumerate(shas)}
    comparisons = ItemComparisons(
        len(shas),
        [numbers[vote.left_sha256] for vote in votes],
        [numbers[vote.right_sha256] for vote in votes],
        [_POINTS[vote.answer or TIE] for vote in votes],
    )
    return {sha256: round(share, 4) for sha256, share in zip(shas, compute_shares(comparisons).tolist(), strict=True)}


def _list_connected(votes: Iterable[Vote], vote: Vote) -> list[Vote]:
    """The votes that a vote is connected with: about the same pictures, or pictures that those were compared with."""
    waiting, known = list(votes), {vote.left_sha256, vote.right_sha256}
    connected: list[Vote] = []
    while nearer := [one for one in waiting if known & {*one.pictures}]:
        connected += nearer
        known.update(sha256 for one in nearer for sha256 in one.pictures)
        waiting = [one for one in waiting if not known & {*one.pictures}]
    return connected


def write_metric(store: Store, pictures: VotePictures, votes: Sequence[Vote], changed: Vote | None = None) -> None:
    """Write the metric of votes for the pictures that have one. Raises ResultsError.

    `changed`: the only vote that is new or was undone since. Other pictures of the same trials get no number, so that
    a row with several pictures has the mean of those with votes. In the results of a search, the number of a picture is
    the share of its point.
    """
    if pictures.points is not None:
        points = _score_points(pictures, pictures.points, votes)
        store.cache_metrics(
            [(sha256, VOTES_METRIC, share) for sha256, share in points.items()], discard=(VOTES_METRIC,)
        )
        return
    connected = votes if changed is None else _list_connected(votes, changed)
    scores: dict[str, float | None] = dict(score_pictures(connected))
    has_votes = {sha256 for vote in votes if vote.counts for sha256 in vote.pictures}
    touched = {sha256 for vote in connected for sha256 in vote.pictures}
    for row in {picture.row.digest: picture.row for picture in pictures.all if picture.sha256 in touched}.values():
        scores |= dict.fromkeys({*row.sha256} - has_votes)
    store.cache_metrics(
        [(sha256, VOTES_METRIC, score) for sha256, score in scores.items()],
        discard=() if changed is not None else (VOTES_METRIC,),
    )
