"""Run order against a simulated server that keeps the last job's node results, as ComfyUI's classic cache does."""

from __future__ import annotations

import itertools
import json
import tempfile
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.experiment_files import planned
from tests.planning.random_experiments import PHASES

RELAXED = settings(max_examples=25, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))


@st.composite
def sweeps(draw, *, least):
    """(graph, slots, grid): up to six nodes of one cost that link to earlier ones, up to four axes on some of them."""
    count = draw(st.integers(1, 6))
    graph = {}
    for place in range(count):
        links = draw(st.lists(st.integers(0, place - 1), max_size=2, unique=True)) if place else []
        graph[str(place)] = {"class_type": "X", "inputs": {f"l{source}": [str(source), 0] for source in links}}
    slots, grid = {}, {}
    for number in range(draw(st.integers(1, 4))):
        places = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2, unique=True))
        for place in places:
            graph[str(place)]["inputs"][f"v{number}"] = 0
        slots[f"s{number}"] = {"at": [f"{place}.v{number}" for place in places]}
        grid[f"s{number}"] = list(range(draw(st.integers(least, 3))))
    return graph, slots, grid


def executions(workflows):
    """How many nodes run when these workflows come one after the other."""
    total = 0
    held = set()
    for graph in workflows:

        @cache
        def told(node, graph=graph):
            inputs = {name: told(value[0]) if isinstance(value, list) else value
                      for name, value in graph[node]["inputs"].items()}  # fmt: skip
            return json.dumps([node, graph[node]["class_type"], inputs], sort_keys=True)

        present = {told(node) for node in graph}
        total += len(present - held)
        held = present
    return total


@RELAXED
@given(sweeps(least=2))
def test_the_order_runs_as_many_nodes_as_it_says_and_no_nesting_runs_fewer(world):
    graph, slots, grid = world
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(folder, {"sweep": {"grid": grid}}, graph, slots)
    ran = executions(plan.workflow(trial) for trial in plan)
    written = executions(plan.workflow(trial) for trial in plan.written())
    assert (plan.order.executions, plan.order.written) == (ran, written)
    trials = list(plan.written())
    for order in itertools.permutations(grid):
        nested = sorted(trials, key=lambda trial: [trial.params[name] for name in order])
        assert ran <= executions(plan.workflow(trial) for trial in nested)


@RELAXED
@given(sweeps(least=2), st.integers(1, 9))
def test_a_filtered_plan_counts_what_is_left_and_never_does_worse_than_written(world, n):
    graph, slots, grid = world
    with tempfile.TemporaryDirectory() as folder:
        drawn = planned(folder, {"sweep": {"grid": grid, "sample": {"n": n}}}, graph, slots)
    ran = executions(drawn.workflow(trial) for trial in drawn)
    written = executions(drawn.workflow(trial) for trial in drawn.written())
    assert (drawn.order.executions, drawn.order.written) == (ran, written)
    assert ran <= written


@RELAXED
@given(sweeps(least=1))
def test_axes_of_one_value_cost_nothing(world):
    graph, slots, grid = world
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(folder, {"sweep": {"grid": grid}}, graph, slots)
    ran = executions(plan.workflow(trial) for trial in plan)
    written = executions(plan.workflow(trial) for trial in plan.written())
    assert (plan.order.executions, plan.order.written) == (ran, written)
