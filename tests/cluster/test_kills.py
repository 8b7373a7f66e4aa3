"""SIGKILL for workers and drivers at seeded moments, with servers that live on: every trial exactly once.

A few seeds in CI; `SWEEPER_KILLS=100 python -m pytest tests/cluster/test_cluster_kills.py` tries a hundred.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.cluster import run as run_on
from sweeper.running.run_events import JobSubmitted, TrialDone
from tests.cluster.probes import WORKERS
from tests.cluster.result_rows import raw_rows, rows_of

# Dask lets go of connections without closing them (its client to the scheduler) when a call ends with a worker
# that died. The collector then complains, in whichever test it comes by.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCRIPT = Path(__file__).with_name("killable_driver.py")
KILLS = int(os.environ.get("SWEEPER_KILLS", "2"))
TRIALS = 40


@pytest.fixture(autouse=True)
def collected():
    """Such sockets are collected here, and not in the middle of another test."""
    yield
    gc.collect()


def pids_of(cluster):
    """The processes of the workers, all of them there again."""
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        while len(found := client.run(os.getpid, on_error="ignore")) < WORKERS:
            try:
                client.wait_for_workers(WORKERS, timeout=20)
            except TimeoutError:  # a nanny whose worker is killed while it starts gives up, and nobody replaces it
                cluster.scale(0)
                cluster.scale(WORKERS)
        return list(found.values())


def start(experiment, cluster, out, *crash):
    environ = {**os.environ, "PYTHONPATH": str(Path(sweeper.__file__).parent.parent)}
    command = [sys.executable, str(SCRIPT), str(experiment.file), cluster.scheduler_address, str(out)]
    return subprocess.Popen([*command, *map(str, crash)], stdout=subprocess.PIPE, text=True, env=environ)


def all_done(out):
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == list(range(TRIALS))
    assert [row["error"] for row in rows if row["status"] != "succeeded"] == []
    files = {f"artifacts/{path.name}" for path in (out / "artifacts").iterdir()}
    assert files == {path for row in raw_rows(out) for path in row.outputs}, "no file but those of the rows"
    return rows


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_workers_cost_no_trial_and_none_runs_twice(cluster, experiment, executions, tmp_path, seed):
    chance = random.Random(seed)
    workers, wanted = chance.sample(pids_of(cluster), WORKERS), chance.choice([1, 1, 2])
    moment, kind = chance.randrange(TRIALS - 5), chance.choice([JobSubmitted, TrialDone])
    heard = killed = 0

    def watch(event):
        nonlocal heard, killed
        heard += isinstance(event, kind)
        if killed < wanted and heard > moment and workers:
            with contextlib.suppress(ProcessLookupError):  # a nanny may have replaced it meanwhile: then the next one
                os.kill(workers.pop(), signal.SIGKILL)
                killed += 1

    run = run_on(experiment(seed=list(range(TRIALS))), cluster.scheduler_address, out=tmp_path / "out", progress=watch)
    assert killed == wanted
    all_done(tmp_path / "out")
    assert executions() == [1] * TRIALS
    assert (run.succeeded, run.stopped_by) == (TRIALS, None)


@pytest.mark.parametrize("seed", range(KILLS))
def test_after_a_killed_driver_the_same_command_finishes_and_no_trial_runs_twice(
    cluster, experiment, executions, tmp_path, seed
):
    chance = random.Random(1000 + seed)
    method, calls = chance.choice(
        [("save_server_id", 5), ("record_intent", TRIALS), ("record_submitted", TRIALS), ("record_finished", TRIALS)]
    )
    crash = (method, chance.choice(["before", "after"]), chance.randint(1, calls))
    plan = experiment(seed=list(range(TRIALS)))
    with start(plan, cluster, tmp_path / "out", *crash) as driver:
        driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL, crash
    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    all_done(tmp_path / "out")
    assert executions() == [1] * TRIALS, crash
    assert (run.succeeded, run.stopped_by) == (TRIALS, None)
