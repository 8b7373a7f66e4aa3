"""API v2 gets the same key again until it accepts the job or says that it has had it; v1's list has time to show it."""

from __future__ import annotations

import json
import signal
import time

import pytest

import sweeper
from sweeper.comfy import jobs_api
from sweeper.store import Store
from tests.running.invariants import broken_promises
from tests.running.servers import REAL, Served
from tests.running.test_transient_failures import rows_of
from tests.waiting import check_at_once

LAG = 2.5
HOSTS = ("cloud", "deployment", "proxy")

pytestmark = pytest.mark.skipif(bool(REAL), reason="only our server has lists that lag")


class Host(Served):
    """Comfy Cloud, a deployment, or comfy-api-proxy, by API v2. `keys`: those of all submissions, in their order."""

    def __init__(self, kind, data):
        super().__init__("cloud" if kind == "cloud" else "v2", data, workers=2)
        self.kind, self.keys = kind, []

    def __enter__(self):
        super().__enter__()
        self.proxy.on_step = self.note
        if self.kind == "proxy":
            self.proxy.change_sent, self.proxy.change = label_text, list_texts
        return self

    def target(self, **more):
        return super().target(dialect="v2", **more)

    def note(self, asked, when):
        if asked.submits and when == "before":
            self.keys.append(asked.key)

    @property
    def faults(self):
        return self._embedded.faults


def label_text(asked):
    """What a deployment gets in place of the text with which comfy-api-proxy keeps a job."""
    if not asked.submits:
        return asked.body
    body = asked.json
    body["metadata"] = {"sweeper_job": body["metadata"]}
    return json.dumps(body).encode()


def list_texts(asked, body):
    """A deployment's list as comfy-api-proxy sends it."""
    if asked.path != "/api/v2/jobs" or asked.method != "GET":
        return body
    page = json.loads(body)
    rows = [{**row, "metadata": row["metadata"].get("sweeper_job")} for row in page["jobs"]]
    return json.dumps({"jobs": rows, "truncated": False}).encode()


def strike(server, fault, times):
    """Have the first submissions of a run meet a fault."""
    left = [fault] * times
    server.proxy.decide = lambda asked: left.pop() if asked.submits and left else None


def run_struck(host, out, plan, fault):
    """Run three trials whose first two submissions meet a fault: each has one job, with a key of its own."""
    strike(host, fault, 2)
    run = sweeper.run(plan, host.target(), out)
    assert (run.succeeded, run.error, len(host.proxy.accepted)) == (3, None, 3)
    assert len(set(host.keys)) == 3
    assert broken_promises(out, 3, [host]) == []


@pytest.fixture(params=HOSTS)
def host(request, tmp_path):
    with Host(request.param, tmp_path / "data") as found:
        yield found


@pytest.fixture
def check_hosts(tmp_path):
    """Calls `check(host, out)` for all hosts at once, because their lists lag."""

    def check_them(check):
        def check_one(kind):
            with Host(kind, tmp_path / kind) as host:
                host.faults.list_lag = LAG
                check(host, tmp_path / f"out-{kind}")

        check_at_once(check_one, [(kind,) for kind in HOSTS])

    return check_them


@pytest.mark.parametrize("fault", ["swallow", "swallow_reset", "502_after", "403_after"])
def test_lost_answers_and_a_list_that_lags_make_no_second_job(check_hosts, coloured, fault):
    plan = coloured(3)

    def check(host, out):
        run_struck(host, out, plan, fault)
        assert len(host.keys) > 3
        assert {row.attempts for row in rows_of(out)} == {1}

    check_hosts(check)


@pytest.mark.parametrize("fault", ["drop", "late", "502", "404", "503"])
def test_what_did_not_arrive_is_sent_again_under_its_key(check_hosts, coloured, fault):
    plan = coloured(3)

    def check(host, out):
        run_struck(host, out, plan, fault)

    check_hosts(check)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_run_after_a_kill_uses_the_key_on_disk(host, runners, coloured, tmp_path, when):
    host.faults.list_lag = LAG
    plan, out = coloured(2), tmp_path / "out"
    runner = runners.start(plan, host.target(concurrency=1), out)

    def kill(asked, now):
        host.note(asked, now)
        if asked.submits and now == when:
            runner.send(signal.SIGKILL)

    host.proxy.on_step = kill
    host.proxy.decide = lambda asked: "drop" if when == "before" and asked.submits else None
    assert runner.wait().killed
    (key,) = host.keys
    host.proxy.on_step, host.proxy.decide = host.note, lambda _: None
    assert runners.run(plan, host.target(concurrency=1), out).error == "None"
    assert len(set(host.keys)) == len(host.proxy.accepted) == 2
    assert host.keys.count(key) == 2
    assert broken_promises(out, 2, [host]) == []


def age_intents(out, hours):
    """Have the intents of a store be older, by both clocks."""
    with Store.open(out) as store, store.transaction():
        for table in ("jobs", "server_times"):
            store._database.execute(f"UPDATE {table} SET intended = intended - ?", (hours * 3600,))


@pytest.mark.parametrize("fault", ["swallow", "drop"])
def test_a_key_that_the_server_may_have_forgotten_is_searched_first(check_hosts, coloured, fault):
    plan = coloured(1)

    def check(host, out):
        host.faults.list_lag = 0.0
        host.proxy.decide = lambda asked: fault if asked.submits else "drop" if host.keys else None
        assert sweeper.run(plan, host.target(), out, patience=0.0).pending == 1
        age_intents(out, hours=25)
        host.proxy.decide, host.faults.forget_keys = lambda _: None, True
        sent = len(host.keys)
        run = sweeper.run(plan, host.target(), out)
        assert (run.succeeded, len(host.proxy.accepted), len(set(host.keys))) == (1, 1, 1)
        assert len(host.keys) == sent + (fault == "drop")
        assert broken_promises(out, 1, [host]) == []

    check_hosts(check)


def test_a_job_that_the_server_never_lists_stays_pending_for_the_next_run(coloured, tmp_path):
    plan, out = coloured(1), tmp_path / "out"
    with Host("deployment", tmp_path / "data") as host:
        host.faults.list_lag = 1e6
        strike(host, "swallow", 1)
        run = sweeper.run(plan, host.target(), out, patience=0.0)
        assert (run.pending, run.failed, len(set(host.keys))) == (1, 0, 1)
        assert len(host.keys) == 2  # once it is known to have the job, only its list is read
        host.faults.list_lag = 0.0
        run = sweeper.run(plan, host.target(), out)
        assert (run.succeeded, run.submitted, len(host.proxy.accepted)) == (1, 0, 1)


# --- v1 has no key


def test_v1_waits_for_a_list_that_lags_before_it_submits_again(coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_api, "LIST_LAG", 15.0)
    with Served("cloud", tmp_path / "data", workers=2) as server:
        server._embedded.faults.list_lag = LAG
        strike(server, "swallow", 2)
        run = sweeper.run(coloured(4), server.target(), tmp_path / "out")
        assert (run.succeeded, len(server.proxy.accepted)) == (4, 4)
        assert broken_promises(tmp_path / "out", 4, [server]) == []


def test_v1_after_a_kill_waits_for_a_list_that_lags(runners, coloured, tmp_path):
    plan, out = coloured(2), tmp_path / "out"
    with Served("cloud", tmp_path / "data", workers=2) as server:
        server._embedded.faults.list_lag = LAG
        runner = runners.start(plan, server.target(concurrency=1), out)
        server.proxy.on_step = lambda asked, when: (
            runner.send(signal.SIGKILL) if asked.submits and when == "after" else None
        )
        assert runner.wait().killed
        server.proxy.on_step = lambda *_: None
        assert runners.run(plan, server.target(concurrency=1), out, list_lag=15.0).error == "None"
        assert len(server.proxy.accepted) == 2
        assert broken_promises(out, 2, [server]) == []


def test_v1_believes_a_list_that_shows_a_newer_job(coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_api, "LIST_LAG", 40.0)
    with Served("cloud", tmp_path / "data", workers=1) as server:
        server.slow_down(0.5)
        strike(server, "drop", 1)
        began = time.monotonic()
        run = sweeper.run(coloured(6), server.target(concurrency=2), tmp_path / "out")
        assert (run.succeeded, len(server.proxy.accepted)) == (6, 6)
        assert time.monotonic() - began < 30


# --- refusals that no second request changes


@pytest.mark.parametrize("upload", [False, True])
def test_a_stopped_deployment_ends_the_run_at_its_first_answer(coloured, tmp_path, upload):
    with Host("deployment", tmp_path / "data") as host:
        host.faults.stopped = True
        run = sweeper.run(coloured(4, upload=upload), host.target(concurrency=1), tmp_path / "out", patience=5.0)
        assert (run.stopped_by, run.pending, run.failed, len(host.keys)) == ("refused", 4, 0, 1)
        assert "the deployment is stopped; start it, then run again" in run.error
        host.faults.stopped = False
        assert sweeper.run(coloured(4, upload=upload), host.target(), tmp_path / "out").succeeded == 4


@pytest.mark.parametrize("dialect", ["cloud", "v2"])
def test_a_key_that_is_revoked_ends_the_run_at_the_first_answer(coloured, tmp_path, dialect):
    with Served(dialect, tmp_path / "data") as server:
        paths = []

        def refuse(asked):
            if not asked.submits and not paths:
                return None
            paths.append(asked.path)
            return "refused"

        server.proxy.decide = refuse
        run = sweeper.run(coloured(4), server.target(concurrency=1), tmp_path / "out", patience=5.0)
    assert (run.stopped_by, run.pending, len(paths)) == ("refused", 4, 1)
    assert "the server refuses the key or this client (HTTP 403)" in run.error
