"""Work that a server took is never sent again, whatever answers, clocks and lists say about it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus

import httpx
import pytest

import sweeper
from sweeper.comfy import client
from sweeper.comfy.retry import RetryPolicy
from sweeper.errors import ResultsError
from sweeper.running import folder_lock, session
from sweeper.running.run_context import RunContext
from sweeper.running.run_events import JobSubmitted, Notice
from tests.running.invariants import broken_promises
from tests.running.servers import DIALECTS, TEMPLATE, Served, trial_of
from tests.running.test_transient_failures import rows_of
from tests.waiting import wait_until

# --- answers of a gateway to a submission that its server took


@pytest.mark.parametrize("dialect", DIALECTS)
def test_any_status_over_an_accepted_job_submits_nothing_again(dialect, coloured, tmp_path):
    """Each trial's submission reaches the server, and a gateway answers it with another status.

    All dialects meet the statuses that have a name, and each a few of the others.
    """
    named = {int(status) for status in HTTPStatus if status >= 300}
    statuses = sorted(named | set(range(300 + DIALECTS.index(dialect), 600, 12 * len(DIALECTS))))
    answered = set()

    def decide(asked):
        if not asked.submits:
            return None
        trial = trial_of(asked.graph)
        fault = None if trial in answered else f"{statuses[trial]}_after"
        answered.add(trial)
        return fault

    with Served(dialect, tmp_path / "data", workers=2) as server:
        server.proxy.decide = decide
        run = sweeper.run(coloured(len(statuses)), server.target(concurrency=8), tmp_path / "out")
        assert len(server.proxy.struck) == len(statuses)
        assert (run.succeeded, run.stopped_by, run.error) == (len(statuses), None, None)
        assert len(server.proxy.accepted) == len(statuses)
        assert {row.attempts for row in rows_of(tmp_path / "out")} == {1}
        assert broken_promises(tmp_path / "out", len(statuses), [server]) == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["429", "404", "503"])
def test_an_id_that_a_gateway_answered_for_is_sent_again_only_as_a_key(dialect, coloured, tmp_path, fault):
    waiting, ids = [fault], []

    def decide(asked):
        if not asked.submits:
            return None
        ids.append(asked.key or asked.json.get("prompt_id") or asked.graph["2"]["inputs"]["filename_prefix"])
        return waiting.pop() if waiting else None

    with Served(dialect, tmp_path / "data") as server:
        server.proxy.decide = decide
        assert sweeper.run(coloured(1), server.target(), tmp_path / "out").succeeded == 1
        assert broken_promises(tmp_path / "out", 1, [server]) == []
    assert (len(ids), len(set(ids))) == (2, 1 if dialect == "v2" else 2)  # a v2 server accepts a key only once


# --- files that the server does not serve


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["403", "404"])
def test_a_missing_file_leaves_its_job_pending_and_unpaid(dialect, coloured, tmp_path, fault, monkeypatch):
    monkeypatch.setattr(client, "RetryPolicy", partial(RetryPolicy, attempts=3, base_wait=0.001))
    plan, out, notices = coloured(2), tmp_path / "out", []

    def hear(event):
        if isinstance(event, Notice):
            notices.append(event.message)

    with Served(dialect, tmp_path / "data") as server:
        server.proxy.decide = lambda asked: fault if asked.downloads else None
        run = sweeper.run(plan, server.target(), out, progress=hear)
        assert (run.pending, run.failed, len(server.proxy.accepted)) == (2, 0, 2)
        assert f"(HTTP {fault}); the next run looks for the file again, at no cost" in "\n".join(notices)
        run = sweeper.run(plan, server.target(), out, retry_failed=True)
        assert (run.pending, run.submitted, len(server.proxy.accepted)) == (2, 0, 2)
        server.proxy.decide = lambda _: None
        assert sweeper.run(plan, server.target(), out).succeeded == 2
        assert len(server.proxy.accepted) == 2
        assert broken_promises(out, 2, [server]) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_remake_submits_a_trial_whose_file_is_gone_for_good(dialect, coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "RetryPolicy", partial(RetryPolicy, attempts=3, base_wait=0.001))
    plan, out = coloured(1), tmp_path / "out"
    with Served(dialect, tmp_path / "data") as server:
        server.proxy.decide = lambda asked: "404" if asked.downloads else None
        assert sweeper.run(plan, server.target(), out).pending == 1
        server.proxy.decide = lambda asked: "404" if asked.downloads and len(server.proxy.accepted) == 1 else None
        run = sweeper.run(plan, server.target(), out, remake=True)
        assert (run.succeeded, run.submitted, len(server.proxy.accepted)) == (1, 1, 2)


# --- finding a submission again


def leave_intents(plan, server, out, trials, **options):
    """A run whose submissions reach the server while it learns nothing more: the intents stay open."""
    server.proxy.decide = lambda asked: (
        "swallow" if asked.submits else "drop" if server.proxy.accepted and not asked.path.endswith("/ws") else None
    )
    run = sweeper.run(plan, server.target(concurrency=trials), out, patience=0.0, **options)
    server.proxy.decide = lambda _: None
    assert (run.pending, len(server.proxy.accepted)) == (trials, trials)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wrong_clock_at_the_intent_submits_nothing_again(coloured, tmp_path, monkeypatch, hours):
    plan, out = coloured(2), tmp_path / "out"
    with Served("cloud", tmp_path / "data") as server:
        with monkeypatch.context() as clock:
            clock.setattr(session, "RunContext", partial(RunContext, now=lambda: time.time() + hours * 3600))
            leave_intents(plan, server, out, 2)
        assert sweeper.run(plan, server.target(), out).succeeded == 2
        assert len(server.proxy.accepted) == 2
        assert broken_promises(out, 2, [server]) == []


def test_a_wrong_clock_does_not_hide_a_job_that_still_runs(coloured, tmp_path, monkeypatch):
    """It has no files yet whose names show whose job it is, so its age by the server's clock decides."""
    plan, out = coloured(1), tmp_path / "out"
    with Served("cloud", tmp_path / "data") as server:
        faults = server._embedded.faults
        faults.stall_nodes = {"EmptyImage"}
        with monkeypatch.context() as clock:
            clock.setattr(session, "RunContext", partial(RunContext, now=lambda: time.time() + 3600))
            leave_intents(plan, server, out, 1)

        def release(asked, when):
            if asked.submits or asked.path.startswith("/api/jobs/"):
                faults.release()

        server.proxy.on_step = release
        run = sweeper.run(plan, server.target(), out, timeout=60)
        assert (run.succeeded, run.submitted, len(server.proxy.accepted)) == (1, 0, 1)


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_cancels_no_running_job(server, target, experiment, *, tmp_path, monkeypatch, days):
    jump = [0.0]
    monkeypatch.setattr(session, "RunContext", partial(RunContext, now=lambda: time.time() + jump[0]))
    server.faults.stall_nodes = {"Paint"}

    def hear(event):
        if isinstance(event, JobSubmitted):
            threading.Thread(target=let_time_jump, daemon=True).start()

    def let_time_jump():
        wait_until(lambda: server.seen.executions)
        jump[0] = days * 86_400.0
        looks = len(server.seen.paths("GET"))
        wait_until(lambda: len(server.seen.paths("GET")) > looks + 6)
        server.faults.release()

    run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=hear, timeout=600.0)
    assert (run.succeeded, server.seen.interrupts, server.seen.accepted) == (1, [], 1)
    assert rows_of(tmp_path / "out")[0].ran_s < 600


# --- two runs in one results folder


@pytest.mark.parametrize("lockable", [True, False])
def test_a_removed_lock_file_lets_no_two_runs_in(server, target, experiment, *, tmp_path, monkeypatch, lockable):
    if not lockable:
        monkeypatch.setattr(folder_lock, "lock_itself", lambda _: nullcontext(False))
    plan, out, one, errors = experiment(seed=list(range(6))), tmp_path / "out", {**target, "concurrency": 1}, []

    def hear(event):
        if isinstance(event, JobSubmitted) and (out / ".lock").exists():
            (out / ".lock").unlink()
            if lockable:
                with pytest.raises(ResultsError, match="another run is using this results folder") as caught:
                    sweeper.run(plan, one, out)
                errors.append(caught)

    run = sweeper.run(plan, one, out, progress=hear)
    assert len(errors) == lockable
    if lockable:
        assert run.succeeded == 6
    else:
        assert run.stopped_by == "unwritable"
        assert "removed or replaced while this run used it" in run.error
        assert sweeper.run(plan, one, out).succeeded == 6
    assert server.seen.accepted == 6


# --- lists and details of jobs


def test_details_without_a_workflow_leave_the_outcome_unknown(coloured, tmp_path):
    plan, out = coloured(1), tmp_path / "out"

    def hide(asked, body):
        """What shows whose job it is: the workflow and the files in the details, and the first file in the list."""
        found = json.loads(body) if asked.path.startswith("/api/jobs") else None
        if found is None:
            return body
        for entry in found.get("jobs", [found]):
            for name in ("workflow", "outputs", "preview_output"):
                entry.pop(name, None)
        return json.dumps(found).encode()

    with Served("cloud", tmp_path / "data") as server:
        leave_intents(plan, server, out, 1)
        server.proxy.change = hide
        notices = []
        run = sweeper.run(plan, server.target(), out, patience=0.0, progress=notices.append)
        assert (run.pending, run.submitted, len(server.proxy.accepted)) == (1, 0, 1)
        (notice,) = [event.message for event in notices if isinstance(event, Notice)]
        assert "look for the picture there yourself: only a run with another --out submits the trial again" in notice
        server.proxy.change = lambda _, body: body
        assert sweeper.run(plan, server.target(), out).succeeded == 1
        assert broken_promises(out, 1, [server]) == []


def test_one_walk_of_the_list_answers_for_all_open_intents(coloured, tmp_path):
    """The list also has many jobs of others, whose details are requested once and not for each intent."""
    plan, out, foreign = coloured(4), tmp_path / "out", 120
    graph = json.loads(json.dumps(TEMPLATE).replace('"{{ color }}"', "1"))
    with Served("cloud", tmp_path / "data", workers=2) as server:
        leave_intents(plan, server, out, 4)
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            for _ in range(foreign):
                assert http.post("/api/prompt", json={"prompt": graph}).status_code == 200
        paths = []
        server.proxy.on_step = lambda asked, when: paths.append(asked.path) if when == "before" else None
        assert sweeper.run(plan, server.target(concurrency=4), out).succeeded == 4
        assert sum(path.startswith("/api/jobs/") for path in paths) <= foreign + 8
        assert paths.count("/api/jobs") <= 6
        assert len(server.proxy.accepted) == 4
