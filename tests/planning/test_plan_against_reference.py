"""The planner and the reference planner agree on random experiments."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import sweeper
from sweeper.errors import ExperimentError
from tests.experiment_files import rows, write
from tests.planning import reference_planner
from tests.planning.random_experiments import PHASES, experiments

RELAXED = settings(max_examples=45, phases=PHASES, suppress_health_check=list(HealthCheck))


@RELAXED
@given(experiments())
def test_the_plan_agrees_with_the_reference_planner(drawn):
    experiment, graph, slots, files = drawn
    with tempfile.TemporaryDirectory() as folder:
        loaded = sweeper.load(write(folder, experiment, graph, slots, files))
        expected = reference_planner.expand(experiment, graph, slots, Path(folder))
    if not expected:
        with pytest.raises(ExperimentError, match="no trial is left"):
            sweeper.plan(loaded)
        return
    plan = sweeper.plan(loaded)
    assert [(row.index, row.params, row.axes, row.digest) for row in expected] == rows(plan)
    assert len(plan) == len(expected)
    same_types = [repr(sorted(row.params.items())) for row in expected]
    assert same_types == [repr(sorted(trial.params.items())) for trial in plan.written()]


@RELAXED
@given(experiments())
def test_run_order_is_a_permutation_with_the_right_digests(drawn):
    experiment, graph, slots, files = drawn
    with tempfile.TemporaryDirectory() as folder:
        loaded = sweeper.load(write(folder, experiment, graph, slots, files))
        try:
            plan = sweeper.plan(loaded)
        except ExperimentError:
            return
    ran = list(plan)
    assert sorted(ran, key=lambda trial: trial.index) == list(plan.written())
    assert [trial.index for trial in plan.written()] == list(range(len(plan)))
    for trial in ran:
        assert reference_planner.compute_digest(plan.workflow(trial)) == trial.digest
        assert set(trial.columns) == set(plan.axis_columns)
        assert tuple(trial.params) == plan.slot_names
    if experiment["order"] == "written":
        assert ran == list(plan.written())
