"""Runs that are killed, interrupted and braked, in processes of their own, against a server that lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sweeper
from sweeper.errors import ResultsError
from sweeper.running.control import RunControl
from sweeper.running.hold import holding
from sweeper.running.progress import JobSubmitted
from sweeper.store import Store

SCRIPT = Path(__file__).with_name("crashing.py")


def start(experiment, target, out, *crash, **environ):
    environ = {**os.environ, "PYTHONPATH": str(Path(sweeper.__file__).parent.parent), **environ}
    command = [sys.executable, str(SCRIPT), str(experiment.file), json.dumps(target), str(out), *map(str, crash)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def until(process, word, times=1):
    """Read the process's lines until `word` came so many times."""
    for line in process.stdout:
        times -= line.strip() == word
        if not times:
            return
    raise AssertionError(f"ended without saying {word}")


@pytest.mark.parametrize(
    "crash",
    [
        ("intend", "before", 2),
        ("intend", "after", 1),
        ("submitted", "before", 1),
        ("submitted", "before", 3),
        ("submitted", "after", 2),
        ("finish", "before", 1),
        ("finish", "after", 3),
    ],
    ids=lambda crash: "-".join(map(str, crash)),
)
def test_after_a_kill_at_any_step_no_job_runs_twice_and_every_trial_has_its_row(
    server, target, experiment, tmp_path, crash
):
    plan = experiment(seed=[1, 2, 3, 4, 5])
    with start(plan, target, tmp_path / "out", *crash) as process:
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    run = sweeper.run(plan, target, tmp_path / "out")
    assert (run.trials, run.succeeded) == (5, 5)
    assert sorted(server.seen.executions.values()) == [1] * 5
    with Store.open(tmp_path / "out", readonly=True) as store:
        rows = list(store.results())
    assert [row.trial for row in rows] == [0, 1, 2, 3, 4]
    files = {path.name for path in (tmp_path / "out" / "artifacts").iterdir()}
    assert {Path(row.outputs[0]).name for row in rows} <= files
    assert not any(name.endswith(".part") for name in files)


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
def test_jobs_that_a_restarted_server_forgot_are_sent_again(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2, 3])
    server.faults.stall_nodes = {"Paint"}
    with start(plan, target, tmp_path / "out") as process:
        until(process, "JobSubmitted", 2)
        process.kill()
    port = int(server.url.rpartition(":")[2])
    server.stop()
    server.faults.reset()
    server._address = ("127.0.0.1", port)
    server.start()
    run = sweeper.run(plan, target, tmp_path / "out")
    assert run.succeeded == 3
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert sorted(row.attempts for row in store.results()) in ([1, 2, 2], [2, 2, 2])


def test_jobs_of_an_embedded_server_that_died_with_its_run_are_sent_again(tmp_path):
    plan = sweeper.load(Path(sweeper.__file__).parent.parent / "experiments" / "quickstart.yaml")
    with start(plan, "embedded", tmp_path / "out", "submitted", "after", 2) as process:
        process.communicate(timeout=30)
    run = sweeper.run(plan, "embedded", tmp_path / "out")
    assert (run.trials, run.succeeded) == (12, 12)


def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(server, target, experiment, tmp_path):
    plan = experiment(seed=list(range(30)))
    with start(plan, target, tmp_path / "out", FILE_LIMIT="160000") as process:
        said, _ = process.communicate(timeout=30)
    assert "ResultsError: " in said
    assert "disk" in said
    run = sweeper.run(plan, target, tmp_path / "out")
    assert run.succeeded == 30
    assert sorted(server.seen.executions.values()) == [1] * 30


def test_ctrl_c_once_waits_for_what_is_in_flight(server, target, experiment, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    plan = experiment(seed=list(range(8)))
    with start(plan, target, tmp_path / "out") as process:
        until(process, "JobSubmitted", 3)
        process.send_signal(signal.SIGINT)
        until(process, "Draining")
        server.faults.release()
        rest, _ = process.communicate(timeout=30)
    assert "stopped_by interrupt" in rest
    with Store.open(tmp_path / "out", readonly=True) as store:
        counts = store.counts()
    assert counts == {"succeeded": 3, "failed": 0, "cancelled": 0, "pending": 5}
    assert (tmp_path / "out" / "results.csv").read_text().count("pending") == 5


def test_ctrl_c_twice_cancels_our_jobs_and_leaves(server, target, experiment, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    plan = experiment(seed=list(range(8)))
    with start(plan, target, tmp_path / "out") as process:
        until(process, "JobSubmitted", 3)
        process.send_signal(signal.SIGINT)
        until(process, "Draining")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert "stopped_by interrupt" in rest
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.counts() == {"succeeded": 0, "failed": 0, "cancelled": 3, "pending": 5}
    server.faults.release()
    run = sweeper.run(plan, target, tmp_path / "out")
    assert (run.submitted, run.succeeded) == (8, 8)


def test_a_library_user_can_stop_a_run(server, target, experiment, tmp_path):
    control = RunControl()

    def watch(event):
        if isinstance(event, JobSubmitted):
            control.stop()

    run = sweeper.run(
        experiment(seed=list(range(5))), {**target, "concurrency": 1}, tmp_path / "out", control=control, progress=watch
    )
    assert (run.stopped_by, run.succeeded, run.pending) == ("interrupt", 1, 4)


def test_a_run_inside_a_running_loop_works_as_in_a_notebook(server, target, experiment, tmp_path):
    import asyncio

    async def cell():
        return sweeper.run(experiment(seed=[1]), target, tmp_path / "out")

    assert asyncio.run(cell()).succeeded == 1


def test_a_second_run_is_told_who_holds_the_folder(target, experiment, tmp_path):
    (tmp_path / "out").mkdir()
    Store.open(tmp_path / "out").close()
    with (
        holding(tmp_path / "out", now=1_800_000_000.0),
        pytest.raises(ResultsError, match=rf"process {os.getpid()} on .* since 2027-01-15"),
    ):
        sweeper.run(experiment(seed=[1]), target, tmp_path / "out")
