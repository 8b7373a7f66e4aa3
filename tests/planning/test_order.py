"""Run order, compared with a simulated server that caches the node results of the last job, as ComfyUI does."""

from __future__ import annotations

import itertools
import json
import tempfile
import uuid
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.comfy.jobs_api import add_marker
from sweeper.planning.order import Costs, ServerCache
from tests.experiment_files import make_plan
from tests.planning.random_experiments import PHASES

RELAXED = settings(max_examples=25, phases=PHASES, suppress_health_check=list(HealthCheck))


@st.composite
def sweeps(draw, *, least):
    """(graph, slots, grid): up to six nodes of equal cost that link to earlier ones, and up to four axes."""
    count = draw(st.integers(1, 6))
    graph = {}
    for node_index in range(count):
        links = draw(st.lists(st.integers(0, node_index - 1), max_size=2, unique=True)) if node_index else []
        graph[str(node_index)] = {"class_type": "X", "inputs": {f"l{source}": [str(source), 0] for source in links}}
        if draw(st.integers(0, 3)) == 0:
            graph[str(node_index)]["inputs"]["filename_prefix"] = "x"
    slots, grid = {}, {}
    for number in range(draw(st.integers(1, 4))):
        node_indexes = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2, unique=True))
        for node_index in node_indexes:
            graph[str(node_index)]["inputs"][f"v{number}"] = 0
        slots[f"s{number}"] = {"at": [f"{node_index}.v{number}" for node_index in node_indexes]}
        grid[f"s{number}"] = list(range(draw(st.integers(least, 3))))
    return graph, slots, grid


def executions(workflows, *, keeps_all=False):
    """The number of nodes that run for these workflows one after the other; each has a prefix of its own for files."""
    total = 0
    cached = set()
    for graph in [add_marker(workflow, "e", uuid.uuid4().hex) for workflow in workflows]:

        @cache
        def cache_key(node, graph=graph):
            inputs = {name: cache_key(value[0]) if isinstance(value, list) else value
                      for name, value in graph[node]["inputs"].items()}  # fmt: skip
            return json.dumps([node, graph[node]["class_type"], inputs], sort_keys=True)

        current = {cache_key(node) for node in graph}
        total += len(current - cached)
        cached = current | (cached if keeps_all else set())
    return total


@RELAXED
@given(sweeps(least=2))
def test_the_order_report_is_exact_and_no_order_runs_fewer_nodes(drawn):
    graph, slots, grid = drawn
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(folder, {"sweep": {"grid": grid}}, graph, slots)
    ran = executions(plan.workflow(trial) for trial in plan)
    written = executions(plan.workflow(trial) for trial in plan.written())
    assert (plan.order.executions, plan.order.written) == (ran, written)
    trials = list(plan.written())
    for order in itertools.permutations(grid):
        nested = sorted(trials, key=lambda trial: [trial.params[name] for name in order])
        assert ran <= executions(plan.workflow(trial) for trial in nested)


@RELAXED
@given(sweeps(least=2), st.integers(1, 9))
def test_a_filtered_plan_is_never_worse_than_the_written_order(drawn, n):
    graph, slots, grid = drawn
    with tempfile.TemporaryDirectory() as folder:
        drawn = make_plan(folder, {"sweep": {"grid": grid, "sample": {"n": n}}}, graph, slots)
    ran = executions(drawn.workflow(trial) for trial in drawn)
    written = executions(drawn.workflow(trial) for trial in drawn.written())
    assert (drawn.order.executions, drawn.order.written) == (ran, written)
    assert ran <= written


@RELAXED
@given(sweeps(least=1))
def test_axes_of_one_value_cost_nothing(drawn):
    graph, slots, grid = drawn
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(folder, {"sweep": {"grid": grid}}, graph, slots)
    ran = executions(plan.workflow(trial) for trial in plan)
    written = executions(plan.workflow(trial) for trial in plan.written())
    assert (plan.order.executions, plan.order.written) == (ran, written)


@RELAXED
@given(sweeps(least=1), st.integers(1, 9))
def test_a_server_that_keeps_all_results_gets_the_written_order(drawn, n):
    graph, slots, grid = drawn
    for sample in ({}, {"sample": {"n": n}}):
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(folder, {"sweep": {"grid": grid, **sample}}, graph, slots)
        plan = plan.reordered(Costs(caching=ServerCache("ram", keeps_all=True)))
        assert [trial.index for trial in plan] == [trial.index for trial in plan.written()]
        ran = executions((plan.workflow(trial) for trial in plan), keeps_all=True)
        assert (plan.order.executions, plan.order.written) == (ran, ran)
        assert plan.order.why_written == "the server keeps the results of all jobs while its memory lasts"


FILES = ["a.safetensors", "b.safetensors", "c.safetensors"]
LOADER = {
    "1": {"class_type": "LoraLoader", "inputs": {"lora_name": FILES[0], "strength_model": 1.0, "style": "x"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
SLOTS = {"lora": {"at": "1.lora_name"}, "strength": {"at": "1.strength_model"}, "style": {"at": "1.style"}}


def count_reads(plan):
    """How often a loader that keeps its last file reads one."""
    return sum(1 for _ in itertools.groupby(plan, key=lambda trial: trial.params["lora"]))


@pytest.mark.parametrize(
    ("sweep", "reads"),
    [
        ({"grid": {"strength": [0.5, 1.0], "lora": FILES}}, 3),
        ({"grid": {"lora": FILES, "strength": [0.5, 1.0]}}, 3),
        ({"grid": {"strength": [0.5, 1.0], "lora": ["None", *FILES[:2]]}}, 3),
        ({"grid": {"strength": [0.5, 1.0, 2.0], "lora": FILES}, "exclude": [{"strength": 2.0, "lora": FILES[0]}]}, 3),
        ({"grid": {"strength": [0.5, 1.0], "kind": [{"label": name, "set": {"lora": name}} for name in FILES]}}, 3),
    ],
    ids=["number first", "file first", "one is none", "filtered", "bundle"],
)
def test_of_equal_orders_a_choice_of_files_varies_less_often_than_a_number(tmp_path, sweep, reads):
    plan = make_plan(tmp_path, {"sweep": sweep}, LOADER, SLOTS)
    assert count_reads(plan) == reads
    assert plan.order.executions == plan.order.written == 2 * len(plan)
    assert count_reads(plan.written()) >= reads


def test_files_are_known_by_options_of_slots_and_by_derived_values(tmp_path):
    slots = SLOTS | {"lora": {"at": "1.lora_name", "schema": {"enum": ["plain", "rich", FILES[0]]}}}
    body = {"sweep": {"grid": {"strength": [0.5, 1.0], "lora": ["plain", "rich"]}}}
    assert count_reads(make_plan(tmp_path, body, LOADER, slots)) == 2
    derived = {"derive": {"lora": "{{ look }}.ckpt"}, "sweep": {"grid": {"strength": [0.5, 1.0], "look": ["a", "b"]}}}
    assert count_reads(make_plan(tmp_path, derived, LOADER, SLOTS)) == 2


def test_number_and_text_of_equal_cost_keep_the_written_order(tmp_path):
    plan = make_plan(tmp_path, {"sweep": {"grid": {"strength": [0.5, 1.0], "style": ["a", "b"]}}}, LOADER, SLOTS)
    assert [trial.index for trial in plan] == [0, 1, 2, 3]
    declared = {"order": "written", "sweep": {"grid": {"strength": [0.5, 1.0], "lora": FILES}}}
    assert count_reads(make_plan(tmp_path, declared, LOADER, SLOTS)) == 6


def test_of_many_axes_the_one_with_the_costliest_nodes_is_outermost(tmp_path):
    texts = {f"text{number}": {"class_type": "Note", "inputs": {"text": "x"}} for number in range(13)}
    sampler = {"class_type": "KSampler", "inputs": {"cfg": 7.0}}
    inputs = {"images": ["1", 0], "filename_prefix": "x"} | {name: [name, 0] for name in texts}
    graph = {"1": sampler, "2": {"class_type": "SaveImage", "inputs": inputs}, **texts}
    slots = {"cfg": {"at": "1.cfg"}} | {name: {"at": f"{name}.text"} for name in texts}
    grid = {name: ["x"] for name in texts} | {"text0": ["x", "y"], "cfg": [5.0, 7.0]}
    order = make_plan(tmp_path, {"sweep": {"grid": grid}}, graph, slots).order
    assert order.axes[0][:2] == ("cfg", "text0")
