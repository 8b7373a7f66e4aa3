"""A plan is checked against the node classes of a server."""

from __future__ import annotations

import sweeper
from sweeper.model.node_classes import NodeInfo
from tests.experiment_files import write

OBJECT_INFO = {
    "Sample": {
        "input": {"required": {"steps": ["INT", {"min": 1}], "seed": ["INT", {}]}},
        "output": ["IMAGE"],
        "output_node": True,
    }
}


def test_jinja_without_slots_is_checked_at_its_line_in_the_workflow(tmp_path):
    graph = {"1": {"class_type": "Sample", "inputs": {"steps": "{{ 'many' }}", "seed": "{{ seed }}"}}}
    write(tmp_path, "template: t.json\nsweep: {grid: {seed: [1, 2]}}\n", graph, {}, {})

    plan = sweeper.plan(sweeper.load(tmp_path / "e.yaml"))
    (problem,) = plan.fit(NodeInfo.from_object_info(OBJECT_INFO)).problems

    assert (problem.line, problem.key) == (1, "1.inputs.steps")
    assert problem.message == "node 1 (Sample) steps: found 'many', but an integer is needed"
