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


def test_a_slot_that_no_class_reads_is_a_problem_only_if_it_is_swept(tmp_path):
    graph = {"1": {"class_type": "Sample", "inputs": {"steps": 1, "seed": 2, "upload": "image"}}}
    slots = {"seed": {"at": "1.seed"}, "upload": {"at": "1.upload"}}
    info = NodeInfo.from_object_info(OBJECT_INFO)

    def fit(sweep):
        write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": sweep}}, graph, slots)
        return sweeper.plan(sweeper.load(tmp_path / "e.yaml")).fit(info)

    unset = fit({"seed": [1, 2]})
    assert unset.problems == ()
    assert ["upload would change nothing" in note.message for note in unset.notes] == [True]
    (problem,) = fit({"upload": ["image", "x"]}).problems
    assert "node 1 (Sample) upload: upload would change nothing: Sample has no such input" in problem.message


def test_a_swept_prompt_that_leaves_an_equal_text_gets_one_note(tmp_path):
    texts = {"1": "a red fox", "2": "a red fox", "3": "an owl"}
    graph = {node_id: {"class_type": "Encode", "inputs": {"text": text}} for node_id, text in texts.items()}
    slots = {"prompt": {"at": "1.text"}, "other": {"at": "2.text"}, "third": {"at": "3.text"}}
    info = NodeInfo.from_object_info({"Encode": {"input": {"required": {"text": ["STRING"]}}, "output_node": True}})

    def list_notes(sweep, params=None):
        write(tmp_path, {"template": "t.json", "params": params or {}, "sweep": {"grid": sweep}}, graph, slots)
        return [note.message for note in sweeper.plan(sweeper.load(tmp_path / "e.yaml")).fit(info).notes]

    assert list_notes({"prompt": ["a fox", "a wolf"]}) == [
        "'prompt' is swept, but 2.text has the same text and keeps it; if both must change, give the slot "
        "`at: [1.text, 2.text]`"
    ]
    assert list_notes({"prompt": ["a fox", "a wolf"]}, {"other": "a hare"}) == []
    assert list_notes({"prompt": ["a fox", "a wolf"], "other": ["a", "b"]}) == []
    assert list_notes({"third": ["a fox", "a wolf"]}) == []
