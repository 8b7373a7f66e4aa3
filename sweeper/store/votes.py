"""What people think of the pictures in a results folder: votes, which of two is better, and marks of single trials.

The row of a vote is made when its two pictures are shown, and gets its answer later, once. An answer is never changed;
a voter can only undo it. So the same votes may arrive in any order, and any number of times.

A mark is keep or reject, stars, a comment. Of two marks of a trial, the newer one counts, so marks of several people,
browsers and files merge in any order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, Final

from sweeper.model.bounded_json import parse_json
from sweeper.store.database import Database
from sweeper.store.records import ANSWERS, MAX_STARS, VERDICTS

LEFT, RIGHT, TIE, BAD = ANSWERS
MAX_COMMENT: Final = 1000  # letters
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

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


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of the trials with a digest. Fields are columns.

    `verdict` is `keep`, `reject` or empty, `stars` 1 to 5 or 0. `changed`: milliseconds since 1970. A mark without any
    of them says that somebody removed it.
    """

    digest: str
    verdict: str = ""
    stars: int = 0
    comment: str = ""
    changed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The mark as the page has it, without its digest."""
        values = asdict(self)
        del values["digest"]
        return values


_DEFAULTS: Final = Mark("").to_json()


def parse_mark_file(content: bytes) -> list[Mark]:
    """Read a file of marks that the page saved. Raises ValueError with the reason."""
    value = parse_json(content)
    if not isinstance(value, Mapping) or value.get("sweeper_marks") != 1:
        raise ValueError("this is not a file of marks; the page writes one with `Marks > Send marks`")
    return parse_marks(value.get("marks"))


def parse_marks(value: Any) -> list[Mark]:
    """Read marks by digest, as the page writes them. Raises ValueError with the reason."""
    if not isinstance(value, Mapping):
        raise ValueError("marks must be a mapping of digests to marks")  # noqa: TRY004 - the caller tells the user
    return [_parse_mark(digest, mark) for digest, mark in value.items()]


def _parse_mark(digest: str, value: Any) -> Mark:
    if not _DIGEST.fullmatch(digest) or not isinstance(value, Mapping):
        raise ValueError(f"'{digest[:70]}' must be the digest of a trial, with a mark")
    mark = Mark(digest, *(value.get(name, default) for name, default in _DEFAULTS.items()))
    is_whole = all(type(number) is int and number >= 0 for number in (mark.stars, mark.changed))
    is_text = mark.verdict in VERDICTS and isinstance(mark.comment, str) and len(mark.comment) <= MAX_COMMENT
    if not is_whole or not is_text or mark.stars > MAX_STARS or mark.changed >= 2**53:
        raise ValueError(
            f"the mark of {digest[:12]} must have a verdict (keep, reject or empty), 0 to {MAX_STARS} stars, a "
            f"comment of at most {MAX_COMMENT} letters, and the time of its change in milliseconds"
        )
    return mark


def merge_marks(*groups: Iterable[Mark]) -> list[Mark]:
    newest: dict[str, Mark] = {}
    for mark in (mark for group in groups for mark in group):
        if mark.digest not in newest or mark.changed > newest[mark.digest].changed:
            newest[mark.digest] = mark
    return list(newest.values())


class Marks:
    """The part of `Store` about marks, on the same database. Every method may raise ResultsError.

    Marks may be written while a run is going on, because runs do not touch them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[Mark]:
        """Every mark, also those that say that one was removed."""
        return [Mark(*row) for row in self._database.query("SELECT * FROM marks ORDER BY digest")]

    def find_unknown(self, marks: Iterable[Mark]) -> list[Mark]:
        """The marks of trials that no run of this folder has."""
        wanted = {mark.digest: mark for mark in marks}
        sql = "SELECT DISTINCT digest FROM trials WHERE digest IN (SELECT value FROM json_each(?))"
        known = {digest for (digest,) in self._database.query(sql, (json.dumps([*wanted]),))}
        return [mark for digest, mark in wanted.items() if digest not in known]

    def add(self, marks: Iterable[Mark]) -> None:
        """Add marks; one that is not newer than the stored mark of its trial is left out.

        Call inside `transaction`. No upsert, because its conflict clause would also rule the triggers of the checksums.
        """
        for mark in marks:
            changed = self._database.query_value("SELECT changed FROM marks WHERE digest = ?", (mark.digest,))
            if changed is None:
                self._database.execute("INSERT INTO marks VALUES (?, ?, ?, ?, ?)", astuple(mark))
            elif mark.changed > changed:
                values = (mark.verdict, mark.stars, mark.comment, mark.changed, mark.digest)
                self._database.execute(
                    "UPDATE marks SET verdict = ?, stars = ?, comment = ?, changed = ? WHERE digest = ?", values
                )
