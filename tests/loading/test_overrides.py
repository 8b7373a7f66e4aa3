"""`load(..., overrides=)`, which `--set` uses, fixes a name wherever the experiment gives it."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.errors import ExperimentError
from tests.experiment_files import write

TEXT = """name: e
template: t.json
params: {cfg: 3}
derive: {prompt: "{{ subject }}!"}
sweep:
  grid: {subject: [fox, owl], steps: [4, 8]}
  zip:
    - {width: [256, 512], height: [512, 256]}
"""


def load_trials(folder, **overrides):
    plan = sweeper.plan(sweeper.load(write(folder, TEXT), overrides=overrides))
    return [(dict(trial.axes), dict(trial.params)) for trial in plan.written()]


def test_an_overridden_axis_has_one_value(tmp_path):
    trials = load_trials(tmp_path, steps=6)
    assert len(trials) == 4
    assert {axes["steps"] for axes, _ in trials} == {6}
    assert list(trials[0][0]) == ["subject", "steps", "width", "height"]


def test_overriding_one_axis_of_a_zip_keeps_the_others_linked(tmp_path):
    trials = load_trials(tmp_path, width=64)
    assert [(params["width"], params["height"]) for _, params in trials][:2] == [(64, 512), (64, 256)]
    assert len(trials) == 8


def test_params_defaults_and_variables_can_be_overridden(tmp_path):
    trials = load_trials(tmp_path, cfg=5, seed=9, subject="cat")
    assert {(params["cfg"], params["seed"], params["prompt"]) for _, params in trials} == {(5.0, 9, "cat!")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stpes": 4}, "'stpes' is neither a slot of the template nor used; did you mean 'steps'?"),
        ({"steps": "many"}, "found 'many', but an integer is needed"),
        ({"steps": 101}, "found 101, but at most 100 is needed"),
    ],
)
def test_an_invalid_override_is_refused(tmp_path, overrides, message):
    with pytest.raises(ExperimentError) as caught:
        load_trials(tmp_path, **overrides)
    assert message in str(caught.value)


def test_mistakes_in_the_file_are_reported_with_overrides_too(tmp_path):
    file = write(tmp_path, TEXT.replace("grid:", "gird:"))
    with pytest.raises(ExperimentError, match=r"e\.yaml:6: sweep\.gird: unknown key 'gird'; did you mean 'grid'\?"):
        sweeper.load(file, overrides={"steps": 6})


GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_overriding_disables_exclude_rows_for_other_values(tmp_path):
    sweep = {"grid": {"n": [4, 8], "x": [1, 2]}, "exclude": [{"n": 4, "x": 1}]}
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": sweep}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"n": 8}))
    assert [(trial.params["n"], trial.params["x"]) for trial in plan.written()] == [(8, 1.0), (8, 2.0)]


def test_an_override_may_be_the_label_of_a_value_or_bundle(tmp_path):
    grid = {"size": [{"label": "small", "set": {"w": 64}}, {"label": "large", "set": {"w": 512}}],
            "n": [{"label": "few", "value": 4}, {"label": "many", "value": 40}]}  # fmt: skip
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": grid}}, GRAPH, SLOTS)
    (trial,) = sweeper.plan(sweeper.load(file, overrides={"size": "large", "n": "few"}))
    assert (trial.params["w"], trial.params["n"], dict(trial.axes)) == (512, 4, {"size": "large", "n": "few"})


def test_overriding_a_derived_slot_keeps_its_axes_valid(tmp_path):
    experiment = {"name": "e", "template": "t.json", "derive": {"p": "a {{ v }}"}, "sweep": {"grid": {"v": ["x", "y"]}}}
    file = write(tmp_path, experiment, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"p": "said"}))
    assert {trial.params["p"] for trial in plan} == {"said"}


def test_a_list_sweeps_over_its_values(tmp_path):
    trials = load_trials(tmp_path, steps=[6, 8, 10], cfg=[2, 5])
    assert list(trials[0][0]) == ["subject", "steps", "cfg", "width", "height"]
    assert len(trials) == 2 * 3 * 2 * 2
    assert [axes["steps"] for axes, _ in trials[::4]] == [6, 8, 10] * 2
    assert {params["cfg"] for _, params in trials} == {2.0, 5.0}
    assert load_trials(tmp_path, steps=[6]) == load_trials(tmp_path, steps=6)


def test_a_form_of_values_sweeps_too(tmp_path):
    trials = load_trials(tmp_path, seed={"seeds": 3}, steps={"from": 2, "to": 6, "step": 2})
    assert len({params["seed"] for _, params in trials}) == 3
    assert {params["steps"] for _, params in trials} == {2, 4, 6}


def test_a_list_makes_an_experiment_without_a_sweep_one_with(tmp_path):
    file = write(tmp_path, {"name": "e", "template": "t.json", "params": {"n": 4}}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"n": [1, 2]}))
    assert [dict(trial.axes) for trial in plan.written()] == [{"n": 1}, {"n": 2}]


def test_a_list_replaces_excluded_and_included_values(tmp_path):
    sweep = {"grid": {"n": [4, 8], "x": [1, 2]}, "exclude": [{"n": 4, "x": 1}, {"n": 8, "x": 2}],
             "include": [{"n": 50, "x": 9}]}  # fmt: skip
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": sweep}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"n": [4, 6]}))
    points = [(trial.params["n"], trial.params["x"]) for trial in plan.written()]
    assert points == [(4, 2.0), (6, 1.0), (6, 2.0), (4, 9.0), (6, 9.0)]


def test_a_list_of_labels_chooses_bundles(tmp_path):
    size = [{"label": name, "set": {"w": width}} for name, width in (("small", 64), ("wide", 512), ("huge", 2048))]
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": {"size": size}}}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"size": ["huge", "small"]}))
    assert [(trial.axes["size"], trial.params["w"]) for trial in plan.written()] == [("huge", 2048), ("small", 64)]


def test_a_slot_that_takes_lists_keeps_a_list_as_one_value(tmp_path):
    slots = {**SLOTS, "p": {"at": "1.p", "schema": {"type": ["array", "string"]}}}
    file = write(tmp_path, {"name": "e", "template": "t.json"}, GRAPH, slots)
    (trial,) = sweeper.plan(sweeper.load(file, overrides={"p": [1, 2]}))
    assert trial.params["p"] == [1, 2]
    assert len(sweeper.plan(sweeper.load(file, overrides={"p": [[1], [2]]}))) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"steps": [4, "many"]}, "--set steps: found 'many', but an integer is needed"),
        ({"steps": []}, "--set steps: "),
        ({"stpes": [4, 8]}, "--set stpes: the axis 'stpes' is neither a slot of the template nor used"),
        ({"steps": {"seeds": -1}}, "--set steps: "),
    ],
)
def test_an_invalid_list_is_refused_with_its_option(tmp_path, overrides, message):
    with pytest.raises(ExperimentError) as caught:
        load_trials(tmp_path, **overrides)
    assert message in str(caught.value)
