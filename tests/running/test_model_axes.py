"""An axis of the model files of a server: by its own list, whatever that says, or else those of the last run."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

import sweeper
from sweeper.cli import main
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ExperimentError
from tests.running.large_server import large_server, write_experiment
from tests.running.studio import GRAPH, Studio, make_file


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ExitStack() as stack:
        yield Studio(tmp_path, stack)


def write(studio, form, *targets, **more):
    value = {"name": "e", "template": "w.json", "target": list(targets), "sweep": {"grid": {"lora": form}}, **more}
    (studio.folder / "e.yaml").write_text(yaml.safe_dump(value))


def serve(studio, *names):
    server = studio.serve("studio")
    for name in names:
        studio.place(server, make_file({"ss_epoch": "1"}), f"loras/{name}.safetensors")
    return server


FORM = {"models": "loras/x-*", "none": True}


def list_axis(plan, name="lora"):
    return [trial.axes[name] for trial in plan.written()]


def test_run_takes_the_files_of_its_server_and_a_later_run_the_new_ones(studio, capsys):
    server = serve(studio, "x-step10", "x-step9")
    write(studio, FORM, server.url)
    assert main(["run", "e.yaml"]) == 0
    rows = studio.rows()
    assert [(row["lora"], row["lora.step"]) for row in rows] == [
        ("(none)", 0), ("x-step9.safetensors", 9), ("x-step10.safetensors", 10),
    ]  # fmt: skip
    capsys.readouterr()
    studio.place(server, make_file({"ss_epoch": "2"}), "loras/x-step11.safetensors")
    assert main(["plan", "e.yaml", "--diff", "1", "--json"]) == 0
    answer = capsys.readouterr()
    diff = json.loads(answer.out)["diff"]
    assert [trial["axes"] for trial in diff["trials"]["new"]] == [{"lora": "x-step11.safetensors", "lora.step": 11}]
    assert "(none) of lora: node 2 (LoraLoader) with strength_model, strength_clip 0" in answer.err
    run = sweeper.run("e.yaml", server.url)
    assert (run.submitted, run.reused) == (1, 3)


def test_none_uses_no_model_file_of_its_axis(studio):
    server = serve(studio, "x-step1", "x-step2")
    write(studio, FORM, server.url)
    assert sweeper.run("e.yaml", server.url).submitted == 3
    assert ["x-step" in row["models"] for row in studio.rows()] == [False, True, True]
    studio.place(server, make_file({"ss_epoch": "2"}), "loras/x-step1.safetensors")
    run = sweeper.run("e.yaml", server.url)
    assert (run.submitted, run.reused) == (1, 2)


def test_none_is_the_same_whichever_file_is_the_first(studio):
    server = serve(studio, "x-step1", "x-step2")
    write(studio, FORM, server.url)
    assert sweeper.run("e.yaml", server.url).submitted == 3
    (server.folders.base / "models/loras/x-step1.safetensors").unlink()
    run = sweeper.run("e.yaml", server.url)
    assert (run.trials, run.submitted, run.reused) == (2, 0, 2)
    studio.place(server, make_file(None), "loras/x-step0.safetensors")
    run = sweeper.run("e.yaml", server.url, fresh=True)
    assert (run.submitted, run.failed) == (3, 0)


def test_the_list_is_asked_once_and_only_for_its_folder(studio):
    server = serve(studio, "x-1", "x-2")
    write(studio, FORM, server.url, derive={})
    before = len(server.seen.requests)
    assert len(sweeper.plan("e.yaml")) == 3
    asked = [request.path for request in list(server.seen.requests)[before:]]
    assert asked.count("/experiment/models/loras") == 1
    assert not [path for path in asked if path.startswith("/experiment/models/") and not path.endswith("/loras")]


def test_without_a_server_the_values_are_those_of_the_last_run(studio, capsys):
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer(dialect="comfyui"))
        for name in ("x-1", "x-2"):
            studio.place(server, make_file(None), f"loras/{name}.safetensors")
        studio.place(server, make_file(None), "checkpoints/base.safetensors")
        url = server.url
        write(studio, FORM, url)
        sweeper.run("e.yaml")
    assert main(["plan", "e.yaml"]) == 0
    said = capsys.readouterr()
    assert "(none) | x-1.safetensors | x-2.safetensors" in said.out
    assert f"loras/x-*: {url}: it does not respond" in said.err
    assert "its values are those of run 1" in said.err
    assert main(["report", "e.yaml"]) == main(["results", "e.yaml", "--by", "lora.number"]) == 0


def test_without_a_server_and_a_run_there_is_one_mistake(studio, capsys):
    write(studio, FORM, "http://127.0.0.1:9", derive={})
    assert main(["plan", "e.yaml"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "e.yaml" in line]
    assert "sweep.grid.lora: its values are files of a server, but http://127.0.0.1:9: it does not respond" in line
    assert line.endswith("start it, or give `--set lora=[A,B]`")
    assert main(["plan", "e.yaml", "--set", "lora=[a.safetensors]"]) == 0


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("loras/y-*", "no file on {} matches 'loras/y-*'; did you mean 'x-1.safetensors'?"),
     ("lora/x-*", "no file on {} matches 'lora/x-*'; did you mean 'loras'?")],
)  # fmt: skip
def test_pattern_that_matches_nothing_names_the_nearest(studio, pattern, says):
    server = serve(studio, "x-1")
    write(studio, {"models": pattern}, server.url)
    with pytest.raises(ExperimentError) as caught:
        sweeper.plan("e.yaml")
    assert says.format(server.url).partition(";")[0] in str(caught.value)


def test_pattern_that_matches_nothing_is_the_only_mistake(studio, capsys):
    server = serve(studio)
    (server.folders.base / "models" / "loras" / "mychar.safetensors").unlink()
    classes = httpx.get(f"{server.url}/object_info").json()
    classes["LoraLoader"]["input"]["required"]["lora_name"][1].clear()  # it takes only what its folder has
    strict = studio.serve("strict", nodes=None, object_info=classes)
    (strict.folders.base / "models" / "loras" / "mychar.safetensors").unlink()
    write(studio, {"models": "loras/y-*"}, strict.url)
    for command in ("plan", "run", "validate"):
        assert main([command, "e.yaml", "--target", strict.url]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "matches 'loras/y-*'" in line


def test_several_targets_give_the_files_that_all_have(studio, capsys):
    first, second = serve(studio, "x-1", "x-2"), serve(studio, "x-2", "x-3")
    write(studio, FORM, first.url, second.url)
    assert main(["plan", "e.yaml", "--jsonl", "-"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["axes"]["lora"] for line in said.out.splitlines()] == ["(none)", "x-2.safetensors"]
    assert "loras/x-*: not all targets have x-1.safetensors, x-3.safetensors, so they are left out" in said.err


def test_target_that_does_not_respond_is_named_beside_those_that_do(studio, capsys):
    server = serve(studio, "x-1")
    write(studio, FORM, server.url, "http://127.0.0.1:9")
    assert main(["plan", "e.yaml"]) == 0
    said = f"the model files are those of {server.url}; http://127.0.0.1:9: it does not respond"
    assert said in capsys.readouterr().err


def test_key_goes_to_no_server_that_only_the_file_names(studio, monkeypatch, capsys):
    monkeypatch.setenv("STUDIO_KEY", "hunter2")
    server = studio.serve("studio", api_key="hunter2")
    studio.place(server, make_file(None), "loras/x-1.safetensors")
    write(studio, FORM, {"url": server.url, "dialect": "comfyui", "api_key_env": "STUDIO_KEY"})
    before = len(server.seen.requests)
    assert main(["plan", "e.yaml", "--trust"]) == 2
    assert "its key is sent only if you give the target by --target" in capsys.readouterr().err
    assert len(server.seen.requests) == before
    assert main(["plan", "e.yaml"]) == 2  # without trust, nobody is asked
    assert len(server.seen.requests) == before


def test_set_writes_the_axis_on_the_command_line(studio, capsys):
    server = serve(studio, "x-1")
    write(studio, ["style.safetensors"], server.url)
    assert main(["plan", "e.yaml", "--set", "lora={models: loras/x-*, none: true}", "--jsonl", "-"]) == 0
    axes = [json.loads(line)["axes"] for line in capsys.readouterr().out.splitlines()]
    assert [found["lora"] for found in axes] == ["(none)", "x-1.safetensors"]


def test_check_and_search_ask_for_the_files_too(studio):
    server = serve(studio, "x-1", "x-2")
    write(studio, {"models": "loras/x-*"}, server.url)
    sweeper.run("e.yaml")
    sweeper.accept("results/e")
    assert sweeper.check("e.yaml").ok
    pytest.importorskip("optuna")
    write(studio, ["style.safetensors"], server.url, metrics=["brightness"],
          search={"maximize": "brightness", "trials": 4, "space": {"lora": FORM}, "over": {"seed": [1]}})  # fmt: skip
    found = sweeper.search("e.yaml", out="searched")
    assert {row["lora"] for row in sweeper.results("searched").to_dict("records")} == {
        "(none)", "x-1.safetensors", "x-2.safetensors",
    }, found  # fmt: skip


def test_rehearsal_asks_no_server(studio, capsys):
    server = serve(studio, "x-1")
    write(studio, FORM, server.url)
    assert main(["plan", "e.yaml"]) == 0  # which caches the classes and their lists
    before = len(server.seen.requests)
    assert main(["run", "e.yaml", "--rehearse"]) == 0
    assert len(server.seen.requests) == before
    assert f"its values are those that {server.url} had in the last 24 hours" in capsys.readouterr().err
    assert len(sweeper.results("results/e/rehearsal")) == 2


def test_file_that_comes_between_plan_and_run_waits_for_the_next_run(studio):
    server = serve(studio, "x-1")
    write(studio, FORM, server.url)
    plan = sweeper.plan("e.yaml")
    studio.place(server, make_file(None), "loras/x-2.safetensors")
    assert sweeper.run(plan.experiment, server.url).trials == 2
    (server.folders.base / "models/loras/x-1.safetensors").unlink()
    assert list_axis(sweeper.plan("e.yaml")) == ["(none)", "x-2.safetensors"]


def test_twenty_thousand_files_of_a_server_that_lies_are_planned_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with large_server(loaders=0, files=0) as (studio, server):
        studio.names = [f"x-step{'0' * 80}{number}.safetensors" for number in range(20_000)]
        studio.names += [
            "x-1\n\x1b[31m.pt",
            "../../x-2",
            "x-../../../etc/passwd",
            "/x-3",
            "x-\u202e4",
            "x-" + "9" * 2_000,
        ]
        file = write_experiment(tmp_path, server.url, [])
        value = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**value, "sweep": {"grid": {"lora": {"models": "loras/x-*"}}}}))
        start = time.process_time()
        plan = sweeper.plan(file)
        assert len(plan) == 20_000
        assert list_axis(plan)[-1].endswith("19999.safetensors")
        assert time.process_time() - start < 20


@pytest.mark.parametrize("answer", [b"[", b"null", b"{}", b'[{"name": 1}, null, {"size": "x"}]', b"[" * 5_000])
def test_answers_that_are_no_list_of_files_match_nothing(tmp_path, monkeypatch, answer):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with large_server(loaders=0, files=1) as (_, server):
        server.tricks["other"] = lambda handler: handler.answer(200, answer)
        file = write_experiment(tmp_path, server.url, [])
        value = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**value, "sweep": {"grid": {"lora": {"models": "loras/x-*"}}}}))
        with pytest.raises(ExperimentError, match=r"no file on studio matches|its values are files of a server"):
            sweeper.plan(file)


def test_the_embedded_server_lists_the_files_of_its_loaders(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(GRAPH))
    (tmp_path / "w.slots.yaml").write_text("slots: {lora: {at: 2.lora_name}}\n")
    file = Path(tmp_path, "e.yaml")
    file.write_text("template: w.json\nsweep: {grid: {lora: {models: 'loras/*', none: true}}}\n")
    assert list_axis(sweeper.plan(file))[0] == "(none)"
    assert len(sweeper.plan(file)) > 1
