"""The pictures of a results folder that votes can compare, the axes in which they differ, and what votes are worth.

That is: as comparisons of the values of an axis, as a metric of pictures, and to a search of points.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np

from sweeper.errors import UsageError
from sweeper.model.picture_size import PICTURE_SUFFIXES
from sweeper.model.result import SUCCEEDED, Result
from sweeper.model.search_columns import ROUND, VOTES_METRIC, SearchColumns
from sweeper.statistics.ranking import ItemComparisons, compute_shares
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.remote_artifacts import is_url, local_path
from sweeper.store.votes import BAD, LEFT, RIGHT, TIE, Vote
from sweeper.tables.effect_axes import EffectAxis, find_effect_axes, format_value, list_axis_columns
from sweeper.tables.searched_points import list_points
from sweeper.tables.select_rows import OptionErrors, select_results
from sweeper.wording import join_names

POINT: Final = "point"  # the axis of a search's results: all axes of its space together
_LABEL: Final = ".label"
_PROMPTS: Final = ("prompt", "text")  # parts of the names of slots that hold one
VOTES_PER_POINT: Final = 2.5  # before a search goes on; tests/benchmarks/search_votes.py compares other numbers
_POINTS: Final = {LEFT: 1.0, TIE: 0.5, BAD: 0.5, RIGHT: 0.0}  # of the left picture, by answer


@dataclass(frozen=True, slots=True)
class VotePicture:
    """A picture of a row of the table. `path` is as recorded; `output` says which output of the workflow it is."""

    row: Result
    path: str
    sha256: str
    output: tuple[str, int]


@dataclass(frozen=True, slots=True)
class VoteAxis:
    """An axis with several values, or several axes that vary together, such as those of a zip.

    `values` are texts in the order of the experiment. `value_of[p]` is the index of the value of picture p, and
    `context_of[p]` is the same number for pictures that are equal in everything but this axis. `is_usual`: votes are
    about it unless the user chooses axes. Seeds are not, nor are prompts beside other axes. `cells`: the values of the
    single columns, for each value. `prompt_of[p]` is equal for pictures of the same prompt. `is_point`: its values are
    the points of a search, from the first to the last.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    value_of: Sequence[int]
    context_of: Sequence[int]
    is_usual: bool
    cells: tuple[tuple[Any, ...], ...]
    prompt_of: Sequence[Hashable]
    is_point: bool = False

    @property
    def name(self) -> str:
        return POINT if self.is_point else self.columns[0]

    def group_contexts(self) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        for picture, context in enumerate(self.context_of):
            groups.setdefault(context, []).append(picture)
        return groups

    def separates(self, first: int, second: int) -> bool:
        """Whether two pictures differ in this axis and in nothing else."""
        return self.context_of[first] == self.context_of[second] and self.value_of[first] != self.value_of[second]


class VotePictures:
    """The pictures in the table of a folder, and its axes.

    `trials`: only these (None: all). `run_id`: the run whose table it is, the latest by default. `missing` counts the
    pictures whose file is gone, and `unhashed` those on this machine whose pixels no run has hashed yet. Raises
    UsageError if the experiment itself has a column with the name of the metric of votes.
    """

    def __init__(self, store: Store, trials: Collection[int] | None = None, *, run_id: int | None = None) -> None:
        self.all: list[VotePicture] = []
        self.missing = self.unhashed = 0
        self._hashes = store.load_pixel_hashes()
        self.layout = layout = store.layout(run_id)
        rows = []
        names = [*layout.axis_columns, *layout.slot_names, *layout.measured_metrics]
        if VOTES_METRIC in names and not (store.votes.has_any() and names.index(VOTES_METRIC) == len(names) - 1):
            raise UsageError(
                f"{store.path.parent}: the experiment has a column '{VOTES_METRIC}', which is the name of the metric "
                "of votes; give it another name in the experiment, and run it again"
            )
        for outcome in store.outcomes(run_id):
            row = outcome.result
            rows.append(row)
            if row.status != SUCCEEDED or (trials is not None and row.trial not in trials):
                continue
            for file in outcome.files:
                if PurePosixPath(file.path).suffix.lower() in PICTURE_SUFFIXES:
                    is_here = is_url(file.path) or local_path(store.path.parent, file.path, file.sha256).is_file()
                    self.missing += not is_here
                    self.unhashed += is_here and not is_url(file.path) and file.sha256 not in self._hashes
                    if is_here:
                        self.all.append(VotePicture(row, file.path, file.sha256, (file.node, file.position)))
        self.axes = _build_axes(layout, rows, self.all)
        self._indices: dict[Hashable, int] = {}
        for index, picture in enumerate(self.all):
            digest, content = picture.row.digest, self.get_content(picture.sha256)
            for key in ((digest, picture.sha256), (digest, content), digest, picture.sha256, content):
                self._indices.setdefault(key, index)

    @cached_property
    def points(self) -> VoteAxis | None:
        """The axis of the points, if these are the results of a search."""
        return next((axis for axis in self.axes if axis.is_point), None)

    def get_content(self, sha256: str) -> str:
        """What is the same for equal pictures: the hash of a file's pixels, or of the file if its pixels have none."""
        return self._hashes.get(sha256, sha256)

    def get_pair(self, vote: Vote) -> tuple[str, str]:
        """The contents of both pictures, sorted: which two pictures the vote is about."""
        left, right = self.get_content(vote.left_sha256), self.get_content(vote.right_sha256)
        return min(left, right), max(left, right)

    def keep_last(self, votes: Iterable[Vote]) -> list[Vote]:
        """The votes that count: of a voter's votes about the same two pictures, the last.

        To ask a person again tells how sure they are, but nothing about other pictures or people.
        """
        return list({(vote.voter, self.get_pair(vote)): vote for vote in votes if vote.counts}.values())

    def unify(self, votes: Iterable[Vote]) -> list[Vote]:
        """The votes about two different pictures. Their `left_sha256` and `right_sha256` are contents."""
        named = (
            replace(vote, left_sha256=self.get_content(vote.left_sha256),
                    right_sha256=self.get_content(vote.right_sha256))
            for vote in votes
        )  # fmt: skip
        return [vote for vote in named if vote.left_sha256 != vote.right_sha256]

    def find(self, digest: str, sha256: str) -> int | None:
        """The index of a picture that was voted on; if its trial has another picture now, the index of that one."""
        keys = ((digest, sha256), digest, sha256)
        return next((self._indices[key] for key in keys if key in self._indices), None)

    def find_sides(self, vote: Vote) -> tuple[int | None, int | None]:
        """The indexes of the left and the right picture of a vote."""
        return self.find(vote.left_digest, vote.left_sha256), self.find(vote.right_digest, vote.right_sha256)

    def list_prompts(self, first: int, second: int) -> list[tuple[str, str]]:
        """The prompts that two pictures have in common: (name, text) of each."""
        cells, others = ({**row.params, **row.columns} for row in (self.all[first].row, self.all[second].row))
        return [
            (name, text)
            for name, text in cells.items()
            if isinstance(text, str) and text == others.get(name) and any(word in name.lower() for word in _PROMPTS)
        ]

    def get_axes(self, columns: Sequence[str], option: str) -> list[VoteAxis]:
        """The axes with these columns. Raises UsageError, which names the option, if there is no such column."""
        by_column = {column: axis for axis in self.axes for column in (axis.name, *axis.columns)}
        columns = [name if name in by_column else name.removesuffix(_LABEL) for name in columns]
        errors = OptionErrors()
        for name in columns:
            if name in self.layout.axis_columns and name not in by_column:
                several = join_names([axis.name for axis in self.axes]) or "none"
                errors.add(
                    f"{option} {name}", f"has one value among the {len(self.all)} pictures; with several: {several}"
                )
            else:
                errors.check_columns(option, [name], list(by_column))
        errors.raise_if_any()
        return list({by_column[name].name: by_column[name] for name in columns}.values())

    def select_axes(self, between: Sequence[str]) -> list[VoteAxis]:
        """The axes with these columns; without any, those whose values people can compare. Raises UsageError."""
        chosen = self.get_axes(between, "--between") or [axis for axis in self.axes if axis.is_usual]
        if not chosen:
            several = join_names([axis.name for axis in self.axes if len(axis.values) > 1])
            rest = f"give --between with one of: {several}" if several else "run a sweep of several values"
            if not self.all:
                raise UsageError("no successful trial has a picture to vote on; films, sounds and texts are not shown")
            count = f"the {len(self.all)} pictures" if len(self.all) > 1 else "one picture"
            raise UsageError(f"there is no axis to compare among {count}; {rest}")
        return chosen


def _build_axes(layout: TableLayout, rows: Sequence[Result], pictures: Sequence[VotePicture]) -> list[VoteAxis]:
    layout, rows = select_results(layout, list(rows), {picture.row.trial for picture in pictures})
    positions = {row.trial: position for position, row in enumerate(rows)}
    row_of = [positions[picture.row.trial] for picture in pictures]
    is_search = layout.search is not None
    if layout.search is not None:
        found, usual = _find_points(layout, layout.search, rows)
    else:  # with all axes named, none is left out because each trial has another value of it
        found = find_effect_axes(rows, layout, list_axis_columns(layout), ()).axes
        usual = {axis.columns for axis in find_effect_axes(rows, layout, (), ()).axes if not axis.is_replicate}
    codes = [axis.codes[row_of].tolist() for axis in found]
    outputs = [picture.output for picture in pictures]
    axes = []
    for index, axis in enumerate(found):
        contexts: dict[Hashable, int] = {}
        others = zip(*codes[:index], *codes[index + 1 :], outputs, strict=True)
        prompts = [codes[at] for at, other in enumerate(found) if at != index and other.has_prompts]
        prompt_of = list(zip(*prompts, strict=True)) or [()] * len(pictures)
        context_of = [contexts.setdefault(other, len(contexts)) for other in others]
        is_usual, is_point = axis.columns in usual, is_search and index == 0
        axes.append(VoteAxis(
            axis.columns, axis.labels, codes[index], context_of, is_usual, axis.values, prompt_of, is_point
        ))  # fmt: skip
    return axes


def _find_points(
    layout: TableLayout, search: SearchColumns, rows: Sequence[Result]
) -> tuple[Sequence[EffectAxis], set[tuple[str, ...]]]:
    """Return the points of a search as one axis, followed by the axes of `over`; and the columns of the first.

    Two points usually differ in all axes of the space, so no single one of them can be compared.
    """
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(search.get_point(row), len(numbers)) for row in rows]
    values = [point.values for point in list_points(rows, search)]
    cells = [tuple(found.values()) for found in values]
    labels = [", ".join(f"{name} {format_value(cell)}" for name, cell in found.items()) for found in values]
    points = EffectAxis(search.space, tuple(cells), tuple(labels), np.array(codes, dtype=np.int64))
    axis_of = {name: layout.extras.get(name, name.removesuffix(_LABEL)) for name in layout.axis_columns}
    rest = replace(layout, axis_columns=tuple(name for name, axis in axis_of.items() if axis in search.over))
    usual = {points.columns} if len(cells) > 1 else set()
    return [points, *find_effect_axes(rows, rest, search.over, ()).axes], usual


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
        left, right = pictures.find_sides(vote)
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
    scores: dict[str, float] = {}
    for group in _group_connected([vote for vote in votes if vote.counts]):
        items = list(dict.fromkeys(sha256 for vote in group for sha256 in vote.pictures))
        numbers = {sha256: number for number, sha256 in enumerate(items)}
        left, right = [numbers[vote.left_sha256] for vote in group], [numbers[vote.right_sha256] for vote in group]
        points = [_POINTS[vote.answer or TIE] for vote in group]
        shares = compute_shares(ItemComparisons(len(items), left, right, points)).tolist()
        scores |= {sha256: round(share, 4) for sha256, share in zip(items, shares, strict=True)}
    return scores


def _group_connected(votes: Sequence[Vote]) -> list[list[Vote]]:
    """Group the votes about the same pictures, or about pictures that other votes of the group compare, in order."""
    if not votes:
        return []
    from scipy.sparse import coo_matrix, csgraph  # noqa: PLC0415

    numbers: dict[str, int] = {}
    ends = [[numbers.setdefault(sha256, len(numbers)) for sha256 in vote.pictures] for vote in votes]
    links = coo_matrix((np.ones(len(ends)), tuple(zip(*ends, strict=True))), shape=(len(numbers), len(numbers)))
    _, group_of = csgraph.connected_components(links, directed=False)
    groups: dict[int, list[Vote]] = {}
    for vote, (number, _) in zip(votes, ends, strict=True):
        groups.setdefault(int(group_of[number]), []).append(vote)
    return list(groups.values())


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
