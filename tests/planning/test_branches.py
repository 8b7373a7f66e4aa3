"""A dynamic combo is swept across its branches: each workflow has the inputs of its own branch only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import ExperimentError
from sweeper.model.node_classes import NodeInfo
from sweeper.model.workflow import compute_digest
from sweeper.planning.plan import Plan
from tests.experiment_files import make_plan
from tests.model.node_classes.small_object_info import match, node

NUMBER = {"required": {"factor": ["FLOAT", {"min": 0.1, "max": 8.0}]}}
OPTIONS = [
    {"key": "by width", "inputs": {"required": {"width": ["INT", {"min": 1}]}, "optional": {"crop": ["STRING"]}}},
    {"key": "by factor", "inputs": NUMBER},
    {"key": "like", "inputs": {"required": {"other": ["IMAGE"]}}},
    {"key": "nested", "inputs": {"required": {"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [
        {"key": "a", "inputs": NUMBER}, {"key": "b", "inputs": {}}]}]}}},
]  # fmt: skip
INFO = NodeInfo.from_object_info(
    {
        "Resize": node({"input": match("IMAGE"), "how": ["COMFY_DYNAMICCOMBO_V3", {"options": OPTIONS}]}, "IMAGE"),
        "Load": node({"image": [["a.png"], {"image_upload": True}]}, "IMAGE"),
        "Save": node({"images": ["IMAGE"]}, output_node=True),
    }
)
GRAPH: dict[str, Any] = {
    "1": {"class_type": "Load", "inputs": {"image": "a.png"}},
    "2": {
        "class_type": "Resize",
        "inputs": {"input": ["1", 0], "how": "by width", "how.width": 64, "how.crop": "no", "how.other": ["1", 0]},
    },
    "3": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
}
SLOTS = {"how": {"at": "2.how"}, "width": {"at": "2.how.width"}, "factor": {"at": "2.how.factor", "default": 2}}
BRANCHES = {
    "2.how": {"by width": ["width", "crop"], "by factor": ["factor"], "like": ["other"], "nested": ["mode"]},
    "2.how.mode": {"a": ["factor"], "b": []},
}


def plan_of(tmp_path: Path, sweep: dict[str, Any], slots: Any = SLOTS, branches: Any = BRANCHES) -> Plan:
    sidecar = {"slots": slots, "branches": branches}
    plan = make_plan(tmp_path, {"sweep": {"grid": sweep}}, GRAPH, files={"t.slots.yaml": sidecar})
    assert isinstance(plan, Plan)
    return plan


def inputs_of(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            name.removeprefix("how."): value
            for name, value in plan.workflow(trial)["2"]["inputs"].items()
            if name != "input"
        }
        for trial in plan.written()
    ]


def test_inputs_of_other_branches_are_left_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"how": ["by width", "by factor", "like"]})
    assert inputs_of(plan) == [
        {"how": "by width", "width": 64, "crop": "no"},
        {"how": "by factor", "factor": 2},
        {"how": "like", "other": ["1", 0]},
    ]
    assert [compute_digest(plan.workflow(trial)) for trial in plan.written()] == [
        trial.digest for trial in plan.written()
    ]
    assert plan.fit(INFO).problems == ()


def test_a_value_of_another_branch_does_not_make_a_new_trial(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"how": ["by width", "by factor"], "width": [64, 128]})
    digests = [trial.digest for trial in plan.written()]
    assert digests[2] == digests[3]
    assert len(set(digests)) == 3


def test_an_input_that_a_branch_needs_is_missing(tmp_path: Path) -> None:
    (problem,) = plan_of(tmp_path, {"how": ["by width", "by factor"]}, {"how": {"at": "2.how"}}).fit(INFO).problems
    assert problem.key == "sweep.grid.how[1]"
    assert problem.message == (
        "node 2 (Resize): the required input 'how.factor' is missing; how 'by factor' needs it (to sweep 'how', list "
        "under `branches` in the slots file which inputs each choice has)"
    )


def test_values_are_checked_only_in_their_branch(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"how": ["by width", "by factor"], "factor": [0.5, 50]})
    assert [problem.message for problem in plan.fit(INFO).problems] == [
        "node 2 (Resize) how.factor: found 50, but at most 8.0 is needed"
    ]
    assert plan_of(tmp_path, {"factor": [0.5, 50]}).fit(INFO).problems == ()


def test_a_node_is_checked_only_if_a_trial_chooses_its_branch(tmp_path: Path) -> None:
    """Node 4 would be refused, and only the branch 'like' links to it."""
    graph = {**GRAPH, "4": {"class_type": "Load", "inputs": {"image": "gone.png"}}}
    inputs = {**GRAPH["2"]["inputs"], "how.other": ["4", 0]}
    graph["2"] = {**GRAPH["2"], "inputs": inputs}

    def fit(*options: str) -> list[str]:
        sidecar = {"slots": SLOTS, "branches": BRANCHES}
        plan = make_plan(tmp_path, {"sweep": {"grid": {"how": [*options]}}}, graph, files={"t.slots.yaml": sidecar})
        return [problem.message for problem in plan.fit(INFO).problems]

    assert fit("by width", "by factor") == []
    assert fit("by width", "like") == [
        "node 4 (Load) image: found 'gone.png', which is not on the server; there are: a.png"
    ]


def test_branches_may_contain_dynamic_combos(tmp_path: Path) -> None:
    slots = {**SLOTS, "mode": {"at": "2.how.mode", "default": "a"}, "inner": {"at": "2.how.mode.factor", "default": 3}}
    plan = plan_of(tmp_path, {"how": ["nested", "by factor"], "mode": ["a", "b"]}, slots)
    assert inputs_of(plan) == [
        {"how": "nested", "mode": "a", "mode.factor": 3},
        {"how": "nested", "mode": "b"},
        {"how": "by factor", "factor": 2},
        {"how": "by factor", "factor": 2},
    ]
    assert plan.fit(INFO).problems == ()


def test_an_unknown_option_keeps_its_inputs_and_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"how": ["by widt"]})
    assert inputs_of(plan)[0]["width"] == 64
    assert "found 'by widt'; did you mean 'by width'?" in plan.fit(INFO).problems[0].message


def test_links_of_other_branches_are_refused_without_branches(tmp_path: Path) -> None:
    (problem,) = plan_of(tmp_path, {"width": [64]}, {"width": {"at": "2.how.width"}}, {}).fit(INFO).problems
    assert "how.other: belongs to how 'like', which is not chosen, so its link makes the node fail" in problem.message


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ({"9.how": {"a": []}}, "there is no node 9"),
        ({"2.hw": {"a": []}}, "node 2 (Resize) has no input 'hw'; did you mean 'how'?"),
        ({"how": {"a": []}}, "'how' is not an address"),
        ({"2.how": {"a": "width"}}, "found 'width', but a list is needed"),
    ],
)
def test_mistakes_in_branches_are_located(tmp_path: Path, branches: Any, message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        plan_of(tmp_path, {"width": [1]}, {"width": {"at": "2.how.width"}}, branches)
    assert message in str(caught.value)
    assert "t.slots.yaml" in str(caught.value)
