"""Runs in processes of their own that are killed, interrupted or stopped, while the server lives on."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import sweeper
from sweeper.errors import ResultsError, UsageError
from sweeper.running.folder_lock import lock_folder
from sweeper.running.run_events import JobSubmitted, Notice, RunEnded, TargetReady
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from tests.running.invariants import broken_promises
from tests.running.run_processes import Runners
from tests.running.servers import Served

# What a run does with its folder, and when it is told to stop, is the same in all dialects.
in_one_dialect = pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_jobs_that_a_restarted_server_lost_are_sent_again(server, target, experiment, runners, tmp_path):
    plan = experiment(seed=[1, 2, 3])
    server.faults.stall_nodes = {"Paint"}
    runner = runners.start(plan, target, tmp_path / "out")
    runner.until("JobSubmitted", 2)
    runner.send(signal.SIGKILL)
    assert runner.wait().killed
    server.stop()
    server.faults.reset()
    server.start()
    run = sweeper.run(plan, target, tmp_path / "out")
    assert run.succeeded == 3
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert sorted(row.attempts for row in store.results()) in ([1, 2, 2], [2, 2, 2])


def test_jobs_of_a_killed_embedded_server_are_sent_again(runners, tmp_path):
    plan = sweeper.load(Path(sweeper.__file__).parent.parent / "experiments" / "quickstart.yaml")
    runner = runners.start(plan, "embedded", tmp_path / "out")
    runner.until("JobSubmitted", 2)
    runner.send(signal.SIGKILL)
    assert runner.wait().killed
    run = sweeper.run(plan, "embedded", tmp_path / "out")
    assert (run.trials, run.succeeded) == (12, 12)


@in_one_dialect
def test_a_full_disk_ends_the_run_with_a_message_and_loses_nothing(server, target, experiment, runners, tmp_path):
    plan = experiment(seed=list(range(30)))
    ended = runners.run(plan, target, tmp_path / "out", file_limit=200_000)
    assert ended.said[-1] == "stopped_by unwritable"
    assert "check that the disk is not full" in ended.error
    run = sweeper.run(plan, target, tmp_path / "out")
    assert run.succeeded == 30
    assert sorted(server.seen.executions.values()) == [1] * 30


def test_ctrl_c_once_waits_for_jobs_in_flight(server, target, experiment, runners, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    plan = experiment(seed=list(range(8)))
    runner = runners.start(plan, target, tmp_path / "out")
    runner.until("JobSubmitted", 3)
    runner.send(signal.SIGINT)
    runner.until("Draining")
    server.faults.release()
    assert runner.wait().said[-1] == "stopped_by interrupt"
    with Store.open(tmp_path / "out", readonly=True) as store:
        counts = store.count_by_status()
    assert counts == {"succeeded": 3, "failed": 0, "cancelled": 0, "pending": 5}
    assert (tmp_path / "out" / "results.csv").read_text().count("pending") == 5


def test_ctrl_c_twice_cancels_our_jobs_and_ends(server, target, experiment, runners, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    plan = experiment(seed=list(range(8)))
    runner = runners.start(plan, target, tmp_path / "out")
    runner.until("JobSubmitted", 3)
    runner.send(signal.SIGINT)
    runner.until("Draining")
    runner.send(signal.SIGINT)
    assert runner.wait().said[-1] == "stopped_by interrupt"
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.count_by_status() == {"succeeded": 0, "failed": 0, "cancelled": 3, "pending": 5}
    server.faults.release()
    run = sweeper.run(plan, target, tmp_path / "out")
    assert (run.submitted, run.succeeded) == (8, 8)


IGNORED_INTERRUPT = """
import os, signal, sys, weakref
from sweeper.cli import main

class Lock:
    pass

def press(_):
    os.kill(os.getpid(), signal.SIGINT)

def hook(event, arguments):
    global reference
    if event == "import" and arguments[0] == sys.argv[1]:
        reference = weakref.ref(Lock(), press)

sys.addaudithook(hook)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
@pytest.mark.parametrize("module", ["sweeper.cli.main_group", "sweeper.running.session"])
def test_ctrl_c_whose_exception_python_ignores_stops_the_run(module, server, experiment, tmp_path):
    """Importlib has a callback for each module, in which Python ignores exceptions; signals at once are only one."""
    file = experiment(seed=[1, 2]).file
    command = [sys.executable, "-c", IGNORED_INTERRUPT, module, "run", str(file), "--target", server.url, "--no-check"]
    environ = {**os.environ, "PYTHONPATH": str(Path(sweeper.__file__).parent.parent)}
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--trust"],
        check=False, capture_output=True, text=True, timeout=120, env=environ,
    )  # fmt: skip
    assert "Exception ignored in" in ended.stderr
    assert ended.returncode == 130, ended.stderr
    assert server.seen.submits == 0


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
@pytest.mark.parametrize("has_uvloop", [True, False])
def test_ctrl_c_while_the_table_is_written_interrupts_the_run(target, experiment, tmp_path, monkeypatch, has_uvloop):
    """The event loop takes no step any more then. Otherwise `run --view` would go on to serve its page."""
    if not has_uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    before = signal.getsignal(signal.SIGINT)

    def press(event):
        if isinstance(event, RunEnded):
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGINT)

    run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=press)
    assert (run.succeeded, run.stopped_by) == (1, "interrupt")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def mute():
    """A server that accepts TCP connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def url_of(listening):
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_ctrl_c_without_jobs_in_flight_ends_the_run_at_once(mute, experiment, runners, tmp_path):
    runner = runners.start(experiment(seed=[1]), {"url": url_of(mute), "dialect": "comfyui"}, tmp_path / "out")
    connection, _ = mute.accept()
    began = time.monotonic()
    runner.send(signal.SIGINT)
    assert runner.wait().said[-1] == "stopped_by interrupt"
    assert time.monotonic() - began < 30  # it is a minute until such a server counts as silent
    connection.close()
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.count_by_status() == {"succeeded": 0, "failed": 0, "cancelled": 0, "pending": 1}


@pytest.mark.parametrize("dialect", ["cloud", "comfyui", "v2"])
def test_ctrl_c_twice_leaves_a_hanging_server_and_records_its_job(dialect, coloured, runners, tmp_path):
    plan = coloured(2)
    with Served(dialect, tmp_path / "data", processes=True) as server:
        runner = runners.start(plan, server.target(), tmp_path / "out")
        runner.until("TargetReady")
        held = threading.Event()

        def hang(asked):
            if not asked.submits and asked.path.rpartition("/")[2] not in ("ws", "user", "system_stats", "object_info"):
                held.set()
                os.kill(server.pid, signal.SIGSTOP)

        server.proxy.on_step = lambda asked, when: hang(asked) if when == "before" and server.proxy.accepted else None
        assert held.wait(60)
        runner.send(signal.SIGINT)
        runner.until("Draining")
        began = time.monotonic()
        runner.send(signal.SIGINT)
        assert runner.wait().said[-1] == "stopped_by interrupt"
        assert time.monotonic() - began < 30
        with Store.open(tmp_path / "out", readonly=True) as store:
            assert store.count_by_status()["pending"] >= 1
        server.proxy.on_step = lambda *_: None
        os.kill(server.pid, signal.SIGCONT)
        httpx.get(server.url, trust_env=False, timeout=60)  # it takes what was sent before, and only then this
        events = []
        run = sweeper.run(plan, server.target(), tmp_path / "out", progress=events.append)
        assert run.succeeded == 2, (run, events)
        assert broken_promises(tmp_path / "out", 2, [server]) == []


@in_one_dialect
def test_a_library_user_can_stop_a_run(server, target, experiment, tmp_path):
    control = StopControl()
    server.faults.node_seconds = 0.1  # so that the first job does not end before the run hears of the stop

    def watch(event):
        if isinstance(event, JobSubmitted):
            control.stop()

    run = sweeper.run(
        experiment(seed=list(range(5))), {**target, "concurrency": 1}, tmp_path / "out", control=control, progress=watch
    )
    assert (run.stopped_by, run.succeeded, run.pending) == ("interrupt", 1, 4)


@in_one_dialect
def test_a_run_inside_a_running_loop_works_as_in_a_notebook(server, target, experiment, tmp_path):
    import asyncio

    async def cell():
        return sweeper.run(experiment(seed=[1]), target, tmp_path / "out")

    assert asyncio.run(cell()).succeeded == 1


@pytest.mark.parametrize("notebook", [False, True])
def test_an_error_of_a_run_is_raised_without_context(experiment, tmp_path, notebook):
    import asyncio

    def wrong():
        sweeper.run(experiment(seed=[1]), "cloud", tmp_path / "out", environ={})

    async def cell():
        wrong()

    with pytest.raises(UsageError, match="COMFY_CLOUD_API_KEY") as caught:
        asyncio.run(cell()) if notebook else wrong()
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("Traceback (most recent call last)") == 1, text


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_of_two_simultaneous_runs_the_second_learns_who_has_the_folder(server, target, experiment, runners, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    plan = experiment(seed=[1, 2, 3])
    first = runners.start(plan, target, tmp_path / "out")
    first.until("JobSubmitted")
    with Runners(sys.executable) as others:
        second = others.run(plan, target, tmp_path / "out")
    assert f"another run is using this results folder (process {first.pid} on " in second.said[-1]
    server.faults.release()
    assert first.wait().said[-1] == "stopped_by None"
    assert sorted(server.seen.executions.values()) == [1] * 3


@in_one_dialect
def test_a_folder_created_meanwhile_is_read_before_anything_is_sent(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2, 3])

    def watch(event):
        if isinstance(event, TargetReady):  # nothing was there when this run looked; now somebody runs it all
            other = threading.Thread(target=lambda: sweeper.run(plan, target, tmp_path / "out"))
            other.start()
            other.join(60)
            assert not other.is_alive()

    run = sweeper.run(plan, target, tmp_path / "out", progress=watch)
    assert (run.succeeded, run.submitted, run.reused) == (3, 0, 3)
    assert sorted(server.seen.executions.values()) == [1] * 3


@in_one_dialect
def test_an_unwritable_folder_is_reported_before_anything_is_sent(server, target, experiment, runners, tmp_path):
    plan = experiment(seed=[1])
    (tmp_path / "readonly").mkdir(mode=0o555)
    ended = runners.run(plan, target, tmp_path / "readonly" / "out", powerless=True)
    assert "readonly/out: the results folder cannot be written: Permission denied" in ended.said[-1]
    assert server.seen.submits == 0


@in_one_dialect
def test_a_read_only_results_folder_is_reported_and_left_unchanged(server, target, experiment, runners, tmp_path):
    sweeper.run(experiment(seed=[1]), target, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    for path in (tmp_path / "out", *(tmp_path / "out").iterdir()):
        path.chmod(0o555)
    ended = runners.run(experiment(seed=[1, 2]), target, tmp_path / "out", powerless=True)
    (tmp_path / "out").chmod(0o755)
    assert ended.said[-1].startswith("ResultsError: ")
    assert "Permission denied" in ended.said[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert server.seen.submits == 1


@in_one_dialect
def test_the_store_of_another_version_is_left_unchanged(server, target, experiment, tmp_path):
    plan = experiment(seed=[1])
    sweeper.run(plan, target, tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out" / "sweeper.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    before = (tmp_path / "out" / "sweeper.sqlite").read_bytes()
    with pytest.raises(ResultsError, match="has the store version 99"):
        sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out")
    assert (tmp_path / "out" / "sweeper.sqlite").read_bytes() == before
    assert server.seen.submits == 1


@in_one_dialect
def test_a_second_run_learns_who_has_locked_the_folder(target, experiment, tmp_path):
    (tmp_path / "out").mkdir()
    Store.open(tmp_path / "out").close()
    with (
        lock_folder(tmp_path / "out", now=1_800_000_000.0),
        pytest.raises(ResultsError, match=rf"process {os.getpid()} on .* since 2027-01-15"),
    ):
        sweeper.run(experiment(seed=[1]), target, tmp_path / "out")


class Reluctant(http.server.BaseHTTPRequestHandler):
    """A ComfyUI that accepts jobs and loses them, and answers the first poll with 429 and Retry-After: 300."""

    def answer(self, status, found, **headers):
        body = json.dumps(found).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/system_stats":
            self.answer(200, {"system": {"comfyui_version": "0.3.64", "argv": []}, "devices": []})
        elif self.path.startswith("/api/jobs") and not vars(self.server).setdefault("looks", 0):
            self.server.looks += 1
            self.answer(429, {"error": "slow down"}, Retry_After=300)
        elif self.path.startswith("/api/jobs/"):
            self.answer(404, {"error": "Job not found"})
        else:
            self.answer(200, {})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.answer(200, {"prompt_id": sent.get("prompt_id"), "number": 0, "node_errors": {}})

    def log_message(self, *_):
        pass


def test_a_requested_wait_is_reported_and_ends_when_the_run_is_cancelled(experiment, tmp_path):
    control, messages = StopControl(), []

    def hear(event):
        if isinstance(event, Notice) and "asks us to wait" in event.message:
            messages.append(event.message)
            control.stop()
            control.stop()

    started = time.monotonic()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reluctant) as reluctant:
        threading.Thread(target=reluctant.serve_forever, daemon=True).start()
        target = {"url": f"http://127.0.0.1:{reluctant.server_port}", "dialect": "comfyui", "name": "lab"}
        run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", control=control, progress=hear)
        reluctant.shutdown()
    assert messages[0] == "lab: the server asks us to wait 300 s: HTTP 429: slow down"
    assert (run.succeeded, run.stopped_by) == (0, "interrupt")
    assert time.monotonic() - started < 120
