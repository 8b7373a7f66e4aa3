"""Every shipped template and experiment plans, as by the reference planner, and equally in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import sweeper
from sweeper.comfy.target import resolve_targets
from sweeper.model import workflow
from sweeper.planning.plan import Plan
from sweeper.running.search_rounds import SearchRounds
from sweeper.running.settings import RunOptions
from sweeper.schemas import load_schema
from tests import ROOT
from tests.planning import reference_planner

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
TEMPLATES = sorted((ROOT / "templates").glob("*.json"))
NAMES = {"txt2img", "img2img", "hires-fix", "image-pipeline", "flux-txt2img"}


def make_plan(file: Path) -> Plan:
    """The plan of a sweep, or the first round of a search."""
    experiment = sweeper.load(file)
    if experiment.search is None:
        return sweeper.plan(experiment)
    targets = resolve_targets("embedded", environ={})
    first = SearchRounds(experiment, targets, file.parent / "no-results", RunOptions()).preview().plan
    assert first is not None
    return first


def tell_plans() -> str:
    """What the hash seed of this process is, in a line, and all plans in both orders."""
    lines = [str(hash("seed"))]
    for file in EXPERIMENTS:
        plan = make_plan(file)
        for trial in [*plan, *plan.written()]:
            row = [trial.index, trial.params, trial.axes, trial.columns, trial.digest, plan.workflow(trial)]
            lines.append(json.dumps(row, ensure_ascii=True))
        lines.append(str((plan.axis_columns, plan.slot_names, plan.axis_sizes, plan.order)))
    return "\n".join(lines)


def test_required_files_are_shipped():
    assert {file.stem for file in TEMPLATES} >= NAMES
    assert {file.stem for file in EXPERIMENTS} >= {
        "quickstart", "sampler-shootout", "prompt-styles", "denoise-ladder", "search",
    }  # fmt: skip


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_shipped_experiments_plan_with_the_right_digests(file):
    plan = make_plan(file)
    trials = list(plan)
    assert len(plan) == len(trials) > 1
    assert sorted(trial.index for trial in trials) == list(range(len(plan)))
    for trial in trials:
        graph = plan.workflow(trial)
        for input_file in plan.files(trial):
            marker = workflow.make_file_marker(input_file.sha256)
            graph[input_file.node]["inputs"][input_file.input] = marker
        assert reference_planner.compute_digest(graph) == trial.digest
    assert len(set(map(str, (trial.params for trial in trials)))) == len({trial.digest for trial in trials})


def test_quickstart_has_at_most_twelve_trials():
    assert len(sweeper.plan(sweeper.load(ROOT / "experiments/quickstart.yaml"))) <= 12


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_each_slot_of_shipped_templates_can_be_swept(file, tmp_path):
    template = sweeper.load_template(file)
    (tmp_path / "hills.png").write_bytes(b"not looked into")
    files = {name: "hills.png" for name, slot in template.slots.items() if slot.kind == "file"}
    where = os.path.relpath(file, tmp_path)
    (tmp_path / "e.yaml").write_text(json.dumps({"template": where, "params": files}))
    plan = sweeper.plan(sweeper.load(tmp_path / "e.yaml"))
    (trial,) = plan
    graph = plan.workflow(trial)
    assert "{{" not in json.dumps(graph)
    jsonschema.validate(graph, load_schema("workflow"))
    assert workflow.find_shape_problems(graph) == []
    assert set(plan.slot_names) == set(template.slots)


def test_shipped_templates_use_both_ways_of_slots():
    texts = {file.stem: file.read_text("utf-8") for file in TEMPLATES}
    assert any("{{" in text for text in texts.values())
    assert any("{{" not in text and (ROOT / f"templates/{name}.slots.yaml").exists() for name, text in texts.items())


def test_flux_has_the_nodes_that_a_real_server_needs():
    template = sweeper.load_template(ROOT / "templates/flux-txt2img.json")
    classes = {node["class_type"] for node in template.graph.values()}
    assert classes >= {"UNETLoader", "DualCLIPLoader", "SamplerCustomAdvanced", "VAELoader", "VAEDecode", "SaveImage"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_shipped_files_are_valid_by_their_schemas(file):
    # As editors do, with another YAML parser.
    import yaml

    jsonschema.validate(yaml.safe_load(file.read_text("utf-8")), load_schema("experiment"))
    first = file.read_text("utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../sweeper/schemas/experiment.schema.json"


def test_the_plan_does_not_depend_on_the_hash_seed():
    command = [sys.executable, "-c", "from tests import test_shipped_files as t; print(t.tell_plans(), end='')"]
    environment = {**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60, env=environment)
    (seed, *theirs), (own_seed, *ours) = done.stdout.splitlines(), tell_plans().splitlines()
    assert seed != own_seed
    assert len(ours) > 40
    assert theirs == ours


def test_planning_writes_no_files(tmp_path):
    before = sorted(ROOT.glob("experiments/**/*"))
    for file in EXPERIMENTS:
        make_plan(file)
    assert sorted(ROOT.glob("experiments/**/*")) == before
