"""Results folders to vote on, and votes by voters who do not exist."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import httpx

from sweeper.model.result import PIXEL_HASH, Result
from sweeper.store import Store
from sweeper.store.votes import Vote
from sweeper.tables.vote_pictures import VotePictures
from tests.reporting.made_up_searches import SearchSweep
from tests.reporting.made_up_sweeps import Sweep

SWEEP = Sweep(
    {"sampler": ["euler", "heun", "ddim"], "prompt": ["a fox", "a boat"], "seed": [1, 2, 3]}, slots={"cfg": 7.0}
)


def make_folder(path: Path, sweep: Sweep = SWEEP) -> Path:
    return sweep.write(path)


def hash_pixels(folder: Path, look: Callable[[Result], str]) -> Path:
    """Store hashes of pixels for all pictures: they are equal where `look` gives the same text."""
    with Store.open(folder) as store:
        store.cache_metrics([(sha256, PIXEL_HASH, look(row)) for row in store.results() for sha256 in row.sha256])
    return folder


def load(folder: Path) -> tuple[VotePictures, list[Vote]]:
    with Store.open(folder, readonly=True) as store:
        return VotePictures(store), store.votes.load()


_NUMBERS = itertools.count()  # of votes, which are in the order in which they were made


def vote(pictures: VotePictures, one: int, other: int, answer: str, voter: str = "ana", **more: object) -> Vote:
    """A vote about two pictures, by their index."""
    left, right = pictures.all[one], pictures.all[other]
    facts = {"id": f"vote-{next(_NUMBERS):06}", "voter": voter, "axis": "sampler", "shown": 1.0, "answered": 2.0} | more
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


SEARCH = SearchSweep(
    rounds=[[{"cfg": cfg, "sampler": sampler} for cfg in (4.5, 7.0) for sampler in ("euler", "heun")],
            [{"cfg": cfg, "sampler": "ddim"} for cfg in (2.0, 3.5, 6.25, 8.0)]],
    measures={"brightness": lambda point: point["cfg"]},
    objectives=(("votes", True),),
    over={"prompt": ["a fox", "a boat"], "seed": [1, 2]},
)  # fmt: skip
"""A search by votes: four points were done before it, and its first round has four."""


def answer_all(url: str, folder: Path, prefer: Callable[[Result], float]) -> None:
    """Answer pairs over HTTP, the picture with the larger number being better, until the search has enough votes."""
    with httpx.Client(base_url=url, timeout=60) as client:
        shown = client.post("/next", json={}).json()
        while shown["pair"] and shown["needed"]:
            with Store.open(folder, readonly=True) as store:
                one = store.votes.find(shown["pair"]["id"])
                rows = {row.digest: row for row in store.results()}
            left, right = prefer(rows[one.left_digest]), prefer(rows[one.right_digest])
            answer = "tie" if left == right else "left" if left > right else "right"
            shown = client.post("/next", json={"vote": one.id, "answer": answer}).json()
        client.get("/start")  # waits until the metric is written
