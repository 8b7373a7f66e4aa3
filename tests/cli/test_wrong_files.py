"""A folder, workflow or slots file in place of an experiment: the message names it and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_folder_is_refused_with_the_experiments_in_it(sweeper, command):
    sweeper("init", "fox")
    (Path("fox") / "second.yaml").write_text("template: txt2img.json\n")

    outcome = sweeper(command, "fox")

    named = ", ".join(str(Path("fox") / name) for name in ("experiment.yaml", "second.yaml"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.removeprefix("error: ") == f"fox: is a folder; name a file in it: {named}\n"


def test_folder_without_experiments_is_refused_too(sweeper):
    Path("empty").mkdir()
    assert sweeper("plan", "empty").err == "error: empty: is a folder, without a .yaml file in it\n"
    assert "empty: is a folder, without a .json file in it\n" in sweeper("template", "show", "empty").err


@pytest.mark.parametrize("text", [None, '{"nodes": [], "links": []}', '{"prompt": {"1": {"class_type": "A"}}}'])
def test_workflow_is_refused_as_experiment_with_next_step(sweeper, write, text):
    write("template: t.json\n")
    if text is not None:
        Path("t.json").write_text(text)

    outcome = sweeper("run", "t.json")

    message = "is a workflow; an experiment names it under `template:`, and `sweeper init DIR` makes one to edit"
    assert (outcome.code, outcome.err) == (2, f"error: t.json: {message}\n")


@pytest.mark.parametrize("command", [["template", "show"], ["template", "slots"], ["validate"]])
def test_slots_file_selects_its_template(sweeper, write, command):
    write("template: t.json\n")
    outcome = sweeper(*command, "t.slots.yaml")

    assert outcome.code == 0
    assert outcome.out.replace("t.slots.yaml", "t.json") == sweeper(*command, "t.json").out
