"""The votes in a results folder: which of two pictures a person found better. Votes of several folders can be merged.

The row of a vote is made when its two pictures are shown, and gets its answer later, once. An answer is never changed;
a voter can only undo it. So the same votes may arrive in any order, and any number of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any

from sweeper.store.database import Database
from sweeper.store.records import ANSWERS

LEFT, RIGHT, TIE, BAD = ANSWERS

_SELECT = "SELECT * FROM votes "  # the schema was checked, so the columns are the fields of Vote


@dataclass(frozen=True, slots=True)
class Vote:
    """Two pictures that a voter saw, and the answer. Times are in seconds since 1970, UTC. Fields are columns.

    `id` is random. `axis` is the axis whose value differs. The digest of each side is that of its trial, the SHA-256
    that of its file. `answered` and `answer` are None until the voter answers; `answer` is one of `ANSWERS`.
    """

    id: str
    voter: str
    axis: str
    left_digest: str
    left_sha256: str
    right_digest: str
    right_sha256: str
    shown: float
    answered: float | None = None
    answer: str | None = None
    undone: bool = False

    @property
    def counts(self) -> bool:
        """Whether the vote has an answer that was not undone."""
        return self.answer is not None and not self.undone

    @property
    def pictures(self) -> tuple[str, str]:
        """The SHA-256 of both pictures, sorted, so that it does not matter which was left."""
        return min(self.left_sha256, self.right_sha256), max(self.left_sha256, self.right_sha256)


class Votes:
    """The part of `Store` about votes, on the same database. Every method may raise ResultsError.

    Votes may be written while a run is going on: they need no lock of the folder, because runs do not touch them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[Vote]:
        """Every vote, in the order in which they were shown. Also those without an answer, and those undone."""
        return list(self._select("ORDER BY shown, id"))

    def find(self, vote_id: str) -> Vote | None:
        return next(self._select("WHERE id = ?", vote_id), None)

    def has_any(self) -> bool:
        return any(self._select("WHERE answer IS NOT NULL LIMIT 1"))

    def add(self, *votes: Vote) -> None:
        rows = [(*astuple(vote)[:-1], int(vote.undone)) for vote in votes]
        self._database.executemany("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def record_answer(self, vote_id: str, answer: str, now: float) -> None:
        self._database.execute(
            "UPDATE votes SET answer = ?, answered = ? WHERE id = ? AND answer IS NULL", (answer, now, vote_id)
        )

    def undo(self, vote_id: str) -> None:
        self._database.execute("UPDATE votes SET undone = 1 WHERE id = ? AND answer IS NOT NULL", (vote_id,))

    def merge(self, votes: Iterable[Vote]) -> tuple[list[Vote], list[Vote]]:
        """Add votes of another folder. Returns those that are new here, and those that were known with another content.

        A vote that is undone in either folder is undone. Call inside `transaction`.
        """
        added, different = [], []
        for vote in votes:
            known = self.find(vote.id)
            if known is None:
                self.add(vote)
                added.append(vote)
            elif replace(known, undone=vote.undone) != vote:
                different.append(vote)
            elif vote.undone and not known.undone:
                self.undo(vote.id)
        return added, different

    def _select(self, condition: str, *parameters: Any) -> Iterator[Vote]:
        for row in self._database.query(_SELECT + condition, parameters):
            yield replace(Vote(*row), undone=bool(row[-1]))  # SQLite has no truth values
