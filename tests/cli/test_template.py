"""`sweeper template` and `sweeper init`: make a valid template from a workflow, or from nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sweeper.loading.load import load, load_template
from sweeper.planning.plan import Plan

WORKFLOW = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 4,
            "cfg": 8,
            "sampler_name": "euler",
            "positive": ["6", 0],
            "negative": ["7", 0],
        },
        "_meta": {"title": "Sampler"},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a [red] fox"}, "_meta": {"title": "Text"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}, "_meta": {"title": "Text"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}


def save_json(graph=WORKFLOW, name="w.json"):
    Path(name).write_text(json.dumps(graph))
    return name


def save_png(text=None, name="w.png"):
    info = PngInfo()
    info.add_text("prompt", json.dumps(WORKFLOW) if text is None else text)
    info.add_text("workflow", '{"nodes": [], "links": []}')
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


@pytest.mark.parametrize("save", [save_json, save_png])
def test_slots_lists_every_possible_slot(sweeper, save):
    rows = sweeper("template", "slots", save(), "--json").json

    keys = ["name", "address", "class_type", "title", "type", "value", "schema", "others", "is_slot"]
    assert [list(one) for one in rows] == [keys] * 7
    assert [{key: one[key] for key in keys[:-3]} for one in rows[:5]] == [
        {
            "name": "prompt",
            "address": "6.text",
            "class_type": "CLIPTextEncode",
            "title": "Text",
            "type": "string",
            "value": "a [red] fox",
        },
        {
            "name": "negative",
            "address": "7.text",
            "class_type": "CLIPTextEncode",
            "title": "Text",
            "type": "string",
            "value": "",
        },
        {
            "name": "seed",
            "address": "3.seed",
            "class_type": "KSampler",
            "title": "Sampler",
            "type": "integer",
            "value": 5,
        },
        {
            "name": "steps",
            "address": "3.steps",
            "class_type": "KSampler",
            "title": "Sampler",
            "type": "integer",
            "value": 4,
        },
        {"name": "cfg", "address": "3.cfg", "class_type": "KSampler", "title": "Sampler", "type": "number", "value": 8},
    ]


def test_slots_of_a_template_have_its_own_names(sweeper):
    save_json()
    Path("w.slots.yaml").write_text("slots: {strictness: {at: 3.cfg, default: 2}, words: {at: 6.text}}")
    rows = sweeper("template", "slots", "w.json", "--json").json
    assert [(row["name"], row["address"], row["is_slot"]) for row in rows[:4]] == [
        ("strictness", "3.cfg", True), ("words", "6.text", True), ("negative", "7.text", False),
        ("seed", "3.seed", False),
    ]  # fmt: skip
    assert len({row["name"] for row in rows}) == len(rows) == 7
    shown = [line.split()[:2] for line in sweeper("template", "slots", "w.json").out.splitlines()]
    assert shown[0] == ["slots", "of"]
    assert ["strictness", "3.cfg"] in shown[: shown.index(["not", "slots"])]
    Path("w.slots.yaml").write_text("slots: {words: {at: 6.texts}}")
    assert "has no input 'texts'" in sweeper("template", "slots", "w.json").err


def test_slots_prints_a_table(sweeper):
    outcome = sweeper("template", "slots", save_json())

    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["name", "address", "class_type", "title", "type", "value", "takes"]
    assert lines[1] == ["prompt", "6.text", "CLIPTextEncode", "Text", "string", "a", "[red]", "fox", "text"]
    assert lines[3][-3:] == ["0", "..", str(2**64 - 1)]
    assert lines[4][-4:] == ["integer", "1", "..", "10000"]


def test_slot_schemas_come_from_the_embedded_node_classes(sweeper):
    schemas = {one["name"]: one["schema"] for one in sweeper("template", "slots", save_json(), "--json").json}

    assert schemas["steps"] == {"type": "integer", "minimum": 1, "maximum": 10000}
    assert schemas["cfg"] == {"type": "number", "minimum": 0.0, "maximum": 100.0}
    assert {"euler", "heun", "dpmpp_2m"} <= set(schemas["sampler"]["enum"])
    assert schemas["prompt"] == {"type": "string"}


@pytest.mark.parametrize("save", [save_json, save_png])
def test_new_writes_the_workflow_and_a_valid_slots_file(sweeper, save):
    outcome = sweeper("template", "new", save(), "-o", "templates/fox.json")

    assert (outcome.code, outcome.out) == (0, "")
    assert json.loads(Path("templates/fox.json").read_text()) == WORKFLOW
    template = load_template("templates/fox.json")
    assert list(template.slots) == ["prompt", "negative", "seed", "steps", "cfg", "sampler", "filename_prefix"]
    assert template.slots["cfg"].default == 8.0


def test_new_keeps_the_bytes_of_a_json_file(sweeper):
    text = json.dumps(WORKFLOW, indent=7).replace("\n", "\r\n")
    Path("w.json").write_bytes(text.encode())

    sweeper("template", "new", "w.json", "-o", "x.json")

    assert Path("x.json").read_bytes() == text.encode()


def test_new_writes_slots_beside_an_exported_workflow(sweeper):
    save_json()
    before = Path("w.json").read_bytes()

    assert sweeper("template", "new", "w.json", "-o", "w.json").code == 0
    assert Path("w.json").read_bytes() == before
    assert Path("w.slots.yaml").exists()


def test_new_replaces_nothing_without_force(sweeper):
    save_json()
    Path("x.slots.yaml").write_text("mine")

    refused = sweeper("template", "new", "w.json", "-o", "x.json")
    assert refused.code == 2
    assert refused.err == "error: x.slots.yaml: already exists; add --force to replace\n"
    assert not Path("x.json").exists()
    assert Path("x.slots.yaml").read_text() == "mine"

    assert sweeper("template", "new", "w.json", "-o", "x.json", "--force").code == 0
    assert "slots:" in Path("x.slots.yaml").read_text()


def test_is_changed_is_removed_from_the_workflow(sweeper):
    graph = {**WORKFLOW, "6": {**WORKFLOW["6"], "is_changed": [math.nan]}}
    save_png(json.dumps(graph))

    assert sweeper("template", "new", "w.png", "-o", "x.json").code == 0
    assert json.loads(Path("x.json").read_text()) == WORKFLOW


def save_plain_png():
    Image.new("RGB", (8, 8)).save("plain.png")
    return "plain.png"


def save_torn_png():
    Path("torn.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    return "torn.png"


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (
            save_plain_png,
            (
                "plain.png: this PNG contains no workflow (neither a `prompt` text nor a `workflow` text); ComfyUI's "
                "SaveImage writes both unless metadata is disabled, and most web sites remove them\n"
            ),
        ),
        (save_torn_png, "torn.png: cannot be read as PNG"),
        (lambda: save_png("{"), "w.png: prompt: the PNG's workflow is not JSON"),
        (lambda: save_png("[1]"), "w.png: "),
        (
            lambda: save_json({"1": {"class_type": "X", "inputs": {"a": ["2", 0]}}}),
            "w.json:1: 1.inputs.a: links to node 2",
        ),
        (lambda: "nowhere.json", "nowhere.json: there is no such file"),
    ],
)
def test_file_without_a_workflow_exits_2_with_the_reason(sweeper, save, message):
    file = save()
    for command in (["slots", file], ["new", file, "-o", "x.json"]):
        outcome = sweeper("template", *command)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {message}")
    assert not Path("x.json").exists()


@pytest.mark.parametrize(
    ("graph", "output", "message"),
    [
        (WORKFLOW, "x.yaml", "error: x.yaml: a template is a .json file; its slots go into the .slots.yaml beside it"),
        ({"1": {"class_type": "X", "inputs": {}}}, "x.json", "error: w.json: no node of this workflow has an input"),
    ],
)
def test_new_refuses_a_workflow_without_possible_slots(sweeper, graph, output, message):
    outcome = sweeper("template", "new", save_json(graph), "-o", output)

    assert outcome.code == 2
    assert outcome.err.startswith(message)


def test_init_makes_a_folder_that_can_be_planned(sweeper):
    outcome = sweeper("init", "my-sweep")

    assert (outcome.code, outcome.out) == (0, "")
    assert sorted(path.name for path in Path("my-sweep").iterdir()) == [
        "experiment.yaml", "txt2img.json", "txt2img.slots.yaml",
    ]  # fmt: skip
    assert len(Plan(load("my-sweep/experiment.yaml"))) == 4
    line = Path("my-sweep/experiment.yaml").read_text().splitlines()[0]
    assert line == sweeper("schema", "--line").out.rstrip()
    path = Path(sweeper("schema").out.rstrip())
    assert line == f"# yaml-language-server: $schema={path.as_uri()}"
    slots = Path("my-sweep/txt2img.slots.yaml").read_text()
    assert slots.splitlines()[0] == sweeper("schema", "slots", "--line").out.rstrip()
    jsonschema.validate(yaml.safe_load(Path("my-sweep/experiment.yaml").read_text()), json.loads(path.read_text()))
    assert outcome.err.splitlines()[-1] == f"next: sweeper run {Path('my-sweep/experiment.yaml')} --open"


def test_json_lists_the_written_files(sweeper):
    outcome = sweeper("init", "my-sweep", "--json")
    written = [Path("my-sweep", name) for name in ("experiment.yaml", "txt2img.json", "txt2img.slots.yaml")]
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == {"written": list(map(str, written)), "experiment": str(written[0])}

    new = sweeper("template", "new", save_json(), "-o", "nodir/x.json", "--json")
    assert (new.code, new.err) == (0, "")
    written = [str(Path("nodir", name)) for name in ("x.json", "x.slots.yaml")]
    assert new.json == {"written": written, "slots": 7}
    assert all(Path(file).is_file() for file in written)


def test_init_overwrites_nothing(sweeper):
    Path("d").mkdir()
    Path("d/experiment.yaml").write_text("mine")

    outcome = sweeper("init", "d")

    assert outcome.code == 2
    assert outcome.err == "error: d: already contains experiment.yaml; give another folder, or move them away\n"
    assert [path.read_text() for path in Path("d").iterdir()] == ["mine"]


def test_init_refuses_a_file(sweeper):
    Path("d").write_text("mine")

    outcome = sweeper("init", "d")

    assert (outcome.code, outcome.err) == (2, "error: d: is a file; give the name of a folder\n")


def test_init_experiment_runs_on_the_embedded_server(sweeper):
    sweeper("init", "my-sweep")
    small = ["--set", "width=64", "--set", "height=64"]

    outcome = sweeper("run", "my-sweep/experiment.yaml", "--json", *small)

    assert (outcome.code, outcome.json["succeeded"]) == (0, 4)
    rows = sweeper("results", "my-sweep/experiment.yaml", "--json").json
    assert len({tuple(row["sha256"]) for row in rows}) == 4  # every axis changes the picture
    assert all(row["brightness"] > 0 for row in rows)
