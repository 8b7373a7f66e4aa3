"""Votes as JSON Lines, one vote on each line, to merge the votes of several results folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from sweeper.answers.parts import Line, Part, Warn
from sweeper.answers.render import AS_JSON
from sweeper.errors import Problem, UsageError
from sweeper.loading.bounded_files import BoundError, read_named_bytes
from sweeper.model.bounded_json import parse_json
from sweeper.model.json_mistakes import InvalidJsonError
from sweeper.schemas.values import is_number
from sweeper.store import Store
from sweeper.store.records import ANSWERS
from sweeper.store.votes import Vote
from sweeper.tables.results_folder import find_results_folder
from sweeper.tables.vote_pictures import VotePictures, write_metric
from sweeper.wording import join_names

_SHA256: Final = re.compile("[0-9a-f]{64}")
_FIELDS: Final = tuple(column.name for column in fields(Vote))


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What became of the votes of a file: `lacking` are about pictures that the folder does not have."""

    new: int
    known: int
    lacking: int


@dataclass(frozen=True, slots=True)
class ImportedVotes:
    """What became of the votes of each file."""

    files: Mapping[str, MergeCounts] = field(metadata=AS_JSON)

    def parts(self) -> Iterator[Part]:
        """A line for each file."""
        for name, counts in self.files.items():
            yield Line(f"{name}: {counts.new} new votes, {counts.known} known")
            if counts.lacking:
                yield Warn(
                    f"{name}: {counts.lacking} votes are about pictures that this folder does not have; finish the "
                    "same run here, and import the file again"
                )


def format_votes(votes: Iterable[Vote]) -> Iterator[str]:
    """The lines of a file with these votes, without those that have no answer."""
    for vote in votes:
        if vote.answer is not None:
            yield json.dumps(asdict(vote), ensure_ascii=False) + "\n"


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file. Raises UsageError with the line of each mistake, and OSError."""
    try:
        lines = read_named_bytes(path).split(b"\n")
    except BoundError as error:
        raise UsageError(Problem(str(path), 0, "", f"{error}; give a file of `sweeper votes export`")) from error
    votes: list[Vote] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                votes.append(_parse_vote(parse_json(line)))
            except InvalidJsonError as error:
                message = f"not a vote: {error.message}, column {error.column}"
                problems.append(Problem(str(path), number, "", message))
            except ValueError as error:
                problems.append(Problem(str(path), number, "", f"not a vote: {error}"))
    if problems:
        raise UsageError(problems)
    return votes


def merge_votes(store: Store, votes: Sequence[Vote], source: Path) -> MergeCounts:
    """Add the votes of a file to a folder. Order and repetitions do not matter.

    Raises UsageError, and adds none, if a vote here has the id of another one in the file.
    """
    pictures = {sha256 for _, sha256 in store.files()}
    here = [vote for vote in votes if pictures.issuperset(vote.pictures)]
    with store.transaction():
        added, different = store.votes.merge(here)
        if different:
            raise UsageError(
                f"{source}: vote {different[0].id} is another one in {store.path.parent}; one of them was changed "
                "since it was exported, so nothing was imported"
            )
    return MergeCounts(len(added), len(here) - len(added), len(votes) - len(here))


def import_votes(results: str | os.PathLike[str], files: Iterable[Path]) -> ImportedVotes:
    """Add the votes of all files to a results folder, or of none. Raises UsageError with all mistakes, and OSError."""
    contents: list[tuple[Path, list[Vote]]] = []
    problems: list[Problem] = []
    for file in files:
        try:
            contents.append((file, read_votes(file)))
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(problems)
    with Store.open(find_results_folder(results)) as store:
        pictures = VotePictures(store)
        with store.transaction():
            merged = {str(file): merge_votes(store, votes, file) for file, votes in contents}
        write_metric(store, pictures, store.votes.load())
    return ImportedVotes(merged)


def _parse_vote(value: Any) -> Vote:
    """Raises ValueError with what is wrong."""
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise ValueError(f"expected a JSON object with the keys {join_names(_FIELDS)}")
    for name in ("id", "voter", "axis"):
        if not isinstance(value[name], str) or not 0 < len(value[name]) <= 200 or not value[name].isprintable():
            raise ValueError(f"{name}: expected a text of 1 to 200 printable characters, not {value[name]!r:.80}")
    for name in ("left_digest", "left_sha256", "right_digest", "right_sha256"):
        if not isinstance(value[name], str) or not _SHA256.fullmatch(value[name]):
            raise ValueError(f"{name}: expected a SHA-256 of 64 hexadecimal digits, not {value[name]!r:.80}")
    for name in ("shown", "answered"):
        number = value[name]
        if not is_number(number) or not 0 <= number < 1e12:
            raise ValueError(f"{name}: expected seconds since 1970, not {number!r:.80}")
        value[name] = float(number)
    if value["answer"] not in ANSWERS:
        raise ValueError(f"answer: expected one of {join_names(ANSWERS)}, not {value['answer']!r:.80}")
    if value["undone"] not in (True, False):
        raise ValueError(f"undone: expected true or false, not {value['undone']!r:.80}")
    return Vote(**{**value, "undone": bool(value["undone"])})
