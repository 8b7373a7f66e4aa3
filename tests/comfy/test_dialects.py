"""The flows of the dialects, driven with prepared responses and without a network."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.comfy.cloud import CloudDialect
from sweeper.comfy.comfyui import ComfyUIDialect
from sweeper.comfy.dialects import DialectProbe
from sweeper.comfy.job_marker import add_marker, fingerprint, read_markers, strip_marker, to_slug
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
    requests = [next(flow), flow.send(answer(body)), flow.send(answer(b""))]
    requests.append(flow.send(answer({"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []})))
    assert [(request.method, request.path, request.body) for request in requests[1:]] == [
        ("POST", "/queue", {"delete": [JOB]}),
        ("GET", "/queue", None),
        ("POST", "/interrupt", {"prompt_id": JOB}),
    ]
    with pytest.raises(RejectedError, match=r"node 9 \(SaveImage\)"):
        flow.send(answer(b""))


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
        (answer({"message": "Your subscription is inactive"}, 429), RefusedError),
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


# --- polling


def history(kind, outputs=None, **data):
    messages = [
        ["execution_start", {"prompt_id": JOB, "timestamp": 1795526746271}],
        [kind, {"prompt_id": JOB, "timestamp": 1795526746771, **data}],
    ]
    # ComfyUI may leave the previous job's status_str, so only the last message counts.
    status = {"status_str": "error", "completed": False, "messages": messages}
    return {JOB: {"prompt": [], "outputs": outputs or {}, "status": status}}


def test_comfyui_polls_the_queue_before_the_history():
    requests, state = drive(
        ComfyUIDialect().get_job(JOB, thorough=True), answer({"queue_running": [], "queue_pending": []}), answer({})
    )
    assert [request.path for request in requests] == ["/queue", f"/history/{JOB}"]
    assert state.state == "lost"


@pytest.mark.parametrize(("location", "state"), [("queue_running", "running"), ("queue_pending", "queued")])
def test_comfyui_finds_a_job_in_the_queue(location, state):
    queue = {"queue_running": [], "queue_pending": [], location: [[4, JOB, {}, {}, ["9"]]]}
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=True), answer(queue)).state == state


def test_quick_poll_never_returns_lost():
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer({})).state == "underway"


def test_success_has_outputs_and_times():
    images = [{"filename": "a.png", "subfolder": "s", "type": "output"}]
    state = outcome(
        ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_success", {"9": {"images": images}}))
    )
    assert state.state == "succeeded"
    assert state.outputs == (JobOutput("9", "images", 0, "a.png", "s", "output"),)
    assert (state.started, state.ended) == (1795526746.271, 1795526746.771)


def test_last_message_distinguishes_interrupted_from_failed():
    assert (
        outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_interrupted"))).state
        == "cancelled"
    )
    details = {"node_id": "3", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "bad\n"}
    state = outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_error", **details)))
    assert (state.state, state.error_type, state.error) == ("failed", "ValueError", "node 3 (KSampler): bad")


@pytest.mark.parametrize(
    ("status", "state"),
    [("submitted", "queued"), ("executing", "running"), ("negotiating", "underway"), ("cancelled", "cancelled"),
     ("lost", "lost"), ("waiting_to_dispatch", "queued"), ("cancel_requested", "running")],
)  # fmt: skip
def test_cloud_status_values_map_to_states(status, state):
    assert outcome(CloudDialect().get_job("x", thorough=True), answer({"id": "x", "status": status})).state == state


def test_reported_success_is_confirmed_by_details_else_by_status():
    requests, state = drive(
        CloudDialect().get_job("x", thorough=True, success_reported=True),
        answer({"status": "completed", "outputs": {}}),
    )
    assert (state.state, [request.path for request in requests]) == ("succeeded", ["/api/jobs/x"])
    for details in (answer({"status": "in_progress"}), answer({"error": "not found"}, 404)):
        requests, state = drive(
            CloudDialect().get_job("x", thorough=True, success_reported=True), details, answer({"status": "executing"})
        )
        assert (state.state, requests[-1].path) == ("running", "/api/job/x/status")


def test_job_is_underway_while_cloud_details_lag_behind():
    flow = CloudDialect().get_job("x", thorough=True)
    assert outcome(flow, answer({"status": "success"}), answer({"status": "in_progress"})).state == "underway"
    flow = CloudDialect().get_job("x", thorough=True)
    assert outcome(flow, answer({"status": "success"}), answer({"error": "not found"}, 404)).state == "underway"


def test_every_record_with_a_filename_is_an_output():
    outputs = {
        "12": {"gifs": [{"filename": "b.mp4"}], "text": ["hello"], "broken": [{"filename": 3}, None], "n": 4},
        "9": {"audio": [{"filename": "a.flac", "subfolder": None, "type": "temp"}]},
        "8": None,
    }
    detail = {"status": "completed", "outputs": outputs, "execution_start_time": 1795526746271,
              "execution_end_time": 1795526747271}  # fmt: skip
    state = outcome(CloudDialect().get_job("x", thorough=True), answer({"status": "success"}), answer(detail))
    assert state.outputs == (
        JobOutput("9", "audio", 0, "a.flac", "", "temp"),
        JobOutput("12", "gifs", 0, "b.mp4", "", "output"),
    )
    assert (state.started, state.ended) == (1795526746.271, 1795526747.271)


# --- finding a submission with an unknown outcome

SEARCH = JobSearch(
    JOB, fingerprint(GRAPH), intended_at=1000.0, now=1010.0, is_known=lambda prompt_id: prompt_id == "known"
)


def listing(*rows):
    return answer({"jobs": [{"id": name, "status": "pending", "create_time": time} for name, time in rows]})


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
    found = outcome(
        CloudDialect().find_submission(SEARCH),
        listing(("known", 1009), ("other", 1005), ("mine", 1002)),
        answer({"workflow": {"prompt": {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": 1}}}}}),
        answer({"workflow": workflow}),
    )
    assert found == "mine"


def test_job_with_another_marker_is_not_ours():
    theirs = add_marker(GRAPH, "x", "ffffffffffff")
    assert (
        outcome(CloudDialect().find_submission(SEARCH), listing(("theirs", 1002)), answer({"workflow": theirs})) is None
    )


def test_details_of_jobs_older_than_the_intent_are_not_requested():
    requests, found = drive(CloudDialect().find_submission(SEARCH), listing(("old", 50)))
    assert (len(requests), found) == (1, None)


def test_creation_times_are_corrected_by_the_servers_clock():
    # By its Date header, the server's clock is an hour behind ours, and so is the creation time of our job.
    response = listing(("mine", 1003 - 3600))
    late = ServerResponse(200, {"date": "Wed, 31 Dec 1969 23:16:50 GMT"}, response.content)
    assert outcome(CloudDialect().find_submission(SEARCH), late, answer({"workflow": GRAPH})) == "mine"


def test_running_job_without_workflow_leaves_the_outcome_unknown():
    with pytest.raises(TransientError, match="may be the sought one"):
        drive(CloudDialect().find_submission(SEARCH), listing(("x", 1002)), answer({"status": "in_progress"}))


def test_comfyui_finds_a_submission_by_our_prompt_id():
    queue = {"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []}
    assert outcome(ComfyUIDialect().find_submission(SEARCH), answer(queue)) == JOB
    empty = {"queue_running": [], "queue_pending": []}
    nothing = [answer(empty), answer({})]
    assert outcome(ComfyUIDialect().find_submission(SEARCH), *nothing, *nothing) is None


@pytest.mark.parametrize("location", ["queue_running", "queue_pending", "history"])
def test_marker_finds_a_job_on_a_server_that_assigns_ids(location):
    item = [1, "theirs", add_marker(GRAPH, "x", JOB), {}, []]
    other = [2, "other", add_marker(GRAPH, "x", "0" * 36), {}, []]
    empty = {"queue_running": [], "queue_pending": []}
    history = {"other": {"prompt": other}, "theirs": {"prompt": item}} if location == "history" else {}
    queue = empty if location == "history" else {**empty, location: [other, item]}
    requests, found = drive(
        ComfyUIDialect().find_submission(SEARCH), answer(empty), answer({}), answer(queue), answer(history)
    )
    assert found == "theirs"
    assert [(request.path, dict(request.query)) for request in requests][-1] == ("/history", {"max_items": "64"})


@pytest.mark.parametrize("body", [{}, {"queue_running": []}, {"queue_running": {}, "queue_pending": []}])
def test_malformed_queue_does_not_make_a_job_lost(body):
    with pytest.raises(TransientError, match="not a queue"):
        drive(ComfyUIDialect().get_job(JOB, thorough=True), answer(body))


def test_malformed_history_or_listing_does_not_make_a_job_lost():
    with pytest.raises(TransientError, match="not the history"):
        drive(ComfyUIDialect().get_job(JOB, thorough=False), answer({"detail": "try again"}))
    with pytest.raises(TransientError, match="not a listing"):
        drive(CloudDialect().find_submission(SEARCH), answer({}))
    with pytest.raises(TransientError, match="not JSON"):
        drive(CloudDialect().get_job(JOB, thorough=True), answer(b"<html>no such page</html>", 404))
    assert outcome(CloudDialect().get_job(JOB, thorough=True), answer({"message": "no such job"}, 404)).state == "lost"


def test_queued_job_names_the_running_job():
    queue = {"queue_running": [[1, "first", {}, {}, []]], "queue_pending": [[2, JOB, {}, {}, []]]}
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=True), answer(queue)) == JobState(
        "queued", running_job="first"
    )


# --- cancelling


def test_cloud_interrupts_only_if_every_running_job_is_ours():
    running = answer({"jobs": [{"id": "a", "status": "in_progress"}, {"id": "b", "status": "in_progress"}]})
    requests, _ = drive(CloudDialect().cancel(frozenset({"a"})), answer({}), running)
    assert [request.path for request in requests] == ["/api/queue", "/api/jobs"]
    requests, _ = drive(CloudDialect().cancel(frozenset({"a", "b", "c"})), answer({}), running, answer({}))
    assert [request.path for request in requests] == ["/api/queue", "/api/jobs", "/api/interrupt"]
    assert requests[0].body == {"delete": ["a", "b", "c"]}


@pytest.mark.parametrize(("ours", "interrupts"), [({"a", "b"}, True), ({"a"}, False), (set(), False)])
def test_cloud_interrupts_only_if_every_waiting_job_is_ours(ours, interrupts):
    listed = answer({"jobs": [{"id": "a", "status": "in_progress"}, {"id": "b", "status": "pending"}]})
    responses = [answer({}), listed, *([answer({})] if interrupts else [])]
    requests, _ = drive(CloudDialect().cancel(frozenset({"a"}), frozenset(ours)), *responses)
    assert (requests[-1].path == "/api/interrupt") == interrupts


@pytest.mark.parametrize("running", ["theirs", None])
def test_comfyui_interrupts_only_our_running_job(running):
    queue = {"queue_running": [[1, running, {}, {}, []]] if running else [], "queue_pending": []}
    requests, _ = drive(ComfyUIDialect().cancel(frozenset({JOB})), answer(b""), answer(queue))
    assert [request.path for request in requests] == ["/queue", "/queue"]


# --- probing


def test_probe_detects_the_dialect():
    assert outcome(DialectProbe().detect(), answer({"system": {"argv": []}, "devices": []})) == "comfyui"
    assert outcome(DialectProbe().detect(), answer(b"", 404), answer({"error": "key"}, 401)) == "cloud"
    with pytest.raises(UnreachableError):
        drive(DialectProbe().detect(), answer(b"<html>"), answer(b"<html>"))


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
    dialect = data.draw(st.sampled_from([CloudDialect(), ComfyUIDialect()]))
    flow = data.draw(
        st.sampled_from([
            lambda: dialect.get_job(JOB, thorough=True),
            lambda: dialect.submit(JobSubmission(JOB, GRAPH)),
            lambda: dialect.find_submission(SEARCH),
            lambda: dialect.cancel(frozenset({JOB})),
            lambda: dialect.upload("a.png", b""),
            dialect.handshake,
        ])
    )  # fmt: skip
    with suppress(RefusedError, RejectedError, TransientError, UnreachableError):
        drive(flow(), *[answer(body, status) for status, body in responses], *[answer(b"", 401)] * 9)
