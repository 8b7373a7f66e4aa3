"""Let a vision model vote: it sees each pair in both orders, and its votes are those of the voter `judge:MODEL`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sweeper.answers.parts import Line, Part, Warn
from sweeper.errors import ImageError, SweeperError
from sweeper.images.metrics.judge_messages import TIE, make_data_url
from sweeper.model.experiment import Judge
from sweeper.running.async_tools import run_sync
from sweeper.running.judge_client import JudgeClient
from sweeper.voting.ballot import Ballot
from sweeper.voting.vote_server import check_voter

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
    lines = [client.judge.question, *(f"The {name}: {text}" for name, text in prompts)]
    return await client.judge_pair("\n".join(lines), *pictures)
