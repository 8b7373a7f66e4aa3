"""The flows of the dialect of API v2: three kinds of hosts, what they refuse, assets, and finding a lost job."""

from __future__ import annotations

import pytest
from blake3 import blake3

from sweeper.comfy.jobs_api import add_marker, fingerprint
from sweeper.comfy.protocol import JobSearch, JobSubmission, KnownJob, QueueFull
from sweeper.comfy.v2 import V2Dialect
from sweeper.errors import RefusedError, RejectedError, TransientError, UnreachableError
from tests.comfy.test_dialects import GRAPH, JOB, answer, drive, outcome

DEPLOYMENT = {"jobs": []}
PROXY = {"jobs": [], "truncated": False}
JOB_TIME = "2026-11-26T10:00:00+00:00"
INTENDED = 1795687200.0  # the same


def error(code, status, message="m", details=None, **headers):
    return answer({"error": {"code": code, "message": message, "details": details}}, status, **headers)


def connect(listing, status=200, *more):
    dialect = V2Dialect()
    answered = answer(listing, status) if status == 200 else listing
    assert outcome(dialect.handshake(), answered, *more).dialect == "v2"
    return dialect


def cloud():
    return connect(error("not_implemented", 501), 501, answer({"status": "active"}))


def search(job=JOB, known=()):
    return JobSearch(job, fingerprint(GRAPH), INTENDED, INTENDED + 5, lambda one: one in known, INTENDED)


@pytest.mark.parametrize(
    ("make", "label"),
    [(lambda: connect(DEPLOYMENT), {"sweeper_job": JOB}), (lambda: connect(PROXY), JOB), (cloud, None)],
    ids=["deployment", "proxy", "cloud"],
)
def test_a_submission_has_the_jobs_id_as_its_idempotency_key(make, label):
    extra = {"api_key_comfy_org": "k", "preview_method": "auto"}  # the API refuses other fields of extra_data
    (request,), prompt_id = drive(make().submit(JobSubmission(JOB, GRAPH, "client", extra)), answer({"id": "x"}, 201))
    assert (prompt_id, request.path, request.idempotent) == ("x", "/api/v2/jobs", False)
    assert dict(request.headers) == {"Idempotency-Key": JOB}
    assert request.body == {"workflow": GRAPH, "extra_data": {"api_key_comfy_org": "k"}} | (
        {} if label is None else {"metadata": label}
    )


def test_a_host_that_lists_no_jobs_is_not_used():
    for refusal in (error("public_deployment_no_list", 403), answer(b"Method Not Allowed", 405), answer(b"", 404)):
        with pytest.raises(UnreachableError, match=r"lists no jobs .* use a deployment of your own"):
            outcome(V2Dialect().handshake(), refusal)
    with pytest.raises(RefusedError, match="the deployment is stopped; start it"):
        outcome(V2Dialect().handshake(), error("deployment_stopped", 422))
    with pytest.raises(RefusedError, match="refuses the key"):
        outcome(V2Dialect().handshake(), error("unauthorized", 401))
    with pytest.raises(TransientError) as caught:
        outcome(V2Dialect().handshake(), error("deployment_not_ready", 429, **{"retry-after": "7"}))
    assert caught.value.retry_after == 7
    with pytest.raises(RefusedError, match="refuses the key"):  # Comfy Cloud checks the key with its older API
        outcome(V2Dialect().handshake(), error("not_implemented", 501), answer({"message": "no"}, 401))


def test_refusals_of_a_submission():
    def submit(response):
        return outcome(V2Dialect().submit(JobSubmission(JOB, GRAPH)), response)

    for code in ("queue_full", "deployment_not_ready"):
        full = submit(error(code, 429, **{"retry-after": "3"}))
        assert isinstance(full, QueueFull)
        assert (full.retry_after, full.may_be_accepted) == (3, False)
    assert submit(error("upstream_unreachable", 503)).may_be_accepted
    assert submit(error("idempotency_key_reuse", 422)) == KnownJob()  # it must be searched for
    with pytest.raises(RefusedError, match="start it, then run again") as stopped:
        submit(error("deployment_stopped", 422))
    assert (stopped.value.is_account_problem, stopped.value.is_final) == (False, True)
    with pytest.raises(RefusedError) as broke:
        submit(error("insufficient_credits", 402))
    assert broke.value.is_account_problem
    errors = {"9": {"class_type": "SaveImage", "errors": [{"message": "Required input is missing", "details": "images",
                                                          "extra_info": {"input_name": "images"}}]}}  # fmt: skip
    for details, text in (
        ({"node_errors": errors}, "node 9 (SaveImage) images: Required input is missing"),
        ({"node_errors": {"9": [{"field": "images", "reason": "missing_input"}]}}, "Node 9: no images"),
        (None, "Node 9: no images"),
    ):
        with pytest.raises(RejectedError) as caught:
            submit(error("invalid_workflow", 422, "Node 9: no images", details))
        assert (str(caught.value), caught.value.may_be_accepted) == (text, False)
    with pytest.raises(RejectedError) as gateway:
        submit(answer(b"<html>Unprocessable</html>", 422))
    assert gateway.value.may_be_accepted


def test_states_of_a_job():
    def state_of(**job):
        return outcome(V2Dialect().get_job("x"), answer({"status": "succeeded", **job}))

    for status, state in {
        "queued": "queued", "running": "running", "canceling": "running", "canceled": "cancelled", "expired": "lost",
        "resting": "underway",
    }.items():  # fmt: skip
        assert state_of(status=status).state == state
    assert state_of(status="queued", queue_position=3).queue_position == 3
    assert outcome(V2Dialect().get_job("x"), error("not_found", 404)).state == "lost"
    with pytest.raises(TransientError, match="not as a server answers"):
        outcome(V2Dialect().get_job("x"), answer(b"<html>no route</html>", 404))
    outputs = [
        {"id": "b", "name": "b.png", "node_id": "10", "type": "image"},
        {"id": "a", "name": "a.png", "node_id": "9", "type": "image"},
        {"id": "c", "name": "c.png", "node_id": "9", "type": "image"},
        {"id": 7, "name": "d.png", "node_id": "9"},
    ]
    done = state_of(outputs=outputs, completed_at=JOB_TIME, metrics={"execution_ms": 2500})
    assert [(output.node, output.kind, output.position, output.subfolder) for output in done.outputs] == [
        ("9", "images", 0, "a"), ("9", "images", 1, "c"), ("10", "images", 0, "b"),
    ]  # fmt: skip
    assert (done.started, done.ended) == (INTENDED - 2.5, INTENDED)
    assert V2Dialect().view_request(done.outputs[0]).path == "/api/v2/assets/a/content"
    details = {"code": "node_execution_error", "message": "full", "node_id": "3", "class_type": "KSampler"}
    failed = state_of(status="failed", error={**details, "traceback": "Traceback\n  x\ntorch.OutOfMemoryError: full"})
    assert (failed.error_type, failed.error) == ("torch.OutOfMemoryError", "node 3 (KSampler): full")
    frames = '  File "a.py", line 1, in f\n    raise OSError(x)\n'
    lines = state_of(status="failed", error={**details, "traceback": f"{frames}OSError: two\nlines: of text\n"})
    assert lines.error_type == "OSError"
    assert state_of(status="failed", error=details).error_type == "node_execution_error"
    assert state_of(status="failed", error={**details, "code": "insufficient_credits"}).account_advice


def test_a_job_is_found_by_its_label():
    rows = [{"id": "p", "create_time": JOB_TIME, "metadata": {}},
            {"id": "q", "create_time": JOB_TIME, "metadata": {"sweeper_job": JOB}}]  # fmt: skip
    (request,), found = drive(connect(DEPLOYMENT).find_submissions([search()]), answer({"jobs": rows}))
    assert found == {JOB: "q"}
    assert request.query["metadata[sweeper_job]"] == JOB
    texts = [{"id": "q", "created_at": JOB_TIME, "metadata": JOB}]
    assert outcome(connect(PROXY).find_submissions([search()]), answer({**PROXY, "jobs": texts})) == {JOB: "q"}
    assert outcome(connect(PROXY).find_submissions([search()]), answer(PROXY)) == {JOB: None}


def test_a_full_page_of_the_proxy_leaves_the_outcome_unknown():
    rows = [{"id": f"p{n}", "created_at": JOB_TIME, "metadata": ""} for n in range(100)]
    pages = answer({**PROXY, "jobs": rows[:10]}), answer({**PROXY, "jobs": rows})
    requests, found = drive(connect(PROXY).find_submissions([search()]), *pages)
    assert ([request.query["limit"] for request in requests], found) == (["10", "100"], {})
    rows[9]["created_at"] = "2026-11-26T09:00:00Z"  # older than the intent, so no job of ours is missing
    pages = (answer({**PROXY, "jobs": rows[:10]}),)
    assert outcome(connect(PROXY).find_submissions([search()]), *pages) == {JOB: None}


def test_the_workflow_decides_where_the_list_shows_no_labels():
    rows = [{"id": name, "create_time": JOB_TIME} for name in ("known", "theirs", "ours")]
    theirs = {"workflow": add_marker(GRAPH, "e", "f" * 16), "format": "api"}
    ours = {"workflow": add_marker(GRAPH, "e", JOB), "format": "api"}
    pages = [answer({"jobs": rows[:2], "next_cursor": "c"}), answer(theirs), answer({"jobs": rows[2:]}), answer(ours)]
    requests, found = drive(V2Dialect().find_submissions([search(known=["known"])]), *pages)
    assert found == {JOB: "ours"}
    assert [request.path for request in requests] == [
        "/api/v2/jobs", "/api/v2/jobs/theirs/workflow", "/api/v2/jobs", "/api/v2/jobs/ours/workflow",
    ]  # fmt: skip
    assert requests[2].query["cursor"] == "c"
    hidden = answer({"jobs": rows[1:2]}), error("not_found", 404)
    assert outcome(V2Dialect().find_submissions([search()]), *hidden) == {}


def test_a_list_without_an_end_is_not_followed_for_ever():
    rows = [{"id": "p", "create_time": JOB_TIME, "metadata": {}}] * 5000
    flow = V2Dialect().find_submissions([search()])
    next(flow)
    page = answer({"jobs": rows, "next_cursor": "c"})
    for _ in range(19):
        flow.send(page)
    with pytest.raises(TransientError, match="does not end after 100,000 rows"):
        flow.send(page)


def test_comfy_cloud_is_searched_by_its_older_list():
    requests, _ = drive(cloud().find_submissions([search()]), answer({"jobs": [], "pagination": {"has_more": False}}))
    assert [request.path for request in requests] == ["/api/jobs"]


def test_content_that_the_server_has_is_not_uploaded():
    digest, info = f"blake3:{blake3(b'photo').hexdigest()}", {"id": "a"}
    reference = {"__type": "core/ASSET", "info": {"id": "a", "hash": digest, "file_path": "p.png"}}
    has, served = answer(b"", 200), answer(b"p", 206, **{"content-range": "bytes 0-0/5"})
    requests, value = drive(V2Dialect().upload("p.png", b"photo"), has, answer(info), served)
    assert value == reference
    assert [(request.method, request.path) for request in requests] == [
        ("HEAD", f"/api/v2/assets/by-hash/{digest}"), ("POST", "/api/v2/assets/from-hash"),
        ("GET", "/api/v2/assets/a/content"),
    ]  # fmt: skip
    # The proxy knows the hash, but its ComfyUI has lost the file.
    responses = has, answer(info), error("output_unavailable", 404), answer(b"", 204), answer({"id": "b"}, 201)
    requests, value = drive(V2Dialect().upload("p.png", b"photo"), *responses)
    assert value["info"]["id"] == "b"
    assert requests[3].method == "DELETE"
    assert dict(requests[4].upload.fields)["expected_hash"] == digest
    with pytest.raises(RejectedError, match=r"input file p.png: the server rejects it \(HTTP 413\): m"):
        outcome(V2Dialect().upload("p.png", b"photo"), answer(b"", 404), error("payload_too_large", 413))


def test_a_file_counts_only_if_the_server_serves_it():
    value = {"__type": "core/ASSET", "info": {"id": "a"}}
    for status, header, has in (
        (206, "bytes 0-0/5", True),
        (206, "bytes 0-0/6", False),
        (302, "", True),
        (404, "", False),
    ):
        response = answer(b"", status, **{"content-range": header, "location": "https://x/y"})
        assert outcome(V2Dialect().has_file(value, 5), response) is has
    assert outcome(V2Dialect().has_file("photo.png", 5)) is False  # an upload that another dialect recorded
