"""Flows without a network: each is handed the answers that a server gave, and asked what it makes of them."""

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


def drive(flow, *replies):
    """The requests that a flow made, and its outcome."""
    asks = []
    pending = iter(replies)
    try:
        ask = next(flow)
        while True:
            asks.append(ask)
            ask = flow.send(next(pending))
    except StopIteration as stop:
        return asks, stop.value


def outcome(flow, *replies):
    return drive(flow, *replies)[1]


# --- submitting


def test_comfyui_is_sent_our_own_id_and_never_an_empty_extra_data():
    (ask,), prompt_id = drive(
        ComfyUIDialect().submit(JobSubmission(JOB, GRAPH, "client")),
        answer({"prompt_id": JOB, "number": 3, "node_errors": {}}),
    )
    assert prompt_id == JOB
    assert ask.body == {"prompt": GRAPH, "prompt_id": JOB, "client_id": "client"}
    assert not ask.idempotent


def test_cloud_gives_its_own_id():
    (ask,), prompt_id = drive(CloudDialect().submit(JobSubmission(JOB, GRAPH)), answer({"prompt_id": "theirs"}))
    assert prompt_id == "theirs"
    assert ask.path == "/api/prompt"
    assert "prompt_id" not in ask.body


def test_a_rejection_is_told_from_node_errors_in_order():
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


def test_a_200_with_node_errors_is_rejected_and_what_was_queued_of_it_is_cancelled():
    flow = ComfyUIDialect().submit(JobSubmission(JOB, GRAPH))
    body = {"prompt_id": JOB, "number": 1, "node_errors": {"9": {"errors": [], "class_type": "SaveImage"}}}
    asks = [next(flow), flow.send(answer(body)), flow.send(answer(b""))]
    asks.append(flow.send(answer({"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []})))
    assert [(ask.method, ask.path, ask.body) for ask in asks[1:]] == [
        ("POST", "/queue", {"delete": [JOB]}),
        ("GET", "/queue", None),
        ("POST", "/interrupt", {"prompt_id": JOB}),
    ]
    with pytest.raises(RejectedError, match=r"node 9 \(SaveImage\)"):
        flow.send(answer(b""))


def test_an_unknown_class_is_told_although_node_errors_are_empty():
    error = {"type": "invalid_prompt", "message": "Cannot execute because node Nope does not exist.",
             "details": "Node ID '#3'", "extra_info": {}}  # fmt: skip
    with pytest.raises(RejectedError) as caught:
        drive(CloudDialect().submit(JobSubmission(JOB, GRAPH)), answer({"error": error, "node_errors": {}}, 400))
    assert str(caught.value) == "Cannot execute because node Nope does not exist. Node ID '#3'"


@pytest.mark.parametrize("dialect", [CloudDialect(), ComfyUIDialect()], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("reply", "error"),
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
def test_every_answer_to_a_submission_has_its_error(dialect, reply, error):
    with pytest.raises(error):
        drive(dialect.submit(JobSubmission(JOB, GRAPH)), reply)


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_turned_away_at_the_door_is_no_error(status):
    reply = ServerResponse(status, {"retry-after": "7"}, b'{"error": {"message": "queue full"}}')
    assert outcome(CloudDialect().submit(JobSubmission(JOB, GRAPH)), reply) == QueueFull(
        f"HTTP {status}: queue full", 7.0, may_be_accepted=status == 503
    )


# --- looking


def history(word, outputs=None, **data):
    messages = [
        ["execution_start", {"prompt_id": JOB, "timestamp": 1795526746271}],
        [word, {"prompt_id": JOB, "timestamp": 1795526746771, **data}],
    ]
    # status_str lies in the order of COMFYUI_BEHAVIOUR 9: the last message decides
    status = {"status_str": "error", "completed": False, "messages": messages}
    return {JOB: {"prompt": [], "outputs": outputs or {}, "status": status}}


def test_comfyui_asks_the_queue_before_the_history():
    asks, state = drive(
        ComfyUIDialect().get_job(JOB, thorough=True), answer({"queue_running": [], "queue_pending": []}), answer({})
    )
    assert [ask.path for ask in asks] == ["/queue", f"/history/{JOB}"]
    assert state.state == "lost"


@pytest.mark.parametrize(("place", "state"), [("queue_running", "running"), ("queue_pending", "queued")])
def test_comfyui_finds_a_job_in_the_queue(place, state):
    queue = {"queue_running": [], "queue_pending": [], place: [[4, JOB, {}, {}, ["9"]]]}
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=True), answer(queue)).state == state


def test_a_shallow_look_never_says_lost():
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer({})).state == "underway"


def test_success_brings_outputs_and_times():
    images = [{"filename": "a.png", "subfolder": "s", "type": "output"}]
    state = outcome(
        ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_success", {"9": {"images": images}}))
    )
    assert state.state == "succeeded"
    assert state.outputs == (JobOutput("9", "images", 0, "a.png", "s", "output"),)
    assert (state.started, state.ended) == (1795526746.271, 1795526746.771)


def test_an_interrupted_job_is_told_from_a_failed_one_by_its_last_message():
    assert (
        outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_interrupted"))).state
        == "cancelled"
    )
    details = {"node_id": "3", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "bad\n"}
    state = outcome(ComfyUIDialect().get_job(JOB, thorough=False), answer(history("execution_error", **details)))
    assert (state.state, state.error_type, state.error) == ("failed", "ValueError", "node 3 (KSampler): bad")


@pytest.mark.parametrize(
    ("word", "state"),
    [("submitted", "queued"), ("executing", "running"), ("negotiating", "underway"), ("cancelled", "cancelled"),
     ("lost", "lost"), ("waiting_to_dispatch", "queued"), ("cancel_requested", "running")],
)  # fmt: skip
def test_cloud_words_old_and_new_and_unknown(word, state):
    assert outcome(CloudDialect().get_job("x", thorough=True), answer({"id": "x", "status": word})).state == state


def test_cloud_details_are_asked_first_after_the_word_of_success_and_the_status_decides_where_they_lag():
    asks, state = drive(
        CloudDialect().get_job("x", thorough=True, success_reported=True),
        answer({"status": "completed", "outputs": {}}),
    )
    assert (state.state, [ask.path for ask in asks]) == ("succeeded", ["/api/jobs/x"])
    for details in (answer({"status": "in_progress"}), answer({"error": "not found"}, 404)):
        asks, state = drive(
            CloudDialect().get_job("x", thorough=True, success_reported=True), details, answer({"status": "executing"})
        )
        assert (state.state, asks[-1].path) == ("running", "/api/job/x/status")


def test_cloud_details_that_lag_behind_the_status_are_waited_for():
    flow = CloudDialect().get_job("x", thorough=True)
    assert outcome(flow, answer({"status": "success"}), answer({"status": "in_progress"})).state == "underway"
    flow = CloudDialect().get_job("x", thorough=True)
    assert outcome(flow, answer({"status": "success"}), answer({"error": "not found"}, 404)).state == "underway"


def test_any_list_of_records_with_a_file_name_is_an_output():
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


# --- finding a submission of unknown outcome

SOUGHT = JobSearch(
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
def test_cloud_knows_a_job_again_by_its_workflow(workflow):
    found = outcome(
        CloudDialect().find_submission(SOUGHT),
        listing(("known", 1009), ("other", 1005), ("mine", 1002)),
        answer({"workflow": {"prompt": {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": 1}}}}}),
        answer({"workflow": workflow}),
    )
    assert found == "mine"


def test_a_job_that_bears_another_mark_is_another_runs():
    theirs = add_marker(GRAPH, "x", "ffffffffffff")
    assert (
        outcome(CloudDialect().find_submission(SOUGHT), listing(("theirs", 1002)), answer({"workflow": theirs})) is None
    )


def test_jobs_older_than_the_intent_are_not_opened():
    asks, found = drive(CloudDialect().find_submission(SOUGHT), listing(("old", 50)))
    assert (len(asks), found) == (1, None)


def test_the_servers_own_clock_counts():
    # Date says that the server's clock is an hour behind ours: so is the creation of our job.
    reply = listing(("mine", 1003 - 3600))
    late = ServerResponse(200, {"date": "Wed, 31 Dec 1969 23:16:50 GMT"}, reply.content)
    assert outcome(CloudDialect().find_submission(SOUGHT), late, answer({"workflow": GRAPH})) == "mine"


def test_a_running_job_that_hides_its_workflow_leaves_the_outcome_open():
    with pytest.raises(TransientError, match="may be the one"):
        drive(CloudDialect().find_submission(SOUGHT), listing(("x", 1002)), answer({"status": "in_progress"}))


def test_comfyui_looks_for_our_own_id():
    queue = {"queue_running": [[1, JOB, {}, {}, []]], "queue_pending": []}
    assert outcome(ComfyUIDialect().find_submission(SOUGHT), answer(queue)) == JOB
    empty = {"queue_running": [], "queue_pending": []}
    nothing = [answer(empty), answer({})]
    assert outcome(ComfyUIDialect().find_submission(SOUGHT), *nothing, *nothing) is None


@pytest.mark.parametrize("place", ["queue_running", "queue_pending", "history"])
def test_a_server_that_gives_ids_of_its_own_is_asked_for_our_mark(place):
    item = [1, "theirs", add_marker(GRAPH, "x", JOB), {}, []]
    other = [2, "other", add_marker(GRAPH, "x", "0" * 36), {}, []]
    empty = {"queue_running": [], "queue_pending": []}
    history = {"other": {"prompt": other}, "theirs": {"prompt": item}} if place == "history" else {}
    queue = empty if place == "history" else {**empty, place: [other, item]}
    asks, found = drive(
        ComfyUIDialect().find_submission(SOUGHT), answer(empty), answer({}), answer(queue), answer(history)
    )
    assert found == "theirs"
    assert [(ask.path, dict(ask.query)) for ask in asks][-1] == ("/history", {"max_items": "64"})


@pytest.mark.parametrize("body", [{}, {"queue_running": []}, {"queue_running": {}, "queue_pending": []}])
def test_an_answer_that_is_no_queue_makes_no_job_a_lost_one(body):
    with pytest.raises(TransientError, match="no queue"):
        drive(ComfyUIDialect().get_job(JOB, thorough=True), answer(body))


def test_an_answer_that_is_no_history_or_listing_makes_no_job_a_lost_one():
    with pytest.raises(TransientError, match="no history"):
        drive(ComfyUIDialect().get_job(JOB, thorough=False), answer({"detail": "try again"}))
    with pytest.raises(TransientError, match="no listing"):
        drive(CloudDialect().find_submission(SOUGHT), answer({}))
    with pytest.raises(TransientError, match="not JSON"):
        drive(CloudDialect().get_job(JOB, thorough=True), answer(b"<html>no such page</html>", 404))
    assert outcome(CloudDialect().get_job(JOB, thorough=True), answer({"message": "no such job"}, 404)).state == "lost"


def test_a_queued_job_knows_which_one_the_server_is_at():
    queue = {"queue_running": [[1, "first", {}, {}, []]], "queue_pending": [[2, JOB, {}, {}, []]]}
    assert outcome(ComfyUIDialect().get_job(JOB, thorough=True), answer(queue)) == JobState(
        "queued", running_job="first"
    )


# --- cancelling


def test_cloud_interrupts_only_when_every_running_job_is_ours():
    running = answer({"jobs": [{"id": "a", "status": "in_progress"}, {"id": "b", "status": "in_progress"}]})
    asks, _ = drive(CloudDialect().cancel(frozenset({"a"})), answer({}), running)
    assert [ask.path for ask in asks] == ["/api/queue", "/api/jobs"]
    asks, _ = drive(CloudDialect().cancel(frozenset({"a", "b", "c"})), answer({}), running, answer({}))
    assert [ask.path for ask in asks] == ["/api/queue", "/api/jobs", "/api/interrupt"]
    assert asks[0].body == {"delete": ["a", "b", "c"]}


@pytest.mark.parametrize(("ours", "interrupts"), [({"a", "b"}, True), ({"a"}, False), (set(), False)])
def test_cloud_interrupts_only_when_nobody_elses_job_is_about_to_run(ours, interrupts):
    listed = answer({"jobs": [{"id": "a", "status": "in_progress"}, {"id": "b", "status": "pending"}]})
    replies = [answer({}), listed, *([answer({})] if interrupts else [])]
    asks, _ = drive(CloudDialect().cancel(frozenset({"a"}), frozenset(ours)), *replies)
    assert (asks[-1].path == "/api/interrupt") == interrupts


@pytest.mark.parametrize("running", ["theirs", None])
def test_comfyui_interrupts_only_what_runs_and_is_ours(running):
    queue = {"queue_running": [[1, running, {}, {}, []]] if running else [], "queue_pending": []}
    asks, _ = drive(ComfyUIDialect().cancel(frozenset({JOB})), answer(b""), answer(queue))
    assert [ask.path for ask in asks] == ["/queue", "/queue"]


# --- probing


def test_the_probe_tells_the_dialects_apart():
    assert outcome(DialectProbe().detect(), answer({"system": {"argv": []}, "devices": []})) == "comfyui"
    assert outcome(DialectProbe().detect(), answer(b"", 404), answer({"error": "key"}, 401)) == "cloud"
    with pytest.raises(UnreachableError):
        drive(DialectProbe().detect(), answer(b"<html>"), answer(b"<html>"))


# --- our mark on a graph

names = st.text(max_size=30)
graphs = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"class_type": names, "inputs": st.dictionaries(st.sampled_from(["filename_prefix", "a"]), names)}
    ),
    max_size=4,
)


@given(graphs, names)
def test_a_marked_graph_without_its_mark_is_the_graph(graph, experiment):
    changed = add_marker(graph, experiment, JOB)
    assert strip_marker(changed) == strip_marker(graph)
    assert fingerprint(changed) == fingerprint(graph)
    if any("filename_prefix" in node["inputs"] for node in graph.values()):
        assert JOB[:8] in read_markers(changed)


@given(st.text(), st.integers(1, 60))
def test_a_slug_is_short_and_plain(text, limit):
    found = to_slug(text, limit)
    assert len(found) <= limit
    assert found
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not found.startswith("-")


# --- half and hostile answers

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["status", "outputs", "messages", JOB, "jobs", "queue_running", "prompt_id", "node_errors",
                         "error", "9", "images", "filename", "workflow", "execution_error", "id", "create_time"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine: nested values are drawn
@given(st.lists(st.tuples(st.sampled_from([200, 400, 404, 429, 500]), json_values), min_size=8, max_size=8), st.data())
def test_whatever_a_server_answers_is_an_outcome_or_an_error_of_ours(replies, data):
    dialect = data.draw(st.sampled_from([CloudDialect(), ComfyUIDialect()]))
    flow = data.draw(
        st.sampled_from([
            lambda: dialect.get_job(JOB, thorough=True),
            lambda: dialect.submit(JobSubmission(JOB, GRAPH)),
            lambda: dialect.find_submission(SOUGHT),
            lambda: dialect.cancel(frozenset({JOB})),
            lambda: dialect.upload("a.png", b""),
            dialect.handshake,
        ])
    )  # fmt: skip
    with suppress(RefusedError, RejectedError, TransientError, UnreachableError):
        drive(flow(), *[answer(body, status) for status, body in replies], *[answer(b"", 401)] * 9)
