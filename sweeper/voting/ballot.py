"""Gives pairs of pictures to voters and stores their answers. Use it in one thread, because it has a store open.

All that it knows is in the store: the pair that a voter sees is a vote without an answer. So a server that was killed
continues where it was, and an answer that arrives twice counts once.

A vision model can vote too: it sees each pair in both orders, and its votes are those of the voter `judge:MODEL`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sweeper.answers.cells import map_labels
from sweeper.answers.parts import Line, Part, Warn
from sweeper.errors import ImageError, ResultsError, SweeperError, UsageError
from sweeper.images.metrics.judge_messages import TIE, make_data_url
from sweeper.model.experiment import Judge
from sweeper.running.ask_judges import JudgeClient
from sweeper.running.stop_control import run_sync
from sweeper.statistics.ranking import Floats
from sweeper.store import Store
from sweeper.store.records import ANSWERS
from sweeper.store.remote_artifacts import download_artifact
from sweeper.store.votes import Vote
from sweeper.tables.vote_pictures import VotePictures, count_votes_needed, write_metric
from sweeper.tables.vote_tally import rank_votes
from sweeper.voting.pair_choice import Pair, PairChoice
from sweeper.wording import join_names

_RELOAD_SECONDS: Final = 5.0  # between two looks at the table of a run that is going on, at least
_RELOAD_FACTOR: Final = 20  # the pause is also this many times the last look
# Of a folder, so that nobody who may vote can fill the disk: 100 MB.
MAX_VOTERS: Final = 500
MAX_VOTES: Final = 100_000  # pairs that were shown, also without an answer

_MAX_LEAD: Final = 2  # how often more a voter sees one of two values on the left; within that, a coin decides
MAX_NAME: Final = 60  # characters of a voter's name


def check_voter(name: str) -> str:
    """A voter's name without white space at its ends. Raises UsageError if it is empty or too long."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"a voter's name has 1 to {MAX_NAME} printable characters")
    return name


class Ballot:
    """The pairs of a results folder.

    Args:
        results: the folder.
        between: the axes in which the two pictures may differ, by column; empty: all that people can compare.
        select: reads which trials take part, None for all.

    Raises:
        UsageError, ResultsError: there is nothing to vote on.

    """

    def __init__(
        self, results: Path, *, between: Sequence[str] = (), select: Callable[[], Collection[int] | None] = lambda: None
    ) -> None:
        self._results = results
        self._between = between
        self._select = select
        self._broken: dict[str, set[str]] = {}  # by voter, the SHA-256 of pictures that the browser cannot show
        self._store = Store.open(results)
        try:
            self._votes_version: int | None = self._store.data_version()
            self._votes = {vote.id: vote for vote in self._store.votes.load()}
            self._load_pictures()
            write_metric(self._store, self._all_pictures, list(self._votes.values()))
        except BaseException:
            self._store.close()
            raise

    def close(self) -> None:
        self._store.close()

    def _load_pictures(self) -> None:
        started = time.monotonic()
        self._pictures_version = self._store.data_version()
        selected = self._select()
        self._pictures = VotePictures(self._store, selected)
        self._all_pictures = self._pictures if selected is None else VotePictures(self._store)
        self._axes = self._pictures.select_axes(self._between)
        self._choice = PairChoice(self._pictures, self._axes)
        self._fits: tuple[list[Vote], list[tuple[Floats, Floats]]] | None = None
        self._ranking: tuple[list[Vote], list[dict[str, Any]]] | None = None
        ended = time.monotonic()
        self._next_load = ended + max(_RELOAD_SECONDS, _RELOAD_FACTOR * (ended - started))

    @property
    def summary(self) -> dict[str, Any]:
        """What there is to vote on: the names of the axes and the number of pairs.

        `equal`: pairs of equal pictures, which nobody is asked about. `missing`: pictures whose file is gone.
        `unhashed`: those that are compared by their files, because no run has hashed their pixels yet. `needed`: how
        many votes a search waits for; None if these are not the results of a search by votes.
        """
        return {
            "experiment": self._pictures.layout.experiment,
            "axes": [axis.name for axis in self._axes],
            "pairs": self._choice.count,
            "equal": self._choice.equal_count,
            "missing": self._pictures.missing,
            "unhashed": self._pictures.unhashed,
            "needed": count_votes_needed(self._all_pictures, self._votes.values()),
        }

    def serve_next(
        self, voter: str, *, answered: tuple[str, str] | None = None, broken: str | None = None, again: bool = False
    ) -> dict[str, Any]:
        """Store an answer, (id of the vote, answer), and return what the page shows next.

        `broken`: the id of a vote whose pictures the browser cannot show. `again`: repeat pairs when the voter has
        answered all. Raises UsageError or ResultsError; then nothing is stored.
        """
        self._refresh()
        if broken is not None and (vote := self._votes.get(broken)) is not None and vote.voter == voter:
            self._broken.setdefault(voter, set()).update(vote.pictures)
        with self._write():
            if answered is not None:
                self._record_answer(voter, *answered)
            shown = self._find_open(voter)
            limit = self._find_limit(voter)
            if shown is None and limit is None:
                shown = self._open_pair(voter, again=again)
            elif shown is None and answered is None:
                raise UsageError(f"this folder has {limit}; vote on a copy of the results")
        return self._describe(voter, shown)

    def _find_limit(self, voter: str) -> str | None:
        """The limit that one more pair for this voter would exceed, in words."""
        if len(self._votes) >= MAX_VOTES:
            return f"{MAX_VOTES:,} votes, which is the limit"
        voters = {vote.voter for vote in self._votes.values()}
        return f"votes of {MAX_VOTERS} names, which is the limit" if len({*voters, voter}) > MAX_VOTERS else None

    def undo(self, voter: str, vote_id: str) -> dict[str, Any]:
        self._refresh()
        vote = self._get_own(voter, vote_id)
        if (limit := self._find_limit(voter)) is not None:
            raise UsageError(f"this folder has {limit}, so the answer was not undone")
        if vote.counts:
            shown = replace(vote, id=str(uuid.uuid4()), shown=time.time(), answered=None, answer=None)
            with self._write():
                self._store.votes.undo(vote.id)
                self._store.votes.add(shown)
                self._votes |= {vote.id: replace(vote, undone=True), shown.id: shown}
        return self._describe(voter, self._find_open(voter))

    def find_picture(self, vote_id: str, side: str) -> Path | None:
        """The file of the left or right picture of a vote. Raises ResultsError if its storage does not respond."""
        vote = self._votes.get(vote_id)
        if vote is None or side not in ("left", "right"):
            return None
        sha256: str = getattr(vote, f"{side}_sha256")
        index = self._pictures.find_sides(vote)[side == "right"]
        picture = None if index is None else self._pictures.all[index]
        if picture is None or picture.sha256 != sha256:
            return None
        return download_artifact(self._results, picture.path, sha256)

    def write_metric(self, vote_id: str) -> None:
        """Bring the metric of the pictures up to date with a vote that is new or was undone. Raises ResultsError."""
        if (vote := self._votes.get(vote_id)) is not None and vote.answer is not None:
            write_metric(self._store, self._all_pictures, list(self._votes.values()), vote)

    # --- the votes

    def _refresh(self) -> None:
        """Read what other processes wrote: votes at once, and the table from time to time."""
        version = self._store.data_version()
        if version != self._votes_version:
            self._votes = {vote.id: vote for vote in self._store.votes.load()}
            self._votes_version = version
        if version != self._pictures_version and time.monotonic() > self._next_load:
            self._load_pictures()

    @contextmanager
    def _write(self) -> Iterator[None]:
        """Store the votes that the block writes, all or none. If it fails, they are read again."""
        if not Store.exists(self._results):  # SQLite writes to a deleted file as if it were there
            raise ResultsError(
                f"{self._results.name} has no results any more, so nothing was stored; put the folder back"
            )
        try:
            with self._store.transaction():
                yield
        except BaseException:
            self._votes_version = None
            raise

    def _get_own(self, voter: str, vote_id: str) -> Vote:
        vote = self._votes.get(vote_id)
        if vote is None or vote.voter != voter:
            raise UsageError("this folder knows no such vote of yours, so the answer was not stored")
        return vote

    def _record_answer(self, voter: str, vote_id: str, answer: str) -> None:
        vote = self._get_own(voter, vote_id)
        if answer not in ANSWERS:
            raise UsageError(f"an answer is one of {join_names(ANSWERS)}")
        if vote.answer is None:  # else the page did not hear that it was stored, and sent it again
            now = time.time()
            self._store.votes.record_answer(vote_id, answer, now)
            self._votes[vote_id] = replace(vote, answer=answer, answered=now)

    def _find_open(self, voter: str) -> Vote | None:
        """The pair that the voter saw last and has not answered."""
        waiting = [
            vote
            for vote in self._votes.values()
            if vote.voter == voter and vote.answer is None and self._choice.has_pair(vote)
            and not {*vote.pictures} & self._broken.get(voter, set())
        ]  # fmt: skip
        return max(waiting, key=lambda vote: vote.shown, default=None)

    def _fit(self, counted: list[Vote]) -> list[tuple[Floats, Floats]]:
        """What `PairChoice.fit` returns; a request needs it twice for the same votes."""
        if self._fits is None or self._fits[0] != counted:
            self._fits = counted, self._choice.fit(counted)
        return self._fits[1]

    def _open_pair(self, voter: str, *, again: bool) -> Vote | None:
        votes = list(self._votes.values())
        fits = self._fit([vote for vote in votes if vote.counts])
        pair = self._choice.choose(votes, voter, fits, again=again, skip=self._broken.get(voter, ()))
        if pair is None:
            return None
        axis, *sides = pair
        lead = self._count_lefts(votes, voter, pair)
        if lead <= -_MAX_LEAD or (lead < _MAX_LEAD and secrets.randbits(1)):
            sides.reverse()
        left, right = (self._pictures.all[index] for index in sides)
        vote = Vote(
            str(uuid.uuid4()), voter, axis, left.row.digest, left.sha256, right.row.digest, right.sha256, time.time()
        )
        self._store.votes.add(vote)
        self._votes[vote.id] = vote
        return vote

    def _count_lefts(self, votes: Sequence[Vote], voter: str, pair: Pair) -> int:
        """How often this voter saw the second picture's value on the left, beside the first's, more than reversed."""
        name, *sides = pair
        value_of = next(axis.value_of for axis in self._axes if axis.name == name)
        first, second = (value_of[index] for index in sides)
        count = 0
        for vote in votes:
            if vote.voter == voter and vote.axis == name and not vote.undone:
                values = [None if index is None else value_of[index] for index in self._pictures.find_sides(vote)]
                count += (values == [second, first]) - (values == [first, second])
        return count

    def rank(self, voter: str) -> list[dict[str, Any]]:
        """The ranking of the values of each axis with votes, best first, as the page shows it to who has finished.

        `share` is from 0 to 1, with the ends `low` and `high` of its 95 % interval; `undecided`: whether no other value
        is surely better or worse. `words` are those of `sweeper votes`.
        Raises UsageError if the voter has answered no pair.
        """
        self._refresh()
        counted = [vote for vote in self._votes.values() if vote.counts]
        if self._choice.count_answered(counted, voter) == 0:
            raise UsageError("the ranking is for who has voted; answer a pair first")
        if self._ranking is None or self._ranking[0] != counted:  # it takes a second, and all may ask at once
            self._ranking = counted, self._compute_ranking()
        return self._ranking[1]

    def _compute_ranking(self) -> list[dict[str, Any]]:
        rankings = rank_votes(self._results).axes or ()
        labels = {ranking.axis: map_labels([value.value for value in ranking.values]) for ranking in rankings}
        return [
            {
                "axis": ranking.axis,
                "votes": ranking.votes,
                "words": [part.text for part in ranking.parts() if isinstance(part, Line)],
                "values": [
                    {
                        "value": labels[ranking.axis][value.value],
                        "share": value.share, "low": value.low, "high": value.high,
                        "won": value.counts.won, "tied": value.counts.tied, "lost": value.counts.lost,
                        "undecided": not any(value.value in (pair.better, pair.worse) for pair in ranking.better),
                    }
                    for value in sorted(ranking.values, key=lambda value: -value.share)
                ],
            }
            for ranking in rankings
        ]  # fmt: skip

    # --- for the page

    def _describe(self, voter: str, shown: Vote | None) -> dict[str, Any]:
        counted = [vote for vote in self._votes.values() if vote.counts]
        own = [vote for vote in counted if vote.voter == voter]
        last = max(own, key=lambda vote: vote.answered or 0.0, default=None)
        pair = None
        if shown is not None:
            left, right = self._pictures.find_sides(shown)
            assert left is not None
            assert right is not None
            pair = {"id": shown.id, "prompts": self._pictures.list_prompts(left, right)}
        settled, total = self._choice.count_settled(self._fit(counted))
        return {
            "pair": pair,
            "last": None if last is None else last.id,
            "own": self._choice.count_answered(counted, voter),
            "pairs": self._choice.count,
            "votes": len(counted),
            "settled": settled,
            "comparisons": total,
            "needed": count_votes_needed(self._all_pictures, counted),
        }


_MAX_UNCLEAR: Final = 3  # answers in a row; then the model does not understand the question


@dataclass(frozen=True, slots=True)
class JudgeVotes:
    """The votes of one call, by answer. `error` says why it ended early.

    `unclear` of the ties had an answer that is none of the words, and `refused` pairs have no vote, because a picture
    cannot be read or the judge refuses it.
    """

    voter: str
    answers: Mapping[str, int]
    unclear: int
    refused: int
    error: str

    def parts(self) -> Iterator[Part]:
        """The counts, and what went wrong."""
        counts = "".join(f", {count} {answer}" for answer, count in sorted(self.answers.items()))
        yield Line(f"{sum(self.answers.values())} votes of {self.voter}{counts}")
        if self.unclear:
            yield Warn(f"{self.unclear} answers are neither left, right nor tie, and count as ties")
        if self.refused:
            yield Warn(f"{self.refused} pairs have no vote, because a picture cannot be read or the judge refuses it")
        if self.error:
            yield Warn(f"the judge stopped: {self.error}")


def cast_votes(ballot: Ballot, judge: Judge, limit: int) -> JudgeVotes:
    """Ask the judge about the next pairs until it has given `limit` votes, or there is no new pair.

    Each vote is stored at once. Raises UsageError for a missing key or a name that no voter can have.
    """
    return run_sync(lambda: _cast_votes(ballot, judge, limit))


async def _cast_votes(ballot: Ballot, judge: Judge, limit: int) -> JudgeVotes:
    voter = check_voter(f"judge:{judge.model}")
    answers = Counter[str]()
    unclear = refused = in_a_row = 0
    error = ""
    async with JudgeClient(judge) as client:
        pair = ballot.serve_next(voter)["pair"]
        while pair is not None and answers.total() < limit:
            try:
                answer = await _ask(client, ballot, pair["id"], pair["prompts"])
            except ImageError:
                refused += 1
                pair = ballot.serve_next(voter, broken=pair["id"])["pair"]
                continue
            except SweeperError as failure:
                error = str(failure)
                break
            in_a_row = 0 if answer else in_a_row + 1
            if in_a_row == _MAX_UNCLEAR:
                error = (
                    f"{in_a_row} answers in a row are neither left, right nor tie; ask for these words with --question"
                )
                break
            unclear += not answer
            answers[answer or TIE] += 1
            shown = ballot.serve_next(voter, answered=(pair["id"], answer or TIE))
            ballot.write_metric(pair["id"])
            pair = shown["pair"]
    return JudgeVotes(voter, answers, unclear, refused, error)


async def _ask(client: JudgeClient, ballot: Ballot, vote: str, prompts: Sequence[tuple[str, str]]) -> str:
    pictures = []
    for side in ("left", "right"):
        path = ballot.find_picture(vote, side)
        if path is None:
            raise ImageError("the picture is gone")
        pictures.append(await asyncio.to_thread(make_data_url, path))
    lines = [client.judge.texts[0], *(f"The {name}: {text}" for name, text in prompts)]
    return await client.judge_pair("\n".join(lines), *pictures)
