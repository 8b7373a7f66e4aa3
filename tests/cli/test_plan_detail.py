"""`sweeper plan` in detail: exclusions with reasons, workflow files, and differences from a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.loading.load import load
from sweeper.planning.plan import Plan

FILTERED = """\
name: shop
template: t.json
params: {cfg: 7}
sweep:
  grid:
    prompt: [a fox, an owl]
    steps: [1, 2, 3]
    seed: [1, 2]
  exclude: [{prompt: a fox, steps: 3}, {steps: 3, seed: 1}, {steps: 2, prompt: an owl, seed: 2}]
  where: steps * cfg < 21
  include: [{prompt: a fox, steps: 9}]
  sample: {n: 5, seed: 1}
"""
SMALL = "name: shop\ntemplate: t.json\nparams: {cfg: 2}\nsweep: {grid: {prompt: [a fox, an owl], steps: [1, 2]}}\n"


BLOCKS = """\
name: shop
template: t.json
sweep:
  - grid: {cfg: [1, 2.5, 7], steps: [1, 2]}
  - grid: {cfg: [3, 4.5], prompt: [a fox, an owl]}
"""


def test_axes_and_order_of_several_blocks_are_labelled(sweeper, write):
    output = [line.split() for line in sweeper("plan", write(BLOCKS)).out.splitlines()]
    assert ["cfg", "5", "1", "|", "2.5", "|", "7", "|", "3", "|", "4.5"] in output
    assert [line[:2] for line in output if line[:1] == ["order"]] == [["order", "1"], ["order", "2"]]
    assert sweeper("plan", "shop.yaml", "--json").json["axes"] == {"cfg": 5, "steps": 2, "prompt": 2}


def test_excluded_combinations_are_counted_by_reason(sweeper, write):
    output = sweeper("plan", write(FILTERED), "--json").json

    (block,) = output["blocks"]
    assert block["excluded"] == [
        {"reason": "exclude[0]", "says": {"prompt": "a fox", "steps": 3}, "count": 2},
        {"reason": "exclude[1]", "says": {"steps": 3, "seed": 1}, "count": 1},
        {"reason": "exclude[2]", "says": {"steps": 2, "prompt": "an owl", "seed": 2}, "count": 1},
        {"reason": "where", "says": "steps * cfg < 21", "count": 1},
        {"reason": "sample", "says": {"n": 5, "seed": 1}, "count": 2},
    ]
    assert (block["product"], block["included"], block["count"], output["count"]) == (12, 1, 6, 6)


def test_workflows_writes_each_distinct_workflow(sweeper, write):
    write("name: shop\ntemplate: t.json\nsweep: [{grid: {steps: [4, 8]}}, {grid: {steps: [8]}}]\n")

    counts = sweeper("plan", "shop.yaml", "--workflows", "out", "--json").json["workflows"]

    planned = Plan(load("shop.yaml"))
    first, second, _ = planned.written()
    assert counts == {"dir": "out", "written": 2, "same": 0}
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"0-{first.digest[:8]}.json",
        f"1-{second.digest[:8]}.json",
    ]
    assert json.loads(Path(f"out/1-{second.digest[:8]}.json").read_text()) == planned.workflow(second)


def test_workflows_keeps_same_files_and_warns_of_other_plans(sweeper, write):
    sweeper("plan", write(SMALL), "--workflows", "out")
    assert "workflows  4  in out  (4 unchanged)" in sweeper("plan", "shop.yaml", "--workflows", "out").out

    outcome = sweeper("plan", write(SMALL.replace("cfg: 2", "cfg: 3")), "--workflows", "out")

    assert len(list(Path("out").iterdir())) == 8
    assert outcome.err == "warning: out holds 4 workflows that do not belong to this plan\n"


@pytest.mark.parametrize("content", ["mine", "{}", "[1]", '{"1": {"class_type": "A", "inputs": {}}}'])
def test_workflows_never_overwrites_a_foreign_file(sweeper, write, content):
    write(SMALL)
    path = Path("out") / f"0-{next(Plan(load('shop.yaml')).written()).digest[:8]}.json"
    path.parent.mkdir()
    path.write_text(content)

    outcome = sweeper("plan", "shop.yaml", "--workflows", "out")

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {path}: exists, and is not this trial's workflow; give another folder\n"
    assert path.read_text() == content


@pytest.fixture
def ran(sweeper, write):
    """The results of the small sweep."""
    write(SMALL)
    assert sweeper("run", "shop.yaml").code == 0


@pytest.mark.parametrize("reference", ["1", str(Path("results/shop")), "shop.yaml"])
def test_diff_of_an_unchanged_plan_is_empty(sweeper, ran, reference):
    diff = sweeper("plan", "shop.yaml", "--diff", reference, "--json").json["diff"]

    assert [diff[kind] for kind in ("same", "new", "changed", "gone")] == [4, 0, 0, 0]
    assert (diff["run"], diff["results"]) == (1, str(Path("results/shop")))


def test_diff_separates_new_changed_and_gone_trials(sweeper, ran, write):
    write(SMALL.replace("an owl", "a bear").replace("params: {cfg: 2}", "derive: {cfg: '{{ steps * 2 }}'}"))

    diff = sweeper("plan", "shop.yaml", "--diff", "1", "--json").json["diff"]

    assert [diff[kind] for kind in ("same", "new", "changed", "gone")] == [1, 2, 1, 2]
    assert diff["trials"] == {
        "new": [{"trial": 2, "axes": {"prompt": "a bear", "steps": 1}},
                {"trial": 3, "axes": {"prompt": "a bear", "steps": 2}}],
        "changed": [
            {"trial": 1, "was": 1, "axes": {"prompt": "a fox", "steps": 2}, "params": {"cfg": [2.0, 4.0]}},
        ],
        "gone": [{"trial": 2, "axes": {"prompt": "an owl", "steps": 1}},
                 {"trial": 3, "axes": {"prompt": "an owl", "steps": 2}}],
    }  # fmt: skip
    lines = sweeper("plan", "shop.yaml", "--diff", "1").out.splitlines()
    assert lines[-8:-2] == [
        "         trial  prompt  steps  what differs",
        "changed      1  a fox       2  cfg 2 -> 4",
        "new          2  a bear      1",
        "new          3  a bear      2",
        "gone         2  an owl      1",
        "gone         3  an owl      2",
    ]


def test_diff_separates_changed_workflow_from_changed_params(sweeper, ran, write):
    graph = json.loads(Path("t.json").read_text())
    graph["9"]["inputs"]["filename_prefix"] = "q"
    Path("t.json").write_text(json.dumps(graph))

    outcome = sweeper("plan", "shop.yaml", "--diff", "1")

    assert "changed      0  a fox       1  the workflow or an input file" in outcome.out.splitlines()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("7", "error: --diff 7: results/shop holds no results yet; you can also give a results folder\n"),
        ("nowhere", "error: nowhere: no such results folder, and no experiment file of that name\n"),
    ],
)
def test_diff_with_a_missing_run_is_an_error(sweeper, write, reference, message):
    outcome = sweeper("plan", write(SMALL), "--diff", reference)

    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)
    assert not Path("results").exists()


def test_unknown_run_is_reported_with_the_existing_runs(sweeper, ran):
    outcome = sweeper("plan", "shop.yaml", "--diff", "7")

    assert (outcome.code, outcome.err) == (2, f"error: {Path('results/shop')}: no run 7 here; there are: 1\n")
