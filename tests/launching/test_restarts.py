"""A launched ComfyUI that dies, hangs or fills the memory is started again, and nothing is lost or made twice."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress

import pytest
from platformdirs import user_cache_path

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import UnreachableError
from sweeper.launching import launch_comfyui, supervise
from sweeper.running.run_events import JobProgress, JobSubmitted, Notice, TrialDone
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from tests.launching.comfyui_folder import ComfyUIFolder
from tests.launching.test_launch import comfyui, is_alive, plan
from tests.running.invariants import broken_promises
from tests.running.servers import colour
from tests.waiting import wait_until

__all__ = ["comfyui", "plan"]  # fixtures


@pytest.fixture
def own_python(comfyui):
    """Start ComfyUI by Python, because the test is about its process and not only about what it serves."""
    comfyui.python = sys.executable


def kill_at(comfyui, *moments, signum=signal.SIGKILL):
    """A progress callback that sends a signal to the running ComfyUI at these `(kind, n)`: the n-th event of a kind."""
    seen = Counter()

    def report(event):
        seen[type(event)] += 1
        if (type(event), seen[type(event)]) in moments:
            os.kill(comfyui.pids[-1], signum)

    return report


@pytest.mark.parametrize(
    "moments", [((JobSubmitted, 1), (TrialDone, 1)), ((JobProgress, 1), (TrialDone, 4)), ((JobSubmitted, 3),)]
)
def test_comfyui_that_dies_is_started_again_and_nothing_is_lost(comfyui, plan, moments):
    comfyui.behave(seconds=0.2)
    run = sweeper.run(plan(5), comfyui.target(), progress=kill_at(comfyui, *moments))
    assert (run.succeeded, run.failed) == (5, 0)
    assert broken_promises(run.out, 5, []) == []
    assert len(comfyui.pids) == 1 + len(moments)
    assert all(count <= 1 + len(moments) for count in Counter(comfyui.colours).values())
    assert not any(map(is_alive, comfyui.pids))


def test_trial_that_kills_its_server_three_times_fails_with_the_reason(comfyui, plan):
    comfyui.behave(signals={colour(1): signal.SIGSEGV}, seconds=0.3)  # in which the news of the job before arrives
    run = sweeper.run(plan(4), comfyui.target())
    assert (run.succeeded, run.failed) == (3, 1)
    with Store.open(run.out, readonly=True) as store:
        (row,) = [row for row in store.results() if row.status == "failed"]
    assert (row.trial, row.error_type) == (1, "DeadlyError")
    assert row.error.startswith("ComfyUI died 3 times while it executed this trial: segmentation fault (signal 11)")
    assert comfyui.colours.count(colour(1)) == 3
    assert all(comfyui.colours.count(colour(trial)) <= 2 for trial in (0, 2, 3))
    before = len(comfyui.pids)
    assert sweeper.run(plan(4), comfyui.target()).failed == 1
    assert len(comfyui.pids) == before  # a failure is reused like any other


@pytest.mark.usefixtures("own_python")
def test_comfyui_that_hangs_is_started_again(comfyui, plan):
    comfyui.behave(seconds=0.3)
    report = kill_at(comfyui, (JobSubmitted, 2), signum=signal.SIGSTOP)
    events = []
    run = sweeper.run(
        plan(4), comfyui.target(patience=2), progress=lambda event: (events.append(event), report(event)), patience=60
    )
    assert (run.succeeded, run.failed, len(comfyui.pids)) == (4, 0, 2)
    assert any("no answer for 2 s" in event.message for event in events if isinstance(event, Notice))
    assert broken_promises(run.out, 4, []) == []
    assert not any(map(is_alive, comfyui.pids))


@pytest.mark.usefixtures("own_python")
def test_comfyui_above_max_memory_is_started_again_between_two_jobs(comfyui, plan, monkeypatch):
    monkeypatch.setattr(supervise, "_MEASURE_EVERY", 0.2)
    comfyui.behave(megabytes=40, seconds=0.8)
    events = []
    run = sweeper.run(plan(8), comfyui.target(max_memory="250 MB", concurrency=1), progress=events.append)
    assert (run.succeeded, run.failed, run.submitted) == (8, 0, 8)
    assert len(comfyui.pids) >= 2
    assert any("more than its max_memory" in event.message for event in events if isinstance(event, Notice))
    assert sorted(comfyui.colours) == [colour(trial) for trial in range(8)]


@pytest.mark.usefixtures("own_python")
def test_max_memory_that_it_takes_at_the_start_ends_the_run(comfyui, plan):
    with pytest.raises(UnreachableError, match="GB, more than its max_memory"):
        sweeper.run(plan(2), comfyui.target(max_memory="10 MB"))
    assert (len(comfyui.pids), comfyui.colours) == (3, [])


def test_comfyui_that_does_not_start_again_ends_the_run(comfyui, plan):
    def break_and_kill(event):
        if isinstance(event, TrialDone) and event.trial == 0:
            comfyui.behave(fail="No module named 'gone'")
            os.kill(comfyui.pids[-1], signal.SIGKILL)

    comfyui.behave(seconds=0.2)
    run = sweeper.run(plan(4), comfyui.target(), progress=break_and_kill)
    assert "lacks the package gone" in run.error
    assert run.stopped_by == "unreachable"
    comfyui.behave()
    assert sweeper.run(plan(4), comfyui.target()).succeeded == 4


def test_ctrl_c_while_it_starts_ends_it(comfyui, plan):
    comfyui.behave(late=30)
    control = StopControl()
    threading.Thread(target=lambda: (wait_until(lambda: comfyui.pids), control.stop())).start()
    run = sweeper.run(plan(2), comfyui.target(), control=control)
    assert (run.stopped_by, run.pending) == ("interrupt", 2)
    assert not any(map(is_alive, comfyui.pids))


@pytest.mark.usefixtures("own_python")
def test_kill_of_sweeper_ends_its_comfyui(comfyui, plan, runners):
    comfyui.behave(seconds=0.5)
    experiment = plan(4)
    out = experiment.file.parent / "out"
    runner = runners.start(experiment, comfyui.target(), out)
    runner.until("JobSubmitted")
    runner.send(signal.SIGKILL)
    assert runner.wait().killed
    wait_until(lambda: not is_alive(comfyui.pids[0]))
    assert sweeper.run(experiment, comfyui.target(), out).succeeded == 4
    assert broken_promises(out, 4, []) == []


@pytest.mark.usefixtures("own_python")
def test_kill_of_sweeper_ends_what_its_comfyui_started(comfyui, plan, runners):
    (comfyui.path / "child.py").write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('log.txt', 'a').write(f'{os.getpid()} starts\\n')\ntime.sleep(100)\n"
    )
    main = comfyui.path / "main.py"
    main.write_text(f"import subprocess, sys\nsubprocess.Popen([sys.executable, 'child.py'])\n{main.read_text()}")
    runner = runners.start(plan(1), comfyui.target(), comfyui.path.parent / "out")
    runner.until("TargetReady")
    assert len(comfyui.pids) == 2
    runner.send(signal.SIGKILL)
    assert runner.wait().killed
    wait_until(lambda: not any(map(is_alive, comfyui.pids)))


@pytest.mark.usefixtures("own_python")
def test_kill_of_the_guard_leaves_no_comfyui(comfyui, plan):
    def kill_guard(event):
        if isinstance(event, JobSubmitted) and len(comfyui.pids) == 1:
            with suppress(ProcessLookupError):
                os.kill(os.getpgid(comfyui.pids[0]), signal.SIGKILL)

    comfyui.behave(seconds=0.3)
    run = sweeper.run(plan(3), comfyui.target(), progress=kill_guard)
    assert (run.succeeded, run.failed, len(comfyui.pids)) == (3, 0, 2)
    assert not any(map(is_alive, comfyui.pids))


def test_one_comfyui_for_each_gpu_shares_the_work(comfyui, plan):
    comfyui.behave(seconds=0.3)
    done = []
    target = {**comfyui.target(), "gpus": [0, 2]}
    run = sweeper.run(plan(8), target, progress=lambda e: done.append(e.target) if isinstance(e, TrialDone) else None)
    assert run.succeeded == 8
    assert set(done) == {"mine gpu 0", "mine gpu 2"}
    assert [words[2] for words in comfyui.lines if words[1] == "starts"] in (["0", "2"], ["2", "0"])
    assert sorted(comfyui.colours) == [colour(trial) for trial in range(8)]
    assert {path.name for path in (run.out / "logs").iterdir()} == {"mine-gpu-0.log", "mine-gpu-2.log"}


def test_jobs_of_a_dead_gpu_run_on_the_other(comfyui, plan):
    comfyui.behave(seconds=0.2)
    target = {**comfyui.target(), "gpus": [0, 1]}
    run = sweeper.run(plan(10), target, progress=kill_at(comfyui, (TrialDone, 2)))
    assert (run.succeeded, run.failed) == (10, 0)
    assert broken_promises(run.out, 10, []) == []


@pytest.mark.usefixtures("own_python")
def test_kept_comfyui_serves_the_next_run(comfyui, plan, tmp_path):
    try:
        events = []
        first = sweeper.run(plan(1), comfyui.target(keep=True), progress=events.append)
        (pid,) = comfyui.pids
        assert is_alive(pid)
        assert any(f"`kill {pid}` ends it" in event.message for event in events if isinstance(event, Notice))
        second = sweeper.run(plan(3), comfyui.target(keep=True))
        assert (first.succeeded, second.succeeded, second.submitted, comfyui.pids) == (1, 3, 2, [pid])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
        assert sweeper.run(plan(4), comfyui.target(keep=True)).succeeded == 4
        assert len(comfyui.pids) == 2
        launched = user_cache_path("sweeper", appauthor=False) / "launched"
        assert len([path for path in launched.iterdir() if path.is_dir()]) == 1  # that of the first is deleted
    finally:
        for pid in comfyui.pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_two_runs_that_share_a_kept_comfyui_start_it_again_once(comfyui, plan, tmp_path):
    try:
        sweeper.run(plan(1), comfyui.target(keep=True))
        (pid,) = comfyui.pids
        comfyui.behave(seconds=0.3)
        begun, runs, experiment = set(), [], plan(5)

        def run(name):
            def note(event):
                if isinstance(event, JobSubmitted):
                    begun.add(name)
                if len(begun) == 2 and is_alive(pid):
                    os.kill(pid, signal.SIGKILL)

            target = comfyui.target(keep=True)
            runs.append(sweeper.run(experiment, target, out=tmp_path / name, progress=note))

        threads = [threading.Thread(target=run, args=[name]) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert [(run.succeeded, run.failed) for run in runs] == [(5, 0), (5, 0)]
        assert len(comfyui.pids) == 2
    finally:
        for pid in filter(is_alive, comfyui.pids):
            os.kill(pid, signal.SIGKILL)


def test_another_folder_does_not_use_a_kept_comfyui(comfyui, plan, tmp_path):
    other = ComfyUIFolder(tmp_path / "other", comfyui.python)
    try:
        sweeper.run(plan(1), comfyui.target(keep=True))
        sweeper.run(plan(2), other.target(keep=True, name="other"))
        assert (len(comfyui.pids), len(other.pids)) == (1, 1)
    finally:
        for pid in comfyui.pids + other.pids:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("own_python")
def test_node_that_cannot_be_cancelled_ends_its_comfyui_and_not_the_run(comfyui, plan):
    comfyui.behave(seconds={str(colour(1)): 60})
    run = sweeper.run(plan(4, run={"timeout": 1.0}), comfyui.target(), patience=2.0)
    assert (run.succeeded, run.failed, run.error) == (3, 1, None)
    with Store.open(run.out, readonly=True) as store:
        assert [row.error_type for row in store.results() if row.status == "failed"] == ["TimedOutError"]
    assert len(comfyui.pids) == 2


def test_another_program_at_its_port_makes_it_choose_another(comfyui, plan, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], supervise.choose_port(), supervise.choose_port()])
        monkeypatch.setattr(supervise, "choose_port", lambda: next(ports))
        monkeypatch.setattr(launch_comfyui, "_ANSWER_SECONDS", 1.0)  # the other program never answers
        assert sweeper.run(plan(2), comfyui.target()).succeeded == 2
    assert len(comfyui.pids) == 2


def test_other_comfyui_at_its_port_is_not_used(comfyui, plan, monkeypatch):
    with EmbeddedServer("comfyui") as other:
        ports = iter([int(other.url.rpartition(":")[2]), supervise.choose_port(), supervise.choose_port()])
        monkeypatch.setattr(supervise, "choose_port", lambda: next(ports))
        comfyui.behave(late=1)
        assert sweeper.run(plan(2), comfyui.target()).succeeded == 2
        assert other.seen.accepted == 0


def test_targets_with_similar_names_have_logs_of_their_own(comfyui, plan):
    other = ComfyUIFolder(comfyui.path.parent / "other", comfyui.python)
    run = sweeper.run(plan(2), [comfyui.target(name="my gpu"), other.target(name="My-GPU")])
    assert sorted(log.name for log in (run.out / "logs").iterdir()) == ["My-GPU-2.log", "my-gpu.log"]


def test_gpu_that_does_not_start_leaves_its_work_to_the_others(comfyui, plan):
    other = ComfyUIFolder(comfyui.path.parent / "other", comfyui.python, fail="no luck")
    run = sweeper.run(plan(4), [comfyui.target(), other.target(name="other")])
    assert (run.succeeded, run.stopped_by, len(other.pids)) == (4, None, 1)
