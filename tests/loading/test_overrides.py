"""`load(..., overrides=)`, which `--set` uses: a name is fixed wherever the experiment gives it."""

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


def fixed(folder, **overrides):
    plan = sweeper.plan(sweeper.load(write(folder, TEXT), overrides=overrides))
    return [(dict(trial.axes), dict(trial.params)) for trial in plan.written()]


def test_a_swept_slot_keeps_its_axis_with_one_value(tmp_path):
    found = fixed(tmp_path, steps=6)
    assert len(found) == 4
    assert {axes["steps"] for axes, _ in found} == {6}
    assert list(found[0][0]) == ["subject", "steps", "width", "height"]


def test_one_axis_of_a_zip_group_leaves_the_others_together(tmp_path):
    found = fixed(tmp_path, width=64)
    assert [(params["width"], params["height"]) for _, params in found][:2] == [(64, 512), (64, 256)]
    assert len(found) == 8


def test_params_defaults_and_variables_are_fixed_too(tmp_path):
    found = fixed(tmp_path, cfg=5, seed=9, subject="cat")
    assert {(params["cfg"], params["seed"], params["prompt"]) for _, params in found} == {(5.0, 9, "cat!")}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"stpes": 4}, "'stpes' is neither a slot of the template nor used; did you mean 'steps'?"),
        ({"steps": "many"}, "found 'many', but an integer is needed"),
        ({"steps": 101}, "found 101, but at most 100 is needed"),
    ],
)
def test_a_wrong_override_is_refused_like_a_wrong_line(tmp_path, overrides, said):
    with pytest.raises(ExperimentError) as caught:
        fixed(tmp_path, **overrides)
    assert said in str(caught.value)


def test_the_files_own_mistakes_are_told_with_overrides_as_without(tmp_path):
    file = write(tmp_path, TEXT.replace("grid:", "gird:"))
    with pytest.raises(ExperimentError, match=r"e\.yaml:6: sweep\.gird: unknown key 'gird'; did you mean 'grid'\?"):
        sweeper.load(file, overrides={"steps": 6})


GRAPH = {"1": {"class_type": "A", "inputs": {"x": 0, "n": 0, "p": "", "w": 512}}}
SLOTS = {"x": {"at": "1.x", "schema": {"type": "number"}}, "n": {"at": "1.n", "schema": {"type": "integer"}},
         "p": {"at": "1.p", "schema": {"type": "string"}}, "w": {"at": "1.w"}}  # fmt: skip


def test_fixing_a_name_leaves_an_exclude_row_about_its_other_values_without_effect(tmp_path):
    sweep = {"grid": {"n": [4, 8], "x": [1, 2]}, "exclude": [{"n": 4, "x": 1}]}
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": sweep}, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"n": 8}))
    assert [(trial.params["n"], trial.params["x"]) for trial in plan.written()] == [(8, 1.0), (8, 2.0)]


def test_fixing_an_axis_of_labels_or_bundles_means_the_one_of_that_label(tmp_path):
    grid = {"size": [{"label": "small", "set": {"w": 64}}, {"label": "large", "set": {"w": 512}}],
            "n": [{"label": "few", "value": 4}, {"label": "many", "value": 40}]}  # fmt: skip
    file = write(tmp_path, {"name": "e", "template": "t.json", "sweep": {"grid": grid}}, GRAPH, SLOTS)
    (trial,) = sweeper.plan(sweeper.load(file, overrides={"size": "large", "n": "few"}))
    assert (trial.params["w"], trial.params["n"], dict(trial.axes)) == (512, 4, {"size": "large", "n": "few"})


def test_fixing_a_derived_slot_does_not_make_the_axes_behind_it_a_mistake(tmp_path):
    experiment = {"name": "e", "template": "t.json", "derive": {"p": "a {{ v }}"}, "sweep": {"grid": {"v": ["x", "y"]}}}
    file = write(tmp_path, experiment, GRAPH, SLOTS)
    plan = sweeper.plan(sweeper.load(file, overrides={"p": "said"}))
    assert {trial.params["p"] for trial in plan} == {"said"}
