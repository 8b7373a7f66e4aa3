"""Kill workers and drivers at seeded moments, while the servers go on: every trial still runs exactly once.

CI uses a few seeds; `SWEEPER_KILLS=100 python -m pytest tests/cluster/test_kills.py` uses a hundred.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from distributed.utils import get_mp_context

from sweeper.running.run_events import JobSubmitted, TrialDone
from tests.cluster.conftest import TARGET
from tests.cluster.killable_driver import drive
from tests.cluster.probes import WORKERS
from tests.cluster.result_rows import raw_rows, rows_of, run_on

# When a worker dies during a call, Dask's client drops its connection to the scheduler without closing it. The garbage
# collector then warns, in whichever test it runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = int(os.environ.get("SWEEPER_KILLS", "2"))
TRIALS = 24
# The budget is what all trials cost: a charge that counts twice would end the run early.
PRICED = {
    "target": {**TARGET, "price": {"per_job": "0.01 USD", "nodes": {}}},
    "run": {"budget": TRIALS / 100},
}


@pytest.fixture(autouse=True)
def _collect_sockets():
    """Collect such sockets here, and not in the middle of another test."""
    yield
    gc.collect()


def pids_of(cluster):
    """The process ids of the workers, when all of them run."""
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        while len(pids := client.run(os.getpid, on_error="ignore")) < WORKERS:
            try:
                client.wait_for_workers(WORKERS, timeout=60)
            except TimeoutError:  # a nanny gives up if its worker is killed while it starts
                cluster.scale(0)
                cluster.scale(WORKERS)
        return list(pids.values())


def assert_all_done(out):
    rows = rows_of(out)
    assert [row["trial"] for row in rows] == list(range(TRIALS))
    assert [row["error"] for row in rows if row["status"] != "succeeded"] == []
    files = {f"artifacts/{path.name}" for path in (out / "artifacts").iterdir()}
    assert files == {path for row in raw_rows(out) for path in row.outputs}, "no file that no row has"
    return rows


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_workers_lose_no_trial_and_repeat_none(cluster, experiment, executions, tmp_path, seed):
    chance = random.Random(seed)
    workers, wanted = chance.sample(pids_of(cluster), WORKERS), chance.choice([1, 1, 2])
    moment, kind = chance.randrange(TRIALS - 5), chance.choice([JobSubmitted, TrialDone])
    seen_events = killed = 0

    def watch(event):
        nonlocal seen_events, killed
        seen_events += isinstance(event, kind)
        if killed < wanted and seen_events > moment and workers:
            with contextlib.suppress(ProcessLookupError):  # a nanny may have replaced it
                os.kill(workers.pop(), signal.SIGKILL)
                killed += 1

    plan = experiment(seed=list(range(TRIALS)), **PRICED)
    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", progress=watch)
    assert killed == wanted
    assert_all_done(tmp_path / "out")
    assert executions() == [1] * TRIALS
    assert (run.succeeded, run.stopped_by, run.spent.high) == (TRIALS, None, TRIALS * 10_000)


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_driver_is_resumed_and_no_trial_runs_twice(cluster, experiment, executions, tmp_path, seed):
    chance = random.Random(1000 + seed)
    method, calls = chance.choice(
        [("save_server_id", 5), ("record_intent", TRIALS), ("record_submitted", TRIALS), ("record_finished", TRIALS)]
    )
    crash = (method, chance.choice(["before", "after"]), chance.randint(1, calls))
    plan = experiment(seed=list(range(TRIALS)), **PRICED)
    arguments = str(plan.file), cluster.scheduler_address, str(tmp_path / "out"), crash
    driver = get_mp_context().Process(target=drive, args=arguments)
    driver.start()
    driver.join(60)
    assert driver.exitcode == -signal.SIGKILL, crash
    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert_all_done(tmp_path / "out")
    assert executions() == [1] * TRIALS, crash
    assert (run.succeeded, run.stopped_by, run.spent.high) == (TRIALS, None, TRIALS * 10_000)
