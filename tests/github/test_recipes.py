"""The YAML that the documentation gives for GitHub, GitLab and pre-commit, and the hook, run as those tools do."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import main
from tests import ROOT
from tests.regression.conftest import TEMPLATE

PAGE = (ROOT / "sweeper/regression/README.md").read_text("utf-8")
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))


def load_recipe(key: str) -> Any:
    """The YAML block of the page that has this key at its top."""
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
    (found,) = [block for block in blocks if key in block]
    return found


@pytest.mark.parametrize("place", ["the page", "our own CI"])
def test_workflows_use_the_action_as_it_is(place: str):
    ours = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    workflow, job = (load_recipe("jobs"), "pictures") if place == "the page" else (ours, "places")
    steps = workflow["jobs"][job]["steps"]
    (check,) = [step for step in steps if "/.github/actions/" in step.get("uses", "")]
    folder = re.sub(r"^(\.|comfy-sweeper/sweeper)/|@main$", "", check["uses"])
    action = yaml.safe_load((ROOT / folder / "action.yml").read_text("utf-8"))
    required = {name for name, one in action["inputs"].items() if one.get("required")}
    assert required <= check["with"].keys() <= action["inputs"].keys()
    may_comment = workflow["permissions"].get("pull-requests") == "write"
    assert may_comment == (check["with"].get("comment", action["inputs"]["comment"]["default"]) == "true")
    assert steps[0]["uses"] == ours["jobs"]["test"]["steps"][0]["uses"]


def test_the_script_for_gitlab_writes_what_its_artifacts_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = load_recipe("pictures")["pictures"]
    install, *commands = map(shlex.split, job["script"])
    assert install[:2] == ["pip", "install"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/shop.json").write_text(json.dumps(TEMPLATE))
    experiment = {"template": "shop.json", "sweep": {"grid": {"steps": [3], "seed": [1]}}}
    (tmp_path / "experiments/quickstart.yaml").write_text(json.dumps(experiment))
    assert main(["run", "experiments/quickstart.yaml"]) == 0
    assert main(["accept", "experiments/quickstart.yaml"]) == 0
    for program, *words in commands:
        assert program == "sweeper"
        assert main(words) == 0
    assert (tmp_path / job["artifacts"]["paths"][0] / "index.html").exists()
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).exists()


def select_files(hook: dict[str, Any], *names: str) -> list[str]:
    """The files that pre-commit gives to a hook; the type `yaml` is that of the suffixes .yaml and .yml."""
    assert hook["types"] == ["yaml"]
    return [name for name in names if name.endswith((".yaml", ".yml")) and re.search(hook["files"], name)]


def test_the_hook_checks_files_of_sweeper_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (hook,) = HOOKS
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    shutil.copy(ROOT / "templates/txt2img.json", "sweeps/t.json")
    shutil.copy(ROOT / "templates/txt2img.slots.yaml", "sweeps/t.slots.yaml")
    Path("sweeps/good.sweeper.yaml").write_text("template: t.json\nsweep: {grid: {steps: [2, 4]}}\n")
    Path("sweeps/other.yaml").write_text("services: {web: {image: nginx}}\n")
    names = [path.as_posix() for path in sorted(Path("sweeps").iterdir())]
    chosen = select_files(hook, *names, ".github/workflows/ci.yml", "sweeps/sweeper.yaml")
    assert chosen == ["sweeps/good.sweeper.yaml", "sweeps/t.slots.yaml"]
    program, *words = shlex.split(hook["entry"])
    assert program == "sweeper"
    assert main([*words, *chosen]) == 0
    Path("sweeps/bad.sweeper.yaml").write_text("template: t.json\nsweep: {grid: {step: [2, 4]}}\n")
    assert main([*words, "sweeps/bad.sweeper.yaml"]) == 2
    assert "sweeps/bad.sweeper.yaml:2:" in capsys.readouterr().err


def test_the_documented_pattern_of_the_hook_chooses_experiments():
    (repository,) = load_recipe("repos")["repos"]
    (given,) = repository["hooks"]
    (hook,) = [hook for hook in HOOKS if hook["id"] == given["id"]]
    experiments = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "experiments").glob("*.yaml"))]
    elsewhere = ["experiments/results/a.yaml", "docker-compose.yaml"]
    assert select_files(hook | given, *experiments, *elsewhere) == experiments
