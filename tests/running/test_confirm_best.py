"""The numbers of `sweeper search --confirm` in simulated searches whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean

import pytest

from sweeper.errors import UsageError
from sweeper.model.result import FAILED, SUCCEEDED, Result
from sweeper.planning.searching.search_plan import PointBatch, SearchPlan
from sweeper.planning.searching.search_state import SearchState
from sweeper.running import confirm_best
from sweeper.running.confirm_best import confirm_points, plan_confirmation
from tests.planning.random_searches import make_space

SEARCHES = 300
POINTS = 20
SEARCH = {
    "maximize": "sharpness", "trials": 160, "space": {"cfg": {"from": 1, "to": 9}, "steps": {"from": 4, "to": 20}},
    "over": {"prompt": ["a fox", "a house"], "seed": {"seeds": 2}},
}  # fmt: skip


def compute_truth(params, peak):
    return peak * (1 - ((params["cfg"] - 6) / 8) ** 2) + 5 * (params["prompt"] == "a fox")


def measure(plan, peak, noise):
    return [
        Result(trial.index, trial.columns, trial.params, trial.digest, SUCCEEDED,
               metrics={"sharpness": compute_truth(trial.params, peak) + noise.gauss(0, 1)})
        for trial in plan.written()
    ]  # fmt: skip


@pytest.fixture
def plan_known(monkeypatch):
    """A function that plans the confirmation of a search that knows these points."""

    def plan(space, state):
        monkeypatch.setattr(confirm_best.SearchRounds, "load_known", lambda _: (state, 0))
        return plan_confirmation(space.experiment, ())

    return plan


@pytest.mark.parametrize("peak", [0, 3], ids=["nothing matters", "cfg matters"])
def test_confirmed_number_is_unbiased_where_that_of_the_search_is_not(tmp_path, plan_known, peak):
    noise = random.Random(0)
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": SEARCH})
    points = [space.from_vector((noise.random(), noise.random())) for _ in range(POINTS)]
    plan = SearchPlan(space, [PointBatch(1, tuple(points), tuple(range(4)))])
    chosen, fresh, covered = [], [], 0
    for _ in range(SEARCHES):
        state = SearchState(space, plan, measure(plan, peak, noise))
        (best,) = state.describe_best(1)
        confirmation = plan_known(space, state)
        (found,) = confirm_points(confirmation, measure(confirmation.plan, peak, noise))
        confirmed = found.objectives["sharpness"]
        assert found.values == best.values
        truth = compute_truth({**best.values, "prompt": ""}, peak) + 2.5  # the mean of both prompts
        chosen.append((best.objectives["sharpness"] - truth) * 2)  # in standard errors: 4 trials
        fresh.append((confirmed.mean - truth) * 8**0.5)
        covered += confirmed.low <= truth <= confirmed.high
    assert 1.2 < mean(chosen) < 2.5
    assert abs(mean(fresh)) < 0.25
    assert 0.92 < covered / SEARCHES < 0.98


def test_lost_trials_of_a_prompt_do_not_move_the_mean(tmp_path, plan_known):
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": SEARCH})
    plan = SearchPlan(space, [PointBatch(1, (space.from_vector((0.5, 0.5)),), tuple(range(4)))])
    noise = random.Random(0)
    confirmation = plan_known(space, SearchState(space, plan, measure(plan, 1, noise)))
    noise.gauss = lambda *_: 0.0
    rows = measure(confirmation.plan, 1, noise)
    (whole,) = confirm_points(confirmation, rows)
    lost = [replace(row, status=FAILED) if row.trial in (0, 3) else row for row in rows]
    (found,) = confirm_points(confirmation, lost)
    assert found.objectives["sharpness"].mean == pytest.approx(whole.objectives["sharpness"].mean)
    assert (found.seeds, found.trials, found.succeeded) == (4, 8, 6)


@pytest.mark.parametrize(
    ("over", "seeds"),
    [
        ({"seed": {"seeds": 2}}, 8),
        ({"seed": {"seeds": 20}}, 20),
        ({"prompt": ["a fox", "a house"], "seed": [1, 2]}, 4),
        ({"prompt": ["a fox", "a house", "a hare", "a hen"]}, 4),
        ({}, 8),
    ],
)
def test_fresh_seeds_are_as_many_as_before_and_eight_trials_at_least(tmp_path, plan_known, over, seeds):
    search = {**{key: value for key, value in SEARCH.items() if key != "over"}, **({"over": over} if over else {})}
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": search})
    count = len(space.combinations)
    plan = SearchPlan(space, [PointBatch(1, (space.from_vector((0.5, 0.5)),), tuple(range(count)))])
    state = SearchState(space, plan, measure(plan, 1, random.Random(0)))
    used = {trial.params["seed"] for trial in plan}
    first, again = (plan_known(space, state).plan for _ in range(2))
    fresh = {trial.params["seed"] for trial in first}
    assert (len(fresh), fresh & used) == (seeds, set())
    assert [trial.digest for trial in first] == [trial.digest for trial in again]


def test_seed_that_the_space_chooses_cannot_be_renewed(tmp_path, plan_known):
    search = {"maximize": "sharpness", "trials": 8, "space": {"seed": {"from": 0, "to": 99}}}
    space = make_space(tmp_path, {"name": "e", "template": "t.json", "search": search})
    plan = SearchPlan(space, [PointBatch(1, (space.from_vector((0.5,)),), (0,))])
    rows = [Result(0, {}, {**trial.params, "cfg": 1, "prompt": ""}, trial.digest, SUCCEEDED) for trial in plan]
    state = SearchState(space, plan, [replace(row, metrics={"sharpness": 1.0}) for row in rows])
    with pytest.raises(UsageError, match="named like a seed; make a slot of the sampler's seed"):
        plan_known(space, state)
