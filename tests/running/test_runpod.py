"""Runs on a RunPod endpoint: files, seconds and cost, lost answers, expiry, throttling, cold starts, kills."""

from __future__ import annotations

import base64
import io
import json
import signal
import sqlite3
import time

import pytest
from PIL import Image
from starlette.responses import JSONResponse, Response

import sweeper
from sweeper.comfy import retry
from sweeper.errors import RefusedError, UnreachableError
from sweeper.running.run_events import Notice, TargetBusy, TrialDone
from tests.comfy.runpod_endpoint import KEPT_SECONDS, KEY, Bucket, Endpoint, paint_png
from tests.running.servers import colour
from tests.running.test_transient_failures import open_jobs, rows_of
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RUNPOD_KEY", KEY)


@pytest.fixture
def endpoint():
    with Endpoint() as endpoint:
        yield endpoint


def once(operation, response):
    """Replace one answer."""
    left = [response]
    return lambda name, _: left.pop() if name == operation and left else None


def run_on(endpoint, plan, out, *, heard=None, **options):
    settings = options.pop("settings", {})
    heard = [] if heard is None else heard
    return sweeper.run(plan, endpoint.target(**settings), out, progress=heard.append, **options)


def start(runners, plan, target, out):
    """Start a run in a process of its own, which has another environment."""
    return runners.start(plan, target, out, options={"environ": {"RUNPOD_KEY": KEY}})


def notices(heard):
    return [event.message for event in heard if isinstance(event, Notice)]


def operations(endpoint):
    return [operation for operation, _ in endpoint.requests]


# --- files, seconds, cost


def test_a_run_sends_and_gets_its_pictures_in_the_jobs_themselves(endpoint, coloured, tmp_path):
    endpoint.seconds, endpoint.cold_start, heard = 0.25, 0.5, []
    plan, settings = coloured(3, upload=True), {"price": {"per_second": "0.001 USD"}}
    run = run_on(endpoint, plan, tmp_path / "out", heard=heard, settings=settings)
    assert (run.succeeded, run.error, len(endpoint.jobs)) == (3, None, 3)
    assert notices(heard) == ["pod: the plan was not checked: it does not list its node classes"]
    assert set(operations(endpoint)) == {"health", "run", "status"}  # no uploads, and no calls of a ComfyUI
    for row in rows_of(tmp_path / "out"):
        drawn, copied = (Image.open(tmp_path / "out" / path) for path in row.outputs)
        assert drawn.getpixel((0, 0)) == ((c := colour(row.trial)) >> 16, c >> 8 & 255, c & 255)
        assert copied.getpixel((0, 0)) == (1, 2, 3)
        assert (round(row.queued_s, 3), round(row.ran_s, 3), row.cost) == (0.5, 0.25, 0.00025)
        assert [path[path.rindex("node-") :] for path in row.outputs] == ["node-2.png", "node-4.png"]
    for job in endpoint.jobs.values():
        (image,) = job.input["images"]
        assert image["name"] == job.input["workflow"]["3"]["inputs"]["image"]
        assert "/" not in image["name"]
    with sqlite3.connect(tmp_path / "out" / "sweeper.sqlite") as store:  # nothing counts as uploaded
        assert store.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    store.close()
    again = run_on(endpoint, plan, tmp_path / "out")
    assert (again.reused, again.submitted, len(endpoint.jobs)) == (3, 0, 3)


def test_a_masked_picture_goes_along_as_one_file(endpoint, tmp_path, monkeypatch):
    graph = {"3": {"class_type": "LoadImage", "inputs": {"image": "p.png"}},
             "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}}  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(graph))
    slots = {"photo": {"at": "3.image", "kind": "file"}, "mask": {"kind": "mask", "of": "photo"}}
    (tmp_path / "t.slots.yaml").write_text(json.dumps({"slots": slots}))
    (tmp_path / "p.png").write_bytes(paint_png(0x102030))
    Image.new("L", (8, 8), 255).save(tmp_path / "m.png")
    (tmp_path / "e.yaml").write_text("{template: t.json, params: {photo: p.png, mask: m.png}}")
    run = run_on(endpoint, tmp_path / "e.yaml", tmp_path / "out")
    assert (run.succeeded, run.error) == (1, None)
    ((image,),) = (job.input["images"] for job in endpoint.jobs.values())
    sent = Image.open(io.BytesIO(base64.b64decode(image["image"])))
    assert sent.getpixel((0, 0)) == (0x10, 0x20, 0x30, 0)


def test_a_bucket_gets_neither_the_key_nor_other_headers_of_ours(endpoint, coloured, tmp_path):
    with Bucket() as bucket:
        endpoint.bucket = bucket
        assert run_on(endpoint, coloured(2), tmp_path / "out").succeeded == 2
        assert len(bucket.headers) == 2
        for headers in bucket.headers:
            assert set(headers) <= {"host", "accept", "accept-encoding", "connection", "user-agent"}
            assert KEY not in str(headers)


def test_a_bucket_without_the_file_leaves_the_job_to_the_next_run(endpoint, coloured, tmp_path, monkeypatch):
    monkeypatch.setattr(retry.RetryPolicy, "draw_waits", lambda *_: iter((0.01,)))
    with Bucket() as bucket:
        endpoint.bucket, heard, plan = bucket, [], coloured(1)
        bucket.is_open = False
        run = run_on(endpoint, plan, tmp_path / "out", heard=heard)
        assert (run.pending, run.failed, len(endpoint.jobs)) == (1, 0, 1)
        assert "(HTTP 403); the next run looks for the file again, at no cost" in notices(heard)[-1]
        bucket.is_open = True
        run = run_on(endpoint, plan, tmp_path / "out")
        assert (run.succeeded, len(endpoint.jobs)) == (1, 1)


@pytest.mark.parametrize("megabytes", [3, 60])
def test_a_large_answer_is_read(endpoint, coloured, tmp_path, megabytes):
    noise = paint_png(1) + bytes(megabytes * 750_000 - 100)
    endpoint.make_output = lambda sent: {"images": [endpoint.record("01234567+2+x.png", noise)]}
    assert run_on(endpoint, coloured(1), tmp_path / "out").succeeded == 1
    (row,) = rows_of(tmp_path / "out")
    assert (tmp_path / "out" / row.outputs[0]).read_bytes() == noise


@pytest.mark.parametrize("data", ["no Base64!", "", None])
def test_invalid_base64_leaves_the_paid_job_to_remake(endpoint, coloured, tmp_path, monkeypatch, data):
    monkeypatch.setattr(retry.RetryPolicy, "draw_waits", lambda *_: iter(()))
    endpoint.make_output = lambda sent: {"images": [{"filename": "01234567+2+x.png", "data": data}]}
    heard, plan = [], coloured(1)
    run = run_on(endpoint, plan, tmp_path / "out", heard=heard)
    assert (run.pending, len(endpoint.jobs)) == (1, 1)
    assert "no valid Base64 for '01234567+2+x.png'" in notices(heard)[-1]
    assert "`--remake` submits the trial again" in notices(heard)[-1]
    endpoint.make_output = None
    assert run_on(endpoint, plan, tmp_path / "out").pending == 1
    assert run_on(endpoint, plan, tmp_path / "out", remake=True).succeeded == 1
    assert len(endpoint.jobs) == 2


def test_a_deleted_picture_stays_missing_and_says_so(endpoint, coloured, tmp_path):
    plan, heard = coloured(1), []
    run_on(endpoint, plan, tmp_path / "out")
    (tmp_path / "out" / rows_of(tmp_path / "out")[0].outputs[0]).unlink()
    assert run_on(endpoint, plan, tmp_path / "out", heard=heard).submitted == 0
    assert "RunPod keeps no files" in notices(heard)[0]
    assert "`--remake` submits their trials again" in notices(heard)[0]


# --- outcomes that nobody can tell


@pytest.mark.parametrize("status", [200, 302, 500, 502, 524])
def test_a_lost_answer_is_unknown_and_only_retry_unknown_sends_again(endpoint, coloured, tmp_path, status):
    plan, out = coloured(2), tmp_path / "out"
    endpoint.after = once("run", Response("<html>gateway</html>", status))
    run = run_on(endpoint, plan, out)
    assert (run.succeeded, run.pending, run.failed, len(endpoint.jobs)) == (1, 1, 0, 2)
    assert "1 trial of unknown outcome" in run.error
    (prefix,) = {job.input["workflow"]["2"]["inputs"]["filename_prefix"].rpartition("/")[2][:9]
                 for job in endpoint.jobs.values()} & {run.error.partition("begin with ")[2][:9]}  # fmt: skip
    assert prefix.endswith("+")  # of a job that is in the console of its owner
    for options in ({}, {"retry_failed": True}, {"remake": True}, {"fresh": True}):
        run = run_on(endpoint, plan, out, **options)
        assert "`sweeper run --retry-unknown` submits such trials again, and pays twice for those that ran" in run.error
        assert run.pending == 1
    assert len(endpoint.jobs) == 2 + 1  # that of --fresh, for the trial that had succeeded
    run = run_on(endpoint, plan, out, retry_unknown=True)
    assert (run.succeeded, run.error, run.submitted, len(endpoint.jobs)) == (2, None, 1, 4)
    assert run_on(endpoint, plan, out, retry_unknown=True).submitted == 0


def test_a_run_that_loses_every_answer_stops_soon(endpoint, coloured, tmp_path):
    endpoint.after = lambda operation, _: Response("", 502) if operation == "run" else None
    run = run_on(endpoint, coloured(40), tmp_path / "out", settings={"concurrency": 1})
    assert (run.stopped_by, len(endpoint.jobs)) == ("unreachable", 3)
    assert "completed none of the last 3 trials" in run.error
    assert "3 trials of unknown outcome" in run.error
    endpoint.after = lambda *_: None
    run = run_on(endpoint, coloured(40), tmp_path / "again")  # what earlier runs lost does not stop a run
    assert run.succeeded == 40


def test_another_target_takes_over_from_one_that_loses_answers(endpoint, coloured, tmp_path):
    endpoint.after = lambda operation, _: Response("", 502) if operation == "run" else None
    with Endpoint() as other:
        targets = [endpoint.target(concurrency=1), other.target(name="other")]
        run = sweeper.run(coloured(12), targets, tmp_path / "out")
    assert (run.pending, run.succeeded, run.stopped_by, len(endpoint.jobs), len(other.jobs)) == (3, 9, None, 3, 9)
    assert "3 trials of unknown outcome" in run.error


def test_earlier_unknown_trials_do_not_stop_the_others(endpoint, coloured, tmp_path):
    plan, out, heard = coloured(8), tmp_path / "out", []
    done_before_losses = iter((0, 0, None, 1, 1))  # a trial is done after its files are saved, while the next is sent

    def lose(operation, _):
        done = next(done_before_losses, None) if operation == "run" else None
        if done is None:
            return None
        wait_until(lambda: sum(isinstance(event, TrialDone) for event in heard) == done)
        return Response("", 502)

    endpoint.after = lose
    run = run_on(endpoint, plan, out, heard=heard, settings={"concurrency": 1})
    assert (run.pending, run.succeeded) == (4, 4)
    run = run_on(endpoint, plan, out, settings={"concurrency": 1})
    assert (run.pending, run.stopped_by) == (4, None)
    assert run_on(endpoint, plan, out, retry_unknown=True).succeeded == 8
    assert len(endpoint.jobs) == 12


def test_retry_unknown_does_not_repeat_what_its_own_run_loses(endpoint, coloured, tmp_path):
    endpoint.after = once("run", Response("", 502))
    run = run_on(endpoint, coloured(1), tmp_path / "out", retry_unknown=True)
    assert (run.pending, len(endpoint.jobs)) == (1, 1)


@pytest.mark.parametrize("when", ["before", "accepted", "running", "completed"])
def test_a_kill_pays_for_nothing_twice(endpoint, coloured, tmp_path, runners, when):
    """kill -9 before the submission arrives, after it, during the job, and before its files are there."""
    plan, out = coloured(1), tmp_path / "out"
    runner = start(runners, plan, endpoint.target(), out)

    def kill(moment):
        def decide(operation, _):
            if operation == moment:
                runner.send(signal.SIGKILL)
                return Response("", 503)
            return None

        return decide

    endpoint.seconds = 3600.0 if when == "running" else 0.0
    if when == "before":
        endpoint.before = kill("run")
    elif when == "accepted":
        endpoint.after = kill("run")
    else:
        endpoint.after = kill("status")
    assert runner.wait().killed
    endpoint.before = endpoint.after = lambda *_: None
    endpoint.age += endpoint.seconds
    submitted = 0 if when == "before" else 1
    assert len(endpoint.jobs) == submitted
    run = run_on(endpoint, plan, out)
    assert len(endpoint.jobs) == submitted
    if when in ("before", "accepted"):
        assert (run.pending, "1 trial of unknown outcome" in run.error) == (1, True)
        run = run_on(endpoint, plan, out, retry_unknown=True)
        assert len(endpoint.jobs) == submitted + 1
    assert (run.succeeded, run.error, open_jobs(out)) == (1, None, 0)


@pytest.mark.parametrize("never_ended", [False, True])
def test_an_expired_job_is_unknown_and_never_sent_again_by_itself(endpoint, coloured, tmp_path, runners, never_ended):
    plan, out = coloured(1), tmp_path / "out"
    endpoint.seconds = 60.0
    runner = start(runners, plan, endpoint.target(), out)
    runner.until("JobSubmitted")
    wait_until(lambda: "status" in operations(endpoint))
    runner.send(signal.SIGKILL)
    assert runner.wait().killed
    endpoint.age += 60 + KEPT_SECONDS + 1
    if never_ended:
        endpoint.jobs.clear()
    for _ in range(2):
        run = run_on(endpoint, plan, out)
        assert (run.pending, run.submitted) == (1, 0)
        assert "or a result has expired" in run.error
    endpoint.seconds = 0.0
    run = run_on(endpoint, plan, out, retry_unknown=True)
    assert (run.succeeded, run.submitted) == (1, 1)


def test_short_jobs_leave_no_intent_that_was_never_sent(endpoint, coloured, tmp_path, runners):
    """Elsewhere sweeper records intents ahead of short jobs. Here a kill would leave them unknown for ever."""
    endpoint.seconds = 0.05
    runner = start(runners, coloured(60), endpoint.target(concurrency=1), tmp_path / "out")

    def kill(operation, _):
        if operation == "status" and len(endpoint.jobs) == 20:
            time.sleep(0.2)  # by now, the next intent would be there
            runner.send(signal.SIGKILL)

    endpoint.before = kill
    assert runner.wait().killed
    with sqlite3.connect(tmp_path / "out" / "sweeper.sqlite") as store:
        assert store.execute("SELECT count(*) FROM jobs WHERE state = 'intent'").fetchone() == (0,)
    store.close()


# --- throttling, cold starts, the ends of jobs


@pytest.mark.parametrize("headers", [{}, {"retry-after": "0.05"}])
@pytest.mark.parametrize("operation", ["run", "status"])
def test_a_throttled_request_is_sent_again(endpoint, coloured, tmp_path, operation, headers):
    answers, heard = [3], []

    def throttle(name, _):
        if name != operation or not answers[0]:
            return None
        answers[0] -= 1
        return JSONResponse({"error": "Too Many Requests"}, 429, headers)

    endpoint.before = throttle
    run = run_on(endpoint, coloured(2), tmp_path / "out", heard=heard)
    assert (run.succeeded, run.error, len(endpoint.jobs), answers) == (2, None, 2, [0])
    assert any(isinstance(event, TargetBusy) for event in heard) == (operation == "run")


def test_a_cold_start_does_not_count_against_the_timeout(endpoint, coloured, tmp_path):
    endpoint.cold_start, heard = 2.0, []
    run = run_on(endpoint, coloured(1), tmp_path / "out", heard=heard, timeout=0.4)
    assert (run.succeeded, run.cancelled) == (1, 0)
    assert "cancel" not in operations(endpoint)
    (row,) = rows_of(tmp_path / "out")
    assert round(row.queued_s, 1) == 2.0
    assert "look in the service's console whether it starts a worker" in "\n".join(notices(heard))


def test_a_job_that_runs_too_long_is_cancelled(endpoint, coloured, tmp_path):
    endpoint.seconds = 3600.0
    run = run_on(endpoint, coloured(1), tmp_path / "out", timeout=0.3)
    assert (run.failed, operations(endpoint).count("cancel")) == (1, 1)
    assert rows_of(tmp_path / "out")[0].error == "ran longer than 0.3 s and was cancelled"


def test_a_cancelled_run_cancels_its_jobs(endpoint, coloured, tmp_path, runners):
    endpoint.seconds = 3600.0
    runner = start(runners, coloured(2), endpoint.target(), tmp_path / "out")
    wait_until(lambda: operations(endpoint).count("status") > 4)
    for word in ("Draining", "Cancelling"):
        runner.send(signal.SIGINT)
        runner.until(word)
    runner.wait()
    assert {job.status for job in endpoint.jobs.values()} == {"CANCELLED"}
    assert [row.status for row in rows_of(tmp_path / "out")] == ["cancelled"] * 2


def test_a_job_that_vanishes_while_it_is_cancelled_stays_open(endpoint, coloured, tmp_path, runners):
    """Its result may have expired, so that counting it as cancelled would pay for it again."""
    endpoint.seconds, plan = 3600.0, coloured(1)
    runner = start(runners, plan, endpoint.target(), tmp_path / "out")
    runner.until("JobSubmitted")
    endpoint.before = lambda operation, _: endpoint.jobs.clear() if operation == "cancel" else None
    for word in ("Draining", "Cancelling"):
        runner.send(signal.SIGINT)
        runner.until(word)
    runner.wait()
    assert open_jobs(tmp_path / "out") == 1
    run = run_on(endpoint, plan, tmp_path / "out")
    assert (run.pending, run.submitted, endpoint.jobs) == (1, 0, {})


def test_a_status_never_seen_is_waited_for(endpoint, coloured, tmp_path):
    def decide(operation, request):
        job = endpoint.jobs.get(request.path_params.get("id", ""))
        if operation == "status" and job is not None:
            job.status = "DREAMING" if job.polls < 3 else ""

    endpoint.before = decide
    assert run_on(endpoint, coloured(1), tmp_path / "out").succeeded == 1


def test_memory_is_retried_once_and_what_is_billed_costs(endpoint, coloured, tmp_path):
    text = "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: Allocation on device 0 would exceed"
    text += " allowed memory. (out of memory)"
    endpoint.seconds = 1.0
    endpoint.make_output = lambda _: {"error": "Job processing failed", "details": [text]}
    settings = {"price": {"per_second": "0.001 USD"}}
    run = run_on(endpoint, coloured(1), tmp_path / "out", settings=settings)
    assert (run.failed, len(endpoint.jobs)) == (1, 2)
    (row,) = rows_of(tmp_path / "out")
    assert row.error.startswith("node 3 (KSampler): Allocation on device 0")
    assert run.cost.high == 2000


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (None, "RunPod completed the job without its pictures"),
        ({"images": [], "errors": ["Error uploading x.png to S3: denied"]}, "Error uploading x.png to S3: denied"),
        ({"error": "Workflow validation failed:\n• Node 2 (errors): [{'type': 'x', 'message': 'Required input is "
          "missing', 'details': 'images'}]\n• Node 2 (class_type): SaveImage"},
         "node 2: Required input is missing, images"),
    ],
    ids=["nothing", "errors", "validation"],
)  # fmt: skip
def test_a_failed_job_fails_its_trial_once(endpoint, coloured, tmp_path, output, error):
    endpoint.make_output = lambda _: dict(output) if output else output
    run = run_on(endpoint, coloured(1), tmp_path / "out")
    assert (run.failed, len(endpoint.jobs)) == (1, 1)
    assert rows_of(tmp_path / "out")[0].error.startswith(error)


# --- sizes, keys, addresses


def test_a_too_large_submission_is_foretold_and_its_refusal_says_why(endpoint, coloured, tmp_path):
    plan, heard = coloured(2, upload=True), []
    (tmp_path / "coloured" / "photo.png").write_bytes(paint_png(1) + bytes(8_000_000))
    plan = sweeper.load(plan.file)
    endpoint.max_bytes = 10 * 2**20
    run = run_on(endpoint, plan, tmp_path / "out", heard=heard)
    size = "the submission has 10.7 MB with its files as Base64, and RunPod accepts 10 MB; make its pictures smaller"
    assert notices(heard)[0].startswith(f"pod: 2 trials: {size}")
    assert (run.failed, len(endpoint.jobs)) == (2, 0)
    error = rows_of(tmp_path / "out")[0].error
    assert error.startswith("RunPod rejects the submission (HTTP 400): body: exceeded max body size")
    assert size in error


def test_a_wrong_key_or_address_stops_the_run(endpoint, coloured, tmp_path, monkeypatch):
    with pytest.raises(UnreachableError, match=r"write `url: https://api\.runpod\.ai/v2/ENDPOINT_ID`"):
        run_on(endpoint, coloured(1), tmp_path / "out", settings={"url": f"{endpoint.url}/run"})
    monkeypatch.setenv("RUNPOD_KEY", "wrong")
    with pytest.raises(RefusedError, match=r"refuses the key .* from the variable RUNPOD_KEY \(`api_key_env`\)"):
        run_on(endpoint, coloured(1), tmp_path / "out")
