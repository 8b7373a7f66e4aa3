"""Whole runs on a cluster of worker processes, compared with the same runs on one machine."""

from __future__ import annotations

from contextlib import closing

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.running.run_events import ClusterReady, TargetReady, TrialDone
from sweeper.store import Store
from sweeper.store.database import connect
from tests.cluster.conftest import TARGET
from tests.cluster.result_rows import rows_of, run_on


def test_rows_equal_those_of_a_local_run(servers, cluster, experiment, executions, tmp_path):
    plan = experiment(seed=[*range(10), 3], fail=["no", "odd"], metrics=("brightness", "sharpness"))
    local = sweeper.run(plan, {"url": servers[0].url, "name": "fleet"}, tmp_path / "local")
    before = len(executions())
    events = []
    distributed = run_on(plan, cluster.scheduler_address, out=tmp_path / "distributed", progress=events.append)
    assert (distributed.trials, distributed.submitted, distributed.succeeded, distributed.failed) == (22, 20, 11, 11)
    assert (local.trials, local.submitted, local.succeeded, local.failed) == (22, 20, 11, 11)
    assert rows_of(tmp_path / "distributed") == rows_of(tmp_path / "local")
    assert len(executions()) - before == 20
    assert sorted(event.trial for event in events if isinstance(event, TrialDone)) == list(range(22))
    assert len([event for event in events if isinstance(event, TargetReady)]) == len(servers)
    assert next(event for event in events if isinstance(event, ClusterReady)).workers == len(servers)
    with closing(connect(tmp_path / "distributed/sweeper.sqlite", readonly=True)) as store:
        pairs = store.execute(
            # An intent that was given back before it was sent has a record too.
            "SELECT j.intended, s.intended FROM jobs j JOIN server_times s ON s.job = j.id "
            "WHERE j.prompt_id IS NOT NULL"
        ).fetchall()
    assert len(pairs) == 20
    assert all(abs(ours - servers_clock) < 30 for ours, servers_clock in pairs)
    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "distributed")
    assert (again.submitted, again.reused) == (0, 22)


def test_budget_counts_the_jobs_of_all_workers(cluster, experiment, executions, tmp_path):
    target = {**TARGET, "price": {"per_job": "0.01 USD", "nodes": {}}}
    plan = experiment(seed=list(range(30)), target=target)

    first = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", budget=0.13)
    assert (first.stopped_by, first.succeeded, len(executions())) == ("budget", 13, 13)
    assert (first.spent, first.error) == (first.cost, first.error)
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.charges.load_spent().high == 130_000
    second = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", budget=0.3)
    assert (second.stopped_by, second.succeeded, len(executions())) == (None, 30, 30)


def test_time_of_workers_jobs_is_learnt_and_charged(cluster, experiment, executions, tmp_path):
    target = {**TARGET, "price": {"per_second": "1 USD", "nodes": {}}}
    plan = experiment(seed=list(range(12)), target=target)

    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", budget=100.0)
    with Store.open(tmp_path / "out", readonly=True) as store:
        seconds = sum(job.seconds for job in store.jobs() if job.state == "succeeded")
    assert (run.stopped_by, run.succeeded, run.spent.high) == (None, 12, pytest.approx(seconds * 1e6, abs=12))
