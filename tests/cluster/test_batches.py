"""How the pool cuts its work into batches: each item once, with a cut where the model changes. Without a cluster."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.cluster.batch_follower import WorkPool
from sweeper.planning.order import Costs, TransitionCost
from sweeper.running.work_queue import WorkItem

TEMPLATE = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "{{ model }}"}},
    "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": "{{ seed }}"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}
PER_MODEL = 12


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    (folder / "t.json").write_text(json.dumps(TEMPLATE))
    sweep = {"grid": {"model": ["a", "b", "c"], "seed": list(range(PER_MODEL))}}
    (folder / "e.yaml").write_text(json.dumps({"template": "t.json", "sweep": sweep}))
    return sweeper.plan(sweeper.load(folder / "e.yaml"))


@pytest.fixture(scope="module")
def transition_cost(plan):
    return TransitionCost(plan.experiment.template, Costs())


@settings(max_examples=150)
@given(sizes=st.lists(st.integers(1, 20), max_size=40), returned=st.sets(st.integers(0, 35), max_size=10))
def test_each_item_is_handed_out_once_although_some_are_returned(plan, transition_cost, sizes, returned):
    pool = WorkPool((WorkItem(trial) for trial in plan), len(plan), transition_cost)
    taken = []
    for size in [*sizes, *[20] * 40]:
        batch = pool.take(size)
        assert len(batch) <= size + size // 2
        for item in batch:
            if item.trial.index in returned:
                returned.discard(item.trial.index)
                pool.requeue(item)
            else:
                taken.append(item.trial.index)
    assert sorted(taken) == list(range(len(plan)))
    assert pool.idle


def test_batch_ends_where_the_model_changes(plan, transition_cost):
    pool = WorkPool((WorkItem(trial) for trial in plan), len(plan), transition_cost)
    models = [{item.trial.params["model"] for item in pool.take(size)} for size in (10, 14, 9)]
    assert models == [{"a"}, {"b"}, {"c"}]


def test_stolen_items_begin_with_another_model(plan, transition_cost):
    pool = WorkPool(iter(()), 0, transition_cost)
    items = [WorkItem(trial) for trial in plan][: 2 * PER_MODEL]
    assert pool.count_to_steal([], items[4:]) == PER_MODEL, "not the middle, which is within the second model"
    assert pool.count_to_steal(items[:2], items[2:3]) == 1, "a whole job behind two others"
    assert pool.count_to_steal([], items[:1]) == 0, "it is next anyway"
