"""`plan` and `run` say that trials are new because the experiment's name changed, and how to keep their results."""

from __future__ import annotations

import pytest

SWEEP = "name: old\ntemplate: t.json\nparams: {steps: 1}\nsweep: {grid: {cfg: [1, 2], seed: {seeds: 2}}}\n"
RENAMED = SWEEP.replace("old", "new")
KEYED = RENAMED.replace("seeds: 2", "seeds: 2, key: old")


@pytest.fixture
def experiment(sweeper, write):
    """An experiment that ran under the name `old`."""
    name = write(SWEEP)
    assert sweeper("run", name).code == 0
    assert sweeper("plan", name).err == ""
    return name


def test_a_new_name_makes_seeds_new_and_the_advice_keeps_them(sweeper, write, experiment):
    write(RENAMED)
    planned, run = sweeper("plan", experiment), sweeper("run", experiment, "--limit", "1", "--json")
    for outcome in (planned, run):
        assert outcome.code == 0
        text = "4 of 4 trials are new because `name` changed from 'old' to 'new'; results/old has 4 of them."
        assert f"{text} To keep them, write `key: old` beside `seeds:` and add `--out results/old`" in outcome.err
    assert run.json["submitted"] == 1  # it only says so
    write(KEYED)
    kept = sweeper("run", experiment, "--out", "results/old", "--json")
    assert (kept.json["submitted"], kept.json["succeeded"]) == (0, 4)
    assert "are new" not in kept.err


def test_without_seeds_only_the_folder_is_another(sweeper, write):
    experiment = write(SWEEP.replace("{seeds: 2}", "[1, 2]"))
    sweeper("run", experiment)
    write(RENAMED.replace("{seeds: 2}", "[1, 2]"))
    assert "To keep them, add `--out results/old`" in sweeper("plan", experiment).err
    assert sweeper("run", experiment, "--out", "results/old", "--json").json["submitted"] == 0


def test_a_new_name_in_the_same_folder_needs_only_the_key(sweeper, write):
    experiment = write(SWEEP)
    sweeper("run", experiment, "--out", "out")
    write(RENAMED)
    for command in ("plan", "run"):
        outcome = sweeper(command, experiment, "--out", "out", *(["--limit", "1"] if command == "run" else []))
        text = "4 of 4 trials are new because `name` changed from 'old' to 'new'; `key: old` beside `seeds:` keeps 4 of"
        assert text in outcome.err
    write(KEYED)
    assert sweeper("run", experiment, "--out", "out", "--json").json["submitted"] == 0


def test_another_experiment_beside_it_is_no_earlier_name(sweeper, write, experiment):
    write(RENAMED, "other.yaml")
    write(RENAMED.replace("cfg: [1, 2]", "cfg: [3]"))
    assert "are new" not in sweeper("plan", "other.yaml").err + sweeper("plan", experiment).err
