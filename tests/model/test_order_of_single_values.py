"""The count of node executions where an axis has one value only: such an axis never makes a node run again."""

from __future__ import annotations

import tempfile

from hypothesis import given
from test_order import RELAXED, executions, sweeps
from writing import planned


@RELAXED
@given(sweeps(least=1))
def test_axes_of_one_value_cost_nothing(world):
    graph, slots, grid = world
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(folder, {"sweep": {"grid": grid}}, graph, slots)
    ran = executions(plan.workflow(trial) for trial in plan)
    written = executions(plan.workflow(trial) for trial in plan.written())
    assert (plan.order.executions, plan.order.written) == (ran, written)
