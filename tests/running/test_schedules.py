"""Seeded schedules of faults: whatever goes wrong, every trial ends as one row and no job is executed twice.

A few run always; `SWEEPER_SCHEDULES=500 python -m pytest tests/running/test_schedules.py` runs many.
"""

from __future__ import annotations

import os
import random

import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.running.progress import TargetReady
from sweeper.store import Store

from .conftest import NODES

KNOBS = (
    "error_500_times", "error_503_times", "garbage_times", "queue_full_times", "drop_before_accept",
    "drop_after_accept", "drop_status_times", "truncate_download_times", "expire_download_times", "drop_events_times",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(int(os.environ.get("SWEEPER_SCHEDULES", "6"))))
def test_every_trial_is_one_row_and_no_job_runs_twice(seed, experiment, tmp_path):
    draw = random.Random(seed)
    dialect, trials = draw.choice(["cloud", "comfyui"]), draw.randint(2, 5)
    knobs = {knob: draw.randint(1, 3) for knob in KNOBS if draw.random() < 0.4}
    knobs.update({knob: True for knob in ("mute_events", "refuse_events") if draw.random() < 0.15})
    with EmbeddedServer(dialect=dialect, nodes=NODES, workers=draw.choice([1, 2])) as server:
        server.faults.retry_after = 0.0

        def watch(event):
            if isinstance(event, TargetReady):  # what goes wrong, goes wrong once the run is under way
                for knob, value in knobs.items():
                    setattr(server.faults, knob, value)

        target = {"url": server.url, "dialect": dialect, "concurrency": draw.choice([1, 2, 4])}
        plan = experiment(seed=list(range(trials)), run={"retries": 10})
        run = sweeper.run(plan, target, tmp_path / "out", progress=watch)
        if run.pending:  # a work that brought its target down too often is left for the next run
            run = sweeper.run(plan, target, tmp_path / "out")
        executions = sorted(server.seen.executions.values())
    assert (run.succeeded, executions) == (trials, [1] * trials), knobs
    with Store.open(tmp_path / "out", readonly=True) as store:
        rows = list(store.results())
    assert [row.trial for row in rows] == list(range(trials))
    artifacts = tmp_path / "out" / "artifacts"
    assert sorted(path.name for path in artifacts.iterdir()) == sorted(
        row.outputs[0].removeprefix("artifacts/") for row in rows
    )
    assert all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in artifacts.iterdir())
