"""`sweeper run --follow`: it stays, runs what is new when it rests, and ends with Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

import sweeper as library
from tests import ROOT
from tests.running.studio import Studio, make_file
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals of a terminal"),
    pytest.mark.timeout(180),
]
MODELS = "lora: {models: loras/x-*}"
# `sweeper`, but it looks for new files more often, and says which process it is.
SCRIPT = """
import os, sys
from pathlib import Path
from sweeper.cli import main
from sweeper.cli.commands import run

Path("pid").write_text(str(os.getpid()))
run._LOOK_SECONDS = float(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""
JSONL = "prompt: {jsonl: p.jsonl, column: prompt}"


class Following:
    """A process of `sweeper run --follow`, what it has said so far, and its server."""

    def __init__(self, process, log):
        self.process, self._log = process, log

    @property
    def said(self):
        return self._log.read_text()

    def wait_for(self, text, times=1):
        wait_until(lambda: self.said.count(text) >= times or self.process.poll() is not None, 60)
        assert self.said.count(text) >= times, self.said

    def kill(self):
        os.kill(int(Path("pid").read_text()), signal.SIGKILL)  # not what may stand in its place, see `forked_commands`
        self.process.wait(30)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def studio(tmp_path, monkeypatch, python):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ExitStack() as stack:
        made = Studio(tmp_path, stack)
        made.server, made.program = made.serve("studio"), python
        yield made


def write(studio, axis, more=""):
    slots = "slots: {lora: {at: 2.lora_name}, seed: {at: 5.seed}, prompt: {at: 3.text}}\n"
    (studio.folder / "w.slots.yaml").write_text(slots)
    text = f"name: e\ntemplate: w.json\ntarget: {{url: '{studio.server.url}', name: s}}\nsweep: {{grid: {{{axis}}}}}\n"
    (studio.folder / "e.yaml").write_text(text + more)


def place(studio, name, size=8):
    studio.place(
        studio.server, make_file({"ss_epoch": "1"}, b"\0" * size), f"loras/{name}.safetensors", time=time.time()
    )


@contextmanager
def follow(studio, *options, look=0.4):
    """Follow. `look`: seconds between two looks for new files, of which one may grow more often than that."""
    (studio.folder / "follow.py").write_text(SCRIPT)
    log = studio.folder / f"log{len(list(studio.folder.glob('log*')))}"
    with log.open("wb") as file:
        command = [studio.program, "-P", "follow.py", str(look), "run", "e.yaml", "--follow", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        yield Following(process, log)
    finally:
        process.kill()
        process.wait()


def list_done(studio, axis="lora"):
    rows = studio.rows()
    return [row[axis] for row in rows if row["status"] == "succeeded"]


def test_new_model_file_runs_and_one_that_grows_waits_until_its_size_rests(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio, look=3.0) as run:
        run.wait_for("waiting for new files")
        place(studio, "x-2")
        run.wait_for("waiting for new files", 2)
        assert "replaced" not in run.said
        for size in range(1, 9):
            place(studio, "x-3", 100 * size)
            time.sleep(0.7)
            assert "run 3" not in run.said
        run.wait_for("waiting for new files", 3)
        assert run.interrupt() == 0, run.said
    assert list_done(studio) == ["x-1.safetensors", "x-2.safetensors", "x-3.safetensors"]
    assert studio.server.seen.submits == 3


def test_lines_that_come_later_run_and_half_a_line_is_said_and_waits(studio):
    file = studio.folder / "p.jsonl"
    file.write_text('{"prompt": "a fox", "skill": "one"}\n')
    write(studio, JSONL)
    with follow(studio) as run:
        run.wait_for("waiting for new files")
        file.write_text(file.read_text() + '{"prompt": "two fo')
        run.wait_for("p.jsonl:2: is not JSON")
        file.write_text('{"prompt": "a fox", "skill": "one"}\n{"prompt": "two foxes", "skill": "two"}\n')
        run.wait_for("waiting for new files", 2)
        assert run.interrupt() == 0
    assert list_done(studio, "prompt") == ["a fox", "two foxes"]
    assert studio.server.seen.submits == 2


def test_killed_anywhere_it_does_nothing_twice(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    moments = ("run 1:", "waiting for new files", "s: ComfyUI", "run ")
    for number, moment in enumerate(moments, 2):
        with follow(studio) as run:
            run.wait_for(moment)
            run.kill()
        place(studio, f"x-{number}")
    with follow(studio) as run:
        run.wait_for("waiting for new files")
        assert run.interrupt() == 0, run.said
    assert list_done(studio) == [f"x-{number}.safetensors" for number in range(1, len(moments) + 2)]
    assert set(studio.server.seen.executions.values()) == {1}
    assert len(studio.server.seen.executions) == len(moments) + 1


def test_live_page_shows_the_trials_of_new_files(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio, "--view") as run:
        run.wait_for("waiting for new files")
        page = re.search(r"view +(http://[^/]+/)", run.said)[1]
        place(studio, "x-2")
        run.wait_for("waiting for new files", 2)
        wait_until(lambda: "x-2.safetensors" in httpx.get(f"{page}data.json").text, 20)
        assert run.interrupt() == 0


def test_failures_beyond_the_limit_end_it_as_any_run(studio):
    place(studio, "x-1")
    write(studio, MODELS, "run: {max_failures: 0, retries: 0}\n")
    with follow(studio) as run:
        run.wait_for("waiting for new files")
        studio.server.faults.fail_nodes = {"LoraLoader"}
        place(studio, "x-2")
        assert run.process.wait(60) == 1
        assert "1 trial failed" in run.said


def test_failed_trial_of_an_earlier_round_is_the_exit_code(studio):
    place(studio, "x-1")
    write(studio, MODELS, "run: {retries: 0}\n")
    studio.server.faults.fail_nodes, studio.server.faults.fail_node_times = {"LoraLoader"}, 1
    with follow(studio) as run:
        run.wait_for("waiting for new files")
        place(studio, "x-2")
        run.wait_for("waiting for new files", 2)
        assert run.interrupt() == 1
    assert list_done(studio) == ["x-2.safetensors"]


def test_experiment_that_changes_ends_it(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio, "--trust") as run:
        run.wait_for("waiting for new files")
        write(studio, MODELS, "metrics: ['evil:code']\n")
        place(studio, "x-2")
        assert run.process.wait(60) == 2
        assert "e.yaml has changed, so this run of it ends; start it again" in run.said
    assert studio.server.seen.submits == 1


def test_server_that_goes_away_is_looked_at_until_it_is_back(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio) as run:
        run.wait_for("waiting for new files")
        studio.server.stop()
        time.sleep(2)
        studio.server.start()
        place(studio, "x-2")
        run.wait_for("waiting for new files", 2)
        assert run.interrupt() == 0


@pytest.mark.parametrize(
    ("axis", "options", "says"),
    [
        ("seed: [1, 2]", (), "nothing in this experiment can become new"),
        (MODELS, ("--rehearse",), "--rehearse runs once"),
        (MODELS, ("--dry-run",), "--dry-run shows the plan and submits nothing, so --follow cannot be given with it"),
    ],
)
def test_follow_that_makes_no_sense_is_refused(studio, axis, options, says):
    place(studio, "x-1")
    write(studio, axis)
    with follow(studio, *options) as run:
        assert run.process.wait(60) == 2
        assert says in run.said


def test_each_round_has_one_json_object(studio):
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio, "--json", "--quiet") as run:
        run.wait_for('"submitted"')
        place(studio, "x-2")
        run.wait_for('"submitted"', 2)
        assert run.interrupt() in (0, 130)  # it may not yet wait for more
    objects, decoder, text = [], json.JSONDecoder(), run.said
    while "{" in text:
        value, end = decoder.raw_decode(text[text.index("{") :])
        objects.append(value)
        text = text[text.index("{") + end :]
    assert [value["submitted"] for value in objects] == [1, 1]
    assert len(library.results("results/e")) == 2


def test_file_waits_until_all_targets_have_it(studio):
    other = studio.serve("other")
    studio.place(other, make_file({"ss_epoch": "1"}), "loras/x-1.safetensors", time=time.time())
    place(studio, "x-1")
    write(studio, MODELS)
    with follow(studio, "--target", studio.server.url, "--target", other.url, "--allow-different-models") as run:
        run.wait_for("waiting for new files")
        place(studio, "x-2")
        run.wait_for("not all targets have x-2.safetensors, so they are left out")
        studio.place(other, make_file({"ss_epoch": "1"}), "loras/x-2.safetensors", time=time.time())
        run.wait_for("run 3")
        run.wait_for("waiting for new files", 3)
        assert run.interrupt() == 0, run.said
    assert list_done(studio) == ["x-1.safetensors", "x-2.safetensors"]
