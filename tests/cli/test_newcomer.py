"""Mistakes of people who are new to sweeper or YAML: a message says where, what, what is allowed, and what next."""

# ruff: noqa: E501 - each mistake is one line
from __future__ import annotations

import json
import wave
from pathlib import Path

import pytest

from sweeper.model.node_classes.graph_check import STAND_IN_MEANING

HEAD = "template: t.json\n"
# name -> (the experiment, the line of the message, what the message contains)
MISTAKES = {
    "a tab": (HEAD + "sweep:\n\tgrid: {steps: [4]}\n", 3, "there is a tab here, but YAML is indented with spaces"),
    "an axis outside of grid": (HEAD + "sweep: {prompt: [a fox]}\n", 2, "unknown key 'prompt'; put an axis under `grid:`"),
    "a slot outside of params": (HEAD + "steps: 4\n", 2, "write the value of a slot under `params:`"),
    "a number as threshold": (HEAD + "checks: {ssim: 0.95}\n", 2, 'in quotes, such as ">= 0.95"'),
    "a misspelt slot": (HEAD + "params: {stpes: 4}\n", 2, "did you mean 'steps'?"),
    "a misspelt grid": (HEAD + "sweep: {gird: {steps: [4]}}\n", 2, "unknown key 'gird'; did you mean 'grid'?"),
    "a wrong path": ("template: tt.json\n", 1, "there is no file 'tt.json'; did you mean 't.json'?"),
    "a seed as text": (HEAD + "params: {seed: random}\n", 2, "found 'random', but an integer is needed"),
    "a range as text": (HEAD + "sweep: {grid: {steps: 1-20}}\n", 2, "a range such as {from: 4, to: 20, step: 4}"),
    "an axis without values": (HEAD + "sweep:\n  grid:\n    steps:\n", 4, "found nothing; allowed: a list such as [4, 8]"),
    "a list for a mapping": (HEAD + "sweep:\n  grid:\n    - steps: [4]\n", 3, "found a list; allowed: a mapping of axes, such as {steps: [4, 8]}"),
    "a grid twice": (HEAD + "sweep:\n  grid: {steps: [4]}\n  grid: {cfg: [3]}\n", 4, "'grid' appears twice"),
    "a colon in a prompt": (HEAD + "params:\n  prompt: a fox: red\n", 3, "needs quotes, such as prompt: 'a fox: red'"),
    "a path of Windows": ('template: "C:\\models\\t.json"\n', 1, "write a path with / in place of \\"),
    "a key too far left": (HEAD + "sweep:\n  grid:\n    steps: [4]\n   cfg: [3]\n", 5, "give its keys the same indentation"),
    "a key too far right": (HEAD + " params: {steps: 4}\n", 2, "give keys of one mapping the same indentation"),
    "Jinja2 without quotes": (HEAD + "derive:\n  prompt: {{ subject }}\n", 3, "begins with {{ or [ needs quotes"),
    "a list in params": (HEAD + "params: {seed: [1, 2]}\n", 2, "to try each of them, put it under `sweep:`, `grid:`"),
    "a zip that is a mapping": (HEAD + "sweep: {zip: {steps: [4]}}\n", 2, "allowed: a list of groups, such as [{width: "),
    "one metric": (HEAD + "metrics: brightness\n", 2, "allowed: a list such as [brightness, sharpness]"),
    "a time with its unit": (HEAD + "run: {timeout: 10 min}\n", 2, "found '10 min'; allowed: seconds, such as 600"),
    "a bundle without set": (HEAD + "sweep: {grid: {size: [{label: S, width: 512}]}}\n", 2, "slots that a bundle sets under `set:`"),
    "a host without http": (HEAD + "target: localhost:8188\n", 2, "write the address of a server as http://localhost:8188"),
    "a quote left open": (HEAD + "params:\n  prompt: 'a fox\n  steps: 4\n", 3, "the quote that opens in this line"),
    "choices in a list": (HEAD + "sweep: {grid: {prompt: [a {red|blue} fox]}}\n", 2, "the [ that opens in this line has no ]"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_of_a_newcomer_is_explained(sweeper, write, name):
    text, line, message = MISTAKES[name]

    outcome = sweeper("plan", write(text, "e.yaml"))

    assert (outcome.code, outcome.out) == (2, "")
    (error,) = [error for error in outcome.err.splitlines() if message in error]
    assert error.startswith(f"error: e.yaml:{line}: ")


def test_template_without_slots_is_explained_once_with_the_command(sweeper, write):
    write(HEAD + "params: {prompt: a fox}\nsweep: {grid: {steps: [4]}}\n", "e.yaml")
    Path("t.slots.yaml").unlink()

    outcome = sweeper("validate", "e.yaml")

    assert outcome.code == 2
    hint, *others = outcome.err.splitlines()
    assert hint.startswith("error: e.yaml:1: template: is a workflow without slots")
    command = hint.split("`")[1]
    assert [error.split(": ")[2] for error in others] == ["params.prompt", "sweep.grid.steps"]
    assert sweeper(*command.split()[1:]).code == 0
    Path("e.yaml").write_text(Path("e.yaml").read_text().replace("t.json", command.split()[-1]))
    assert sweeper("validate", "e.yaml").code == 0


@pytest.mark.parametrize(
    ("class_type", "message"),
    [
        ("Efficient Loader", f"stand-ins run Efficient Loader: {STAND_IN_MEANING}; check them"),
        ("KSamplr", "has no class 'KSamplr'; did you mean 'KSampler'? A stand-in draws for it; check it"),
    ],
)
def test_unknown_class_leads_to_the_server_that_has_it(sweeper, write, class_type, message):
    experiment = write(HEAD)
    graph = json.loads(Path("t.json").read_text())
    graph["50"] = {"class_type": class_type, "inputs": {"a": 1}}
    Path("t.json").write_text(json.dumps(graph))

    outcome = sweeper("plan", experiment)

    assert outcome.code == 0
    assert message + " against your server with --target, or --object-info FILE" in outcome.err
    known = {class_type: {"input": {"required": {"a": ["INT", {}]}}, "output": [], "output_node": True}}
    Path("known.json").write_text(json.dumps(known))
    outcome = sweeper("plan", experiment, "--object-info", "known.json")
    assert f"class '{class_type}'" not in outcome.err
    assert "the server has no class 'CheckpointLoaderSimple'; if it is a custom node, install it on" in outcome.err


def test_plan_for_a_cloud_without_a_key_says_what_it_did_not_check(sweeper, write):
    for command in ("plan", "validate"):
        outcome = sweeper(command, write(HEAD), "--target", "cloud")
        assert (outcome.code, outcome.err) == (0, "warning: not checked against Comfy Cloud (no key)\n")


def test_picture_as_template_leads_to_the_command_that_reads_it(sweeper, write):
    Path("fox 1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = sweeper("plan", write("template: fox 1.png\n"))
    assert outcome.code == 2
    assert outcome.err.endswith("make a template of it: sweeper template new 'fox 1.png' -o 'fox 1.json'\n")


def test_integer_of_a_custom_node_can_be_swept_in_fractions(sweeper):
    graph = {"1": {"class_type": "Custom", "inputs": {"weight": 1, "seed": 2**64 - 1}}}
    Path("w.json").write_text(json.dumps(graph))
    assert sweeper("template", "new", "w.json", "-o", "t.json").code == 0
    shown = sweeper("template", "slots", "w.json").out
    assert [line.split()[-1] for line in shown.splitlines()] == ["takes", "number", "number"]
    Path("e.yaml").write_text(HEAD + "sweep: {grid: {weight: [1, 7.5]}}\n")

    outcome = sweeper("plan", "e.yaml", "--target", "http://127.0.0.1:9", "--jsonl", "-")

    assert [json.loads(line)["params"] for line in outcome.out.splitlines()] == [
        {"weight": weight, "seed": 2**64 - 1} for weight in (1, 7.5)
    ]
    assert "not checked against http://127.0.0.1:9 (it does not respond" in outcome.err


def test_saved_workflow_with_a_custom_node_gets_no_unlike_class(sweeper):
    node = {
        "id": 1,
        "type": "Efficient Loader",
        "mode": 0,
        "order": 0,
        "inputs": [],
        "outputs": [],
        "widgets_values": ["a", 1],
        "properties": {"cnr_id": "efficiency-nodes"},
    }
    Path("ui.json").write_text(json.dumps({"nodes": [node], "links": [], "version": 0.4}))

    outcome = sweeper("template", "new", "ui.json", "-o", "t.json")

    assert outcome.code == 2
    assert outcome.err.endswith(
        "node 1 (Efficient Loader) is of a class that the server does not have (by the file of the node pack "
        "efficiency-nodes), and the file does not name its 2 values; give a server that has it: --target URL\n"
    )
    assert "(--target or --object-info gives others)" in outcome.err


def test_a_file_of_another_program_is_no_workflow(sweeper):
    Path("w.json").write_text(json.dumps({"file_type": "view_comfy", "version": "0.0.1", "workflows": []}))

    outcome = sweeper("init", "new", "--from", "w.json")

    assert outcome.err == (
        "error: w.json:1: this is no workflow: none of its entries is a node, a mapping with `class_type` and "
        "`inputs`\n"
    )


PARTNER = {
    "1": {"class_type": "FluxProUltraImageNode", "inputs": {
        "prompt": "a fox", "prompt_upsampling": False, "seed": 1, "aspect_ratio": "16:9", "raw": False}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}  # fmt: skip
FILM = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 255}},
    "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8}},
    "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "x", "format": "auto"}},
}
SOUND = {
    "1": {"class_type": "LoadAudio", "inputs": {"audio": "tone.wav"}},
    "2": {"class_type": "SaveAudioMP3", "inputs": {"audio": ["1", 0], "filename_prefix": "x", "quality": "V0"}},
}


@pytest.mark.parametrize("graph", [PARTNER, FILM, SOUND], ids=["a partner's node", "a film", "a sound"])
def test_first_experiment_runs_on_the_embedded_server(sweeper, graph):
    with wave.open("tone.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    Path("w.json").write_text(json.dumps(graph))
    assert sweeper("init", "new", "--from", "w.json").code == 0
    assert ("metrics:" in Path("new/experiment.yaml").read_text()) == (graph is not SOUND)

    outcome = sweeper("run", "new/experiment.yaml")

    assert (outcome.code, "0 failed, 0 under way, 0 queued" in outcome.err) == (0, True)


def test_an_axis_of_wrong_values_is_reported_in_four_lines(sweeper, write):
    values = ", ".join(f"x{number}" for number in range(100))
    outcome = sweeper("plan", write(f"{HEAD}sweep: {{grid: {{steps: [{values}]}}}}\n", "e.yaml"))
    assert len(outcome.err.splitlines()) == 4
    assert outcome.err.endswith("sweep.grid.steps[3]: this and 96 more of its values are wrong\n")
