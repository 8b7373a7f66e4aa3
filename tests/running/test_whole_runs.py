from __future__ import annotations

import csv
import itertools
import json
import sys
import threading
from pathlib import Path

import httpx
import pytest

import sweeper
from sweeper.embedded import EmbeddedServer
from sweeper.errors import ExperimentError, UsageError
from sweeper.images.compare import pixel_hash
from sweeper.model.result import PIXEL_HASH
from sweeper.planning.order import Costs
from sweeper.running.run_events import JobProgress, JobQueued, JobSubmitted, Notice, RunStarted, TargetReady, TrialDone
from sweeper.store import Store
from sweeper.store.live_folder import LiveFolder
from sweeper.store.server_facts import BESIDES_NODES
from tests.few_classes import pick_classes
from tests.running.conftest import NODES
from tests.waiting import wait_until

EXPERIMENTS = Path(sweeper.__file__).parent.parent / "experiments"

# What is decided before a request, or after a download, is the same in all dialects.
in_one_dialect = pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)


def test_every_trial_gets_a_row_and_a_picture(server, target, experiment, tmp_path):
    out = tmp_path / "out"
    run = sweeper.run(experiment(seed=[1, 2, 2**64 - 1], text=["a", "b"]), target, out)
    assert (run.trials, run.submitted, run.succeeded, run.failed, run.pending, run.reused) == (6, 6, 6, 0, 0, 0)
    assert run.stopped_by is None
    with Store.open(out, readonly=True) as store:
        rows = list(store.results())
    assert [row.trial for row in rows] == list(range(6))
    assert {row.params["seed"] for row in rows} == {1, 2, 2**64 - 1}
    assert all((out / row.outputs[0]).is_file() and len(row.sha256) == 1 for row in rows)
    assert all(row.attempts == 1 and row.target == "probe-server" and row.ran_s is not None for row in rows)
    assert len({row.outputs for row in rows}) == 6
    assert sorted(server.seen.executions.values()) == [1] * 6
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [line["status"] for line in csv.DictReader(file)] == ["succeeded"] * 6


@in_one_dialect
def test_a_second_run_of_finished_work_contacts_no_server(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2])
    sweeper.run(plan, target, tmp_path / "out")
    server.stop()
    events = []
    again = sweeper.run(plan, target, tmp_path / "out", progress=events.append)
    assert (again.submitted, again.succeeded, again.reused) == (0, 2, 2)
    started = next(event for event in events if isinstance(event, RunStarted))
    assert (started.todo, started.reused) == (0, 2)
    assert not any(isinstance(event, JobSubmitted) for event in events)


@pytest.mark.parametrize(("axis", "differ"), [("width", True), ("color", False)])
def test_a_run_says_whether_its_jobs_differ_in_size(tmp_path, axis, differ):
    sizes = {"width": "{{ width }}", "height": 64, "batch_size": 1, "color": "{{ color }}"}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": sizes},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "t.json").write_text(json.dumps(graph))
    body = {"template": "t.json", "params": {"width": 64, "color": 1}, "sweep": {"grid": {axis: [64, 128]}}}
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps({**body, "params": {k: v for k, v in body["params"].items() if k != axis}}))
    events = []
    sweeper.run(sweeper.load(file), "embedded", tmp_path / "out", progress=events.append)
    assert [event.sizes_differ for event in events if isinstance(event, RunStarted)] == [differ]
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.layout().sizes_differ is differ


@in_one_dialect
def test_a_changed_experiment_runs_only_the_new_trials(server, target, experiment, tmp_path):
    sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out")
    run = sweeper.run(experiment(seed=[2, 3, 1]), target, tmp_path / "out")
    assert (run.trials, run.submitted, run.succeeded, run.reused) == (3, 1, 3, 2)


@in_one_dialect
def test_a_run_keeps_the_written_order_of_values_despite_filters(server, target, experiment, tmp_path):
    file = experiment(text=["a", "b"], seed=[1, 2, 3]).file
    body = json.loads(file.read_text())
    body["sweep"]["exclude"] = [{"text": "a", "seed": 1}]
    file.write_text(json.dumps(body))
    sweeper.run(file, target, tmp_path / "out")
    with Store.open(tmp_path / "out", readonly=True) as store:
        layout, rows = store.layout(), list(store.results())
    assert layout.value_order == {"seed": (2, 0, 1)}
    assert layout.values_in_order("seed", [row.columns["seed"] for row in rows]) == [1, 2, 3]


@in_one_dialect
def test_trials_with_one_digest_are_one_job_and_several_rows(server, target, experiment, tmp_path):
    events = []
    run = sweeper.run(experiment(seed=[5, 5, 6, 5]), target, tmp_path / "out", progress=events.append)
    assert (run.trials, run.submitted, run.succeeded) == (4, 2, 4)
    assert server.seen.accepted == 2
    assert sorted(event.trial for event in events if isinstance(event, TrialDone)) == [0, 1, 2, 3]
    assert [event.todo for event in events if isinstance(event, RunStarted)] == [4]


def test_a_failed_trial_is_a_row_and_is_resubmitted_on_request_only(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2])
    server.faults.fail_nodes = {"Paint"}
    server.faults.fail_node_times = 1
    run = sweeper.run(plan, target, tmp_path / "out")
    assert (run.succeeded, run.failed) == (1, 1)
    with Store.open(tmp_path / "out", readonly=True) as store:
        failed = next(row for row in store.results() if row.status == "failed")
    assert failed.error_type == "RuntimeError"
    assert failed.error == "node 1 (Paint): This node fails on purpose."
    assert failed.attempts == 1
    plain = sweeper.run(plan, target, tmp_path / "out")
    assert (plain.submitted, plain.failed) == (0, 1)
    repaired = sweeper.run(plan, target, tmp_path / "out", retry_failed=True)
    assert (repaired.submitted, repaired.succeeded, repaired.reused) == (1, 2, 1)


@in_one_dialect
def test_fresh_executes_everything_again(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2])
    sweeper.run(plan, target, tmp_path / "out")
    again = sweeper.run(plan, target, tmp_path / "out", fresh=True)
    assert (again.submitted, again.succeeded, again.reused) == (2, 2, 0)
    with Store.open(tmp_path / "out", readonly=True) as store:
        first, second = ([row.outputs for row in store.results(run)] for run in (1, 2))
        assert len({job.id for job in store.jobs()}) == 4
    assert first == second == [("artifacts/0000_seed-1.png",), ("artifacts/0001_seed-2.png",)], "identical files"


@in_one_dialect
def test_limit_and_where_select_what_is_submitted(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2, 3, 4])
    some = sweeper.run(plan, target, tmp_path / "out", where="seed >= 2", limit=2)
    assert (some.trials, some.submitted, some.succeeded, some.pending) == (4, 2, 2, 2)
    rest = sweeper.run(plan, target, tmp_path / "out")
    assert (rest.submitted, rest.succeeded, rest.pending) == (2, 4, 0)
    with pytest.raises(UsageError, match="sede"):
        sweeper.run(plan, target, tmp_path / "other", where="sede > 1")
    assert not (tmp_path / "other").exists()


@in_one_dialect
def test_where_reads_dotted_names_as_columns_of_the_table(server, target, experiment, tmp_path):
    plan = experiment(text={"choices": "a {red|blue} {fox|owl}"})
    run = sweeper.run(plan, target, tmp_path / "out", where="text.1 == 'red' and text.2 != 'owl'")
    assert (run.trials, run.submitted) == (4, 1)
    with pytest.raises(UsageError, match=r"no column 'text.3'; did you mean 'text.[12]'"):
        sweeper.run(plan, target, tmp_path / "other", where="text.3 == 'fox'")


def test_a_rejected_workflow_is_a_row_that_names_node_and_input(server, target, experiment, tmp_path):
    run = sweeper.run(experiment(seed=[-1, 3]), target, tmp_path / "out", check=False)
    assert (run.succeeded, run.failed) == (1, 1)
    with Store.open(tmp_path / "out", readonly=True) as store:
        row = next(row for row in store.results() if row.status == "failed")
    assert row.error_type == "RejectedError"
    assert row.error.startswith("node 1 (Paint) seed: Value -1 smaller than min of 0")


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"], indirect=True)  # API v2 lists no node classes
def test_an_invalid_plan_is_refused_before_anything_is_sent(server, target, experiment, tmp_path):
    with pytest.raises(ExperimentError, match=r"seed\[0\]: node 1 \(Paint\) seed: found -1, but at least 0 is needed"):
        sweeper.run(experiment(seed=[-1, 3]), target, tmp_path / "out")
    assert server.seen.submits == 0
    assert not (tmp_path / "out").exists()


@in_one_dialect
def test_more_trials_than_allowed_are_refused_and_leave_nothing(target, experiment, tmp_path):
    with pytest.raises(UsageError, match="3 trials, more than max_trials allows"):
        sweeper.run(experiment(seed=[1, 2, 3], run={"max_trials": 2}), target, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_filename_prefix_is_ours_on_the_server_and_not_in_the_digest(server, target, experiment, tmp_path):
    sweeper.run(experiment(seed=[1], name="Fox.No_2"), target, tmp_path / "out")
    with Store.open(tmp_path / "out", readonly=True) as store:
        (job,) = store.jobs()
        (artifact,) = store.artifacts(job.id)
    if target["dialect"] == "comfyui":
        assert artifact.label == f"sweeper/fox-no-2/{job.id[:8]}/sweep_00001_.png"
    assert job.digest == next(iter(sweeper.plan(experiment(seed=[1], name="Fox.No_2")))).digest
    assert artifact.path == "artifacts/0000.png"


@in_one_dialect
def test_pictures_are_measured_once_and_metrics_are_in_the_table(server, target, experiment, tmp_path):
    plan = experiment(seed=[1, 2], metrics=("brightness", "unique_colours"))
    sweeper.run(plan, target, tmp_path / "out")
    with Store.open(tmp_path / "out", readonly=True) as store:
        first, second = (row.metrics for row in store.results())
        assert len(store.load_cached_metrics("brightness")) == 2
    assert first["unique_colours"] == second["unique_colours"] == 1
    assert 0 <= first["brightness"] <= 255
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [float(line["brightness"]) for line in csv.DictReader(file)] == [
            first["brightness"],
            second["brightness"],
        ]


@in_one_dialect
def test_an_edited_metric_function_measures_everything_again(target, experiment, tmp_path, monkeypatch):
    def run_measured(factor, **axes):
        (tmp_path / "edited_metric.py").write_text(f"def f(picture, params):\n    return {factor} * params['seed']\n")
        monkeypatch.delitem(sys.modules, "edited_metric", raising=False)
        sweeper.run(experiment(metrics=("edited_metric:f",), **axes), target, tmp_path / "out")
        return sweeper.results(tmp_path / "out")["edited_metric:f"].tolist()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within one second look alike to the byte code
    assert run_measured(10, seed=[1, 2]) == [10, 20]
    assert run_measured(300, seed=[2, 3]) == [600, 900]
    assert sweeper.results(tmp_path / "out", run="1")["edited_metric:f"].tolist() == [300, 600]


@in_one_dialect
def test_a_failing_metric_is_reported_once_for_all_files(target, experiment, tmp_path):
    events = []
    plan = experiment(seed=[1, 2, 3], metrics=("cmath:sqrt",))
    sweeper.run(plan, target, tmp_path / "out", progress=events.append)
    (noticed,) = [event.message for event in events if isinstance(event, Notice)]
    assert "metric 'cmath:sqrt' failed: TypeError" in noticed
    assert noticed.endswith("(and of 2 more files)")


@in_one_dialect
def test_a_metric_that_cannot_be_imported_is_reported_before_submitting(server, target, experiment, tmp_path):
    with pytest.raises(ExperimentError, match="no_such_module_anywhere"):
        sweeper.run(experiment(seed=[1], metrics=("no_such_module_anywhere:f",)), target, tmp_path / "out")
    assert server.seen.submits == 0
    assert not (tmp_path / "out").exists()


def test_the_events_of_a_job_come_in_order(server, target, experiment, tmp_path):
    events = []
    sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=events.append)
    left_out = (JobProgress, JobQueued, Notice)  # API v2 notices that it lists no classes
    kinds = [type(event).__name__ for event in events if not isinstance(event, left_out)]
    assert kinds == ["TargetReady", "RunStarted", "JobSubmitted", "TrialDone", "RunEnded"]
    steps = [event for event in events if isinstance(event, JobProgress)]
    assert {(step.trial, step.target) for step in steps} <= {(0, "probe-server")}


@pytest.mark.parametrize(("given", "limit"), [({}, 3), ({"concurrency": 2}, 2)])
def test_starting_limit_on_cloud_is_that_of_the_account(experiment, tmp_path, given, limit):
    events = []
    with EmbeddedServer(dialect="cloud", nodes=NODES, workers=3) as server:
        target = {"url": server.url, "dialect": "cloud", **given}
        sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=events.append)
    assert [event.concurrency for event in events if isinstance(event, TargetReady)] == [limit]


@pytest.mark.parametrize("dialect", ["cloud"], indirect=True)
def test_why_a_job_waits_on_the_server_is_reported(server, target, experiment, tmp_path):
    server.faults.stall_nodes = {"Paint"}
    events = []

    def watch(event):
        events.append(event)
        if isinstance(event, JobQueued) and event.reason:
            threading.Timer(0.5, server.faults.release).start()  # after several polls that find the same

    assert sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out", progress=watch).succeeded == 2
    waits = [(event.trial, event.reason, event.position) for event in events if isinstance(event, JobQueued)]
    assert waits[0][1] == "concurrency_limit"
    assert all(earlier != later for earlier, later in itertools.pairwise(waits))


@pytest.mark.parametrize("dialect", ["comfyui"], indirect=True)
@pytest.mark.parametrize("watched", [True, False])
def test_previews_are_requested_while_somebody_looks_at_the_live_page(server, target, experiment, *, tmp_path, watched):
    if watched:
        LiveFolder(tmp_path / "out").announce_viewer()
    sweeper.run(experiment(seed=[1]), target, tmp_path / "out")
    (job,) = httpx.get(f"{server.url}/history").json().values()
    assert job["prompt"][3].get("preview_method") == ("auto" if watched else None)


@in_one_dialect
def test_options_out_of_range_are_refused_before_anything_is_created(target, experiment, tmp_path):
    plan = experiment(seed=[1])
    for options, message in (
        ({"timeout": 0.0}, "timeout: 0.0 is not a number of seconds above 0"),
        ({"concurrency": 0}, "concurrency: 0 is less than 1"),
        ({"retries": -1}, "retries: -1 is less than 0"),
        ({"max_failures": 1.5}, "max_failures: 1.5 is not a share of the plan"),
        ({"max_failures": -1}, "max_failures: -1 is less than 0"),
    ):
        with pytest.raises(UsageError, match=message):
            sweeper.run(plan, target, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_input_files_are_uploaded_once_and_the_servers_name_is_used(dialect, tmp_path):
    ladder = sweeper.load(EXPERIMENTS / "denoise-ladder.yaml")
    with EmbeddedServer(dialect=dialect, nodes=pick_classes()) as server:
        run = sweeper.run(ladder, {"url": server.url, "dialect": dialect}, tmp_path / "out", limit=3)
        assert (run.succeeded, run.failed) == (3, 0)
        assert len(server.seen.uploads) == 1
        # A later run asks whether the file is there still, and brings it anew only where it is not.
        run = sweeper.run(ladder, {"url": server.url, "dialect": dialect}, tmp_path / "out", limit=1)
        assert (run.succeeded, run.submitted, len(server.seen.uploads)) == (4, 1, 1)
        name = server.url
    with EmbeddedServer(dialect=dialect, nodes=pick_classes()) as empty:
        run = sweeper.run(ladder, {"name": name, "url": empty.url, "dialect": dialect}, tmp_path / "out", limit=2)
        assert (run.failed, run.submitted) == (0, 2)
        assert len(empty.seen.uploads) == 1


def test_a_job_cancelled_by_others_is_a_row_and_is_submitted_again(server, target, experiment, tmp_path):
    server.faults.stall_nodes = {"Paint"}

    def cancel_what_runs(prompt_id):
        wait_until(lambda: server.seen.executions)
        api = "/api/v2" if target["dialect"] == "v2" else "/api"
        httpx.post(f"{server.url}{api}/jobs/{prompt_id}/cancel")

    def watch(event):
        if isinstance(event, JobSubmitted):
            threading.Thread(target=cancel_what_runs, args=(event.prompt_id,)).start()

    run = sweeper.run(experiment(seed=[1]), target, tmp_path / "out", progress=watch)
    assert (run.cancelled, run.failed) == (1, 0)
    server.faults.release()
    assert sweeper.run(experiment(seed=[1]), target, tmp_path / "out").submitted == 1


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"], indirect=True)  # API v2 tells no times of short jobs
def test_measured_node_times_change_the_next_order(server, target, experiment, tmp_path):
    server.faults.node_seconds = 0.1  # so that the events of a job come before its end, also on a busy machine
    sweeper.run(experiment(seed=[1, 2], text=["a", "b"]), target, tmp_path / "out")
    with Store.open(tmp_path / "out", readonly=True) as store:
        seconds = store.servers.mean_node_seconds(["probe-server"])
    assert set(seconds) == {"Paint", "Keep", BESIDES_NODES}
    assert all(0 <= one < 10 for one in seconds.values())
    plan = sweeper.plan(experiment(seed=[1, 2], text=["a", "b"])).reordered(Costs(seconds))
    assert plan.order.measured
    assert sorted(trial.index for trial in plan) == [0, 1, 2, 3]


@in_one_dialect
def test_pixels_of_every_picture_are_hashed_and_no_table_shows_it(server, target, experiment, tmp_path):
    sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out")
    with Store.open(tmp_path / "out", readonly=True) as store:
        hashes, files = store.load_pixel_hashes(), list(store.files())
        assert hashes == {sha256: pixel_hash(tmp_path / "out" / path) for path, sha256 in files}
        assert store.layout().metrics == ()
    with Store.open(tmp_path / "out") as store:
        store.cache_metrics([], discard=[PIXEL_HASH])  # as in a folder of an older run
    assert sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out").submitted == 0
    with Store.open(tmp_path / "out", readonly=True) as store:
        assert store.load_pixel_hashes() == hashes
    table = (tmp_path / "out" / "results.csv").read_text("utf-8")
    assert not any(text in table for text in (PIXEL_HASH, *hashes.values()))
