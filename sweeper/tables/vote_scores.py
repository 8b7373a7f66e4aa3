"""What votes are worth: as comparisons of the values of an axis, as a metric of pictures, and to a search of points."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from sweeper.model.search_columns import ROUND, VOTES_METRIC
from sweeper.statistics.ranking import ItemComparisons, compute_shares
from sweeper.store import Store
from sweeper.store.votes import BAD, LEFT, RIGHT, TIE, Vote
from sweeper.tables.vote_pictures import VoteAxis, VotePictures

VOTES_PER_POINT: Final = 2.5  # before a search goes on; tests/benchmarks/search_votes.py compares other numbers
_POINTS: Final = {LEFT: 1.0, TIE: 0.5, BAD: 0.5, RIGHT: 0.0}  # of the left picture, by answer


class GivenAnswer(NamedTuple):
    """A vote about an axis: both values, what is equal on both sides, and who answered what."""

    left: int
    right: int
    context: int
    prompt: Hashable
    voter: str
    answer: str


def to_comparisons(axis: VoteAxis, answers: Sequence[GivenAnswer]) -> ItemComparisons:
    """The votes about an axis as comparisons of its values. A group is what is equal on both sides."""
    left, right, groups, prompts, voters, given = zip(*answers, strict=True) if answers else ((),) * 6
    points = [_POINTS[answer] for answer in given]
    return ItemComparisons(len(axis.values), left, right, points, groups, prompts, voters)


def list_answers(pictures: VotePictures, axis: VoteAxis, votes: Iterable[Vote]) -> list[GivenAnswer]:
    """Each vote that counts, if its trials are still in the table."""
    answers = []
    for vote in pictures.keep_last(votes):
        first, second = pictures.get_pair(vote)
        if vote.answer is None or first == second:
            continue
        left = pictures.find(vote.left_digest, vote.left_sha256)
        right = pictures.find(vote.right_digest, vote.right_sha256)
        # Whatever the axis was called when the vote was given: axes may vary together now that did not then.
        if left is not None and right is not None and axis.separates(left, right):
            values = axis.value_of[left], axis.value_of[right]
            answers.append(GivenAnswer(*values, axis.context_of[left], axis.prompt_of[left], vote.voter, vote.answer))
    return answers


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
    sides = [{given.left, given.right} for given in list_answers(pictures, points, votes)]
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
    groups, found = points.group_contexts(), set[int]()
    pairs: set[frozenset[str]] = set()
    for index, (value, context) in enumerate(zip(points.value_of, points.context_of, strict=True)):
        for other in groups[context] if value in asked else ():
            if value in found and len(pairs) >= enough:
                break
            files = frozenset(pictures.get_content(pictures.all[at].sha256) for at in (index, other))
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
    shares = compute_shares(to_comparisons(points, list_answers(pictures, points, votes)))
    scored = review_points(pictures, points, votes).scored
    found: dict[str, set[int]] = {}
    for picture, value in zip(pictures.all, points.value_of, strict=True):
        if value in scored:
            found.setdefault(picture.sha256, set()).add(value)
    return {sha256: round(float(np.mean(shares[[*values]])), 4) for sha256, values in found.items()}


def score_pictures(votes: Iterable[Vote]) -> dict[str, float]:
    """The share of each picture that has a vote, by SHA-256: see `sweeper.statistics.ranking`.

    Pictures are compared with those that votes connect with them, which are usually those of the same prompt and seed.
    """
    groups = _group_connected([vote for vote in votes if vote.counts])
    return {sha256: share for group in groups for sha256, share in _score_group(group).items()}


def _group_connected(votes: Sequence[Vote]) -> list[list[Vote]]:
    """Group the votes about the same pictures, or about pictures that other votes of the group compare, in order."""
    if not votes:
        return []
    numbers: dict[str, int] = {}
    ends = [[numbers.setdefault(sha256, len(numbers)) for sha256 in vote.pictures] for vote in votes]
    links = sparse.coo_matrix((np.ones(len(ends)), tuple(zip(*ends, strict=True))), shape=(len(numbers), len(numbers)))
    _, group_of = csgraph.connected_components(links, directed=False)
    groups: dict[int, list[Vote]] = {}
    for vote, (number, _) in zip(votes, ends, strict=True):
        groups.setdefault(int(group_of[number]), []).append(vote)
    return list(groups.values())


def _score_group(votes: Sequence[Vote]) -> dict[str, float]:
    items = list(dict.fromkeys(sha256 for vote in votes for sha256 in vote.pictures))
    numbers = {sha256: number for number, sha256 in enumerate(items)}
    left, right = [numbers[vote.left_sha256] for vote in votes], [numbers[vote.right_sha256] for vote in votes]
    points = [_POINTS[vote.answer or TIE] for vote in votes]
    shares = compute_shares(ItemComparisons(len(items), left, right, points)).tolist()
    return {sha256: round(share, 4) for sha256, share in zip(items, shares, strict=True)}


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
    contents = {sha256: pictures.get_content(sha256) for vote in votes for sha256 in vote.pictures}
    votes, first = pictures.unify(votes), [] if changed is None else pictures.unify([changed])
    if changed is not None and not first:
        return
    connected = _group_connected([*first, *votes])[0][1:] if first else votes
    scores: dict[str, float | None] = dict(score_pictures(pictures.keep_last(connected)))
    has_votes = {content for vote in votes if vote.counts for content in vote.pictures}
    touched = {content for vote in connected for content in vote.pictures}
    rows = {each.row.digest: each.row for each in pictures.all if pictures.get_content(each.sha256) in touched}
    contents |= {sha256: pictures.get_content(sha256) for row in rows.values() for sha256 in row.sha256}
    scores |= dict.fromkeys({contents[sha256] for row in rows.values() for sha256 in row.sha256} - has_votes)
    store.cache_metrics(
        [(sha256, VOTES_METRIC, scores[content]) for sha256, content in contents.items() if content in scores],
        discard=() if changed is not None else (VOTES_METRIC,),
    )
