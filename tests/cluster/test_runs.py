"""Whole runs on a cluster of worker processes, held against the same runs on one machine."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.cluster import run as run_on
from sweeper.running.run_events import ClusterReady, TargetReady, TrialDone
from tests.cluster.result_rows import rows_of


def test_rows_equal_those_of_one_machine(servers, cluster, experiment, executions, tmp_path):
    plan = experiment(seed=[*range(20), 3], fail=["no", "odd"], metrics=("brightness", "sharpness"))
    alone = sweeper.run(plan, {"url": servers[0].url, "name": "fleet"}, tmp_path / "alone")
    once = len(executions())
    events = []
    together = run_on(plan, cluster.scheduler_address, out=tmp_path / "together", progress=events.append)
    assert (together.trials, together.submitted, together.succeeded, together.failed) == (42, 40, 21, 21)
    assert (alone.trials, alone.submitted, alone.succeeded, alone.failed) == (42, 40, 21, 21)
    assert rows_of(tmp_path / "together") == rows_of(tmp_path / "alone")
    assert len(executions()) - once == 40
    assert sorted(event.trial for event in events if isinstance(event, TrialDone)) == list(range(42))
    assert len([event for event in events if isinstance(event, TargetReady)]) == len(servers)
    assert next(event for event in events if isinstance(event, ClusterReady)).workers == len(servers)
    again = run_on(plan, cluster.scheduler_address, out=tmp_path / "together")
    assert (again.submitted, again.reused) == (0, 42)
