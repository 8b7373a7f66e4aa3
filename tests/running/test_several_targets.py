"""Targets that come and go during a run."""

from __future__ import annotations

import dataclasses
import re
import threading
import time

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import UnreachableError, UsageError
from sweeper.running.run_events import Draining, JobSubmitted, TargetDown, TargetReady, TargetUp, TrialDone
from sweeper.store import Store
from tests.running.conftest import NODES
from tests.running.invariants import broken_promises
from tests.running.servers import Served


@pytest.fixture
def pair():
    with EmbeddedServer(dialect="comfyui", nodes=NODES) as one, EmbeddedServer(dialect="cloud", nodes=NODES) as two:
        yield one, two


def list_targets(one, two):
    return [
        {"url": one.url, "dialect": "comfyui", "name": "one"},
        {"url": two.url, "dialect": "cloud", "name": "two"},
    ]


def test_several_targets_share_one_plan(pair, experiment, tmp_path):
    one, two = pair
    one.faults.node_seconds = two.faults.node_seconds = 0.02
    run = sweeper.run(experiment(seed=list(range(12))), list_targets(one, two), tmp_path / "out")
    assert run.succeeded == 12
    assert sorted([*one.seen.executions.values(), *two.seen.executions.values()]) == [1] * 12
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert {row.target for row in store.results()} == {"one", "two"}


def test_a_trial_done_on_one_target_is_not_repeated_on_another(pair, experiment, tmp_path):
    one, two = pair
    plan = experiment(seed=[1, 2, 3])
    sweeper.run(plan, list_targets(one, two)[:1], tmp_path / "out")
    assert sweeper.run(plan, list_targets(one, two), tmp_path / "out").submitted == 0
    assert sweeper.run(plan, list_targets(one, two)[1:], tmp_path / "out").submitted == 0
    assert sweeper.run(plan, list_targets(one, two)[1:], tmp_path / "out", per_target=True).submitted == 3


def test_the_trials_of_an_exited_comfyui_go_to_the_others(pair, experiment, tmp_path):
    """ComfyUI's queue ends with its process, so nothing is executed twice, and the wait is only as long as needed."""
    one, two = pair
    one.faults.stall_nodes = {"Paint"}
    events, stopped = [], threading.Event()

    def watch(event):
        events.append(event)
        if isinstance(event, TrialDone) and not stopped.is_set():
            stopped.set()
            threading.Thread(target=one.stop).start()

    targets = list_targets(one, two)
    run = sweeper.run(experiment(seed=list(range(6))), targets, tmp_path / "out", progress=watch, patience=2)
    sent = one.seen.accepted
    assert sent >= 1
    assert (run.stopped_by, run.error, run.succeeded) == (None, None, 6)
    with Store.open(tmp_path / "out", readonly=True) as store:
        rows = list(store.results())
    assert {row.target for row in rows} == {"two"}
    assert sum(row.attempts == 2 for row in rows) == sent
    (down,) = [event for event in events if isinstance(event, TargetDown) and event.final]
    assert down.reason.startswith("cannot be reached: ")
    assert re.search(
        r"Connection refused; assuming it has exited; its [12] jobs? will run on other targets$", down.reason
    )


def test_jobs_of_a_comfyui_that_exited_since_the_last_run_go_elsewhere(pair, experiment, tmp_path):
    one, two = pair
    one.faults.stall_nodes = {"Paint"}
    plan, targets = experiment(seed=[1, 2]), list_targets(one, two)
    stopping = threading.Thread(target=one.stop)

    def watch(event):
        if isinstance(event, JobSubmitted) and stopping.ident is None:
            stopping.start()

    run = sweeper.run(plan, targets[:1], tmp_path / "out", progress=watch, patience=0.3)
    assert (run.stopped_by, run.pending) == ("unreachable", 2)
    stopping.join(60)
    # The patience is long enough to see that its port refuses, also on a busy machine.
    run = sweeper.run(plan, targets, tmp_path / "out", patience=2)
    assert (run.stopped_by, run.succeeded) == (None, 2)
    assert list(two.seen.executions.values()) == [1, 1]


def test_jobs_behind_a_broken_connection_are_never_executed_twice(coloured, tmp_path):
    """The connection breaks but the server executes its jobs, so no other target and no later run may do so too."""
    plan = coloured(8)
    with Served("comfyui", tmp_path / "one") as one, Served("comfyui", tmp_path / "two") as two:

        def watch(event):
            if isinstance(event, JobSubmitted) and event.target == "two":
                two.proxy.down = True

        targets = [{**one.target(), "name": "one"}, {**two.target(), "name": "two"}]
        run = sweeper.run(plan, targets, tmp_path / "out", progress=watch, patience=0.3)
        left = run.pending  # what it has taken, and what it may have: the answer did not come
        assert left >= len(two.proxy.accepted) >= 1
        assert (run.stopped_by, run.succeeded) == ("unreachable", 8 - left)
        two.proxy.down = False
        run = sweeper.run(plan, targets, tmp_path / "out")
        assert (run.stopped_by, run.succeeded) == (None, 8)
        assert broken_promises(tmp_path / "out", 8, [one, two]) == []
        assert len(one.proxy.accepted) + len(two.proxy.accepted) == 8


def test_a_target_away_beyond_patience_is_used_again_while_others_work(pair, experiment, tmp_path):
    one, two = pair
    two.faults.stall_nodes = {"Paint"}  # it works until `one` is back, many times as long as patience
    events, missed, gone = [], threading.Event(), []

    def be_away():
        one.stop()
        assert missed.wait(60), "the run did not notice"
        one.start()

    def watch(event):
        events.append(event)
        if isinstance(event, TrialDone) and event.target == "one" and not gone:
            gone.append(threading.Thread(target=be_away))
            gone[0].start()
        if isinstance(event, TargetDown):
            missed.set()
        if isinstance(event, TargetUp):
            two.faults.release()

    one.faults.node_seconds = 0.02
    trials, targets = experiment(seed=list(range(30))), list_targets(one, two)
    run = sweeper.run(trials, targets, tmp_path / "out", progress=watch, patience=0.01)
    # On a busy machine a file may take longer than so short a patience, and the next run downloads it.
    assert (run.failed, run.cancelled, run.stopped_by) == (0, 0, None)
    assert sweeper.run(trials, targets, tmp_path / "out").succeeded == 30
    (down,) = [event for event in events if isinstance(event, TargetDown)]
    (up,) = [event for event in events if isinstance(event, TargetUp)]
    assert (down.target, down.final, down.patience) == ("one", False, 0.01)
    assert up.seconds > 0.01  # before it is asked for the first time more than patience has passed
    after = events[events.index(up) :]
    assert any(isinstance(event, JobSubmitted) and event.target == "one" for event in after)


def test_a_finished_run_does_not_wait_for_a_silent_target(pair, experiment, tmp_path):
    one, two = pair
    targets = [*list_targets(one, two), {"url": "http://127.0.0.1:9", "dialect": "comfyui", "name": "nobody"}]
    began = time.monotonic()
    run = sweeper.run(experiment(seed=[1, 2]), targets, tmp_path / "out", patience=3600)
    assert (run.succeeded, run.stopped_by) == (2, None)
    assert time.monotonic() - began < 60


def test_a_late_target_is_checked_and_then_used(pair, experiment, tmp_path):
    one, two = pair
    targets = list_targets(one, two)
    two.stop()
    one.faults.stall_nodes = {"Paint"}
    events = []

    def watch(event):
        events.append(event)
        if isinstance(event, TargetDown):
            two.start()
        if isinstance(event, TrialDone) and event.target == "two":
            one.faults.release()

    run = sweeper.run(experiment(seed=list(range(12))), targets, tmp_path / "out", progress=watch)
    assert (run.succeeded, run.stopped_by) == (12, None)
    kinds = [(type(event), event.target) for event in events if isinstance(event, TargetDown | TargetUp | TargetReady)]
    assert kinds == [(TargetReady, "one"), (TargetDown, "two"), (TargetUp, "two"), (TargetReady, "two")]


def test_a_late_target_that_cannot_run_the_plan_does_not_stop_the_others(pair, experiment, tmp_path):
    one, _ = pair
    with EmbeddedServer(dialect="comfyui", nodes={"Keep": NODES["Keep"]}) as two:
        targets = list_targets(one, two)
        targets[1]["dialect"] = "comfyui"
        two.stop()
        one.faults.stall_nodes = {"Paint"}
        downs = []

        def watch(event):
            if isinstance(event, TargetDown):
                downs.append(event)
                one.faults.release() if event.final else two.start()

        run = sweeper.run(experiment(seed=list(range(4))), targets, tmp_path / "out", progress=watch)
    assert (run.succeeded, run.stopped_by) == (4, None)
    assert [event.final for event in downs] == [False, True]
    assert "Paint" in downs[1].reason
    assert two.seen.submits == 0


def test_jobs_lost_in_a_targets_restart_are_sent_again(experiment, tmp_path):
    events = []
    with EmbeddedServer(dialect="comfyui", nodes=NODES) as server:
        server.faults.stall_nodes = {"Paint"}

        def restart():
            server.stop()
            server.faults.reset()
            server.start()

        def watch(event):
            events.append(event)
            if isinstance(event, JobSubmitted) and sum(isinstance(e, JobSubmitted) for e in events) == 2:
                threading.Thread(target=restart).start()

        target = {"url": server.url, "dialect": "comfyui"}
        run = sweeper.run(experiment(seed=[1, 2, 3]), target, tmp_path / "out", progress=watch)
    assert run.succeeded == 3
    assert any(isinstance(event, TargetUp) for event in events) or not any(isinstance(e, TargetDown) for e in events)


def test_a_run_without_targets_left_ends_with_every_row_and_resumes(experiment, tmp_path):
    plan = experiment(seed=[1, 2, 3])
    with EmbeddedServer(dialect="cloud", nodes=NODES, data=tmp_path / "data") as server:
        server.faults.stall_nodes = {"Paint"}
        target = {"url": server.url, "dialect": "cloud", "name": "s"}

        def watch(event):
            if isinstance(event, JobSubmitted):
                threading.Thread(target=server.stop).start()

        run = sweeper.run(plan, target, tmp_path / "out", progress=watch, patience=0.3)
        assert run.stopped_by == "unreachable"
        assert "cannot be reached" in run.error
        assert run.pending == 3
        server.faults.reset()
        server.start()
        run = sweeper.run(plan, {**target, "url": server.url}, tmp_path / "out")
        assert run.succeeded == 3


def test_a_target_that_is_down_at_the_start_is_left_out(pair, experiment, tmp_path):
    one, _ = pair
    events = []
    targets = [{"url": one.url, "name": "one"}, {"url": "http://127.0.0.1:9", "name": "nobody", "dialect": "comfyui"}]
    run = sweeper.run(experiment(seed=[1]), targets, tmp_path / "out", progress=events.append)
    assert run.succeeded == 1
    assert [event.target for event in events if isinstance(event, TargetDown)] == ["nobody"]
    assert [(event.target, event.dialect) for event in events if isinstance(event, TargetReady)] == [("one", "comfyui")]


def test_a_server_that_is_not_a_comfyui_is_recognized(experiment, tmp_path):
    import http.server

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{page.server_port}"
        with pytest.raises(UnreachableError, match=f"^{url}: the server responds neither like ComfyUI"):
            sweeper.run(experiment(seed=[1]), url, tmp_path / "out")
        page.shutdown()
    assert not (tmp_path / "out").exists()


def test_an_embedded_run_leaves_no_server_and_counts_for_no_other_target(pair, experiment, tmp_path, monkeypatch):
    plan = sweeper.load("experiments/quickstart.yaml")
    run = sweeper.run(plan, "embedded", tmp_path / "out", limit=2)
    assert (run.succeeded, run.pending) == (2, 10)
    assert not [thread for thread in threading.enumerate() if "sweeper" in thread.name]


def test_a_server_that_will_not_cancel_a_job_is_given_up(pair, experiment, tmp_path):
    _, two = pair
    held = threading.Event()

    def hang(context, text, seed):  # a node that no interrupt reaches, as in a wedged worker
        held.wait(60)
        return NODES["Paint"].run(context, text=text, seed=seed)

    stuck = {**NODES, "Paint": dataclasses.replace(NODES["Paint"], run=hang)}
    with EmbeddedServer(dialect="comfyui", nodes=stuck) as one:
        plan = experiment(seed=list(range(6)), run={"timeout": 0.2})
        events = []
        run = sweeper.run(plan, list_targets(one, two), tmp_path / "out", progress=events.append, patience=0.5)
        held.set()
    assert (run.succeeded, run.failed, run.pending) == (5, 1, 0)
    (down,) = [event for event in events if isinstance(event, TargetDown)]
    assert (down.target, down.final) == ("one", True)
    assert "will not cancel job" in down.reason


def test_an_account_without_credits_stops_all_targets_after_their_jobs(pair, experiment, tmp_path):
    one, two = pair
    one.faults.stall_nodes, two.faults.refusal = {"Paint"}, "PAYMENT_REQUIRED"

    def watch(event):
        if isinstance(event, Draining):
            one.faults.release()

    run = sweeper.run(experiment(seed=list(range(12))), list_targets(one, two), tmp_path / "out", progress=watch)
    assert run.stopped_by == "refused"
    assert run.error.startswith("two: ")
    assert (run.succeeded, run.pending) == (one.seen.accepted, 12 - one.seen.accepted)
    assert one.seen.accepted <= 2


def test_a_missing_key_is_reported_before_anything_is_sent(experiment, tmp_path):
    with pytest.raises(UsageError, match="COMFY_CLOUD_API_KEY, which is not set"):
        sweeper.run(experiment(seed=[1]), "cloud", tmp_path / "out", environ={})
    assert not (tmp_path / "out").exists()


def test_cloud_jobs_are_paid_once_although_the_cloud_goes_away(experiment, tmp_path):
    plan = experiment(seed=list(range(6)))
    with (
        EmbeddedServer(dialect="comfyui", nodes=NODES) as one,
        EmbeddedServer(dialect="cloud", nodes=NODES, data=tmp_path / "data") as two,
    ):
        two.faults.stall_nodes = {"Paint"}

        def watch(event):
            if isinstance(event, JobSubmitted) and event.target == "two":
                threading.Thread(target=two.stop).start()

        run = sweeper.run(plan, list_targets(one, two), tmp_path / "out", progress=watch, patience=0.3)
        left = run.pending  # those it has taken, and any whose answer was lost when it went
        assert left >= two.seen.accepted >= 1
        assert (run.stopped_by, run.succeeded) == ("unreachable", 6 - left)
        assert f"may still be running ({left} on two)" in run.error
        two.faults.reset()
        two.start()
        targets = [list_targets(one, two)[0], {**list_targets(one, two)[1], "url": two.url}]
        assert sweeper.run(plan, targets, tmp_path / "out").succeeded == 6
        assert sum(one.seen.executions.values()) >= 6 - left
        assert max([*one.seen.executions.values(), *two.seen.executions.values()]) == 1
