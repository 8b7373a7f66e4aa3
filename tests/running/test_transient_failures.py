"""Transient failures of one request, job, file or target, while the rest goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

import sweeper
from sweeper.comfy import client
from sweeper.comfy.retry import RetryPolicy
from sweeper.embedded import EmbeddedServer
from sweeper.running import health, poll_job, scheduler
from sweeper.running.concurrency_limit import ConcurrencyLimit, Permit
from sweeper.running.run_events import Draining, JobSubmitted, Notice, Retrying, TargetDown, TrialDone
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from sweeper.store.records import OPEN_STATES
from tests.running.conftest import NODES
from tests.running.invariants import broken_promises
from tests.running.servers import Served
from tests.waiting import wait_until


def rows_of(out):
    with Store.open(out, readonly=True) as store:
        return list(store.results())


def open_jobs(out):
    with Store.open(out, readonly=True) as store:
        return sum(job.state in OPEN_STATES for job in store.jobs())


# --- answers that no ComfyUI gives


@pytest.mark.parametrize("fault", ["404", "403"])
@pytest.mark.parametrize("path", ["/prompt", "/api/jobs"])
def test_the_answers_of_a_restarting_gateway_do_not_end_a_run(coloured, tmp_path, path, fault):
    with Served("comfyui", tmp_path / "data") as server:
        waiting = [fault]

        def decide(asked):
            return waiting.pop() if waiting and path in asked.path and asked.number > 6 else None

        server.proxy.decide = decide
        run = sweeper.run(coloured(4), server.target(), tmp_path / "out")
        assert not waiting
        assert (run.succeeded, run.stopped_by) == (4, None)
        assert broken_promises(tmp_path / "out", 4, [server]) == []


@pytest.mark.parametrize("fault", ["refused", "403"])
def test_a_target_that_keeps_refusing_does_not_stop_the_others(coloured, tmp_path, fault):
    with Served("comfyui", tmp_path / "one") as one, Served("comfyui", tmp_path / "two") as two:
        one.proxy.decide = lambda asked: fault if asked.number > 4 else None
        downs = []

        def hear(event):
            if isinstance(event, TargetDown):
                downs.append(event)

        run = sweeper.run(coloured(6), [one.target(), two.target()], tmp_path / "out", progress=hear)
        assert [event.final for event in downs] == [True]
        assert "refuses the key or this client (HTTP 403)" in downs[0].reason
        left = len(one.proxy.accepted) - sum(row.target == "one-server" for row in rows_of(tmp_path / "out"))
        if fault == "403":  # perhaps a gateway's, whose server may have the job
            left = open_jobs(tmp_path / "out")
            assert left <= 4
        assert run.succeeded == 6 - left
        assert run.stopped_by == ("unreachable" if left else None)


# --- files


@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_unavailable_for_a_while_marks_no_target_down(coloured, tmp_path):
    with Served("comfyui", tmp_path / "data") as server:
        waiting = ["page"] * 7
        events = []

        def decide(asked):
            return waiting.pop() if waiting and asked.path == "/view" else None

        server.proxy.decide = decide
        run = sweeper.run(coloured(1), server.target(), tmp_path / "out", progress=events.append)
        assert not waiting
        assert (run.succeeded, run.stopped_by, run.error) == (1, None, None)
        assert not [event for event in events if isinstance(event, TargetDown)]
        waits = [event.wait for event in events if isinstance(event, Retrying)]
        assert len(waits) >= 3
        assert waits[0] < waits[-1]
        assert len(server.proxy.accepted) == 1


@pytest.mark.usefixtures("impatient")
def test_an_unavailable_file_is_postponed_after_patience_with_the_reason(coloured, tmp_path):
    plan = coloured(1)
    with Served("comfyui", tmp_path / "data") as server:
        server.proxy.decide = lambda asked: "page" if asked.path == "/view" else None
        events = []
        run = sweeper.run(plan, server.target(), tmp_path / "out", progress=events.append, patience=0.0)
        assert run.pending == 1
        assert "1 trial may still be running (" in run.error
        (said,) = [event.message for event in events if isinstance(event, Notice)]
        assert said.startswith(
            "data-server: trial 0 is postponed to the next run, which first checks whether it already ran: "
        )
        server.proxy.decide = lambda _: None
        run = sweeper.run(plan, server.target(), tmp_path / "out")
        assert (run.succeeded, len(server.proxy.accepted)) == (1, 1)


@pytest.fixture
def impatient(monkeypatch):
    """A client that polls often, and tries a request only twice, without waiting."""
    monkeypatch.setattr(client, "_LOCAL_POLL_INTERVALS", (0.01, 0.02))
    monkeypatch.setattr(client, "RetryPolicy", functools.partial(RetryPolicy, attempts=2, base_wait=0.001))


@pytest.mark.usefixtures("impatient")
def test_outages_in_one_jobs_life_do_not_add_up(experiment, tmp_path, monkeypatch):
    """A long job over an unstable connection: polls between the outages see it running."""
    monkeypatch.setattr(scheduler, "_MAX_FAILURES_IN_A_ROW", 2)
    outages = []
    with EmbeddedServer(dialect="comfyui", nodes=NODES) as server:
        server.faults.stall_nodes = {"Paint"}

        def hear(event):
            if isinstance(event, JobSubmitted):
                threading.Thread(target=go_on, daemon=True).start()

        def go_on():
            looks = len(server.seen.paths("GET"))
            wait_until(lambda: len(server.seen.paths("GET")) > looks + 4)  # the job was seen
            if len(outages) == 4:
                server.faults.release()
            else:
                outages.append(True)
                server.faults.drop_status_times = 2  # both tries of one question

        target = {"url": server.url, "dialect": "comfyui"}
        run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=hear, patience=0.0)
    assert len(outages) == 4
    assert (run.succeeded, run.stopped_by, run.error) == (1, None, None)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_input_files_that_a_server_lost_during_a_run_are_uploaded_again(coloured, tmp_path, concurrency):
    """Like a restarted container without a volume."""
    with EmbeddedServer(dialect="comfyui") as server:
        lost = []

        def hear(event):
            if isinstance(event, TrialDone) and not lost:
                lost.extend(Path(server.folders.input_dir).glob("sweeper-*"))
                for file in lost:
                    file.unlink()

        target = {"url": server.url, "dialect": "comfyui", "concurrency": concurrency}
        run = sweeper.run(coloured(8, upload=True), target, tmp_path / "out", progress=hear)
        assert len(lost) == 1
        assert run.succeeded >= 8 - concurrency  # some waited in the queue with their file, which is gone when they run
        assert len(server.seen.uploads) >= 2
        assert "RejectedError" not in {row.error_type for row in rows_of(tmp_path / "out")}


# --- time limits on a service that runs several jobs


@pytest.fixture
def cloud():
    with EmbeddedServer(dialect="cloud", nodes=NODES, workers=2) as server:
        yield server


def start_foreign_job(server):
    """Have the server run a job of another client, which stalls. Returns its prompt_id."""
    graph = {
        "1": {"class_type": "Paint", "inputs": {"text": "not ours", "seed": 1}},
        "2": {"class_type": "Keep", "inputs": {"images": ["1", 0], "filename_prefix": "theirs"}},
    }
    prompt_id = httpx.post(f"{server.url}/api/prompt", json={"prompt": graph}).json()["prompt_id"]
    wait_until(lambda: server.seen.executions[prompt_id])
    return prompt_id


def cloud_target(server):
    return {"url": server.url, "dialect": "cloud", "concurrency": 2}


def test_an_overdue_job_is_cancelled_beside_the_job_of_another_client(cloud, experiment, tmp_path):
    cloud.faults.stall_nodes = {"Paint"}
    theirs = start_foreign_job(cloud)
    run = sweeper.run(experiment(seed=[1, 2]), cloud_target(cloud), tmp_path / "out", timeout=0.5)
    assert run.failed == 2
    assert {row.error for row in rows_of(tmp_path / "out")} == {"ran longer than 0.5 s and was cancelled"}
    assert len(set(cloud.seen.interrupts)) == 2
    assert not {theirs, None} & {*cloud.seen.interrupts, *cloud.seen.cancelled}
    assert httpx.get(f"{cloud.url}/api/jobs/{theirs}").json()["status"] == "in_progress"


def test_a_job_with_an_unconfirmed_cancellation_is_not_sent_again(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(poll_job, "_CANCEL_GRACE", 0.3)
    busy = threading.Event()

    def hold(context, text, seed):  # no interrupt reaches it
        busy.wait(60)
        return NODES["Paint"].run(context, text=text, seed=seed)

    plan = experiment(seed=[1])
    with EmbeddedServer(
        dialect="cloud", nodes={**NODES, "Paint": dataclasses.replace(NODES["Paint"], run=hold)}
    ) as one:
        run = sweeper.run(plan, cloud_target(one), tmp_path / "out", timeout=0.3)
        assert (run.pending, run.failed) == (1, 0)
        assert "1 trial may still be running (" in run.error
        busy.set()
        wait_until(lambda: sum(one.seen.executions.values()) == 1)
        run = sweeper.run(plan, cloud_target(one), tmp_path / "out")
        assert (run.succeeded + run.cancelled, one.seen.accepted) == (1, 1)


# --- stopping


def test_ctrl_c_twice_ends_the_wait_for_a_job_that_does_not_stop(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(poll_job, "_CANCEL_GRACE", 0.3)
    busy, control = threading.Event(), StopControl()

    def hold(context, text, seed):
        busy.wait(60)
        return NODES["Paint"].run(context, text=text, seed=seed)

    stuck = {**NODES, "Paint": dataclasses.replace(NODES["Paint"], run=hold)}
    with EmbeddedServer(dialect="comfyui", nodes=stuck) as one:

        def stop():
            wait_until(lambda: one.seen.interrupts)
            control.stop()
            control.stop()

        threading.Thread(target=stop).start()
        target = {"url": one.url, "dialect": "comfyui"}
        run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", timeout=0.2, control=control, patience=50.0)
        assert not busy.is_set()
        busy.set()
    assert (run.stopped_by, run.failed, run.pending) == ("interrupt", 0, 1)


def test_submissions_under_way_count_as_in_flight_when_a_run_stops(coloured, tmp_path):
    with Served("comfyui", tmp_path / "data") as server:
        control, events = StopControl(), []

        def stop(asked, when):
            if asked.submits and when == "before":
                control.stop()

        server.proxy.on_step = stop
        server.proxy.decide = lambda asked: "delay" if asked.submits else None
        sweeper.run(
            coloured(4), server.target(concurrency=1), tmp_path / "out", control=control, progress=events.append
        )
        (draining,) = [event for event in events if isinstance(event, Draining)]
        assert draining.in_flight == 1


# --- the first words, and a queue that was full once


def test_a_silent_target_does_not_delay_the_others(coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(health, "_CONNECT_WAIT", 0.2)
    downs = []

    def hear(event):
        if isinstance(event, TargetDown):
            downs.append(event.reason)

    with socket.create_server(("127.0.0.1", 0)) as mute, Served("comfyui", tmp_path / "data") as server:
        silent = {"url": f"http://127.0.0.1:{mute.getsockname()[1]}", "dialect": "comfyui", "name": "mute"}
        began = time.monotonic()
        run = sweeper.run(coloured(3), [silent, server.target()], tmp_path / "out", progress=hear)
        assert time.monotonic() - began < 50  # it takes a minute until a server counts as silent
    assert (run.succeeded, run.stopped_by) == (3, None)
    assert downs == ["no response within 0.2 s"]


def test_an_accepted_job_resets_the_time_that_a_queue_was_full():
    async def go():
        from random import Random

        gate = ConcurrencyLimit(2, Random(1))
        first, second = Permit(gate), Permit(gate)
        await first.acquire()
        await second.acquire()
        gate.record_queue_full(0.0)
        since = gate.full_since
        second.limit.record_accepted()  # its files are not even asked for yet
        return since, gate.full_since

    since, after = asyncio.run(go())
    assert since is not None
    assert after is None
