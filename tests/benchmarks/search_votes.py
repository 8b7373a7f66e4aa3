"""How good the point is that a search by votes ends with, by the number of votes: compared with random pairs, and with
a search that knows how good each point is.

    python tests/benchmarks/search_votes.py [--seeds N]

The voter prefers a planted setting, but each picture is also better or worse by chance, and one answer in about ten
is wrong even where two pictures differ clearly.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np

import sweeper
from sweeper.model.search_columns import Objective, SearchColumns
from sweeper.planning.searching.proposals import Proposer
from sweeper.planning.searching.search_plan import SearchSpace
from sweeper.statistics.ranking import compute_shares
from sweeper.store.votes import Vote
from sweeper.tables.vote_pictures import VoteAxis, list_answers, to_comparisons
from sweeper.voting.pair_choice import PairChoice
from tests.experiment_files import write

ROUNDS, POINTS, COMBINATIONS = 6, 8, 4
SPACE = {"cfg": {"from": 1, "to": 12}, "steps": {"from": 4, "to": 40, "step": 2}, "width": [256, 512, 768]}
BEST = 4.0  # the logarithm of the odds that the planted setting wins against the worst


def rate(cfg, steps, width):
    """How good a point is: at most `BEST`, and nearly 0 far from the planted setting."""
    return BEST * np.exp(-(((cfg - 7.5) / 3) ** 2) - ((steps - 26) / 14) ** 2) * {256: 0.6, 512: 1.0, 768: 0.8}[width]


def make_pictures(count):
    """The pictures of `count` points of a search by votes, as `VotePictures` would read them."""
    cells = [(point, combination) for point in range(count) for combination in range(COMBINATIONS)]
    names = [f"{point}-{combination}" for point, combination in cells]
    row = [SimpleNamespace(digest=name, metrics={"round": 1}) for name in names]
    axis = VoteAxis(
        ("cfg",), tuple(map(str, range(count))), [point for point, _ in cells], [other for _, other in cells],
        is_usual=True, cells=(), is_point=True,
    )  # fmt: skip
    return SimpleNamespace(
        all=[SimpleNamespace(sha256=name, row=one) for name, one in zip(names, row, strict=True)],
        axes=[axis], points=axis, find=lambda digest, _: names.index(digest),
        layout=SimpleNamespace(search=SearchColumns((Objective("votes"),), ("cfg",))),
    )  # fmt: skip


def draw_pair(random, pictures):
    """A pair of any two points."""
    one, other = random.choice(len(pictures.points.values), 2, replace=False)
    combination = random.integers(COMBINATIONS)
    return "point", one * COMBINATIONS + combination, other * COMBINATIONS + combination


def _get_values(space, point):
    pairs = zip(space.axes, point, strict=True)
    return [value if axis.numbers is not None else axis.axis.options[value].value for axis, value in pairs]


def search(experiment, seed, per_round, *, choose):
    """Return how good the best point is in the end, as a share of the best possible. `choose`: not random pairs."""
    space = SearchSpace(experiment, replace(experiment.search, seed=seed))
    proposer = Proposer(space)
    random = np.random.default_rng(seed)
    points, quality, shown = [], [], np.zeros(0)
    votes, values = [], []
    for _ in range(ROUNDS):
        points += proposer.propose({point: (value,) for point, value in zip(points, values, strict=True)}, POINTS)
        quality = [rate(*_get_values(space, point)) for point in points]
        shown = np.append(shown, random.normal(0, 0.5, POINTS * COMBINATIONS))
        if per_round is None:
            values = quality
            continue
        pictures = make_pictures(len(points))
        choice = PairChoice(pictures, pictures.axes)
        for _ in range(per_round):
            _, one, other = choice.choose(votes, "ana", choice.fit(votes)) if choose else draw_pair(random, pictures)
            better = np.repeat(quality, COMBINATIONS) + shown
            wins = random.random() < 1 / (1 + np.exp(better[other] - better[one]))
            names = [pictures.all[index].sha256 for index in (one, other) for _ in range(2)]
            votes.append(Vote(str(len(votes)), "ana", "point", *names, 1.0, 2.0, "left" if wins else "right"))
        values = compute_shares(
            to_comparisons(pictures.points, list_answers(pictures, pictures.points, votes))
        ).tolist()
    return quality[int(np.argmax(values))] / BEST


def main(seeds):
    section = {"maximize": "votes", "trials": 400, "space": SPACE}
    with TemporaryDirectory() as folder:
        experiment = sweeper.load(write(folder, {"name": "e", "template": "t.json", "search": section}))
        print(f"{ROUNDS} rounds of {POINTS} points: how good the chosen point is, mean of {seeds} searches")
        cases = [(None, True), (20, False), *((count, True) for count in (8, 12, 20, 32))]
        for per_round, choose in cases:
            found = [search(experiment, seed, per_round, choose=choose) for seed in range(seeds)]
            error = np.std(found) / np.sqrt(seeds)
            pairs = "" if choose else " about random pairs"
            kind = "perfect knowledge" if per_round is None else f"{per_round} votes a round{pairs}"
            print(f"  {kind}: {np.mean(found):.1%} (standard error {error:.1%})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    main(parser.parse_args().seeds)
