"""`target: {launch: DIR}`: sweeper starts ComfyUI for the run, waits for it, and ends it with the run."""

from __future__ import annotations

import json
import os
import sys

import pytest

import sweeper
from sweeper.cli import main
from sweeper.errors import ExperimentError, UnreachableError, UsageError
from sweeper.launching.launch_comfyui import read_start_time as is_alive
from sweeper.running.run_events import TargetReady, TargetStarting
from tests.launching.comfyui_folder import ComfyUIFolder
from tests.running.servers import TEMPLATE, colour
from tests.running.studio import GRAPH
from tests.waiting import wait_until


@pytest.fixture
def comfyui(tmp_path, python):
    return ComfyUIFolder(tmp_path / "ComfyUI", python)


@pytest.fixture
def plan(tmp_path):
    """Makes an experiment of so many trials: `plan(3)`."""

    def make(trials, **rest):
        (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))
        body = {"template": "t.json", "sweep": {"grid": {"color": [colour(trial) for trial in range(trials)]}}, **rest}
        (tmp_path / "e.yaml").write_text(json.dumps(body))
        return sweeper.load(tmp_path / "e.yaml")

    return make


def test_run_starts_a_comfyui_and_ends_it(comfyui, plan, tmp_path):
    events = []
    run = sweeper.run(plan(3), comfyui.target(python=sys.executable), progress=events.append)
    assert (run.succeeded, run.submitted) == (3, 3)
    assert [event for event in events if isinstance(event, TargetStarting)]
    assert [event.target for event in events if isinstance(event, TargetReady)] == ["mine"]
    (pid,) = comfyui.pids
    assert not is_alive(pid)
    assert "To see the GUI" in (run.out / "logs" / "mine.log").read_text()
    assert sorted(comfyui.colours) == [colour(0), colour(1), colour(2)]


def test_second_run_of_done_work_starts_nothing(comfyui, plan):
    sweeper.run(plan(2), comfyui.target())
    run = sweeper.run(plan(2), comfyui.target(gpus=[1]))
    assert (run.reused, run.submitted, len(comfyui.pids)) == (2, 0, 1)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"fail": "No module named 'torch'"}, "its Python lacks the package torch: "),
        ({"fail": "[Errno 98] address already in use"}, "another program has its port"),
        ({"fail": "Torch not compiled with CUDA enabled"}, "write `gpus: cpu`"),
        ({"fail": "DefaultCPUAllocator: can't allocate memory"}, "the memory is full"),
    ],
)
def test_failed_start_says_why_with_the_last_lines(comfyui, plan, behaviour, words):
    comfyui.behave(**behaviour)
    with pytest.raises(UnreachableError) as caught:
        sweeper.run(plan(1), comfyui.target())
    text = str(caught.value)
    assert words in text
    assert behaviour["fail"] in text
    assert "mine.log" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"launch": "nowhere"}, "there is no such folder"),
        ({"launch": "."}, "it has no main.py; give .*ComfyUI"),
        ({"python": None}, "no Python in .*: neither venv, nor .venv"),
        ({"python": "/no/python"}, "there is no /no/python"),
        ({"python": "absent-python"}, "there is no absent-python that can be started"),
        ({"python": __file__}, r"there is no .*test_launch\.py that can be started"),
    ],
)
def test_folder_that_is_no_comfyui_is_refused(comfyui, plan, settings, words, monkeypatch):
    tmp_path = comfyui.path.parent
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        sweeper.run(plan(1), comfyui.target(**settings))
    assert not (tmp_path / "results" / "e" / "sweeper.sqlite").exists()
    assert not comfyui.pids


def test_comfyui_that_answers_only_errors_is_given_up(comfyui, plan):
    comfyui.path.joinpath("main.py").write_text(  # it also writes a line for each question
        "import sys\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "HTTPServer(('127.0.0.1', port), BaseHTTPRequestHandler).serve_forever()\n"
    )
    with pytest.raises(UnreachableError, match="only errors at /system_stats for 1 s"):
        sweeper.run(plan(1), comfyui.target(patience=1))


def test_comfyui_gets_no_key_of_any_target_or_judge(comfyui, plan, monkeypatch, tmp_path):
    for name in ("COMFY_API_KEY", "OTHER_KEY", "PARTNER_KEY", "GIVEN_KEY", "JUDGE_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    urls = {"OTHER_KEY": "https://api.runpod.ai/v2/x", "GIVEN_KEY": "https://example.org"}
    named = {name: {"url": url, "api_key_env": name} for name, url in urls.items()}
    comfyui.path.joinpath("main.py").write_text("import os\nprint(dict(os.environ))\nraise SystemExit(1)\n")
    judge = {"url": "http://127.0.0.1:9", "model": "m", "question": "Is it red?", "key_env": "JUDGE_KEY"}
    experiment = plan(1, metrics=[{"judge": judge}])
    with pytest.raises(UnreachableError):
        sweeper.run(
            experiment, comfyui.target(partner_key_env="PARTNER_KEY", env={"GIVEN_KEY": "its own"}), named=named
        )
    (log,) = tmp_path.rglob("mine.log")
    assert "its own" in log.read_text()
    assert "secret of" not in log.read_text()


def test_its_own_python_is_found_in_its_folder(comfyui, plan):
    (comfyui.path / "venv" / "bin").mkdir(parents=True)
    (comfyui.path / "venv" / "bin" / "python").symlink_to(os.path.realpath(os.sys.executable))
    comfyui.path.joinpath("main.py").write_text(
        f"import sys\nsys.path[:0] = {os.sys.path!r}\n" + comfyui.path.joinpath("main.py").read_text()
    )
    assert sweeper.run(plan(1), comfyui.target(python=None)).succeeded == 1
    wait_until(lambda: not is_alive(comfyui.pids[0]))


def test_search_starts_a_comfyui_once_for_all_rounds(comfyui, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))
    search = {"maximize": "brightness", "trials": 4, "batch": 2, "space": {"color": {"from": 0, "to": 0xFFFFFF}}}
    (tmp_path / "e.yaml").write_text(json.dumps({"template": "t.json", "search": search}))
    found = sweeper.search(tmp_path / "e.yaml", comfyui.target())
    assert found.ended_by == "trials"
    assert (len(comfyui.pids), len(comfyui.colours)) == (1, 4)
    assert not is_alive(comfyui.pids[0])


@pytest.fixture
def checkpoints(comfyui, tmp_path):
    """Gives the ComfyUI these LoRAs, of which the experiment in e.yaml tries each: `checkpoints("x-1", "x-2")`."""
    (tmp_path / "w.json").write_text(json.dumps(GRAPH))
    (tmp_path / "w.slots.yaml").write_text("slots: {lora: {at: 2.lora_name}}\n")
    body = {"template": "w.json", "target": comfyui.target(), "sweep": {"grid": {"lora": {"models": "loras/x-*"}}}}
    (tmp_path / "e.yaml").write_text(json.dumps(body))

    def give(*names):
        comfyui.behave(models=["checkpoints/base.safetensors", *(f"loras/{name}.safetensors" for name in names)])

    return give


def test_run_asks_it_for_model_files_also_for_those_that_are_new(comfyui, checkpoints, tmp_path):
    checkpoints("x-1", "x-2")
    events = []
    run = sweeper.run(tmp_path / "e.yaml", comfyui.target(), progress=events.append)
    assert (run.submitted, run.succeeded) == (2, 2)
    assert isinstance(events[0], TargetStarting)
    checkpoints("x-1", "x-2", "x-3")
    run = sweeper.run(tmp_path / "e.yaml", comfyui.target())
    assert (run.submitted, run.reused) == (1, 2)
    assert not any(map(is_alive, comfyui.pids))


def test_command_shows_how_it_starts_to_list_its_files_and_what_is_wrong(comfyui, checkpoints, tmp_path, capsys):
    checkpoints("y-1")
    assert main(["run", str(tmp_path / "e.yaml"), "--trust"]) == 2
    told = capsys.readouterr().err
    assert "mine: starting ComfyUI (" in told
    assert "no file on mine matches 'loras/x-*'; files there: " in told
    assert not is_alive(comfyui.pids[0])
    assert not (tmp_path / "results" / "e" / "sweeper.sqlite").exists()
    comfyui.behave(fail="No module named 'torch'")
    assert main(["run", str(tmp_path / "e.yaml"), "--trust"]) != 0
    assert "its Python lacks the package torch" in capsys.readouterr().err


def test_plan_and_a_run_that_looks_for_new_files_start_nothing(comfyui, checkpoints, tmp_path, capsys):
    checkpoints("x-1")
    with pytest.raises(ExperimentError, match=r"its ComfyUI starts with the run"):
        sweeper.plan(tmp_path / "e.yaml")
    assert main(["plan", str(tmp_path / "e.yaml"), "--trust"]) == 2
    assert main(["run", str(tmp_path / "e.yaml"), "--trust", "--follow"]) == 2
    assert not comfyui.pids
    assert sweeper.run(tmp_path / "e.yaml", comfyui.target()).succeeded == 1
    capsys.readouterr()
    assert main(["run", str(tmp_path / "e.yaml"), "--trust", "--follow"]) == 2
    assert "runs only during a run, so it cannot be asked for new files in between" in capsys.readouterr().err
    assert len(comfyui.pids) == 2
