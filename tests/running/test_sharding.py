"""Several targets share a plan in shards: every item once, and cuts at the most expensive changes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.planning.order import NO_CACHE, Costs, TransitionCost
from sweeper.running.work_queue import ShardedQueue, WorkItem, find_cut
from tests.few_classes import pick_classes
from tests.running.test_order_on_a_server import TEMPLATE, experiment

AXES = ("seed", "prompt", "checkpoint")


def works(plan):
    return [WorkItem(trial) for trial in plan]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return sweeper.plan(experiment(tmp_path_factory.mktemp("plan"), AXES))


@pytest.fixture(scope="module")
def reruns(plan):
    return TransitionCost(plan.experiment.template, Costs())


@settings(max_examples=200)
@given(
    takers=st.tuples(st.lists(st.sampled_from("abcd"), max_size=120), st.lists(st.sampled_from("abcd"), max_size=3)),
    count=st.integers(0, 12),
    targets=st.integers(2, 5),
)
def test_every_item_is_taken_once(plan, reruns, takers, count, targets):
    takers, left = takers
    shards = ShardedQueue(iter(works(plan)[:count]), reruns, count=count, targets=targets)
    taken = [work for target in takers if (work := shards.take(target)) is not None]
    for target in left:
        shards.unassign(target)
    taken += iter(lambda: shards.take("last"), None)
    for target in "abcd":  # what was not worth taking from those who hold it
        taken += iter(lambda target=target: shards.take(target), None)
    assert shards.is_empty
    assert sorted(work.trial.index for work in taken) == sorted(work.trial.index for work in works(plan)[:count])


def test_the_transition_cost_is_that_of_the_changed_nodes(plan, reruns):
    first, *rest = list(plan)
    assert reruns.compute(None, first) == reruns.full_cost
    costs = [reruns.compute(before, after) for before, after in itertools.pairwise([first, *rest])]
    assert {costs[place] for place in (3, 7)} == {max(costs)}
    assert max(costs) < reruns.full_cost  # the latent is not made again
    assert costs[1] == costs[5] > costs[0]  # another text, another seed
    assert TransitionCost(plan.experiment.template, Costs(caching=NO_CACHE)).compute(first, rest[0]) == reruns.full_cost


def test_a_shard_ends_before_the_most_expensive_change_near_its_size():
    costs = [0.0, 1, 1, 5, 1, 1, 9, 1, 1, 5, 1, 1]
    assert find_cut(costs, 3, 6, 9) == 6
    assert find_cut(costs, 3, 4, 5) == 3


def test_two_targets_load_each_model_about_once(tmp_path):
    with (
        EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as one,
        EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as two,
    ):
        one.faults.node_seconds = two.faults.node_seconds = 0.005
        run = sweeper.run(experiment(tmp_path, AXES), [one.url, two.url], tmp_path / "out")
        loads = [server.seen.nodes["CheckpointLoaderSimple"] for server in (one, two)]
        sampled = [server.seen.nodes["KSampler"] for server in (one, two)]
    assert run.succeeded == sum(sampled) == 12
    assert min(sampled) >= 3
    # One by one, both would load all three: 6 at best, and up to 12 with the texts in between.
    assert sum(loads) <= 5


def test_a_fast_target_takes_the_tail_of_a_slow_ones_shard(tmp_path):
    file = tmp_path / "e.yaml"
    sweep = {"grid": {"seed": {"seeds": 24}}}
    file.write_text(
        json.dumps({"template": str(TEMPLATE), "params": {"steps": 1, "width": 64, "height": 64}, "sweep": sweep})
    )
    with (
        EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as slow,
        EmbeddedServer(dialect="comfyui", nodes=pick_classes()) as fast,
    ):
        slow.faults.node_seconds = 0.1
        run = sweeper.run(file, [slow.url, fast.url], tmp_path / "out")
        done = [sum(server.seen.executions.values()) for server in (slow, fast)]
    assert run.succeeded == sum(done) == 24
    assert done[0] < done[1]
