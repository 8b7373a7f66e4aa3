"""How works that no worker has become groups: each handed out once, cut where a model changes, no cluster started."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweeper
from sweeper.cluster.work_pool import WorkPool
from sweeper.planning.order import Costs
from sweeper.planning.transition_cost import TransitionCost
from sweeper.running.work import WorkItem

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
def reruns(plan):
    return TransitionCost(plan.experiment.template, Costs())


@settings(max_examples=150)
@given(sizes=st.lists(st.integers(1, 20), max_size=40), back=st.sets(st.integers(0, 35), max_size=10))
def test_every_work_is_handed_out_once_whatever_comes_back(plan, reruns, sizes, back):
    pool = WorkPool((WorkItem(trial) for trial in plan), len(plan), reruns)
    taken = []
    for size in [*sizes, *[20] * 40]:
        group = pool.take(size)
        assert len(group) <= size + size // 2
        for work in group:
            if work.trial.index in back:
                back.discard(work.trial.index)
                pool.requeue(work)
            else:
                taken.append(work.trial.index)
    assert sorted(taken) == list(range(len(plan)))
    assert pool.idle


def test_a_group_ends_where_the_model_changes(plan, reruns):
    pool = WorkPool((WorkItem(trial) for trial in plan), len(plan), reruns)
    models = [{work.trial.params["model"] for work in pool.take(size)} for size in (10, 14, 9)]
    assert models == [{"a"}, {"b"}, {"c"}]


def test_what_is_taken_back_begins_with_another_model(plan, reruns):
    pool = WorkPool(iter(()), 0, reruns)
    works = [WorkItem(trial) for trial in plan][: 2 * PER_MODEL]
    assert pool.count_to_steal([], works[4:]) == PER_MODEL, "not the middle, which lies within the second model"
    assert pool.count_to_steal(works[:2], works[2:3]) == 1, "a whole job behind two others"
    assert pool.count_to_steal([], works[:1]) == 0, "it is next anyway"
