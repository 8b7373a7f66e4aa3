"""The flows of the dialects, driven with prepared responses and without a network."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.comfy.comfyui import CloudDialect, ComfyUIDialect
from sweeper.comfy.dialects import detect_dialect
from sweeper.comfy.jobs_api import add_marker, fingerprint, read_markers, strip_marker, to_slug
from sweeper.comfy.protocol import JobOutput, JobSearch, JobState, JobSubmission, QueueFull, ServerResponse
from sweeper.errors import RefusedError, RejectedError, TransientError, UnreachableError

GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 2**64 - 1, "cfg": 7.0}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "ComfyUI"}},
}
JOB = "0123456789abcdef"


def answer(body, status=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ServerResponse(status, headers, content)


def drive(flow, *responses):
    """Run a flow with these responses; return its requests and its outcome."""
    requests = []
    pending = iter(responses)
    try:
        request = next(flow)
        while True:
            requests.append(request)
            request = flow.send(next(pending))
    except StopIteration as stop:
        return requests, stop.value


def outcome(flow, *responses):
    return drive(flow, *responses)[1]


# --- submitting


def test_comfyui_gets_our_prompt_id_and_no_empty_extra_data():
    (request,), prompt_id = drive(
        ComfyUIDialect().submit(JobSubmission(JOB, GRAPH, "client")),
        answer({"prompt_id": JOB, "number": 3, "node_errors": {}}),
    )
    assert prompt_id == JOB
    assert request.body == {"prompt": GRAPH, "prompt_id": JOB, "client_id": "client"}
    assert not request.idempotent


def test_cloud_assigns_the_prompt_id():
    (request,), prompt_id = drive(CloudDialect().submit(JobSubmission(JOB, GRAPH)), answer({"prompt_id": "theirs"}))
    assert prompt_id == "theirs"
    assert request.path == "/api/prompt"
    assert "prompt_id" not in request.body


def test_rejection_message_lists_node_errors_in_order():
    body = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
                  "details": "", "extra_info": {}},
        "node_errors": {
            "10": {"errors": [{"type": "required_input_missing", "message": "Required input is missing",
                               "details": "images", "extra_info": {"input_name": "images"}}],
                   "dependent_outputs": ["10"], "class_type": "SaveImage"},
            "3": {"errors": [
                {"type": "value_smaller_than_min", "message": "Value 0 smaller than min of 1", "details": "steps",
                 "extra_info": {"input_name": "steps"}},
                {"type": "value_not_in_list", "message": "Value not in list",
                 "details": "sampler_name: 'nope' not in ['euler']", "extra_info": {"input_name": "sampler_name"}}],
                  "dependent_outputs": ["9"], "class_type": "KSampler"}}}  # fmt: skip
    with pytest.raises(RejectedError) as caught:
        drive(ComfyUIDialect().submit(JobSubmission(JOB, GRAPH)), answer(body, 400))
    assert str(caught.value) == (
        "node 3 (KSampler) sampler_name: 'nope' not in ['euler']; "
        "node 3 (KSampler) steps: Value 0 smaller than min of 1; "
        "node 10 (SaveImage) images: Required input is missing"
    )


def test_200_with_node_errors_is_rejected_and_cancelled():
    flow = ComfyUIDialect().submit(JobSubmission(JOB, GRAPH))
    body = {"prompt_id": JOB, "number": 1, "node_errors": {"9": {"errors": [], "class_type": "SaveImage"}}}
    requests = [next(flow), flow.send(answer(body))]
    assert (requests[-1].method, requests[-1].path) == ("POST", f"/api/jobs/{JOB}/cancel")
    with pytest.raises(RejectedError, match=r"node 9 \(SaveImage\)"):
        flow.send(answer({"cancelled": True}))


@pytest.mark.parametrize("dialect", [CloudDialect(), ComfyUIDialect()], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("status", [403, 404, 502])
def test_200_with_node_errors_is_rejected_although_the_cancellation_fails(dialect, status):
    body = {"prompt_id": JOB, "number": 1, "node_errors": {"9": {"errors": [], "class_type": "SaveImage"}}}
    with pytest.raises(RejectedError) as caught:
        drive(dialect.submit(JobSubmission(JOB, GRAPH)), answer(body), answer(b"<html>", status))
    assert not caught.value.may_be_accepted


def test_unknown_class_is_reported_although_node_errors_are_empty():
    error = {"type": "invalid_prompt", "message": "Cannot execute because node Nope does not exist.",
             "details": "Node ID '#3'", "extra_info": {}}  # fmt: skip
    with pytest.raises(RejectedError) as caught:
        drive(CloudDialect().submit(JobSubmission(JOB, GRAPH)), answer({"error": error, "node_errors": {}}, 400))
    assert str(caught.value) == "Cannot execute because node Nope does not exist. Node ID '#3'"


@pytest.mark.parametrize("dialect", [CloudDialect(), ComfyUIDialect()], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(b"", 401), RefusedError),
        (answer({"error": {"message": "no credits"}}, 402), RefusedError),
        (answer(b"", 403), RefusedError),
        (answer(b"500 Internal Server Error", 500), TransientError),
        (answer(b"", 502), TransientError),
        (answer(b'{"prompt_i'), TransientError),
        (answer({}), TransientError),
        (answer([]), TransientError),
        (answer(b"too large", 413), RejectedError),
        (answer(b"<html>", 404), UnreachableError),
    ],
)
def test_each_failed_submission_raises_its_error(dialect, response, error):
    with pytest.raises(error):
        drive(dialect.submit(JobSubmission(JOB, GRAPH)), response)


@pytest.mark.parametrize("status", [429, 503])
def test_429_and_503_mean_that_the_queue_is_full(status):
    response = ServerResponse(status, {"retry-after": "7"}, b'{"error": {"message": "queue full"}}')
    assert outcome(CloudDialect().submit(JobSubmission(JOB, GRAPH)), response) == QueueFull(
        f"HTTP {status}: queue full", 7.0, may_be_accepted=status == 503
    )


BILLING = [
    (402, "PAYMENT_REQUIRED"), (402, "CLOUD_SUBSCRIPTION_REQUIRED"), (402, "FREE_TIER_EXHAUSTED"),
    (402, "PARTNER_NODE_PAYMENT_REQUIRED"), (402, "MODEL_PAYMENT_REQUIRED"), (402, "A_NEW_WORD"),
    (403, "PARTNER_NODE_DISABLED"), (429, "PAYMENT_REQUIRED"), (429, "FREE_TIER_UNAVAILABLE"),
    (429, "FREE_TIER_EXHAUSTED"), (429, "PARTNER_NODE_PAYMENT_REQUIRED"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), BILLING)
def test_refusal_of_the_account_goes_by_its_type_and_says_what_to_do(status, kind):
    error = {"type": kind, "message": "The queue is not the reason.", "class_types": ["LumaVideo", "Kling"]}
    with pytest.raises(RefusedError) as caught:
        drive(CloudDialect().submit(JobSubmission(JOB, GRAPH)), answer({"error": error}, status))
    assert caught.value.is_account_problem
    assert not caught.value.may_be_accepted
    start = f"the account cannot run this job (HTTP {status}, {kind}): The queue is not the reason (LumaVideo, Kling); "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("then run the same command again, which keeps all finished trials")


@pytest.mark.parametrize("kind", ["QUEUE_LIMIT", "BILLING_UNAVAILABLE"])
def test_429_that_is_not_about_payment_is_waited_for(kind):
    body = json.dumps({"error": {"type": kind, "message": "no payment, no subscription"}}).encode()
    response = ServerResponse(429, {"retry-after": "3"}, body)
    answered = outcome(CloudDialect().submit(JobSubmission(JOB, GRAPH)), response)
    assert answered == QueueFull("HTTP 429: no payment, no subscription", 3.0)


def test_previews_are_requested_from_a_comfyui_if_somebody_watches():
    for watched in (True, False):
        sent = JobSubmission(JOB, GRAPH, extra_data={"k": 1}, wants_previews=watched)
        (request,), _ = drive(ComfyUIDialect().submit(sent), answer({"prompt_id": JOB}))
        assert request.body["extra_data"] == ({"k": 1, "preview_method": "auto"} if watched else {"k": 1})


# --- connecting


def test_cloud_says_how_many_jobs_run_at_once_and_lists_imported_models():
    server = outcome(CloudDialect().handshake(), answer({"status": "active"}), answer({"max_concurrent_jobs": 3}))
    assert server.max_jobs == 3
    for nothing in (answer({}), answer({"max_concurrent_jobs": -1}), answer({}, 404)):
        assert outcome(CloudDialect().handshake(), answer({"status": "active"}), nothing).max_jobs is None
    request = CloudDialect().request_classes()
    assert request is not None
    assert request.query == {"include_user_models": "true"}


# --- polling


def history(kind, outputs=None, **data):
    messages = [
        ["execution_start", {"prompt_id": JOB, "timestamp": 1795526746271}],
        [kind, {"prompt_id": JOB, "timestamp": 1795526746771, **data}],
    ]
    # ComfyUI may leave the previous job's status_str, so only the last message counts.
    status = {"status_str": "error", "completed": False, "messages": messages}
    return {JOB: {"prompt": [], "outputs": outputs or {}, "status": status}}


def details(status="completed", kind="execution_success", outputs=None, **data):
    """The details of a job of which `kind` is the last message, as a ComfyUI and Comfy Cloud show them."""
    return {"id": JOB, "status": status, "create_time": 1795526746000, "outputs": outputs or {},
            "execution_status": history(kind, **data)[JOB]["status"]}  # fmt: skip


def make_old_comfyui():
    """The dialect after the handshake with a server that lacks the calls below /api/jobs, as 0.3.64 does."""
    dialect = ComfyUIDialect()
    stats = answer({"system": {"comfyui_version": "0.3.64"}})
    requests, _ = drive(dialect.handshake(), stats, answer(b"405: Method Not Allowed", 405))
    assert (requests[-1].path, requests[-1].body) == ("/api/jobs/cancel", {"job_ids": []})
    return dialect


DIALECTS = [CloudDialect(), ComfyUIDialect()]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@every_dialect
@pytest.mark.parametrize(
    ("status", "state"),
    [("pending", "queued"), ("in_progress", "running"), ("negotiating", "underway"), ("cancelled", "cancelled")],
)
def test_one_request_says_the_state_of_a_job(dialect, status, state):
    requests, answered = drive(dialect.get_job(JOB), answer({"id": JOB, "status": status}))
    assert ([request.path for request in requests], answered.state) == ([f"/api/jobs/{JOB}"], state)


@every_dialect
def test_unknown_job_is_lost_unless_a_gateway_says_so(dialect):
    for body in ({"error": "Job not found"}, {"code": "not_found", "message": "Job not found"}):
        assert outcome(dialect.get_job(JOB), answer(body, 404)).state == "lost"
    pages = (b"<html>no such page</html>", {"detail": "Not Found"}, {"message": "no Route matched"}, {})
    for body in (*pages, {"error": "Not Found", "status": 404, "path": "/api/jobs"}, {"error": {"code": 404}}):
        with pytest.raises(TransientError, match=r"not JSON|not as a server answers"):
            drive(dialect.get_job(JOB), answer(body, 404))


@every_dialect
def test_running_job_says_when_it_started(dialect):
    state = outcome(dialect.get_job(JOB), answer({"status": "in_progress", "execution_start_time": 1795526746271}))
    assert state == JobState("running", started=1795526746.271)


def test_waiting_job_says_why_and_where():
    waiting = {"status": "pending", "queue_reason": "concurrency_limit", "queue_position": 3}
    state = outcome(CloudDialect().get_job(JOB), answer(waiting))
    assert state == JobState("queued", queue_reason="concurrency_limit", queue_position=3)
    nothing = {"status": "pending", "queue_reason": None, "queue_position": None}
    assert outcome(CloudDialect().get_job(JOB), answer(nothing)) == JobState("queued")


@every_dialect
def test_every_record_with_a_filename_is_an_output(dialect):
    outputs = {
        "12": {"gifs": [{"filename": "b.mp4"}], "text": ["hello"], "broken": [{"filename": 3}, None], "n": 4},
        "9": {"audio": [{"filename": "a.flac", "subfolder": None, "type": "temp"}]},
        "8": None,
    }
    times = {"execution_start_time": 1795526746271, "execution_end_time": 1795526747271}
    state = outcome(dialect.get_job(JOB), answer(details(outputs=outputs) | times))
    assert state.outputs == (
        JobOutput("9", "audio", 0, "a.flac", "", "temp"),
        JobOutput("12", "gifs", 0, "b.mp4", "", "output"),
    )
    assert (state.started, state.ended) == (1795526746.271, 1795526747.271)


@every_dialect
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_error_in_the_details_goes_before_the_status(dialect, status):
    error = {"node_id": "3", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "bad\n"}
    expected = ("failed", "ValueError", "node 3 (KSampler): bad")
    for answered in (details(status, "execution_error", **error), {"status": status, "execution_error": error}):
        state = outcome(dialect.get_job(JOB), answer(answered))
        assert (state.state, state.error_type, state.error) == expected
    assert outcome(dialect.get_job(JOB), answer(details(status, "execution_interrupted"))).state == "cancelled"


def test_old_comfyui_is_polled_by_queue_and_history():
    nothing = answer({"queue_running": [], "queue_pending": []})
    requests, state = drive(make_old_comfyui().get_job(JOB), nothing, answer({}))
    assert [request.path for request in requests] == ["/queue", f"/history/{JOB}"]
    assert state.state == "lost"
    images = [{"filename": "a.png", "subfolder": "s", "type": "output"}]
    ended = answer(history("execution_success", {"9": {"images": images}}))
    state = outcome(make_old_comfyui().get_job(JOB), nothing, ended)
    assert state.state == "succeeded"
    assert state.outputs == (JobOutput("9", "images", 0, "a.png", "s", "output"),)
    assert (state.started, state.ended) == (1795526746.271, 1795526746.771)


@pytest.mark.parametrize(("location", "state"), [("queue_running", "running"), ("queue_pending", "queued")])
def test_old_comfyui_shows_a_job_in_its_queue(location, state):
    queue = {"queue_running": [], "queue_pending": [], location: [[4, JOB, {}, {}, ["9"]]]}
    assert outcome(make_old_comfyui().get_job(JOB), answer(queue)).state == state


def test_last_message_of_an_old_history_decides():
    nothing = answer({"queue_running": [], "queue_pending": []})
    interrupted = outcome(make_old_comfyui().get_job(JOB), nothing, answer(history("execution_interrupted")))
    assert interrupted.state == "cancelled"
    error = {"node_id": "3", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "bad\n"}
    state = outcome(make_old_comfyui().get_job(JOB), nothing, answer(history("execution_error", **error)))
    assert (state.state, state.error_type, state.error) == ("failed", "ValueError", "node 3 (KSampler): bad")


# --- finding a submission with an unknown outcome

SEARCH = JobSearch(
    JOB, fingerprint(GRAPH), intended_at=1000.0, now=1010.0, is_known=lambda prompt_id: prompt_id == "known"
)


def listing(*rows, **pagination):
    rows = [{"id": name, "status": "pending", "create_time": time} for name, time in rows]
    return answer({"jobs": rows, "pagination": {"has_more": False} | pagination})


def find(dialect, *responses):
    """Search for SEARCH; return the requests and the answers by job id."""
    return drive(dialect.find_submissions([SEARCH]), *responses)


@pytest.mark.parametrize(
    "workflow",
    [
        add_marker(GRAPH, "x", JOB),
        {"prompt": add_marker(GRAPH, "x", JOB), "extra_data": {}},
        GRAPH,
        json.loads(json.dumps(GRAPH).replace("7.0", "7")),
        [3, "id", GRAPH, {}, ["9"]],
    ],
    ids=["marked", "wrapped", "bare", "numbers re-written", "queue item"],
)
def test_cloud_finds_a_submission_by_its_workflow(workflow):
    _, found = find(
        CloudDialect(),
        listing(("known", 1009), ("other", 1005), ("mine", 1002)),
        answer({"workflow": {"prompt": {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": 1}}}}}),
        answer({"workflow": workflow}),
    )
    assert found == {JOB: "mine"}


def test_job_with_another_marker_is_not_ours():
    theirs = add_marker(GRAPH, "x", "ffffffffffff")
    assert find(CloudDialect(), listing(("theirs", 1002)), answer({"workflow": theirs}))[1] == {JOB: None}


@pytest.mark.parametrize(
    ("age", "began_at", "created", "is_settled"),
    [
        (14.9, 1010.0, 1009.0, False),  # newer than the intent, but the sought job may be newer still
        (14.9, 1010.0, 1011.9, False),  # the Date header has whole seconds, so this may be older than the search
        (14.9, 1010.0, 1013.0, True),
        (14.9, None, 1013.0, False),
        (15.0, None, 1009.0, True),
    ],
)
def test_a_list_of_cloud_that_may_lag_proves_nothing(age, began_at, created, is_settled):
    search = dataclasses.replace(SEARCH, age=age, began_at=began_at)
    found = outcome(CloudDialect().find_submissions([search]), listing(("known", created)))
    assert found == ({JOB: None} if is_settled else {})
    assert outcome(ComfyUIDialect().find_submissions([search]), listing(("known", created))) == {JOB: None}


def test_details_of_jobs_older_than_the_intent_are_not_requested():
    requests, found = find(CloudDialect(), listing(("old", 50)))
    assert (len(requests), found) == (1, {JOB: None})


def test_creation_times_are_corrected_by_the_servers_clock():
    # By its Date header, the server's clock is an hour behind ours, and so is the creation time of our job.
    response = listing(("mine", 1003 - 3600))
    late = ServerResponse(200, {"date": "Wed, 31 Dec 1969 23:16:50 GMT"}, response.content)
    assert find(CloudDialect(), late, answer({"workflow": GRAPH}))[1] == {JOB: "mine"}


def test_running_job_without_workflow_leaves_the_outcome_unknown():
    assert find(CloudDialect(), listing(("x", 1002)), answer({"status": "in_progress"}))[1] == {}


@pytest.mark.parametrize(
    ("dialect", "pagination", "pages"),
    [
        (CloudDialect(), {"next_cursor": "c1"}, [{}, {"after": "c1"}]),
        (ComfyUIDialect(), {"offset": 0, "total": 3}, [{}, {"offset": "2"}]),
    ],
    ids=["cloud", "comfyui"],
)
def test_listing_is_read_by_cursor_else_by_offset(dialect, pagination, pages):
    first = listing(("known", 1009), ("known", 1008), has_more=True, **pagination)
    requests, found = find(dialect, first, listing((JOB, 1002)))
    assert found == {JOB: JOB}
    sort = {"sort_by": "create_time", "sort_order": "desc"} if dialect.name == "cloud" else {"sort_by": "created_at"}
    assert [request.query for request in requests] == [{"limit": "100", **sort, **page} for page in pages]


def test_listing_that_repeats_a_page_for_ever_ends():
    flow = CloudDialect().find_submissions([SEARCH])
    next(flow)
    page = listing(*[("known", 1009)] * 1000, has_more=True, next_cursor="same")
    for _ in range(99):
        flow.send(page)
    with pytest.raises(TransientError, match="does not end"):
        flow.send(page)


def test_comfyui_needs_no_details_because_it_keeps_our_ids():
    others = listing(("theirs", 1005), ("old", 5))
    requests, found = find(ComfyUIDialect(), others)
    assert ([request.path for request in requests], found) == (["/api/jobs"], {JOB: None})


def test_comfyui_behind_a_gateway_that_assigns_ids_is_searched_as_cloud():
    dialect = ComfyUIDialect()
    assert outcome(dialect.submit(JobSubmission("f" * 32, GRAPH)), answer({"prompt_id": "other"})) == "other"
    assert find(dialect, listing(("mine", 1002)), answer({"workflow": {"prompt": GRAPH}}))[1] == {JOB: "mine"}
    assert find(dialect, listing(("x", 1002)), answer({"status": "pending"}))[1] == {}


def test_old_comfyui_finds_a_submission_by_our_prompt_id():
    queue = {"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []}
    assert find(make_old_comfyui(), answer(queue))[1] == {JOB: JOB}
    empty = {"queue_running": [], "queue_pending": []}
    assert find(make_old_comfyui(), answer(empty), answer(history("execution_success")))[1] == {JOB: JOB}
    assert find(make_old_comfyui(), answer(empty), answer({}), answer({}))[1] == {JOB: None}


@pytest.mark.parametrize("location", ["queue_running", "queue_pending", "history"])
def test_marker_finds_a_job_on_an_old_server_that_assigns_ids(location):
    item = [1, "theirs", add_marker(GRAPH, "x", JOB), {}, []]
    other = [2, "other", add_marker(GRAPH, "x", "0" * 36), {}, []]
    empty = {"queue_running": [], "queue_pending": []}
    if location == "history":
        entries = {"other": {"prompt": other}, "theirs": {"prompt": item}}
        requests, found = find(make_old_comfyui(), answer(empty), answer({}), answer(entries))
        assert (requests[-1].path, requests[-1].query) == ("/history", {"max_items": "64"})
    else:
        _, found = find(make_old_comfyui(), answer({**empty, location: [other, item]}))
    assert found == {JOB: "theirs"}


@pytest.mark.parametrize("body", [{}, {"queue_running": []}, {"queue_running": {}, "queue_pending": []}])
def test_malformed_queue_does_not_make_a_job_lost(body):
    with pytest.raises(TransientError, match="not a queue"):
        drive(make_old_comfyui().get_job(JOB), answer(body))


def test_malformed_history_or_listing_does_not_make_a_job_lost():
    nothing = answer({"queue_running": [], "queue_pending": []})
    with pytest.raises(TransientError, match="not the history"):
        drive(make_old_comfyui().get_job(JOB), nothing, answer({"detail": "try again"}))
    for dialect in DIALECTS:
        with pytest.raises(TransientError, match="not a listing"):
            find(dialect, answer({}))


# --- cancelling


@every_dialect
def test_jobs_are_cancelled_together_or_else_one_by_one(dialect):
    requests, _ = drive(dialect.cancel(frozenset({"b", "a"})), answer({"cancelled": ["a"]}))
    assert [(request.path, request.body) for request in requests] == [("/api/jobs/cancel", {"job_ids": ["a", "b"]})]
    for status in (400, 404):  # one of them is unknown, and Cloud cancels none
        refused = [answer({"error": "no such job"}, status)] * 3
        requests, _ = drive(dialect.cancel(frozenset({"b", "a"})), *refused)
        assert [request.path for request in requests[1:]] == ["/api/jobs/a/cancel", "/api/jobs/b/cancel"]


def test_no_more_than_a_hundred_jobs_are_cancelled_at_once():
    ids = frozenset(f"{number:03}" for number in range(201))
    requests, _ = drive(CloudDialect().cancel(ids), *[answer({"cancelled": []})] * 3)
    assert [len(request.body["job_ids"]) for request in requests[:2]] == [100, 100]
    assert requests[2].path == "/api/jobs/200/cancel"


@pytest.mark.parametrize("running", ["theirs", None])
def test_old_comfyui_interrupts_only_our_running_job(running):
    queue = {"queue_running": [[1, running, {}, {}, []]] if running else [], "queue_pending": []}
    requests, _ = drive(make_old_comfyui().cancel(frozenset({JOB})), answer(b""), answer(queue))
    assert [request.path for request in requests] == ["/queue", "/queue"]
    queue = {"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []}
    requests, _ = drive(make_old_comfyui().cancel(frozenset({JOB})), answer(b""), answer(queue), answer(b""))
    assert (requests[-1].path, requests[-1].body) == ("/interrupt", {"prompt_id": JOB})


# --- probing


def test_probe_detects_the_dialect():
    assert outcome(detect_dialect(), answer({"system": {"argv": []}, "devices": []})) == "comfyui"
    assert outcome(detect_dialect(), answer(b"", 404), answer({"error": "key"}, 401)) == "cloud"
    refusals = [answer({"error": {"code": "some_reason", "message": "no"}}, status) for status in (401, 503)]
    for listing in (answer({"jobs": []}), *refusals):
        assert outcome(detect_dialect(), answer(b"", 404), answer(b"", 404), listing) == "v2"
    for listing in (answer(b"<html>"), answer(b"", 401), answer({})):
        with pytest.raises(UnreachableError, match="has no API v2"):
            drive(detect_dialect(), answer(b"<html>"), answer(b"<html>"), listing)


# --- the job marker

names = st.text(max_size=30)
graphs = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"class_type": names, "inputs": st.dictionaries(st.sampled_from(["filename_prefix", "a"]), names)}
    ),
    max_size=4,
)


@given(graphs, names)
def test_stripping_the_marker_restores_the_graph(graph, experiment):
    changed = add_marker(graph, experiment, JOB)
    assert strip_marker(changed) == strip_marker(graph)
    assert fingerprint(changed) == fingerprint(graph)
    if any("filename_prefix" in node["inputs"] for node in graph.values()):
        assert JOB[:8] in read_markers(changed)


@given(st.text(), st.integers(1, 60))
def test_slug_is_short_and_plain(text, limit):
    slug = to_slug(text, limit)
    assert len(slug) <= limit
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not slug.startswith("-")


# --- incomplete and hostile responses

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["status", "outputs", "messages", JOB, "jobs", "queue_running", "prompt_id", "node_errors",
                         "error", "9", "images", "filename", "workflow", "execution_error", "id", "create_time"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])  # drawing nested values is slow on a busy machine
@given(st.lists(st.tuples(st.sampled_from([200, 400, 404, 429, 500]), json_values), min_size=8, max_size=8), st.data())
def test_any_response_gives_an_outcome_or_our_error(responses, data):
    dialect = data.draw(st.sampled_from([*DIALECTS, make_old_comfyui()]))
    flow = data.draw(
        st.sampled_from([
            lambda: dialect.get_job(JOB),
            lambda: dialect.submit(JobSubmission(JOB, GRAPH)),
            lambda: dialect.find_submissions([SEARCH]),
            dialect.list_running,
            lambda: dialect.cancel(frozenset({JOB})),
            lambda: dialect.upload("a.png", b""),
            dialect.handshake,
        ])
    )  # fmt: skip
    with suppress(RefusedError, RejectedError, TransientError, UnreachableError):
        drive(flow(), *[answer(body, status) for status, body in responses], *[answer(b"", 401)] * 9)
