"""Servers with thousands of model files: a plan asks for the classes of its workflow, and nothing is read in vain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sweeper
from sweeper.cli.load_prepared import load_prepared
from sweeper.comfy import transport
from sweeper.errors import ExperimentError, UsageError
from sweeper.running.diagnosis import diagnose
from tests import ROOT
from tests.running.hostile_server import hostile
from tests.running.large_server import large_server, write_experiment
from tests.running.studio import GRAPH


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def studio():
    with large_server() as (studio, server):
        studio.server, studio.url = server, server.url
        yield studio


def list_asked(studio, part="/object_info"):
    lines = [entry.split(b"\n", 1)[0].decode() for entry in studio.server.journal]
    return [line.split()[1].removeprefix(part) for line in lines if f" {part}" in line]


def plan(tmp_path, studio, loras, **options):
    file = write_experiment(tmp_path, studio.url, loras, **options)
    return sweeper.plan(file, {"url": studio.url, "dialect": "comfyui", "name": "studio"})


def run(tmp_path, studio, loras, progress=None, **options):
    file = write_experiment(tmp_path, studio.url, loras, **options)
    return sweeper.run(file, out=tmp_path / "out", progress=progress, patience=2.0)


def with_node(**node):
    return {
        **GRAPH,
        "9": node,
        "10": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "u"}},
    }


def test_a_plan_asks_for_the_classes_of_its_workflow_only(studio, tmp_path):
    plan(tmp_path, studio, studio.names[:2])
    assert sorted(list_asked(studio)) == sorted({f"/{node['class_type']}" for node in GRAPH.values()})
    studio.server.journal.clear()
    plan(tmp_path, studio, studio.names[:2])
    assert list_asked(studio) == []


def test_a_model_that_is_not_there_is_refused_with_the_nearest_name(studio, tmp_path):
    wrong = studio.names[3].replace("style", "stile")
    for attempt in (plan, run):
        with pytest.raises(ExperimentError, match=r"found 'stile.*did you mean 'style"):
            attempt(tmp_path, studio, [wrong])
    assert studio.server.submissions == 0
    assert studio.whole_reads == 0


def test_of_many_wrong_names_the_first_get_advice(studio, tmp_path):
    wrong = [name.replace("style", "stile") for name in studio.names[:30]]
    with pytest.raises(ExperimentError) as raised:
        plan(tmp_path, studio, wrong)
    messages = [problem.message for problem in raised.value.problems]
    assert ["found 'stile" in message for message in messages] == [True] * 30
    assert ["did you mean" in message for message in messages] == [True] * 4 + [False] * 26


def test_of_many_files_the_first_are_asked_about_and_the_plan_says_so(tmp_path):
    with large_server(loaders=1, files=300) as (studio, server):
        file = write_experiment(tmp_path, server.url, studio.names)
        prepared = load_prepared(file, None, trust=True)
        asked = [entry for entry in server.journal if b" /view_metadata/" in entry.split(b"\n", 1)[0]]
    assert len(asked) == 250
    (note,) = prepared.notes
    assert note == "studio: 50 model files known by the folder's listing alone; the first 250 are asked about"
    assert len(prepared.models["studio"]) == 300


def test_a_run_ends_with_a_look_at_the_folders_that_it_used(studio, tmp_path):
    assert run(tmp_path, studio, studio.names[:1]).succeeded == 2
    assert list_asked(studio, "/experiment/models") == ["", "/loras", "/loras"]


def test_a_new_file_is_found_although_the_cache_lacks_it(studio, tmp_path):
    plan(tmp_path, studio, studio.names[:1])
    studio.names.append("made-today.safetensors")
    plan(tmp_path, studio, ["made-today.safetensors"])
    studio.names.append("made-now.safetensors")
    assert run(tmp_path, studio, ["made-now.safetensors"]).succeeded == 2


def test_an_unknown_class_is_refused_with_the_nearest_of_all(studio, tmp_path):
    graph = with_node(class_type="Upscal", inputs={"image": ["6", 0]})
    for _ in range(2):
        with pytest.raises(ExperimentError, match="no class 'Upscal'; did you mean 'Upscale'"):
            plan(tmp_path, studio, studio.names[:1], graph=graph)
    assert studio.whole_reads == 1, "the names of all classes are cached"


def test_a_class_that_was_installed_meanwhile_is_found(studio, tmp_path):
    graph = with_node(class_type="Fresh", inputs={"image": ["6", 0]})
    with pytest.raises(ExperimentError, match="no class 'Fresh'"):
        plan(tmp_path, studio, studio.names[:1], graph=graph)
    studio.known["Fresh"] = studio.known["Upscale"] | {"api_node": False}
    assert len(plan(tmp_path, studio, studio.names[:1], graph=graph)) == 2


def test_a_class_that_was_removed_is_not_found_in_old_answers(studio, tmp_path):
    with pytest.raises(ExperimentError, match="no class 'Upscal'"):
        plan(tmp_path, studio, studio.names[:1], graph=with_node(class_type="Upscal", inputs={"image": ["6", 0]}))
    del studio.known["Upscale"]  # what was read as a whole still has it
    report = doctor(tmp_path, studio, graph=with_node(class_type="Upscale", inputs={"image": ["6", 0]}))
    assert "no class 'Upscale'" in report.problem


def test_a_literal_in_place_of_a_link_is_found_by_the_outputs_of_all(studio, tmp_path):
    graph = with_node(class_type="Twin", inputs={"x": "a text"})  # only loaders that it does not use make TWINS
    for _ in range(2):
        with pytest.raises(ExperimentError, match="a link to a TWINS output is needed"):
            plan(tmp_path, studio, studio.names[:1], graph=graph)
    assert studio.whole_reads == 1


def test_a_server_without_the_call_for_one_class_is_read_once(studio, tmp_path):
    studio.has_class_call = False
    for _ in range(3):
        plan(tmp_path, studio, studio.names[:2])
    assert studio.whole_reads == 1
    with pytest.raises(ExperimentError, match=r"found 'stile.*did you mean 'style"):
        plan(tmp_path, studio, [studio.names[3].replace("style", "stile")])
    assert studio.whole_reads == 2
    (file,) = tmp_path.glob("cache/sweeper/servers/*/all.jsonl")
    assert file.read_text().count(studio.names[3]) == 1, "equal lists are kept once"


@pytest.mark.parametrize("name", ["Epsilon Scaling", "Save/Load 100 %", "ünïcode?#", "..", "a&b=c"])
def test_a_class_of_any_name_is_asked_for(studio, tmp_path, name):
    studio.known[name] = {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"]}
    assert (
        len(plan(tmp_path, studio, studio.names[:1], graph=with_node(class_type=name, inputs={"image": ["6", 0]}))) == 2
    )


def test_a_class_that_the_server_cannot_describe_is_reported(studio, tmp_path):
    studio.broken.add("Upscale")
    with pytest.raises(ExperimentError, match="no class 'Upscale'"):
        plan(tmp_path, studio, studio.names[:1], graph=with_node(class_type="Upscale", inputs={"image": ["6", 0]}))


def test_partner_nodes_and_their_prices_are_known(studio, tmp_path):
    graph = with_node(class_type="Upscale", inputs={"image": ["6", 0]})
    with pytest.raises(UsageError, match=r"node 9 \(Upscale\) calls a paid partner"):
        run(tmp_path, studio, studio.names[:1], graph=graph)
    planned = start(tmp_path, "-m", "sweeper", "plan", tmp_path / "e.yaml")
    assert "0.10 USD" in planned.stdout, planned
    assert studio.whole_reads == 0


def doctor(tmp_path, studio, graph=None):
    experiment = sweeper.load(write_experiment(tmp_path, studio.url, studio.names[:1], graph))
    (report,) = diagnose(None, [sweeper.plan(experiment)], {}).targets
    return report


def test_doctor_asks_for_the_classes_of_the_workflow_only(studio, tmp_path):
    report = doctor(tmp_path, studio)
    assert report.ok
    assert report.experiment.checked
    assert "" not in list_asked(studio)


@pytest.mark.parametrize(
    ("send", "cause"),
    [
        (lambda handler: handler.answer(404, b"no"), "it does not list its node classes"),
        (lambda handler: handler.answer(200, b'{"a": {"input": "' + b"x" * 2**21), "larger than sweeper accepts"),
        (lambda handler: handler.send_forever(b" ", pause=0.05), "the server sends too slowly"),
        (lambda handler: handler.answer(200, b'{"error": {}}'), "describes no node classes"),
        (lambda handler: handler.answer(503, b"down"), "HTTP 503: down"),
    ],
    ids=["no call", "too large", "slow", "other", "down"],
)
def test_each_message_names_the_cause_and_doctor_claims_nothing(send, cause, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "ANSWER_BYTES", 2**20)
    monkeypatch.setattr("sweeper.comfy.retry.MIN_PATIENCE", 1.0)
    monkeypatch.setattr("sweeper.running.diagnosis._PATIENCE", 1.0)
    with hostile("comfyui", classes=send) as studio:
        notices = []
        experiment = write_experiment(tmp_path, studio.url, ["a.safetensors"])
        plan = sweeper.plan(sweeper.load(experiment))
        (report,) = diagnose(None, [plan], {}).targets
        sweeper.run(experiment, out=tmp_path / "out", progress=notices.append, patience=0.5, retries=0)
    text = "\n".join(str(part) for part in report.parts())
    assert "has what" not in text
    assert cause in report.experiment.notes[0]
    assert [event.message for event in notices if cause in getattr(event, "message", "")]


def test_a_too_large_answer_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "CLASSES_BYTES", 2**20)
    with hostile("cloud", classes=lambda handler: handler.answer(200, b'{"a":' + b" " * 2**21 + b"1}")) as server:
        target = {"url": server.url, "dialect": "cloud", "name": "studio"}
        file = write_experiment(tmp_path, server.url, ["a.safetensors"])
        assert len(sweeper.plan(file, target)) == 2
        asked = [entry for entry in server.journal if b"/api/object_info" in entry.split(b"\n")[0]]
    assert len(asked) == 1


def start(tmp_path, *arguments):
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SWEEPER_TRUST_FILE": str(tmp_path / "trusted.json")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False, cwd=tmp_path)


# The peak of the process itself: that of `resource` begins with the memory of the process that started it.
_MEASURE = """import json, re, sys
from pathlib import Path
from sweeper.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])]))"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_nine_thousand_models_in_170_classes_take_little_memory(tmp_path):
    with large_server(170, 9_000) as (studio, server):
        file = write_experiment(tmp_path, server.url, [studio.names[0].replace("style", "stile")])
        for command in (["plan", file], ["init", tmp_path / "new", "--from", tmp_path / "w.json", "-t", server.url]):
            done = start(tmp_path, "-c", _MEASURE, *command)
            code, memory = json.loads(done.stdout.splitlines()[-1])
            assert code == (2 if command[0] == "plan" else 0), done.stderr
            assert memory < 150 * 1024, command
        assert studio.whole_reads == 1
