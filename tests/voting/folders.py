"""Results folders to vote on, and votes by voters who do not exist."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

from sweeper.store import Store
from sweeper.store.votes import Vote
from sweeper.voting.pictures import VotePictures
from tests.reporting.made_up_sweeps import Sweep

SWEEP = Sweep(
    {"sampler": ["euler", "heun", "ddim"], "prompt": ["a fox", "a boat"], "seed": [1, 2, 3]}, slots={"cfg": 7.0}
)


def make_folder(path: Path, sweep: Sweep = SWEEP) -> Path:
    return sweep.write(path)


def load(folder: Path) -> tuple[VotePictures, list[Vote]]:
    with Store.open(folder, readonly=True) as store:
        return VotePictures(store), store.votes.load()


def vote(pictures: VotePictures, one: int, other: int, answer: str, voter: str = "ana", **more: object) -> Vote:
    """A vote about two pictures, by their index."""
    left, right = pictures.all[one], pictures.all[other]
    facts = {"id": str(uuid.uuid4()), "voter": voter, "axis": "sampler", "shown": 1.0, "answered": 2.0} | more
    return Vote(
        left_digest=left.row.digest, left_sha256=left.sha256, right_digest=right.row.digest,
        right_sha256=right.sha256, answer=answer, **facts,
    )  # fmt: skip


def prefer(order: list[str]) -> Callable[[VotePictures, int, int], str]:
    """An answer by the place of the samplers in `order`."""

    def answer(pictures: VotePictures, left: int, right: int) -> str:
        places = [order.index(pictures.all[index].row.columns["sampler"]) for index in (left, right)]
        return "left" if places[0] < places[1] else "right"

    return answer


def to_lines(votes: list[dict[str, object]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in votes)
