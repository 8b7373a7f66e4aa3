"""Which trials stay: what a row of `exclude` means, and what a sample may depend on."""

from __future__ import annotations

from sweeper.planning.grid import Grid
from sweeper.planning.trial_filters import iter_drop_reasons
from tests.experiment_files import planned

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_a_numeric_label_may_be_excluded_as_it_was_written(tmp_path):
    grid = {"n": [{"label": 4, "value": 10}, {"label": 5, "value": 20}]}
    plan = planned(tmp_path, {"sweep": {"grid": grid, "exclude": [{"n": 4}]}}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in plan.written()] == [20]


def test_exclude_tells_true_from_one_inside_a_list_too(tmp_path):
    grid = {"w": [[1], [True]]}
    plan = planned(tmp_path, {"sweep": {"grid": grid, "exclude": [{"w": [True]}]}}, GRAPH, SLOTS)
    assert [repr(trial.params["w"]) for trial in plan.written()] == ["[1]"]


def test_a_sample_does_not_move_when_another_block_is_added(tmp_path):
    block = {"grid": {"n": list(range(20))}, "sample": {"n": 5}}
    alone = planned(tmp_path, {"sweep": [block]}, GRAPH, SLOTS)
    before = [trial.params["n"] for trial in alone.written()]
    both = planned(tmp_path, {"params": {"p": "a"}, "sweep": [block, {"grid": {"x": [1]}}]}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in both.written()][:5] == before


def test_each_dropped_point_has_the_first_rule_that_drops_it(tmp_path):
    grid = {"n": [1, 2, 3, 4], "x": [1, 2]}
    exclude = [{"n": 1}, {"x": 2, "n": 2}]
    sweep = {"grid": grid, "exclude": exclude, "where": "n < 4", "sample": {"n": 2}}
    plan = planned(tmp_path, {"sweep": sweep}, GRAPH, SLOTS)
    (block,) = plan.experiment.blocks
    found = list(iter_drop_reasons(Grid(plan.experiment, block.dimensions, {}), block))
    assert found[:2] == ["exclude[0]"] * 2
    assert found[3] == "exclude[1]"
    assert found[6:] == ["where"] * 2
    assert sorted(map(str, [found[2], *found[4:6]])) == ["None", "None", "sample"]
    assert found.count(None) == len(plan)
