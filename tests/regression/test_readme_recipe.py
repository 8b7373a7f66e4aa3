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
from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.images.measures import take_worse
from sweeper.regression.match_files import MEASURE_NAMES, parse_checks, parse_threshold
from sweeper.schemas import find_schema_problems, load_schema
from tests import ROOT
from tests.few_classes import pick_classes
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


def test_tolerances_in_the_table_pass_on_a_noisy_server(tmp_path):
    """Each tolerance for noise accepts the noise that the page names, and is not more than three times as wide."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in SECTION.splitlines() if row.startswith("| `")]
    tolerances = {row[0].strip("`"): parse_threshold(row[-2].strip("`")) for row in rows if row[-1] == "noise"}
    assert len(tolerances) == 7
    worst: dict[str, float] = {}
    experiment = sweeper.load(ROOT / "experiments/quickstart.yaml", overrides={"steps": [2, 6], "seed": 1})
    with EmbeddedServer(faults=Faults(scenario=Scenario(noise=0.5)), nodes=pick_classes()) as server:
        pictures = []
        for out in (tmp_path / "one", tmp_path / "two"):
            assert sweeper.run(experiment, server.url, out).succeeded == 4
            pictures.append(sorted(out.glob("artifacts/*.png")))
    for pair in zip(*pictures, strict=True):
        measured = sweeper.compare_images(*pair, metrics=tolerances)
        worst = take_worse(worst or measured, measured)
    assert {name for name, tolerance in tolerances.items() if not tolerance.is_met_by(worst[name])} == set()
    for name in ("ssim", "ms_ssim"):
        assert 1 - tolerances[name].number < 3 * (1 - worst[name]), name
    for name in ("mae", "max_abs", "ciede2000"):
        assert tolerances[name].number < 3.5 * worst[name], name


def test_calibrated_checks_pass_on_a_noisy_server_and_fail_on_a_change(shop, command):
    with EmbeddedServer(
        workers=2, faults=Faults(scenario=Scenario.from_mapping({"noise": 0.5})), nodes=pick_classes()
    ) as server:
        target = ("--target", server.url)
        calibrated = command("calibrate", shop.file, "--repeats", "3", "--json", *target)
        checks = json.loads(calibrated.out)["checks"]
        assert "ssim" in checks
        shop.write(checks=checks)
        assert command("run", shop.file, *target).code == 0
        assert command("accept", shop.file).code == 0
        passed = command("check", shop.file, *target)
        assert (passed.code, passed.out.splitlines()[0]) == (0, "shop: 2 same")
        shop.write()  # without checks, noise alone is a change
        assert command("check", shop.file, *target).code == 1
        shop.write(checks=checks)
        shop.rewire(cfg=1.5)
        failed = command("check", shop.file, "--attribute", "--json", *target)
    assert failed.code == 1
    verdicts = {case["verdict"] for case in json.loads(failed.out)["cases"]}
    assert verdicts == {"your workflow changed: cfg 7 -> 1.5 in node 3 (KSampler)"}
