"""The flows of RunPod's dialect: what a submission has, what its answers mean, and how errors read."""

from __future__ import annotations

import base64
import json

import pytest

from sweeper.comfy.protocol import JobSubmission, QueueFull
from sweeper.comfy.runpod import MAX_RUN_BYTES, RunPodDialect
from sweeper.errors import LostError, RefusedError, RejectedError, TransientError, UnreachableError
from tests.comfy.test_dialects import GRAPH, JOB, answer, drive, outcome

PICTURE = base64.b64encode(b"picture").decode()
HEALTH = {"jobs": {"inQueue": 2}, "workers": {"idle": 0, "running": 0}}


def submit(*responses, graph=GRAPH, extra=()):
    return drive(RunPodDialect().submit(JobSubmission(JOB, graph, "client", dict(extra))), *responses)


def state_of(status="COMPLETED", **job):
    return outcome(RunPodDialect().get_job("x"), answer({"id": "x", "status": status, **job}))


def completed(*images, **output):
    return state_of(output={"images": list(images), **output})


def test_only_an_endpoints_health_connects():
    assert outcome(RunPodDialect().handshake(), answer(HEALTH)).dialect == "runpod"
    for wrong in (answer(b"404 page not found", 404), answer(b"", 405)):
        with pytest.raises(UnreachableError, match=r"write `url: https://api\.runpod\.ai/v2/ENDPOINT_ID`"):
            outcome(RunPodDialect().handshake(), wrong)
    with pytest.raises(UnreachableError, match="not that of a RunPod endpoint"):
        outcome(RunPodDialect().handshake(), answer({"status": "ok"}))
    with pytest.raises(RefusedError, match="refuses the key"):
        outcome(RunPodDialect().handshake(), answer({"error": "Unauthorized"}, 401))
    assert RunPodDialect().auth_headers("k") == {"Authorization": "Bearer k"}


def test_a_submission_names_its_files_by_job_and_node():
    before = json.dumps(GRAPH)
    graph = {**GRAPH, "a:4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "sweeper/e/01234567/sub/x"}}}
    (request,), job_id = submit(answer({"id": "r-u1", "status": "IN_QUEUE"}), graph=graph)
    assert (job_id, request.method, request.path, request.idempotent) == ("r-u1", "POST", "/run", False)
    sent = request.body["input"]["workflow"]
    assert sent["9"]["inputs"]["filename_prefix"] == "01234567+9+ComfyUI"
    assert sent["a:4"]["inputs"]["filename_prefix"] == "sweeper/e/01234567/sub/01234567+a%3A4+x"
    assert (json.dumps(GRAPH), set(request.body["input"])) == (before, {"workflow"})


def test_a_submission_contains_the_files_that_its_workflow_names():
    dialect, files = RunPodDialect(), {}
    for name in ("a.png", "b.png"):
        requests, files[name] = drive(dialect.upload(name, name.encode()))
        assert requests == []  # nothing is sent before the submission
    nodes = {name: {"class_type": "LoadImage", "inputs": {"image": value}} for name, value in files.items()}
    nodes["again"] = nodes["a.png"]
    (request,), _ = submit(answer({"id": "r"}), graph=nodes, extra={"api_key_comfy_org": "partner", "preview": "x"})
    assert json.loads(json.dumps(request.body["input"])) == {
        "workflow": {name: {"class_type": "LoadImage", "inputs": {"image": "a.png" if name == "again" else name}}
                     for name in nodes},
        "images": [{"name": name, "image": base64.b64encode(name.encode()).decode()} for name in ("a.png", "b.png")],
        "comfy_org_api_key": "partner",
    }  # fmt: skip
    assert not outcome(dialect.has_file("a.png", 5))


@pytest.mark.parametrize("seconds", [None, 7.0])
def test_a_throttled_submission_is_a_full_queue(seconds):
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    _, full = submit(answer({"error": "Too Many Requests"}, 429, **headers))
    assert isinstance(full, QueueFull)
    assert (full.retry_after, full.may_be_accepted) == (seconds, False)


def test_refusals_of_a_submission_are_told_from_lost_answers():
    for status in (400, 413, 422):
        with pytest.raises(RejectedError, match=rf"RunPod rejects the submission \(HTTP {status}\): too bad$"):
            submit(answer({"error": "too bad"}, status))
    with pytest.raises(RefusedError):
        submit(answer({"error": "Unauthorized"}, 401))
    with pytest.raises(RefusedError, match="add credits in RunPod's console") as broke:
        submit(answer({"error": "payment required"}, 402))
    assert broke.value.is_account_problem
    with pytest.raises(UnreachableError):
        submit(answer(b"", 404))
    lost = [answer(b"<html>", status) for status in (200, 302, 408, 409, 500, 502, 503, 504, 524)]
    for response in (*lost, answer({"id": ""}), answer({"id": 7}), answer([])):
        with pytest.raises(TransientError, match="has no id") as caught:
            submit(response)
        assert caught.value.sent  # so the outcome is unknown


def test_a_refused_large_submission_says_its_size_and_the_limit():
    file = outcome(RunPodDialect().upload("a.png", b"x" * MAX_RUN_BYTES))
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": file}}}
    with pytest.raises(RejectedError) as caught:
        submit(answer({"error": "exceeded max body size of 10MiB"}, 400), graph=graph)
    size = "the submission has 13.3 MB with its files as Base64, and RunPod accepts 10 MB; make its pictures smaller"
    assert f"exceeded max body size of 10MiB; {size}" in str(caught.value)


def test_states_of_a_job():
    for status, state in {
        "IN_QUEUE": "queued", "IN_PROGRESS": "running", "RUNNING": "running", "CANCELLED": "cancelled",
        "PAUSED_BY_MOONLIGHT": "underway", "": "underway",
    }.items():  # fmt: skip
        assert state_of(status).state == state
    for unknown in (answer({"error": "request does not exist"}, 404), answer({"error": "request does not exist"}, 400),
                    answer({"error": "request does not exist"}), answer(b"404 page not found", 404)):  # fmt: skip
        assert outcome(RunPodDialect().get_job("x"), unknown).state == "lost"
    (request,), _ = drive(RunPodDialect().get_job("../../run"), answer({"status": "IN_QUEUE"}))
    assert request.path == "/status/..%2F..%2Frun"
    for hostile in (None, 7, [], {"a": 1}):
        assert state_of(hostile).state == "underway"
        assert completed(hostile).state == "succeeded"
        assert state_of(output=hostile).state == "failed"
        assert state_of("FAILED", error=hostile, output=hostile).state == "failed"
        assert state_of("FAILED", output={"details": hostile}).state == "failed"


def test_an_answer_has_the_files_and_the_seconds_of_a_job():
    images = [
        {"filename": "01234567+10+x_00001_.png", "type": "s3_url", "data": "https://bucket.example/x?sig=1"},
        {"filename": "01234567+a%3A4+x_00001_.png", "type": "base64", "data": f"data:image/png;base64,{PICTURE}"},
        {"filename": "01234567+9+x_00001_.png", "type": "base64", "data": PICTURE},
        {"filename": "01234567+9+x_00002_.png", "type": "base64", "data": "=invalid="},
        {"filename": "other.png", "type": "base64"},
    ]
    done = state_of(output={"images": images}, delayTime=31_618, executionTime=1437)
    assert [(output.node, output.position, output.url, output.content) for output in done.outputs] == [
        ("", 0, "", None), ("9", 0, "", b"picture"), ("9", 1, "", None),
        ("10", 0, "https://bucket.example/x?sig=1", None), ("a:4", 0, "", b"picture"),
    ]  # fmt: skip
    assert done.seconds == (31.618, 1.437)
    with pytest.raises(LostError, match=r"RunPod keeps no files, .* no valid Base64 for 'other\.png'"):
        RunPodDialect().view_request(done.outputs[0])
    for times in ({"executionTime": -1}, {"executionTime": "1"}, {"executionTime": 1e300}, {"delayTime": 5},
                  {"executionTime": 1, "delayTime": None}):  # fmt: skip
        assert state_of(output={"images": []}, **times).seconds is None
    assert state_of(output={"images": []}, executionTime=500).seconds == (0.0, 0.5)


def test_a_completed_job_without_all_its_pictures_has_failed():
    nothing = completed()
    assert (nothing.state, nothing.outputs) == ("succeeded", ())  # the workflow saves nothing
    for output in (None, {}, "text", {"error": ""}, {"message": PICTURE}):
        failed = state_of(output=output)
        assert failed.state == "failed"
        assert "without its pictures" in failed.error
        assert "BUCKET_ENDPOINT_URL" in failed.error
    failed = completed({"filename": "a.png", "data": PICTURE}, errors=["Error uploading b.png to S3: no", "x"])
    assert (failed.state, failed.error) == ("failed", "Error uploading b.png to S3: no; x")


INVALID = """Workflow validation failed:
• Node 9 (errors): [{'type': 'required_input_missing', 'message': 'Required input is missing', 'details': 'images', \
'extra_info': {'input_name': 'images'}}]
• Node 9 (dependent_outputs): ['9']
• Node 9 (class_type): SaveImage
• Node 4 (errors): [{'type': 'value_not_in_list', 'message': 'Value not in list', 'details': \
"ckpt_name: 'a.safetensors' not in ['b.safetensors']", 'extra_info': {'received_value': 'a.safetensors'}}]

Available checkpoint models: b.safetensors"""


def test_errors_of_a_failed_job():
    invalid = state_of("FAILED", error=INVALID, executionTime=9)
    assert (invalid.error_type, invalid.seconds) == ("RejectedError", (0.0, 0.009))
    assert invalid.error == (
        "node 9: Required input is missing, images; "
        "node 4: Value not in list, ckpt_name: 'a.safetensors' not in ['b.safetensors']"
    )
    text = "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: Allocation on device would exceed"
    memory = state_of("FAILED", error="Job processing failed", output={"details": [f"{text} allowed memory"]})
    assert (memory.failed_node, memory.error) == (
        "3", "node 3 (KSampler): Allocation on device would exceed allowed memory",
    )  # fmt: skip
    raised = json.dumps({"error_type": "<class 'torch.OutOfMemoryError'>", "error_message": "full"})
    assert (state_of("FAILED", error=raised).error_type, state_of("FAILED", error=raised).error) == (
        "torch.OutOfMemoryError", "full",
    )  # fmt: skip
    late = state_of("TIMED_OUT", error="job timed out after 1 retries")
    assert (late.state, late.error_type) == ("failed", "TimedOutError")
    assert late.error.endswith("raise the endpoint's execution timeout (job timed out after 1 retries)")
    assert state_of("FAILED", error="boom").error == "boom"


@pytest.mark.timeout(20)
def test_a_hostile_error_is_read_in_reasonable_time():
    for text in ("Node Type: " * 40_000, "Node 1 (errors): " + "'message': '" * 40_000, "• " * 200_000,
                 "Node Type: a, Node ID: b" * 20_000, "{" * 100_000, "\\" * 100_000):  # fmt: skip
        assert len(state_of("FAILED", error=text, output={"details": [text] * 20}).error) <= 4000


def test_cancel_asks_for_our_jobs_alone():
    flow = RunPodDialect().cancel(frozenset(["b", "a/x"]))
    requests, _ = drive(flow, answer({"status": "CANCELLED"}), answer({"error": "request does not exist"}, 404))
    sent = [(request.method, request.path) for request in requests]
    assert sent == [("POST", "/cancel/a%2Fx"), ("POST", "/cancel/b")]
