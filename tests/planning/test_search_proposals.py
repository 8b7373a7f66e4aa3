"""What a search tries next: new, allowed points, the same ones for the same rows, until none is left."""

from __future__ import annotations

import importlib.util
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.random_experiments import PHASES
from tests.planning.random_searches import make_space, searches

METHODS = ["auto", "random", "qmc", "tpe", "nsga2", *(["gp"] if importlib.util.find_spec("torch") else [])]
AIMS = [{"maximize": "brightness"}, {"maximize": "brightness", "minimize": ["contrast"]}]


def make_proposer(space):
    from sweeper.planning.searching.proposals import Proposer  # takes a second, in each process that collects tests

    return Proposer(space)


def measure(space, point):
    """The objectives of a point; None for some, as if their trials had failed."""
    share = math.fsum(math.sin(1 + index + value) for index, value in enumerate(point))
    return None if int(share * 100) % 5 == 0 else (share, share**2)[: len(space.search.objectives)]


def try_all(space, count, rounds):
    """Try points until none is left, or for so many rounds."""
    tried = {}
    for _ in range(rounds):
        points = make_proposer(space).propose(tried, count)
        assert tried.keys().isdisjoint(points)
        tried |= {point: measure(space, point) for point in points}
        if len(points) < count:
            break
    return tried


@settings(max_examples=15, phases=PHASES)
@given(st.data(), st.sampled_from(METHODS), st.sampled_from(AIMS), st.integers(1, 7))
def test_proposals_are_new_allowed_and_repeatable(data, method, aim, count):
    space = data.draw(searches(method=method, seed=data.draw(st.integers(0, 9)), **aim))
    tried = try_all(space, count, rounds=4)
    assert all(space.find_allowed(list(tried)))
    assert try_all(space, count, rounds=4) == tried
    again = make_proposer(space)
    assert [again.propose(tried, count) for _ in range(2)] == [make_proposer(space).propose(tried, count)] * 2


@settings(max_examples=12, phases=PHASES)
@given(st.data(), st.sampled_from(METHODS), st.sampled_from(AIMS))
def test_a_finite_space_is_exhausted_exactly(data, method, aim):
    space = data.draw(searches(finite=True, method=method, **aim).filter(lambda space: space.size <= 40))
    everything = list(space.list_points())
    allowed = {point for point, keys in zip(everything, space.find_allowed(everything), strict=True) if keys}
    tried = try_all(space, 8, rounds=10)
    assert len(tried) == len(allowed)
    assert tried.keys() == allowed


@pytest.mark.parametrize("method", METHODS)
def test_a_method_finds_a_planted_optimum(method, tmp_path):
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": {
        "maximize": "brightness", "trials": 60, "method": method,
        "space": {"cfg": {"from": 0, "to": 30}, "steps": {"from": 1, "to": 100}},
    }})  # fmt: skip
    tried = {}
    while len(tried) < 60:
        points = make_proposer(space).propose(tried, 5)
        tried |= {point: (-math.hypot((point[0] - 21) / 30, (point[1] - 33) / 99),) for point in points}
    best = max(tried.values())[0]
    assert best > (-0.15 if method in ("random", "qmc") else -0.12)
