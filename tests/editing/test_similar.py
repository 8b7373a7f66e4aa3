"""From one trial to the next experiment: finer steps around it, or the same trial with one other value."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.editing.cell_actions import make_revised, make_similar
from sweeper.errors import UsageError
from tests.experiment_files import make_search_writer, write

TEXT = """\
name: mine
template: t.json
target: embedded
params: {height: 512}  # fixed
sweep:
  grid:
    prompt: [a fox, a wolf]
    cfg: [4, 7, 10]
    width: {from: 256, to: 768, step: 256}
    steps: [4, 5, 6]
    seed: {seeds: 2}
metrics: [sharpness]
run: {retries: 0}
"""


def find(file, **wanted):
    """The experiment, and the settings of its first trial with these values."""
    experiment = sweeper.load(file)
    trials = ({**trial.axes, **trial.params} for trial in sweeper.plan(experiment))
    return experiment, next(trial for trial in trials if wanted.items() <= trial.items())


def load_text(folder, text):
    (folder / "near.yaml").write_text(text)
    return sweeper.load(folder / "near.yaml")


def list_values(experiment):
    axes = [axis for block in experiment.blocks for (axis,) in block.dimensions]
    return {axis.name: [option.value for option in axis.options] for axis in axes}


def test_a_similar_experiment_has_finer_steps_and_more_seeds(tmp_path):
    experiment, settings = find(write(tmp_path, TEXT), prompt="a wolf", cfg=7.0, width=512, steps=5)
    near = load_text(tmp_path, make_similar(experiment, settings, name="mine-near-12"))
    values = list_values(near)
    assert (near.name, near.metrics, near.run.retries) == ("mine-near-12", ("sharpness",), 0)
    assert near.params == {"prompt": "a wolf", "height": 512, "steps": 5}  # between 4 and 6 there is only 5
    assert (values["cfg"], values["width"]) == ([5.5, 7.0, 8.5], [384, 512, 640])
    assert (values["seed"][0], len(values["seed"])) == (settings["seed"], 4)
    assert len(sweeper.plan(near)) == 36


def test_steps_stay_within_the_schema_and_go_past_the_end_of_an_axis(tmp_path):
    experiment, settings = find(write(tmp_path, TEXT.replace("4, 7, 10", "0, 1, 30")), cfg=0.0, width=256)
    values = list_values(load_text(tmp_path, make_similar(experiment, settings, name="n")))
    assert (values["cfg"], values["width"]) == ([0.0, 0.5], [128, 256, 384])


def test_what_bundles_labels_and_derive_gave_is_fixed(tmp_path):
    text = """
template: t.json
derive: {prompt: "{{ subject }} in {{ place }}", height: "{{ width * factor }}"}
params: {factor: 2, place: snow}
sweep:
  grid:
    subject: [{label: f, value: a fox}, {label: w, value: a wolf}]
    width: [256, 512, 768]
    format: [{label: few, set: {steps: 4}}, {label: many, set: {steps: 40}}]
"""
    experiment, settings = find(write(tmp_path, text), subject="w", width=512, format="many")
    near = load_text(tmp_path, make_similar(experiment, settings, name="n"))
    trials = [trial.params for trial in sweeper.plan(near)]
    fixed = {"prompt": "a wolf in snow", "steps": 40, "width": 512, "height": 1024}  # `derive` reads the width
    assert all(fixed.items() <= trial.items() for trial in trials)
    assert len({trial["seed"] for trial in trials}) == len(trials) == 4


def test_a_point_of_a_search_gets_a_grid_around_it(tmp_path):
    search = {"maximize": "sharpness", "trials": 9, "space": {"cfg": {"from": 0, "to": 10}}}
    make = make_search_writer(lambda text: write(tmp_path, text), search)
    experiment = sweeper.load(make({"metrics": ["sharpness"]}))
    settings = {"prompt": "a fox", "steps": 20, "cfg": 9.9, "width": 512, "height": 512, "seed": 3}
    near = load_text(tmp_path, make_similar(experiment, settings, name="n"))
    assert list_values(near)["cfg"] == [4.95, 9.9, 9.95]
    text = make_similar(experiment, settings | {"cfg": 4.158}, name="n")
    assert "cfg: [2.079, 4.158, 7.079]" in text  # half of 4.158 is not 2.079 in binary
    with pytest.raises(UsageError, match="make an experiment around the picture"):
        make_revised((tmp_path / "e.yaml").read_text(), settings=settings, changes={"cfg": 1})


def test_a_revised_cell_is_one_more_trial_of_the_same_experiment(tmp_path):
    file = write(tmp_path, TEXT)
    before = len(sweeper.plan(sweeper.load(file)))
    _, settings = find(file, prompt="a wolf", cfg=7.0, width=512, steps=5)
    text = make_revised(TEXT, settings=settings, changes={"cfg": 8, "height": 768})
    assert text.replace(text[text.index("  include:") : text.index("metrics")], "") == TEXT
    file.write_text(text)
    *_, last = trials = list(sweeper.plan(sweeper.load(file)))
    assert len(trials) == before + 1
    assert {**settings, "cfg": 8.0, "height": 768} == {**last.axes, **last.params}
    assert make_revised(text, settings=settings, changes={"cfg": 8, "height": 768}) == text
    again = make_revised(text, settings={**last.axes, **last.params}, changes={"cfg": 9})
    file.write_text(again)
    *_, last = sweeper.plan(sweeper.load(file))
    assert (last.params["cfg"], last.params["height"]) == (9.0, 768)  # what the row gave stays


def test_a_revised_cell_of_bundles_and_zip_groups_keeps_its_labels(tmp_path):
    text = """
template: t.json
sweep:
  grid:
    format: [{label: wide, set: {width: 768}}, {label: tall, set: {height: 768}}]
  zip: [{cfg: [1, 2], seed: [1, 2]}]
"""
    file = write(tmp_path, text)
    _, settings = find(file, format="tall", cfg=2.0)
    file.write_text(make_revised(file.read_text(), settings=settings, changes={"steps": 33}))
    revised = [{**trial.axes, **trial.params} for trial in sweeper.plan(sweeper.load(file))]
    assert {**settings, "steps": 33} in revised
    with pytest.raises(UsageError, match="list of blocks"):
        make_revised("template: t.json\nsweep: [{grid: {cfg: [1]}}]\n", settings=settings, changes={"steps": 33})


def test_a_trial_of_another_file_is_not_revised(tmp_path):
    with pytest.raises(UsageError, match="no value of prompt, cfg"):
        make_revised(TEXT, settings={"width": 512, "steps": 4, "seed": 1}, changes={"cfg": 1})
    with pytest.raises(UsageError, match="only be edited as YAML"):
        make_revised("template: t.json\nsweep: 3\n", settings={}, changes={"cfg": 1})
