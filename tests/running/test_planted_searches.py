"""A search finds a planted optimum in far fewer trials than random points do."""

from __future__ import annotations

import itertools
from statistics import median

import pytest

from tests.running.planted_searches import SEARCHES, count_trials_to_goal, propose_alone, search_for_goal

BATCH = 4
CONSTRAINED = next(search for search in SEARCHES if search.name == "constrained")
SMOOTH, NOISY = (next(search for search in SEARCHES if search.name == name) for name in ("smooth", "noisy"))


def load(search, folder, method, seed=0, trials=1):
    return search.load(folder, trials=trials, method=method, seed=seed, batch=BATCH)


def test_a_real_search_asks_for_the_points_that_the_proposer_proposes(tmp_path):
    for search, method in ((CONSTRAINED, "random"), (NOISY, "auto")):
        experiment = load(search, tmp_path, method, trials=12 * search.seeds)
        found = search_for_goal(experiment, search, tmp_path / method)
        expected = list(itertools.islice(propose_alone(experiment, search, BATCH), len(found)))
        assert len(found) >= 8
        assert [values for values, _ in found] == [values for values, _ in expected]
        assert [mean for _, mean in found] == pytest.approx([mean for _, mean in expected])


@pytest.mark.parametrize("search", [SMOOTH, NOISY], ids=lambda search: search.name)
def test_auto_needs_a_third_of_the_trials_of_random_at_most(search, tmp_path):
    def count(method, seed, most):
        points = propose_alone(load(search, tmp_path, method, seed), search, BATCH)
        return count_trials_to_goal(search, itertools.islice(points, most)) or most * search.seeds

    auto = [count("auto", seed, most=100) for seed in range(5)]
    random = [count("random", seed, most=2000) for seed in range(11)]
    assert median(auto) * 3 <= median(random)
