"""The recipe in the README, run as written: accept, change a node of the template, fail; revert, pass."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

import sweeper
from sweeper.regression.thresholds import MEASURE_NAMES, parse_checks
from sweeper.schemas import find_schema_problems, load_schema
from tests import ROOT
from tests.regression.plugin_runs import run_pytest

SECTION = (ROOT / "sweeper/regression/README.md").read_text("utf-8")


def find_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_recipe_works_as_written(tmp_path, monkeypatch, command):
    for folder in ("templates", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("experiments/baselines", ignore_errors=True)
    file = Path("experiments/quickstart.yaml")
    file.write_text(file.read_text("utf-8").replace("384", "64"), encoding="utf-8")  # small pictures are soon made
    text = find_blocks("console")[0]
    lines = [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in text.splitlines()]
    assert [line[0] for line in lines] == ["run", "accept", "check"]
    assert [command(*line).code for line in lines] == [0, 0, 0]
    template = Path("templates/txt2img.json")
    before = template.read_text("utf-8")
    graph = json.loads(before)
    sampler = next(node for node in graph.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["cfg"] = 3.0
    template.write_text(json.dumps(graph))
    changed = command(*lines[2])
    assert changed.code == 1
    names = {case.get("name") for case in ET.parse("check.xml").getroot()[0] if len(case)}
    assert len(names) == 12
    assert all(name in changed.out for name in names)
    with_pytest = run_pytest(tmp_path, "--sweeper", file)
    assert with_pytest.returncode == 1
    assert all(f"{file.name}::{name}" in with_pytest.stdout for name in names)
    template.write_text(before, encoding="utf-8")
    assert command(*lines[2]).code == 0
    assert not [case for case in ET.parse("check.xml").getroot()[0] if len(case)]
    assert run_pytest(tmp_path, "--sweeper", file).returncode == 0


def test_readme_lists_every_measure():
    (table,) = re.findall(r"^\| measure \|.*\n\|[- |]*\n((?:\|.*\n)+)", SECTION, re.MULTILINE)
    names = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    in_schema = load_schema("experiment")["$defs"]["thresholds"]["properties"].keys() - {"where", "overrides"}
    assert sorted(names) == sorted(in_schema) == sorted(MEASURE_NAMES)


def test_checks_in_the_readme_are_valid(shop):
    (text,) = [block for block in find_blocks("yaml") if "checks:" in block]
    checks = yaml.safe_load(text)
    assert find_schema_problems("experiment", {"template": "t.json", **checks}) == []
    shop.write(**checks)
    assert len(parse_checks(sweeper.load(shop.file)).overrides) == 1
