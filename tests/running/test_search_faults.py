"""Searches whose trials fail, whose servers go away, and that are interrupted, limited or started twice."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections import Counter

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.embedded.nodes import NodeOutput
from sweeper.errors import ExperimentError, ResultsError
from sweeper.model.money import Amount
from sweeper.running.run_events import Notice, RoundPlanned, RunEnded, TrialDone
from sweeper.running.stop_control import StopControl
from tests.running.conftest import NODES, make_node, paint
from tests.running.searches import find_broken_promises, load_rows, write_search
from tests.running.servers import REAL
from tests.running.shop import KEY_VARIABLE, PRICE, Shop, load_charges

pytestmark = pytest.mark.skipif(bool(REAL), reason="this test needs nodes that only our server has")
ONCE = {"run": {"retries": 0}}


def make_nodes(refuse=lambda seed: False, most=2**64 - 1, paint=paint):
    """The probe nodes. `refuse` says which seeds fail; the server takes no seed above `most`."""

    def run(context, text, seed):
        if refuse(seed):
            message = f"no seed {seed}"
            raise RuntimeError(message)
        return paint(context, text, seed)

    inputs = {"text": ("STRING", {}), "seed": ("INT", {"default": 0, "min": 0, "max": most})}
    return {**NODES, "Paint": make_node("Paint", inputs, ("IMAGE",), run)}


@pytest.fixture
def serve(tmp_path):
    """Start servers: `serve(nodes)` returns one and its target."""
    started = []

    def start(nodes=NODES, concurrency=2):
        server = EmbeddedServer(dialect="cloud", nodes=nodes, data=tmp_path / f"data{len(started)}").start()
        server.faults.retry_after = 0.0
        started.append(server)
        return server, {"url": server.url, "dialect": "cloud", "name": "probe-server", "concurrency": concurrency}

    yield start
    for server in started:
        server.stop()


def test_failed_points_are_not_tried_again(serve, tmp_path):
    server, target = serve(make_nodes(lambda seed: seed % 3 == 0))
    experiment = write_search(tmp_path / "project", trials=28, body=ONCE, space={"seed": {"from": 1, "to": 20}})
    result = sweeper.search(experiment, target, tmp_path / "out")
    assert (result.ended_by, result.points) == ("trials", 14)
    assert result.run.failed >= 4
    assert server.seen.accepted == 28
    rows = load_rows(tmp_path / "out")
    assert set(Counter(row.params["seed"] for row in rows).values()) == {2}
    assert all(("objective" in row.metrics) == (row.status == "succeeded") for row in rows)
    assert sweeper.search(experiment, target, tmp_path / "out").run.submitted == 0
    assert find_broken_promises(tmp_path / "out") == []


def test_a_search_whose_trials_all_fail_ends_and_goes_on_once_they_do_not(serve, tmp_path):
    broken = {"yes"}
    server, target = serve(make_nodes(lambda seed: bool(broken)))
    experiment, out = write_search(tmp_path / "project", trials=12, body=ONCE), tmp_path / "out"
    result = sweeper.search(experiment, target, out)
    assert (result.ended_by, result.trials, result.best) == ("failing", 8, ())
    assert "all 8 trials failed" in result.error
    assert (sweeper.search(experiment, target, out).ended_by, server.seen.accepted) == ("failing", 8)
    retried = sweeper.search(experiment, target, out, retry_failed=True)
    assert (retried.ended_by, retried.run.failed, server.seen.accepted) == ("failing", 8, 16)
    broken.clear()
    healed = sweeper.search(experiment, target, out, retry_failed=True)
    assert (healed.ended_by, healed.run.succeeded, server.seen.accepted) == ("trials", 12, 28)


def test_values_that_the_server_refuses_are_found_before_the_first_round(serve, tmp_path):
    server, target = serve(make_nodes(most=997))
    with pytest.raises(ExperimentError, match=r"search\.space\.seed: .* but at most 997 is needed"):
        sweeper.search(write_search(tmp_path / "project"), target, tmp_path / "out")
    assert server.seen.submits == 0
    unchecked = sweeper.search(
        write_search(tmp_path / "project", space={"seed": [997, 998, 1]}), target, tmp_path / "out", check=False
    )
    assert (unchecked.ended_by, unchecked.run.succeeded, unchecked.run.failed) == ("exhausted", 4, 2)


def test_a_server_that_goes_away_between_two_rounds_may_return(serve, tmp_path):
    server, target = serve()
    experiment, out = write_search(tmp_path / "project"), tmp_path / "out"
    heard = []

    def watch(event):
        if isinstance(event, RoundPlanned) and event.number == 2:
            server.stop()
        if isinstance(event, Notice) and "cannot be reached" in event.message:
            heard.append(event.message)
            server.start()

    target = {**target, "url": server.url}
    result = sweeper.search(experiment, target, out, progress=watch, patience=60)
    assert (result.ended_by, len(heard), result.run.succeeded) == ("trials", 1, 8)
    assert find_broken_promises(out) == []


def test_the_limit_of_failures_holds_for_all_rounds_of_a_call(serve, tmp_path):
    server, target = serve(make_nodes(lambda seed: seed % 3 == 0), concurrency=1)
    experiment, out = write_search(tmp_path / "project", trials=16, batch=1, body=ONCE), tmp_path / "out"
    first = sweeper.search(experiment, target, out, max_failures=3)
    assert (first.ended_by, first.run.failed, first.rounds) == ("max_failures", 4, 4)
    second = sweeper.search(experiment, target, out, fail_fast=True)
    assert (second.ended_by, second.run.failed) == ("max_failures", 5)
    last = sweeper.search(experiment, target, out)
    assert (last.ended_by, last.trials, server.seen.accepted) == ("trials", 16, 16)
    assert find_broken_promises(out) == []


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_search_and_the_same_command_goes_on(times, serve, runners, tmp_path):
    painted = []

    def stall_in_the_second_round(seed):
        painted.append(seed)
        if len(painted) == 4:
            server.faults.stall_nodes = {"Paint"}

    server, target = serve(make_nodes(stall_in_the_second_round))
    experiment, out = write_search(tmp_path / "project"), tmp_path / "out"
    runner = runners.start(experiment, target, out, searches=True)
    runner.until("JobSubmitted", 6)
    for _ in range(times):
        runner.send(signal.SIGINT)
        if not runner.said.count("Draining"):
            runner.until("Draining")
    if times == 1:
        server.faults.release()
    assert runner.wait().said[-1] == "stopped_by interrupt"
    assert [row.status for row in load_rows(out)[4:6]] == ["succeeded" if times == 1 else "cancelled"] * 2
    server.faults.reset()
    result = sweeper.search(experiment, target, out)
    assert (result.ended_by, result.run.succeeded) == ("trials", 8)
    assert server.seen.accepted == (8 if times == 1 else 10)
    assert [row.metrics["round"] for row in load_rows(out)] == [1] * 4 + [2] * 4


def test_a_stop_between_two_rounds_plans_no_other(serve, tmp_path):
    server, target = serve()
    experiment, control = write_search(tmp_path / "project"), StopControl()

    def watch(event):
        if isinstance(event, RunEnded):
            control.stop()

    result = sweeper.search(experiment, target, tmp_path / "out", progress=watch, control=control)
    assert (result.ended_by, result.trials, result.run.stopped_by) == ("interrupt", 4, None)
    assert sweeper.search(experiment, target, tmp_path / "out").ended_by == "trials"
    assert server.seen.accepted == 8


def paint_by_seed(context, text, seed):
    """A picture that is as bright as its seed is large, with a little noise by its text."""
    context.progress(1, 1)
    level = seed // 5 + hashlib.sha256(f"{text}/{seed}".encode()).digest()[0] % 10
    return NodeOutput((bytes([level] * 3),))


def test_stops_at_any_trial_change_no_point_of_a_search(serve, tmp_path):
    texts = ["a fox", "a house", "a tree", "a car"]
    experiment = write_search(
        tmp_path / "project", trials=27, batch=3, stop_early=True, over={"text": texts},
        where="not (text == 'a car' and seed % 2)",
    )  # fmt: skip
    server, target = serve(make_nodes(paint=paint_by_seed))

    def search(out, stop_after):
        while True:
            control, done = StopControl(), []

            def watch(event, control=control, done=done):
                done += [event] if isinstance(event, TrialDone) else []
                if len(done) == stop_after:
                    control.stop()

            result = sweeper.search(experiment, target, out, progress=watch, control=control)
            if result.ended_by != "interrupt":
                return sorted((row.metrics["round"], row.params["seed"], row.params["text"]) for row in load_rows(out))

    whole = search(tmp_path / "whole", None)
    assert sorted(set(Counter(seed for _, seed, _ in whole).values())) in ([1, 2, 3, 4], [1, 3, 4], [1, 2, 3])
    assert search(tmp_path / "stopped", 8) == whole
    assert server.seen.accepted == 2 * len(whole)


def test_a_second_search_learns_who_has_the_folder(serve, runners, tmp_path):
    server, target = serve()
    experiment, out = write_search(tmp_path / "project"), tmp_path / "out"
    server.faults.stall_nodes = {"Paint"}
    first = runners.start(experiment, target, out, searches=True)
    first.until("JobSubmitted")
    with pytest.raises(ResultsError, match=f"another run is using this results folder .process {first.pid} on "):
        sweeper.search(experiment, target, out)
    server.faults.release()
    assert first.wait().said[-1] == "stopped_by trials"
    assert server.seen.accepted == 8


def test_another_run_between_two_rounds_is_taken_into_account(serve, tmp_path):
    server, target = serve()
    experiment, out = write_search(tmp_path / "project"), tmp_path / "out"

    def watch(event):
        if isinstance(event, RoundPlanned) and event.number == 2:  # another process comes first, and ends the search
            thread = threading.Thread(target=lambda: sweeper.search(experiment, target, out, handle_signals=False))
            thread.start()
            thread.join(60)
            assert not thread.is_alive()

    result = sweeper.search(experiment, target, out, progress=watch)
    assert (result.ended_by, result.trials, result.run.succeeded, server.seen.accepted) == ("trials", 8, 8, 8)
    assert find_broken_promises(out) == []


def test_a_full_disk_ends_a_search_with_a_message_and_loses_nothing(serve, runners, tmp_path):
    server, target = serve()
    experiment, out = write_search(tmp_path / "project", trials=36, batch=3), tmp_path / "out"
    ended = runners.run(experiment, target, out, searches=True, file_limit=150_000)
    assert ended.said[-1] == "stopped_by unwritable", ended.said[-2:]
    assert "check that the disk is not full" in ended.error
    result = sweeper.search(experiment, target, out)
    assert (result.ended_by, result.run.succeeded, server.seen.accepted) == ("trials", 36, 36)
    assert find_broken_promises(out) == []


@pytest.mark.parametrize("where", ["search", "run", "option"])
def test_a_search_ends_at_the_budget_and_goes_on_with_a_larger_one(where, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key")
    out, budget = tmp_path / "out", f"{5 * PRICE + 0.01:.2f} USD"
    given = {"search": {"budget": budget}, "run": {"body": {"run": {"budget": budget}}}}.get(where, {})
    experiment = write_search(tmp_path / "project", space={"seed": {"from": 0, "to": 99}}, **given)
    options = {"budget": budget} if where == "option" else {}
    with Shop() as shop:
        target = shop.target(concurrency=2)
        result = sweeper.search(experiment, target, out, **options)
        assert (result.ended_by, result.rounds, result.run.succeeded, shop.sold) == ("budget", 2, 5, 5)
        assert "`--budget '" in result.error
        assert (sweeper.search(experiment, target, out, **options).ended_by, shop.sold) == ("budget", 5)
        more = sweeper.search(experiment, target, out, budget=1.0)
        assert (more.ended_by, more.run.succeeded, shop.sold) == ("trials", 8, 8)
        assert load_charges(out)[1] == Amount.exactly(8 * PRICE)
    assert find_broken_promises(out) == []
