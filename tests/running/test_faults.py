"""The runner over real sockets against a server with faults: one row per trial, and no job runs twice."""

from __future__ import annotations

import pytest

import sweeper
from sweeper.comfy.protocol import JobState
from sweeper.errors import UnreachableError
from sweeper.running.run_events import JobSubmitted, Notice, Retrying, TargetBusy
from sweeper.running.work_queue import is_out_of_memory
from sweeper.store import Store
from tests.running.invariants import broken_promises
from tests.running.servers import Served


@pytest.fixture
def go(server, target, experiment, tmp_path):
    """Runs four trials with the server's faults on; returns (run, rows, events)."""

    def run(**options):
        events = []
        found = sweeper.run(
            experiment(seed=[1, 2, 3, 4]), target, tmp_path / "out", progress=events.append, patience=5.0, **options
        )
        with Store.open(tmp_path / "out", readonly=True) as store:
            rows = list(store.results())
        assert [row.trial for row in rows] == [0, 1, 2, 3]
        return found, rows, events

    return run


def _no_job_ran_twice(server, jobs=4):
    assert sorted(server.seen.executions.values()) == [1] * jobs


def test_a_job_with_a_dropped_response_is_not_sent_again(server, go):
    server.faults.drop_after_accept = 2
    run, rows, events = go()
    assert run.succeeded == 4
    assert server.seen.accepted == 4
    _no_job_ran_twice(server)
    assert sum(event.found for event in events if isinstance(event, JobSubmitted)) == 2
    assert all(row.attempts == 1 for row in rows)


def test_a_submission_that_never_arrived_is_sent_again_once(server, go, dialect):
    server.faults.drop_before_accept = 2
    run, rows, _ = go()
    assert run.succeeded == 4
    assert server.seen.submits == 6
    _no_job_ran_twice(server)
    # A v2 server accepts an id once, so the same attempt is sent again.
    assert sorted(row.attempts for row in rows) == ([1, 1, 1, 1] if dialect == "v2" else [1, 1, 2, 2])


def test_a_full_queue_is_retried_after_the_requested_wait(server, go):
    server.faults.queue_full_times = 5
    run, rows, events = go()
    assert run.succeeded == 4
    assert all(row.attempts == 1 for row in rows)
    waits = [event for event in events if isinstance(event, TargetBusy)]
    assert len(waits) == 5
    assert waits[0].seconds == 0.05  # the server says 0, which is no reason to ask in a circle
    assert waits[-1].limit < 3


def test_status_500_is_retried(server, go):
    server.faults.error_500_times = 5
    run, _, _ = go()
    assert run.succeeded == 4
    _no_job_ran_twice(server)


def test_responses_that_are_not_json_are_retried(server, go):
    server.faults.garbage_times = 4
    run, _, _ = go()
    assert run.succeeded == 4
    _no_job_ran_twice(server)


def test_dropped_polls_do_not_end_a_job(server, go):
    server.faults.drop_status_times = 6
    run, _, _ = go()
    assert run.succeeded == 4
    _no_job_ran_twice(server)


def test_a_truncated_download_is_completed(server, go, tmp_path):
    server.faults.truncate_download_times = 3
    run, rows, _ = go()
    assert run.succeeded == 4
    for row in rows:
        content = (tmp_path / "out" / row.outputs[0]).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
    assert sorted(path.suffix for path in (tmp_path / "out" / "artifacts").iterdir()) == [".png"] * 4


def test_the_next_run_downloads_what_this_one_could_not(coloured, tmp_path):
    plan, events = coloured(1), []
    with Served("comfyui", tmp_path / "data") as server:
        server.proxy.decide = lambda asked: "502" if asked.downloads else None
        run = sweeper.run(plan, server.target(), tmp_path / "out", progress=events.append, patience=0.0)
        assert (run.pending, run.failed) == (1, 0)
        (notice,) = (event.message for event in events if isinstance(event, Notice))
        assert "trial 0 is postponed to the next run, which first checks whether it already ran" in notice
        server.proxy.decide = lambda _: None
        assert sweeper.run(plan, server.target(), tmp_path / "out").succeeded == 1
        assert broken_promises(tmp_path / "out", 1, [server]) == []
        assert len(server.proxy.accepted) == 1


def test_a_picture_that_is_missing_once_is_downloaded_again(server, go):
    server.faults.missing_download_times = 1
    run, _, _ = go()
    assert (run.succeeded, run.failed) == (4, 0)
    _no_job_ran_twice(server)


def test_a_lost_job_is_sent_again_as_a_new_attempt(server, go):
    server.faults.lose_times = 1
    run, rows, events = go()
    assert run.succeeded == 4
    assert sorted(row.attempts for row in rows) == [1, 1, 1, 2]
    assert run.submitted == 5
    assert sum(isinstance(event, Retrying) for event in events) == 1


def test_retries_are_limited(server, go, dialect):
    server.faults.lose_times = 100
    run, rows, _ = go(retries=1, limit=1)
    assert run.failed == 1
    rows = [row for row in rows if row.status == "failed"]
    error_type = "ServiceError" if dialect == "cloud" else "LostError"
    assert [(row.error_type, row.attempts) for row in rows] == [(error_type, 2)]


def test_out_of_memory_is_retried_once_and_a_broken_node_never(server, go):
    server.faults.fail_nodes, server.faults.fail_type = {"Paint"}, "OutOfMemoryError"
    run, rows, _ = go()
    assert run.failed == 4
    assert {row.attempts for row in rows} == {2}
    server.faults.fail_type = "RuntimeError"
    run, rows, _ = go(fresh=True)
    assert {row.attempts for row in rows} == {1}


def test_memory_that_cannot_be_allocated_is_lack_of_memory(server, go):
    server.faults.fail_nodes, server.faults.fail_node_times = {"Paint"}, 1
    server.faults.fail_message = (
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 34359738368 bytes. Error code 12 (Cannot allocate memory)"
    )
    run, rows, _ = go()
    assert (run.succeeded, sorted(row.attempts for row in rows)) == (4, [1, 1, 1, 2])


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        ("RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes.", True),
        ("RuntimeError: can\u2019t allocate memory", True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("OSError: [WinError 1455] The paging file is too small for this operation to complete", True),
        ("OSError: [WinError 8] Not enough memory resources are available to process this command", True),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 3.50 GiB for an array with shape (4,)", True),
        ("MemoryError: ", True),
        ("RuntimeError: std::bad_alloc", True),
        ("RuntimeError: MPS backend out of memory (MPS allocated: 8.0 GB)", True),
        ("RuntimeError: Invalid buffer size: 40.00 GiB", True),
        ("RuntimeError: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", True),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError: UR error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", True),
        ("RuntimeError: Could not allocate tensor with 1073741824 bytes.", True),
        ("OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)", True),
        ("RuntimeError: Failed to allocate a port", False),
        ("ValueError: a boom of colours", False),
        ("ValueError: the room has no memory of it", False),
        ("KeyError: 'memory_efficient_attention'", False),
    ],
)
def test_every_systems_words_for_lack_of_memory_are_known(error, is_memory):
    error_type, _, message = error.partition(": ")
    assert is_out_of_memory(JobState("failed", error_type=error_type, error=message)) is is_memory


@pytest.mark.parametrize("fault", ["mute_events", "refuse_events"])
def test_a_run_works_without_events(server, go, fault):
    setattr(server.faults, fault, True)
    run, _, _ = go()
    assert run.succeeded == 4
    _no_job_ran_twice(server)


def test_a_job_that_exceeds_its_timeout_is_cancelled_and_a_failed_row(server, go):
    server.faults.stall_nodes = {"Paint"}
    run, rows, _ = go(timeout=0.3, limit=1)
    assert (run.failed, run.pending) == (1, 3)
    (row,) = (row for row in rows if row.status == "failed")
    assert row.error_type == "TimedOutError"
    assert row.error == "ran longer than 0.3 s and was cancelled"


@pytest.mark.parametrize("dialect", ["cloud"], indirect=True)
class TestOnCloud:
    @pytest.mark.parametrize("refusal", ["PAYMENT_REQUIRED", "CLOUD_SUBSCRIPTION_REQUIRED"])
    def test_an_account_without_credits_stops_the_run_and_loses_nothing(self, server, go, refusal):
        server.faults.refusal = refusal
        run, rows, _ = go()
        assert run.stopped_by == "refused"
        assert {row.status for row in rows} == {"pending"}
        server.faults.refusal = ""
        assert go()[0].succeeded == 4

    def test_a_refusal_in_words_of_billing_stops_the_run_and_says_what_to_do(self, server, go):
        server.faults.refusal = "PARTNER_NODE_DISABLED"
        run, rows, _ = go()
        assert (run.stopped_by, run.submitted) == ("refused", 0)
        assert "Keep, Paint); ask the workspace's owner to allow them" in run.error
        assert {row.status for row in rows} == {"pending"}

    def test_billing_that_is_away_is_waited_for(self, server, go):
        server.faults.refusal, server.faults.refusal_times = "BILLING_UNAVAILABLE", 2
        run, _, events = go()
        assert run.succeeded == 4
        assert sum(isinstance(event, TargetBusy) for event in events) == 2

    def test_a_job_failed_for_lack_of_credits_is_submitted_by_the_next_run(self, server, go):
        server.faults.fail_nodes, server.faults.fail_type = {"Paint"}, "InsufficientFundsError"
        run, rows, _ = go(concurrency=1)
        assert run.stopped_by == "refused"
        assert "InsufficientFundsError" in {row.error_type for row in rows}
        server.faults.fail_nodes = set()
        assert go()[0].succeeded == 4

    def test_an_expired_download_url_is_requested_again(self, server, go):
        server.faults.expire_download_times = 2
        run, _, _ = go()
        assert run.succeeded == 4

    def test_an_unknown_job_state_counts_as_in_flight(self, server, go):
        server.faults.odd_states = ("warming_up", "negotiating", "", "queued_somewhere")
        run, _, _ = go()
        assert run.succeeded == 4
        _no_job_ran_twice(server)


def test_an_unreachable_target_is_reported_before_a_folder_is_created(experiment, tmp_path):
    with pytest.raises(UnreachableError, match="cannot be reached"):
        sweeper.run(experiment(seed=[1]), {"url": "http://127.0.0.1:9", "dialect": "comfyui"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
