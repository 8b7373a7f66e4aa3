"""A cluster's run besides the trials: file transfer, stopping, idle workers, and which workers may work."""

from __future__ import annotations

import json
import threading

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import sweeper
from sweeper.errors import UnreachableError, UsageError
from sweeper.running.run_events import JobSubmitted, Retrying, TargetDown, TargetReady, TrialDone
from sweeper.running.stop_control import StopControl
from tests.cluster.probes import BesideServers
from tests.cluster.result_rows import raw_rows, rows_of, run_on


@pytest.fixture
def own_folder(monkeypatch):
    """Workers that do not see the driver's results folder, because the marker has another name; with small chunks."""
    monkeypatch.setattr("sweeper.cluster.batch_follower.CHUNK_BYTES", 2**16)
    monkeypatch.setattr("sweeper.cluster.cluster_session.SHARED_MARKER", ".other-name")


def test_files_are_fetched_in_chunks_and_measured_on_the_worker(servers, cluster, experiment, own_folder, tmp_path):
    plan = experiment(seed=[1, 2], size=[16, 100, 300], metrics=("brightness",))
    run_on(plan, cluster.scheduler_address, out=tmp_path / "far")
    sweeper.run(plan, {"url": servers[0].url, "name": "fleet"}, tmp_path / "near")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "far" / "artifacts").iterdir())
    assert sizes[0] < 2**16 < 4 * 2**16 < sizes[-1], "one chunk, several chunks"
    assert rows_of(tmp_path / "far") == rows_of(tmp_path / "near")
    assert all(row.metrics["brightness"] is not None for row in raw_rows(tmp_path / "far"))


def test_job_that_the_account_cannot_pay_is_not_retried_and_ends_the_run(servers, cluster, experiment, tmp_path):
    for server in servers:
        server.faults.fail_nodes, server.faults.fail_type = {"Paint"}, "InsufficientFundsError"
    events = []
    try:
        run = run_on(
            experiment(seed=[1, 2, 3, 4]), cluster.scheduler_address, out=tmp_path / "out", progress=events.append
        )
    finally:
        for server in servers:
            server.faults.reset()
    assert run.stopped_by == "refused"
    assert not [event for event in events if isinstance(event, Retrying)]
    assert {event.status for event in events if isinstance(event, TrialDone)} == {"failed"}


def test_input_files_are_sent_to_workers_by_content(cluster, tmp_path):
    from PIL import Image

    for name, shade in (("a", 10), ("b", 200)):
        Image.new("L", (32, 32), shade).convert("RGB").save(tmp_path / f"{name}.png")
    template = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(template))
    (tmp_path / "t.slots.yaml").write_text('slots: {image: {at: "1.image", kind: file}}')
    body = {"name": "copies", "template": "t.json", "metrics": ["brightness"], "target": "embedded"}
    body["sweep"] = {"grid": {"image": {"files": "?.png"}}}
    (tmp_path / "e.yaml").write_text(json.dumps(body))
    run_on(tmp_path / "e.yaml", cluster.scheduler_address, out=tmp_path / "out")
    assert [row.error for row in raw_rows(tmp_path / "out")] == [None, None]
    dark, light = (row.metrics["brightness"] for row in raw_rows(tmp_path / "out"))
    assert dark < light


def test_likeness_is_measured_where_the_references_are(cluster, experiment, own_folder, tmp_path):
    pytest.importorskip("onnx", reason="makes the model")
    from PIL import Image

    from tests.images.metrics.test_learned import write_model

    nodes = [("GlobalAveragePool", ["x"], "pooled", {}), ("Flatten", ["pooled"], "image_embeds", {})]
    shapes = {"x": ("float", ["batch", 3, 8, 8])}, {"image_embeds": ("float", ["batch", 3])}
    (tmp_path / "project").mkdir()
    write_model(tmp_path / "project" / "m.onnx", nodes, *shapes)
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "project" / "red.png")
    metrics = ("brightness", {"likeness": "*.png", "model": "m.onnx"})
    run_on(experiment(seed=[1, 2], metrics=metrics), cluster.scheduler_address, out=tmp_path / "out")
    for row in raw_rows(tmp_path / "out"):
        assert row.metrics["brightness"] is not None
        assert -1 <= row.metrics["likeness"] <= 1
        assert row.metrics["likeness.nearest"] == "red.png"


def test_max_failures_counts_all_workers(cluster, experiment, executions, tmp_path):
    plan = experiment(seed=list(range(200)), fail=["odd"], run={"max_failures": 5})
    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert run.stopped_by == "max_failures"
    assert run.failed > 5
    assert run.pending > 100
    assert run.failed + run.pending == 200
    assert len(executions()) == run.failed


def test_first_stop_waits_for_running_jobs_and_the_next_run_resumes(servers, cluster, experiment, tmp_path):
    plan = experiment(seed=list(range(60)))
    control = StopControl()
    stopped = threading.Event()

    def watch(event):
        if isinstance(event, TrialDone) and not stopped.is_set():  # a second stop would cancel
            stopped.set()
            control.stop()

    first = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", control=control, progress=watch)
    assert first.stopped_by == "interrupt"
    assert (first.failed, first.cancelled) == (0, 0)
    assert first.succeeded + first.pending == 60
    assert first.pending > 0
    second = run_on(plan, cluster.scheduler_address, out=tmp_path / "out")
    assert (second.succeeded, second.submitted) == (60, first.pending)
    assert {row.attempts for row in raw_rows(tmp_path / "out")} == {1}


def test_repeated_drain_cancels_nothing():
    control = StopControl()
    for _ in range(2):
        control.drain("interrupt")
    assert (control.stopping, control.cancelling) == (True, False)
    control.stop_with("interrupt")
    assert control.cancelling


def test_second_stop_cancels_our_jobs_on_every_server(servers, cluster, experiment, tmp_path):
    plan = experiment(seed=list(range(60)))
    control = StopControl()
    for server in servers:
        server.faults.stall_nodes = {"Paint"}
    seen = set()

    def watch(event):
        if isinstance(event, JobSubmitted):
            seen.add(event.target)
            if len(seen) == len(servers):
                control.stop()
                control.stop()

    try:
        run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", control=control, progress=watch)
    finally:
        for server in servers:
            server.faults.reset()
    assert run.stopped_by == "interrupt"
    assert run.cancelled >= len(servers)
    assert run.cancelled + run.pending == 60


def test_idle_workers_steal_pending_trials_of_a_slow_one(servers, cluster, experiment, tmp_path):
    """One server stalls until only its own two jobs are left, which happens only if others take its pending trials."""
    plan = experiment(seed=list(range(40)))
    servers[0].faults.stall_nodes = {"Paint"}
    done = threading.Event()
    count = 0

    def watch(event):
        nonlocal count
        count += isinstance(event, TrialDone)
        if count >= 38 and not done.is_set():
            done.set()
            servers[0].faults.reset()

    run = run_on(plan, cluster.scheduler_address, out=tmp_path / "out", progress=watch, timeout=None)
    assert done.is_set()
    assert run.succeeded == 40
    assert {row.attempts for row in raw_rows(tmp_path / "out")} == {1}


def test_worker_without_a_server_is_reported_and_skipped(servers, experiment, tmp_path):
    events = []
    with BesideServers([servers[0].url, "http://127.0.0.1:9"], silence_logs=50) as cluster:
        cluster.scale(2)
        cluster.wait_for_workers(2)
        run = run_on(
            experiment(seed=[1, 2, 3]), cluster.scheduler_address, out=tmp_path / "out", progress=events.append
        )
        assert run.succeeded == 3
        assert [event.target for event in events if isinstance(event, TargetReady)] == ["0: fleet"]
        down = next(event for event in events if isinstance(event, TargetDown))
        assert (down.target, down.final) == ("1: fleet", True)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            run_on(
                experiment(seed=[4]),
                cluster.scheduler_address,
                target={"worker": "http://127.0.0.1:9"},
                out=tmp_path / "never",
            )
        assert not (tmp_path / "never").exists()


def test_workers_with_another_version_are_listed_before_submitting(cluster, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeper, "__version__", "99.0")
    with pytest.raises(UsageError, match=r"this is sweeper 99\.0 .* tcp://127\.0\.0\.1:\d+: 0\.1\.0"):
        run_on(experiment(seed=[1]), cluster.scheduler_address, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_workers_with_the_resource_work_and_late_ones_join(experiment, servers, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, resources={"GPU": 1}, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        control = StopControl()
        ready = []

        def watch(event):
            if isinstance(event, TargetReady):
                ready.append(event.target)
                cluster.scale(min(len(ready) + 1, 3))
                if len(ready) == 1:
                    cluster.wait_for_workers(2)  # it comes before the run has begun, and the third one later
                elif len(ready) == 3:
                    servers[0].faults.reset()

        servers[0].faults.stall_nodes = {"Paint"}
        plan = experiment(seed=list(range(12)), target={"worker": servers[0].url, "name": "fleet"})
        run = run_on(
            plan, cluster.scheduler_address, resources={"GPU": 1}, out=tmp_path / "out", progress=watch, control=control
        )
        assert (run.succeeded, len(ready)) == (12, 3)
