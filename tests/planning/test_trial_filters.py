"""Filters: the rows of `exclude`, samples, and the reasons why points are dropped."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.planning.grid import Grid
from sweeper.planning.order import CLASSIC_CACHE, Costs, ServerCache
from sweeper.planning.trial_filters import iter_drop_reasons
from tests.experiment_files import make_plan

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_a_numeric_label_may_be_excluded_as_it_was_written(tmp_path):
    grid = {"n": [{"label": 4, "value": 10}, {"label": 5, "value": 20}]}
    plan = make_plan(tmp_path, {"sweep": {"grid": grid, "exclude": [{"n": 4}]}}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in plan.written()] == [20]


def test_exclude_distinguishes_true_and_1_inside_lists(tmp_path):
    grid = {"w": [[1], [True]]}
    plan = make_plan(tmp_path, {"sweep": {"grid": grid, "exclude": [{"w": [True]}]}}, GRAPH, SLOTS)
    assert [repr(trial.params["w"]) for trial in plan.written()] == ["[1]"]


def test_a_sample_does_not_move_when_another_block_is_added(tmp_path):
    block = {"grid": {"n": list(range(20))}, "sample": {"n": 5}}
    alone = make_plan(tmp_path, {"sweep": [block]}, GRAPH, SLOTS)
    before = [trial.params["n"] for trial in alone.written()]
    both = make_plan(tmp_path, {"params": {"p": "a"}, "sweep": [block, {"grid": {"x": [1]}}]}, GRAPH, SLOTS)
    assert [trial.params["n"] for trial in both.written()][:5] == before


def test_each_dropped_point_has_the_first_filter_that_drops_it(tmp_path):
    grid = {"n": [1, 2, 3, 4], "x": [1, 2]}
    exclude = [{"n": 1}, {"x": 2, "n": 2}]
    sweep = {"grid": grid, "exclude": exclude, "where": "n < 4", "sample": {"n": 2}}
    plan = make_plan(tmp_path, {"sweep": sweep}, GRAPH, SLOTS)
    (block,) = plan.experiment.blocks
    reasons = list(iter_drop_reasons(Grid(plan.experiment, block.dimensions, {}), block))
    assert reasons[:2] == ["exclude[0]"] * 2
    assert reasons[3] == "exclude[1]"
    assert reasons[6:] == ["where"] * 2
    assert sorted(map(str, [reasons[2], *reasons[4:6]])) == ["None", "None", "sample"]
    assert reasons.count(None) == len(plan)


def _write_grid_of_2_to_the_70():
    axes = {name: {"from": 1, "to": 16384, "step": 1} for name in "abcde"}
    return {"derive": {"p": "{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}"}, "sweep": {"grid": axes}}


@pytest.mark.parametrize("cache", [CLASSIC_CACHE, ServerCache("lru", 4)], ids=str)
def test_a_sample_of_more_points_than_64_bits_number(tmp_path, cache):
    written = _write_grid_of_2_to_the_70()
    plan = make_plan(tmp_path, {**written, "sweep": {**written["sweep"], "sample": {"n": 6}}}, GRAPH, SLOTS)
    plan = plan.reordered(Costs(caching=cache))
    rows = [tuple(trial.axes.values()) for trial in plan.written()]
    assert len(plan) == len(set(rows)) == plan.order.executions == 6
    assert rows == sorted(rows)
    assert {trial.index for trial in plan} == set(range(6))


def test_a_sweep_that_cannot_be_counted_is_an_error(tmp_path):
    plan = make_plan(tmp_path, _write_grid_of_2_to_the_70(), GRAPH, SLOTS)
    with pytest.raises(sweeper.SweeperError, match=r"1,180,591,620,717,411,303,424 trials, .* add a `sample`"):
        len(plan)
