"""The runner's promises about failures, limits, timeouts and jobs of other clients, each tested by a run."""

from __future__ import annotations

import itertools
import json
import re
import time
from random import Random

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sweeper
from sweeper.comfy.retry import RetryPolicy
from sweeper.running.run_events import JobSubmitted, Notice, Retrying, TargetDown, TargetUp
from sweeper.running.stop_control import StopControl
from sweeper.store import Store
from tests.running.invariants import broken_promises
from tests.running.servers import BLUR_SECONDS, CAN_RESTART, DIALECTS, SLOW, Served
from tests.running.servers import TEMPLATE as COLOURED
from tests.waiting import check_at_once, wait_until


@given(
    st.integers(0, 2**32),
    st.builds(RetryPolicy, attempts=st.integers(1, 12), base_wait=st.floats(0.01, 2), max_wait=st.floats(0.01, 60)),
)
def test_waits_are_drawn_from_zero_to_a_capped_exponential(seed, patience):
    waits = list(patience.draw_waits(Random(seed)))
    assert len(waits) == patience.attempts - 1
    assert all(0 <= wait <= min(patience.max_wait, patience.base_wait * 2**n) for n, wait in enumerate(waits))


def test_the_jitter_is_full():
    firsts = [next(RetryPolicy(base_wait=1.0, max_wait=8.0).draw_waits(Random(seed))) for seed in range(400)]
    assert min(firsts) < 0.05
    assert max(firsts) > 0.95
    assert 0.4 < sum(firsts) / len(firsts) < 0.6


@pytest.fixture
def served(dialect, tmp_path):
    """A server behind a proxy: ours, or a real ComfyUI."""
    with Served(dialect, tmp_path / "data") as server:
        yield server


@pytest.fixture
def rows(tmp_path):
    def read():
        with Store.open(tmp_path / "out", readonly=True) as store:
            return list(store.results())

    return read


def test_a_rejected_workflow_is_never_retried(served, coloured, rows, tmp_path):
    bad = {**COLOURED, "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "sweep"}}}
    plan = coloured(2, template=bad)
    sent = []
    served.proxy.on_step = lambda asked, when: sent.append(asked) if asked.submits and when == "before" else None
    run = sweeper.run(plan, served.target(), tmp_path / "out", check=False)
    assert (run.failed, len(sent)) == (2, 2)
    assert {(row.error_type, row.attempts) for row in rows()} == {("RejectedError", 1)}
    assert sweeper.run(plan, served.target(), tmp_path / "out", check=False).submitted == 0


def fail_jobs(served, times):
    """Have the server fail the first `times` jobs that it gets: their save node may not write where it is told to."""
    numbers = itertools.count(1)

    def change(asked):
        if not asked.submits or next(numbers) > times:
            return asked.body
        body = asked.json
        for node in (body.get("prompt") or body["workflow"]).values():
            if "filename_prefix" in node["inputs"]:
                node["inputs"]["filename_prefix"] = "../" * 9 + "elsewhere/x"
        return json.dumps(body).encode()

    served.proxy.change_sent = change


@pytest.mark.parametrize("dialect", DIALECTS[:1], indirect=True)  # the runner counts
@pytest.mark.parametrize(("allowed", "failures"), [(2, 3), (0.1, 2), (0, 1), ("fail_fast", 1)])
def test_max_failures_is_a_count_or_a_share(served, coloured, rows, *, tmp_path, allowed, failures):
    fail_jobs(served, 10)
    options = {"fail_fast": True} if allowed == "fail_fast" else {"max_failures": allowed}
    plan, target = coloured(10), served.target(concurrency=1)
    run = sweeper.run(plan, target, tmp_path / "out", **options)
    assert (run.stopped_by, run.failed, run.pending) == ("max_failures", failures, 10 - failures)
    none = "1 trial failed and no failures are allowed (--fail-fast or max_failures: 0)"
    assert run.error == (none if failures == 1 else f"{failures} trials failed, more than max_failures allows")
    assert len(served.proxy.accepted) == failures
    fail_jobs(served, 0)
    again = sweeper.run(plan, target, tmp_path / "out")
    assert (again.submitted, again.failed, again.succeeded) == (10 - failures, failures, 10 - failures)
    repaired = sweeper.run(plan, target, tmp_path / "out", retry_failed=True)
    assert (repaired.submitted, repaired.succeeded) == (failures, 10)
    assert [row.attempts for row in rows()] == [2] * failures + [1] * (10 - failures)


def test_a_share_of_failures_that_is_not_exceeded_stops_nothing(served, coloured, tmp_path):
    fail_jobs(served, 2)
    run = sweeper.run(coloured(10), served.target(), tmp_path / "out", max_failures=0.2)
    assert (run.stopped_by, run.failed, run.succeeded) == (None, 2, 8)


def test_a_network_failure_of_the_server_is_retried_after_a_wait(served, coloured, rows, tmp_path):
    events = []
    fail_jobs(served, 1)
    served.proxy.change = lambda _, body: re.sub(rb'Exception(?=[":])', b"ConnectionResetError", body)
    run = sweeper.run(coloured(1), served.target(), tmp_path / "out", progress=events.append)
    assert (run.succeeded, rows()[0].attempts) == (1, 2)
    (event,) = (event for event in events if isinstance(event, Retrying))
    assert 0 <= event.wait <= 0.5


def start_foreign_job(served, seconds=BLUR_SECONDS):
    """Have the server run a slow job of another client, each node for some seconds. Returns its prompt_id."""
    served.slow_down(seconds)
    graph = json.loads(json.dumps(SLOW).replace('"{{ color }}"', str(time.time_ns() % 2**24)))  # no cache has it
    is_v2 = served.dialect == "v2"
    path, body = ("/api/v2/jobs", {"workflow": graph}) if is_v2 else ("/api/prompt", {"prompt": graph})
    answer = httpx.post(served.url + path, json=body, trust_env=False).json()
    prompt_id = answer["id" if is_v2 else "prompt_id"]
    wait_until(lambda: served.get_status(prompt_id) == "in_progress")
    return prompt_id


def test_a_job_past_its_timeout_is_cancelled_and_the_next_one_runs(served, coloured, rows, tmp_path):
    served.slow_down()
    run = sweeper.run(
        coloured(2, template=SLOW), served.target(concurrency=1), tmp_path / "out", timeout=0.1, patience=60
    )
    assert run.failed == 2
    assert {row.error for row in rows()} == {"ran longer than 0.1 s and was cancelled"}
    assert len(served.proxy.accepted) == 2
    assert {served.get_status(job.prompt_id) for job in served.proxy.accepted} == {"cancelled"}


def test_the_running_job_of_another_client_is_never_cancelled(served, coloured, tmp_path):
    """Our jobs wait behind another client's; cancelling ours leaves theirs running to its end."""
    theirs = start_foreign_job(served)
    control = StopControl()

    def watch(event):
        if isinstance(event, JobSubmitted):
            control.stop()
            control.stop()

    target = served.target(concurrency=1)
    run = sweeper.run(coloured(3), target, tmp_path / "out", control=control, progress=watch)
    assert (run.cancelled, run.pending) == (1, 2)
    served.slow_down(0.0)
    wait_until(lambda: served.get_status(theirs) != "in_progress")
    assert served.get_status(theirs) == "completed"


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "v2"], indirect=True)
def test_a_queue_that_does_not_move_is_reported(served, coloured, tmp_path):
    """As if ComfyUI's worker thread died over a job: HTTP works, nothing moves, and none of our timeouts starts."""
    theirs = start_foreign_job(served, 30.0)  # until the notice comes, however busy the machine is
    notices = []

    def watch(event):
        if isinstance(event, Notice):
            notices.append(event.message)
            served.slow_down(0.0)
            served.cancel(theirs)

    run = sweeper.run(coloured(1), served.target(concurrency=1), tmp_path / "out", progress=watch, timeout=0.5)
    assert run.succeeded + run.failed == 1  # half a second may be too short for it on a busy machine
    assert f"has waited for 0.5 s while the server runs {theirs}, not ours" in notices[0]


@pytest.mark.parametrize("dialect", ["cloud"], indirect=True)
def test_waiting_behind_our_own_jobs_is_not_reported_as_a_stuck_queue(server, target, experiment, tmp_path):
    """Cloud does not say which job is running: here each job waits longer than a job may run, and all is well."""
    server.faults.node_seconds = 0.2  # so one runs for 0.4 s, and the last one waits for 2.8 s
    notices = []

    def watch(event):
        if isinstance(event, Notice):
            notices.append(event.message)

    eight = {**target, "concurrency": 8}
    run = sweeper.run(experiment(seed=list(range(8))), eight, tmp_path / "out", progress=watch, timeout=2.0)
    assert (run.succeeded, notices) == (8, [])


def test_a_target_that_was_unreachable_is_used_again(coloured, tmp_path):
    plan = coloured(6)

    def check(dialect):
        out, events = tmp_path / f"out-{dialect}", []

        def watch(event):
            events.append(type(event))
            if events.count(JobSubmitted) == 2:
                served.proxy.down = TargetDown not in events

        with Served(dialect, tmp_path / dialect) as served:
            run = sweeper.run(plan, served.target(concurrency=1), out, progress=watch)
            assert (run.succeeded, run.stopped_by) == (6, None)
            assert broken_promises(out, 6, [served]) == []
        down, up = events.index(TargetDown), events.index(TargetUp)
        assert down < up
        assert JobSubmitted in events[up:]

    check_at_once(check, [(dialect,) for dialect in DIALECTS])


@pytest.mark.skipif(not CAN_RESTART, reason="SWEEPER_REAL_RESTART is not set")
def test_an_id_that_a_restarted_server_may_have_had_is_not_used_again(coloured, tmp_path):
    """A gateway answers 503 for an accepted job, and then the server restarts, so the outcome stays unknown."""
    with Served("comfyui", tmp_path / "data") as server:
        submissions = []

        def decide(asked):
            submissions.extend([asked] if asked.submits else [])
            return "503_after" if asked.submits and len(submissions) == 1 else None

        def step(asked, when):
            if asked.submits and when == "after" and len(submissions) == 1:
                server.restart()

        server.proxy.decide, server.proxy.on_step = decide, step
        run = sweeper.run(coloured(1), server.target(), tmp_path / "out")
        assert run.succeeded == 1
        assert broken_promises(tmp_path / "out", 1, [server]) == []
        assert len({job.prompt_id for job in server.proxy.accepted}) == 2
