"""`{launch: DIR}` through the command line: where it may stand, what starts nothing, and what says so."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from sweeper.cli.assistant.workspace import Workspace
from sweeper.errors import UsageError
from sweeper.loading.load import load_partial
from sweeper.loading.read_scope import EVERYTHING
from tests.launching.comfyui_folder import ComfyUIFolder
from tests.running.servers import TEMPLATE, colour


@pytest.fixture
def comfyui():
    return ComfyUIFolder(Path("ComfyUI").absolute())


@pytest.fixture
def shop():
    """Writes an experiment of three trials with these targets: `shop({"launch": "ComfyUI"})`."""

    def make(target=None, **rest):
        Path("t.json").write_text(json.dumps(TEMPLATE))
        body = {"template": "t.json", "sweep": {"grid": {"color": [colour(trial) for trial in range(3)]}}, **rest}
        if target is not None:
            body["target"] = target
        Path("shop.yaml").write_text(json.dumps(body))
        return "shop.yaml"

    return make


PYTHON = "comfyui-python" if hasattr(os, "pidfd_open") else sys.executable
OWN = {"launch": "ComfyUI", "python": PYTHON, "gpus": "cpu", "name": "mine"}


@pytest.fixture(autouse=True)
def _forked_python(python, tmp_path, monkeypatch):
    """Put what starts the ComfyUIs by a fork where programs are found."""
    if hasattr(os, "pidfd_open"):
        program = tmp_path / "bin" / PYTHON
        program.parent.mkdir()
        program.symlink_to(python)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def test_mapping_as_target_starts_it_in_a_folder_of_the_current_one(sweeper, comfyui, shop):
    outcome = sweeper("run", shop(), "--target", json.dumps(OWN))
    assert outcome.code == 0, outcome.err
    assert "mine: starting ComfyUI" in outcome.err
    assert len(comfyui.pids) == 1
    assert sweeper("run", shop(), "--target", json.dumps(OWN)).code == 0
    assert len(comfyui.pids) == 1


@pytest.mark.parametrize("name", ["mine", "farm"])
def test_entry_of_the_own_targets_file_is_relative_to_it(sweeper, shop, monkeypatch, name):
    comfyui = ComfyUIFolder(Path("settings/ComfyUI").absolute())
    entry = {key: value for key, value in OWN.items() if key != "name"}
    Path("settings/targets.yaml").write_text(json.dumps({"mine": entry, "farm": ["mine"]}))
    monkeypatch.setenv("SWEEPER_TARGETS", "settings/targets.yaml")
    assert sweeper("run", shop(), "--target", name).code == 0
    assert len(comfyui.pids) == 1


@pytest.mark.parametrize(
    ("rest", "where"),
    [
        ({"target": OWN}, "target.launch"),
        ({"target": ["embedded", OWN]}, "target[1].launch"),
        ({"target": "mine", "targets": {"mine": {**OWN, "name": None}}}, "targets.mine.launch"),
        ({"target": "farm", "targets": {"farm": ["mine"], "mine": {**OWN, "name": None}}}, "targets.mine.launch"),
    ],
)
def test_comfyui_of_an_experiment_starts_only_with_trust(sweeper, comfyui, shop, rest, where):
    rest = (
        {
            **rest,
            "targets": {
                name: entry if isinstance(entry, list) else {k: v for k, v in entry.items() if v}
                for name, entry in rest["targets"].items()
            },
        }
        if "targets" in rest
        else rest
    )
    for command in ("run", "check", "calibrate", "doctor"):
        outcome = sweeper(command, shop(**rest))
        assert outcome.code == 2
        assert f"{where}: starts the ComfyUI of " in outcome.err + outcome.out
        assert str(comfyui.path) in outcome.err + outcome.out
    assert comfyui.pids == []
    assert sweeper("run", shop(**rest), "--trust").code == 0
    assert len(comfyui.pids) == 1


def test_trust_in_one_command_line_is_none_in_another(sweeper, comfyui, shop):
    assert sweeper("trust", shop(OWN)).code == 0
    assert sweeper("run", shop(OWN)).code == 0
    for change in ({"args": ["--evil"]}, {"env": {"LD_PRELOAD": "evil.so"}}, {"python": "/evil"}, {"launch": "other"}):
        outcome = sweeper("run", shop({**OWN, **change}))
        assert (outcome.code, "needs more trust" in outcome.err) == (2, True)
    assert len(comfyui.pids) == 1


def test_plan_and_doctor_start_nothing_and_plan_uses_what_a_run_learnt(sweeper, comfyui, shop):
    target = json.dumps(OWN)
    outcome = sweeper("plan", shop(), "--target", target)
    assert outcome.code == 0
    assert "not checked against mine (its ComfyUI starts with the run)" in outcome.err + outcome.out
    outcome = sweeper("doctor", "--target", target)
    assert outcome.code == 0
    assert f"mine: its ComfyUI starts with the run, by {PYTHON}" in outcome.err + outcome.out
    assert comfyui.pids == []
    sweeper("run", shop(), "--target", target)
    outcome = sweeper("plan", shop(), "--target", target)
    assert "not checked" not in outcome.err + outcome.out
    broken = shop()
    Path("t.json").write_text(json.dumps({**TEMPLATE, "2": {**TEMPLATE["2"], "class_type": "NoSuchNode"}}))
    assert sweeper("plan", broken, "--target", target).code == 0  # a class that no run asked for is not known to lack
    assert len(comfyui.pids) == 1


def test_doctor_says_what_is_wrong_with_the_folder(sweeper):
    outcome = sweeper("doctor", "--target", "{launch: nowhere}")
    assert outcome.code == 2
    assert "there is no such folder" in outcome.err + outcome.out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://x"}, "target.url: is for a server that runs already"),
        ({"api_key_env": "KEY"}, "target.api_key_env: is for a server that runs already"),
        ({"gpus": 3}, "target.gpus: 3 is neither all, nor cpu, nor a list of numbers"),
        ({"gpus": [0, 0]}, "target.gpus: "),
        ({"args": ["--port=1"]}, "target.args: give a list of ComfyUI's arguments"),
        ({"args": "--lowvram"}, "target.args: "),
        ({"env": {"A=B": "c"}}, "target.env: "),
        ({"keep": "yes"}, "target.keep: 'yes' is neither true nor false"),
        ({"patience": 0}, "target.patience: 0 is not a number of seconds"),
        ({"max_memory": "much"}, "target.max_memory: 'much' is not a size such as 24 GB"),
        ({"launch": " "}, "target.launch: give the folder of a ComfyUI"),
        ({"pyhton": "x"}, "target.pyhton: unknown key; did you mean 'python'?"),
    ],
)
def test_wrong_settings_are_explained(sweeper, shop, settings, words):
    outcome = sweeper("run", shop(), "--target", json.dumps({**OWN, **settings}))
    assert outcome.code == 2
    assert words in outcome.err


def test_settings_without_launch_are_explained(sweeper, shop):
    outcome = sweeper("run", shop(), "--target", "{url: 'http://x', gpus: cpu}")
    assert "target.gpus: is for a ComfyUI that sweeper starts: give its folder as `launch`" in outcome.err
    outcome = sweeper("run", shop(), "--target", "{launch: [, api_key: a-key-in-the-wrong-place")
    assert "--target: is not YAML" in outcome.err
    assert "a-key-in-the-wrong-place" not in outcome.err


def test_all_gpus_without_nvidia_smi_are_explained(sweeper, comfyui, shop, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = sweeper("run", shop(), "--target", json.dumps({**OWN, "gpus": "all"}))
    assert outcome.code == 2
    assert "nvidia-smi lists no GPU here; write `gpus: cpu`" in outcome.err


def test_lock_needs_a_running_server(sweeper, comfyui, shop):
    outcome = sweeper("lock", shop(), "--target", json.dumps(OWN))
    assert (outcome.code, "give its URL by --target" in outcome.err, comfyui.pids) == (2, True, [])


def test_assistant_works_beside_a_target_that_cannot_start_here(shop, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    experiment = load_partial(Path(shop()), scope=EVERYTHING).experiment
    users = {"big": {"launch": "ComfyUI", "gpus": "all"}}
    Workspace(Path.cwd()).check_servers(experiment, ["embedded"], users)
    with pytest.raises(UsageError, match="nvidia-smi lists no GPU"):
        Workspace(Path.cwd()).check_servers(experiment, ["big"], users)


def test_assistant_starts_only_what_its_person_named(comfyui, shop):
    plain = load_partial(Path(shop()), scope=EVERYTHING).experiment
    own = load_partial(Path(shop(OWN)), scope=EVERYTHING).experiment
    users = {"mine": {**OWN, "launch": str(comfyui.path / "elsewhere")}}
    workspace = Workspace(Path.cwd())
    for experiment, requested in ((plain, [OWN]), (plain, [json.dumps(OWN)]), (own, [])):
        with pytest.raises(UsageError, match=r"not a (target|server) that this server may use"):
            workspace.check_servers(experiment, requested, users)
    workspace.check_servers(plain, ["mine"], users)


def test_logs_go_through_no_link(sweeper, comfyui, shop, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Path("results/shop").mkdir(parents=True)
    Path("results/shop/logs").symlink_to(tmp_path / "elsewhere")
    outcome = sweeper("run", shop(), "--target", json.dumps(OWN))
    assert outcome.code != 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert comfyui.pids == []
