"""The written order of axis values, recorded by their first trials if the rows have another order."""

from __future__ import annotations

import json
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.experiment_files import make_plan

GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "s": "euler"}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "s": {"at": "1.s"}}  # fmt: skip


def find_written_order(folder, sweep, **more):
    """The values of each axis with a recorded order, in that order."""
    plan = make_plan(folder, {"sweep": sweep, **more}, GRAPH, SLOTS)
    trials = list(plan.written())
    return {name: [trials[at].columns[name] for at in order] for name, order in plan.value_order.items()}


def test_values_delayed_by_a_filter_keep_their_written_order(tmp_path):
    grid = {"s": ["euler", "heun"], "n": [1, 2, 3, 4, 5]}
    exclude = [{"s": "euler", "n": 2}, {"s": "euler", "n": 3}]
    assert find_written_order(tmp_path, {"grid": grid, "exclude": exclude}) == {"n": [1, 2, 3, 4, 5]}
    assert find_written_order(tmp_path, {"grid": grid, "where": "s == 'heun' or n > 3"}) == {"n": [1, 2, 3, 4, 5]}


def test_no_order_is_given_if_the_rows_have_the_written_order(tmp_path):
    grid = {"s": ["euler", "heun"], "n": [3, 1, 2]}
    assert find_written_order(tmp_path, {"grid": grid}) == {}
    assert find_written_order(tmp_path, {"grid": grid, "exclude": [{"s": "heun", "n": 1}]}) == {}
    assert find_written_order(tmp_path, [{"grid": grid}, {"grid": {"n": [9, 1]}}]) == {}


def test_null_and_labels_have_an_order(tmp_path):
    style = [None, {"label": "oil", "value": "in oil"}, {"label": "ink", "value": "in ink"}]
    exclude = [{"n": 1, "style": None}, {"n": 1, "style": "oil"}]
    sweep = {"grid": {"n": [1, 2], "style": style}, "exclude": exclude}
    orders = find_written_order(tmp_path, sweep, derive={"p": "a fox {{ style or 1 }}"})
    assert orders == {"style": [None, "in oil", "in ink"], "style.label": [None, "oil", "ink"]}


def test_bundles_and_zips_have_an_order(tmp_path):
    size = [{"label": "small", "set": {"x": 1}}, {"label": "large", "set": {"x": 2}}]
    zipped, exclude = [{"n": [7, 8], "p": ["a", "b"]}], [{"s": "e", "size": "small"}, {"s": "e", "n": 7}]
    sweep = {"grid": {"s": ["e", "h"], "size": size}, "zip": zipped, "exclude": exclude}
    assert find_written_order(tmp_path, sweep) == {"size": ["small", "large"], "n": [7, 8], "p": ["a", "b"]}


def test_several_blocks_and_extra_rows_have_one_order(tmp_path):
    first = {"grid": {"s": ["e", "h"], "n": [1, 2, 3]}, "exclude": [{"n": 2}], "include": [{"n": 9, "s": "e"}]}
    second = {"grid": {"n": [4, 2, 9, 5], "s": ["d"]}}
    assert find_written_order(tmp_path, [first, second]) == {"n": [1, 2, 3, 9, 4, 5]}


def test_the_order_has_only_sampled_values_and_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeper.planning.plan._MAX_VALUES", 1_000)

    def size(drawn):
        sweep = {"grid": {"n": [1, 2], "x": {"from": 1, "to": 1_200, "step": 1}}, "sample": {"n": drawn}}
        return len(json.dumps(make_plan(tmp_path, {"sweep": sweep}, GRAPH, SLOTS).value_order))

    assert size(20) < 200
    assert size(900) < 8_000
    assert size(2_400) == len("{}")


@settings(max_examples=35, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.permutations([1, 2, 3, 4]), st.sets(st.tuples(st.integers(1, 4), st.sampled_from("ab")), max_size=7))
def test_the_written_order_survives_any_filter(tmp_path, numbers, gone):
    exclude = [{"n": n, "p": p} for n, p in sorted(gone)]
    sweep = {"grid": {"p": ["b", "a"], "n": numbers}, **({"exclude": exclude} if exclude else {})}
    plan = make_plan(tmp_path, {"sweep": sweep}, GRAPH, SLOTS)
    trials = list(plan.written())
    left = [point for point in product(["b", "a"], numbers) if point[::-1] not in gone]
    for name, index, written in (("p", 0, ["b", "a"]), ("n", 1, numbers)):
        leading = [trials[at].columns[name] for at in plan.value_order.get(name, ())]
        there = list(dict.fromkeys([*leading, *(point[index] for point in left)]))
        assert there == [value for value in written if value in {point[index] for point in left}]


def test_linked_axes_are_pairs_that_no_block_separates(tmp_path):
    def pairs(sweep, **more):
        return make_plan(tmp_path, {"sweep": sweep, **more}, GRAPH, SLOTS).together

    zipped = {"zip": [{"n": [7, 8], "s": ["a", "b"]}]}
    assert pairs({"grid": {"n": [1, 2], "s": [3, 4]}}) == ()
    assert pairs({**zipped, "grid": {"x": [1, 2]}}) == (("n", "s"),)
    assert pairs([zipped, {"grid": {"n": [1, 2]}}]) == (("n", "s"),)
    assert pairs([zipped, {"grid": {"n": [1, 2], "s": [3, 4]}}]) == ()
    assert pairs({"grid": {"p": {"choices": "{a|b} {c|d}"}}}) == (("p", "p.1"), ("p", "p.2"), ("p.1", "p.2"))
    bundle = {"grid": {"size": [{"label": "small", "set": {"x": 1}}, {"label": "large", "set": {"x": 2}}]}}
    assert pairs([bundle, {"grid": {"x": [3, 4]}}]) == (("size", "x"),)
