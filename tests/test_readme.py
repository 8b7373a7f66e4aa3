"""The README is run, not trusted: its commands, its Python, its YAML and its flags."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sweeper
from sweeper.cli.command_table import COMMANDS
from sweeper.schemas import find_schema_problems
from tests import ROOT

TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("templates", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_two_set_up_commands_one_runs_one_tests():
    first, second = blocks("bash")
    assert "sweeper run" in first
    assert "pytest" in second


def test_the_python_runs_and_prints_what_it_says(clone: Path):
    (code,) = blocks("python")
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=clone, check=False, timeout=120, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 trials\n")
    assert len(sweeper.results(clone / "results/quickstart")) == 12


def test_the_experiment_of_the_grammar_is_one(clone: Path):
    (text,) = [block for block in blocks("yaml") if "sweep:" in block]
    (clone / "experiments" / "grammar.yaml").write_text(text)
    plan = sweeper.plan(sweeper.load("experiments/grammar.yaml"))
    assert plan.axis_columns == ("subject", "style", "steps", "seed", "width", "height")
    assert len(plan) == 101


def test_the_slots_of_the_grammar_have_the_right_shape():
    (text,) = [block for block in blocks("yaml") if "slots:" in block]
    assert find_schema_problems("slots", yaml.safe_load(text)) == []


def test_every_command_is_in_the_table_and_none_else():
    named = re.findall(r"^\| `sweeper (\w+)", TEXT, flags=re.MULTILINE)
    assert named == list(COMMANDS)


def test_every_flag_in_the_readme_exists():
    helps = "".join(
        subprocess.run(
            [sys.executable, "-m", "sweeper", name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for name in COMMANDS
    )
    helps += (ROOT / "sweeper" / "pytest_plugin.py").read_text("utf-8")  # its options are pytest's
    own = re.sub(r"^```bash\n.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", own)):
        assert flag in helps or flag == "--help", flag


def test_every_form_of_value_is_in_the_schema_and_in_the_readme():
    table = TEXT[TEXT.index("| form | values |") :]
    for form in ("from", "seeds", "lines", "csv", "files", "choices", "label"):
        assert f"{form}:" in table


def test_every_dependency_has_its_reason():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    names = re.findall(
        r'^  "([a-z0-9-]+)[>=]', project[: project.index("[project.optional-dependencies]")], flags=re.MULTILINE
    )
    table = TEXT[TEXT.index("## Dependencies") : TEXT.index("## How to work on it")]
    assert names
    for name in names:
        assert name in table
