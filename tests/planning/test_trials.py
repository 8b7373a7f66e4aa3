"""The trials of a plan: values, digests, filters and samples."""

from __future__ import annotations

import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.experiment_files import make_plan, rows
from tests.planning import reference_planner

QUICK = settings(max_examples=25)
GRAPH = {
    "1": {"class_type": "A", "inputs": {"n": 0, "x": 0.5, "p": "", "e": 4, "any": None}, "_meta": {"title": "t"}},
    "2": {"class_type": "B", "inputs": {"from": ["1", 0], "said": "{{ p }}, {{ x }}"}},
}
SLOTS = {
    "n": {"at": "1.n", "schema": {"type": "integer"}},
    "x": {"at": "1.x", "schema": {"type": "number"}},
    "p": {"schema": {"type": "string"}, "default": "a"},
    "e": {"at": "1.e", "schema": {"enum": [4, 8, "auto"]}},
    "any": {"at": "1.any"},
}


def plan_of(folder, **experiment):
    return make_plan(folder, experiment, GRAPH, SLOTS)


def only(folder, **params):
    (trial,) = plan_of(folder, params=params)
    return trial


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("n", 7.0, 7), ("n", -0.0, 0), ("n", 2**64 - 1, 2**64 - 1), ("n", 10**30, 10**30),
        ("x", 7, 7.0), ("x", 0, 0.0), ("x", -0.0, 0.0), ("x", 1e-7, 1e-7),
        ("e", 4.0, 4), ("e", "auto", "auto"), ("any", -0.0, 0.0), ("any", [1, -0.0], [1, 0.0]),
        ("any", {"a": [None, True]}, {"a": [None, True]}), ("p", "7", "7"),
    ],
)  # fmt: skip
def test_a_value_is_normalised_by_its_slot(tmp_path, name, written, value):
    trial = only(tmp_path, **{name: written})
    assert json.dumps(trial.params[name]) == json.dumps(value)


@pytest.mark.parametrize(("name", "one", "other"), [("n", 7, 7.0), ("x", 7, 7.0), ("x", -0.0, 0), ("e", 8, 8.0)])
def test_equal_values_have_one_digest(tmp_path, name, one, other):
    assert only(tmp_path, **{name: one}).digest == only(tmp_path, **{name: other}).digest


def test_values_are_never_rendered(tmp_path):
    text = "{{ x }} {% if %} {# \"'\n\\ <b>"
    trial = only(tmp_path, p=text, any=text)
    assert trial.params["p"] == text
    graph = plan_of(tmp_path, params={"p": text, "any": text}).workflow(trial)
    assert graph["2"]["inputs"]["said"] == f"{text}, 0.5"
    assert graph["1"]["inputs"]["any"] == text


def test_a_workflow_is_a_new_dict_each_time(tmp_path):
    plan = plan_of(tmp_path, params={"any": [1, {"deep": 2}]})
    (trial,) = plan
    first = plan.workflow(trial)
    first["1"]["inputs"]["any"][1]["deep"] = "changed"
    first["2"]["inputs"]["from"].append("changed")
    assert plan.workflow(trial)["1"]["inputs"]["any"] == [1, {"deep": 2}]
    assert reference_planner.compute_digest(plan.workflow(trial)) == trial.digest
    assert list(plan) == [trial]


def test_the_digest_covers_class_and_inputs_but_not_meta(tmp_path):
    base = only(tmp_path).digest
    renamed = json.loads(json.dumps(GRAPH))
    renamed["1"]["_meta"] = {"title": "other", "more": 1}
    other = json.loads(json.dumps(GRAPH))
    other["2"]["class_type"] = "C"
    assert next(iter(make_plan(tmp_path, {}, renamed, SLOTS))).digest == base
    assert next(iter(make_plan(tmp_path, {}, other, SLOTS))).digest != base


def test_the_digest_ignores_the_name_and_the_order_of_keys(tmp_path):
    turned = {node: {key: GRAPH[node][key] for key in reversed(GRAPH[node])} for node in reversed(GRAPH)}
    one = make_plan(tmp_path, {"name": "one"}, GRAPH, SLOTS)
    two = make_plan(tmp_path, {"name": "two"}, turned, SLOTS)
    assert [trial.digest for trial in one] == [trial.digest for trial in two]


FILE_GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "server.png"}},
              "2": {"class_type": "LoadImage", "inputs": {"image": "{{ image }}"}}}  # fmt: skip
FILE_SLOTS = {"image": {"at": "1.image", "kind": "file"}}


def file_plan(folder, name, data):
    return make_plan(folder, {"params": {"image": name}}, FILE_GRAPH, FILE_SLOTS, {name: data})


def test_the_digest_covers_the_content_of_files_not_their_names(tmp_path):
    one, same = file_plan(tmp_path, "a.png", b"1"), file_plan(tmp_path, "in/b.png", b"1")
    other = file_plan(tmp_path, "a.png", b"2")
    digests = [next(iter(plan)).digest for plan in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_plan_lists_input_files_with_path_and_hash(tmp_path):
    plan = file_plan(tmp_path, "in/a.png", b"1")
    (trial,) = plan
    files = [(file.node, file.input, file.value, file.path, file.sha256) for file in plan.files(trial)]
    sha256 = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    path = (tmp_path / "in/a.png").resolve()
    assert sorted(files) == [("1", "image", "in/a.png", path, sha256), ("2", "image", "in/a.png", path, sha256)]
    graph = plan.workflow(trial)
    assert all(graph[file.node]["inputs"][file.input] == file.value for file in plan.files(trial))


def test_without_a_sweep_there_is_one_trial(tmp_path):
    (trial,) = plan_of(tmp_path)
    assert (trial.index, dict(trial.axes)) == (0, {})
    assert trial.params == {"n": 0, "x": 0.5, "p": "a", "e": 4, "any": None}


def test_slots_and_axes_keep_their_written_order(tmp_path):
    plan = plan_of(tmp_path, sweep=[{"grid": {"x": [1], "n": [1]}}, {"grid": {"p": ["b"], "n": [2]}}])
    assert plan.slot_names == ("n", "x", "p", "e", "any")
    assert plan.axis_columns == ("x", "n", "p")
    assert [dict(trial.axes) for trial in plan.written()] == [{"x": 1.0, "n": 1, "p": "a"},
                                                              {"x": 0.5, "n": 2, "p": "b"}]  # fmt: skip
    assert plan.axis_sizes == {"x": 1, "n": 2, "p": 1}


def test_the_size_of_an_axis_counts_distinct_values(tmp_path):
    plan = plan_of(tmp_path, sweep=[{"grid": {"x": [1, 2]}}, {"grid": {"x": [2.0, 4, 5]}}])
    assert (plan.axis_sizes, plan.axis_cells("x")) == ({"x": 4}, [1.0, 2.0, 4.0, 5.0])
    plan = plan_of(tmp_path, sweep=[{"grid": {"any": [True, 1, "1", "true", None]}}, {"grid": {"any": [1.0, None]}}])
    assert plan.axis_sizes == {"any": 5}


def test_axes_have_labels_and_params_have_values(tmp_path):
    sweep = {
        "grid": {
            "n": [{"label": "few", "value": 4}, 9],
            "look": [{"label": "tall", "set": {"x": 2}}, {"label": "wide", "set": {"x": 3}}],
        },
        "where": "n > 3 and (n == 9 or x == 2)",
    }
    plan = plan_of(tmp_path, sweep=sweep)
    assert plan.axis_columns == ("n", "n.label", "look")
    assert [dict(trial.axes) for trial in plan.written()] == [
        {"n": "few", "look": "tall"}, {"n": 9, "look": "tall"}, {"n": 9, "look": "wide"},
    ]  # fmt: skip
    assert [tuple(trial.columns.values()) for trial in plan.written()] == [
        (4, "few", "tall"), (9, None, "tall"), (9, None, "wide"),
    ]  # fmt: skip
    assert [(trial.params["n"], trial.params["x"]) for trial in plan.written()] == [(4, 2.0), (9, 2.0), (9, 3.0)]


def test_exclude_matches_typed_values_or_labels_of_all_keys(tmp_path):
    grid = {"n": [4, 8], "e": [4, "auto"], "any": [True, 1, {"label": "one", "value": "x"}]}
    plan = plan_of(tmp_path, sweep={"grid": grid, "exclude": [{"n": 4.0, "e": 4}, {"any": 1}, {"any": "one", "n": 8}]})
    points = [(trial.axes["n"], trial.axes["e"], trial.axes["any"]) for trial in plan.written()]
    assert points == [(4, "auto", True), (4, "auto", "one"), (8, 4, True), (8, "auto", True)]


def test_trials_with_equal_digests_stay_separate_rows(tmp_path):
    plan = plan_of(tmp_path, sweep={"grid": {"n": [4, 4.0], "x": [1]}})
    assert [trial.index for trial in plan] == [0, 1]
    assert len({trial.digest for trial in plan}) == 1


def test_derived_names_may_use_each_other_and_defaults(tmp_path):
    derive = {"p": "{{ b }}!", "b": "{{ a }}{{ a }}", "a": "{{ x }}", "any": "{{ n + 1 }}"}
    trial = next(iter(plan_of(tmp_path, derive=derive)))
    assert (trial.params["p"], trial.params["any"]) == ("0.50.5!", 1)


def test_a_block_without_an_axis_uses_params_or_the_default(tmp_path):
    sweep = [{"grid": {"n": [1], "x": [1]}}, {"grid": {"e": [8]}}]
    first, second = plan_of(tmp_path, params={"n": 5}, sweep=sweep).written()
    assert (first.params["n"], first.params["x"], first.params["e"]) == (1, 1.0, 4)
    assert (second.params["n"], second.params["x"], second.params["e"]) == (5, 0.5, 8)


SAMPLED = {"n": list(range(6)), "x": [0.5, 1, 2], "p": ["a", "b"]}


@QUICK
@given(st.integers(1, 40), st.integers(0, 2**63))
def test_a_sample_is_a_reproducible_subset_in_written_order(size, seed):
    with tempfile.TemporaryDirectory() as folder:
        everything = rows(plan_of(folder, sweep={"grid": SAMPLED}))
        sweep = {"grid": SAMPLED, "sample": {"n": size, "seed": seed}}
        plan = plan_of(folder, sweep=sweep)
        again = plan_of(folder, sweep=sweep)
    sampled = rows(plan)
    assert len(plan) == len(sampled) == min(size, len(everything))
    assert sampled == rows(again)
    assert [row[0] for row in sampled] == list(range(len(sampled)))
    indexes = [[row[1:] for row in everything].index(row[1:]) for row in sampled]
    assert indexes == sorted(set(indexes))


@QUICK
@given(st.integers(1, 20), st.sampled_from(["n", "x", "p"]))
def test_a_value_added_to_an_axis_keeps_most_of_the_sample(size, axis):
    added = {**SAMPLED, axis: [*SAMPLED[axis], {"n": 99, "x": 9.5, "p": "z"}[axis]]}
    with tempfile.TemporaryDirectory() as folder:
        before = {row[3] for row in rows(plan_of(folder, sweep={"grid": SAMPLED, "sample": {"n": size}}))}
        after = plan_of(folder, sweep={"grid": added, "sample": {"n": size}})
    old = {trial.digest for trial in after.written() if trial.params[axis] in SAMPLED[axis]}
    assert old <= before


def test_a_sample_depends_on_its_seed_and_follows_filters(tmp_path):
    def drawn(seed):
        sweep = {"grid": SAMPLED, "where": "n != 3", "exclude": [{"p": "b"}], "include": [{"n": 3}],
                 "sample": {"n": 7, "seed": seed}}  # fmt: skip
        return [trial.params for trial in plan_of(tmp_path, sweep=sweep).written()]

    samples = [drawn(seed) for seed in range(4)]
    for sample in samples:
        assert [params["n"] == 3 for params in sample] == [False] * 7 + [True]
        assert {params["p"] for params in sample} == {"a"}
    assert len({json.dumps(sample) for sample in samples}) > 1


def test_a_large_plan_starts_and_counts_at_once(tmp_path):
    grid = {"n": {"from": 1, "to": 1000, "step": 1}, "x": {"from": 0, "to": 99.9, "step": 0.1}, "any": {"seeds": 1000}}
    plan = plan_of(tmp_path, sweep={"grid": grid})
    assert len(plan) == 10**9
    assert next(iter(plan)).index == 0


def test_run_order_puts_costly_axes_outermost_unless_written(tmp_path):
    graph = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"n": 0}},
             "2": {"class_type": "KSampler", "inputs": {"x": 0.5, "model": ["1", 0]}}}  # fmt: skip
    slots = {"n": SLOTS["n"], "x": {"at": "2.x", "schema": {"type": "number"}}}
    experiment = {"sweep": {"grid": {"x": [1, 2], "n": [1, 2]}}}
    plan = make_plan(tmp_path, experiment, graph, slots)
    assert [(trial.index, trial.params["n"]) for trial in plan] == [(0, 1), (2, 1), (1, 2), (3, 2)]
    assert plan.order.axes == (("n", "x"),)
    assert (plan.order.executions, plan.order.written, plan.order.saved) == (2 + 4, 4 + 4, 2)
    written = make_plan(tmp_path, {**experiment, "order": "written"}, graph, slots)
    assert [trial.index for trial in written] == [0, 1, 2, 3]
