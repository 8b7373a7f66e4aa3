"""Whatever JSON a server sends, the readers give a value or raise one of our errors, in bounded time."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.comfy.dialects import detect_dialect, make_dialect
from sweeper.comfy.event_stream import EventStream, read_preview
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.model_files import query_classes
from sweeper.comfy.protocol import (
    JobSearch,
    JobSubmission,
    ServerResponse,
    parse_json,
    read_error_message,
    read_retry_after,
)
from sweeper.comfy.responses import MAX_OUTPUTS, query_server_info, read_outputs
from sweeper.errors import MAX_MESSAGE_LENGTH, SweeperError, TransientError

GRAPH = {"1": {"class_type": "Paint", "inputs": {"text": "a"}}}
JOB = "0d0c2b5e-7f1c-4c3f-9b52-5f5c8a4a1f11"
# The words that the readers look for, so that random values reach the code behind them.
WORDS = (
    "prompt_id", "id", "status", "state", "error", "message", "details", "type", "node_errors", "errors",
    "class_type", "extra_info", "input_name", "outputs", "images", "filename", "subfolder", "workflow", "prompt",
    "inputs", "filename_prefix", "queue_running", "queue_pending", "jobs", "messages", "status_str",
    "execution_status", "execution_error", "execution_success", "success", "completed", "failed", "error", "pending",
    "in_progress", "exception_type", "exception_message", "node_id", "node_type", "create_time", "update_time",
    "execution_start_time", "system", "devices", "comfyui_version", "argv", "python_version", "name", "ver",
    "enabled", "data", "node", "value", "max", "executing", "progress", "timestamp", "execution_interrupted",
    "max_upload_size", "total", "pagination", "has_more",
)  # fmt: skip
KEYS = st.sampled_from([*WORDS, JOB, "1", "9" * 5000]) | st.text(max_size=4)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, *WORDS, JOB])
    | st.text(st.characters(), max_size=6) | st.just("\ud800")
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)
BODIES = st.binary(max_size=30) | VALUES.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [b"[" * 100_000, b'{"jobs":' * 5000, b"9" * 5000, b'"\\ud800"', b"\xff\xfe", b"", b"[" * 150 + b"]" * 150]
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location", "content-length", "content-type"]),
    st.text(max_size=12)
    | st.sampled_from(["nan", "1e999", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 32 Foo 99999999999"]),
)
RESPONSES = st.builds(ServerResponse, st.sampled_from([200, 200, 200, 302, 400, 404, 429, 500]), HEADERS, BODIES)
SEARCH = JobSearch(JOB, "f" * 64, 1e9, 1e9, lambda _: False)


_STATM = Path("/proc/self/statm")
_HEADROOM = 400 << 20  # bytes that these tests may take beyond what the process has


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """An answer that takes more memory raises MemoryError, which is not one of our errors, so the test fails."""
    if not _STATM.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _HEADROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def flows(name):
    dialect = make_dialect(name)
    return {
        "handshake": dialect.handshake,
        "submit": lambda: dialect.submit(JobSubmission(JOB, GRAPH)),
        "get_job": lambda: dialect.get_job(JOB),
        "find_submission": lambda: dialect.find_submissions([SEARCH]),
        "cancel": lambda: dialect.cancel(frozenset([JOB])),
        "upload": lambda: dialect.upload("a.png", b"x"),
        "has_file": lambda: dialect.has_file("a.png", 3),
        "get_object_info": lambda: query_classes(dialect.request_classes()),
        "get_features": dialect.get_features,
        "server_info": lambda: query_server_info(name),
        "detect": detect_dialect,
    }


@pytest.mark.parametrize("flow", flows("cloud"))
@pytest.mark.parametrize("name", ["cloud", "comfyui", "v2"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(responses=st.lists(RESPONSES, min_size=1, max_size=6))
def test_readers_of_answers_raise_nothing_but_our_errors(name, flow, responses):
    running = flows(name)[flow]()
    try:
        next(running)
        for response in (responses * 4)[:16]:
            running.send(response)
    except StopIteration:
        message = ""
    except SweeperError as error:
        message = str(error)
    else:
        message = ""
    assert len(message) < 2 * MAX_MESSAGE_LENGTH


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(response=RESPONSES)
def test_headers_and_error_texts_raise_nothing(response):
    read_retry_after(response)
    assert len(read_error_message(response)) <= MAX_MESSAGE_LENGTH


class _Client:
    class target:  # noqa: N801
        url = "http://127.0.0.1:1"


EVENTS = st.fixed_dictionaries({
    "type": st.sampled_from(["executing", "progress", "execution_start", "execution_success", "status"]) | VALUES,
    "data": VALUES | st.fixed_dictionaries({"prompt_id": st.just(JOB) | VALUES, "node": VALUES | st.just("1"),
                                            "value": SCALARS, "max": SCALARS}),
})  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(EVENTS, max_size=4), frame=st.binary(max_size=40))
def test_events_and_previews_raise_nothing(events, frame):
    steps = []
    stream = EventStream(_Client())
    with stream.listen(JOB, Listener(lambda *step: steps.append(step))) as listener:
        for event in events:
            try:
                message = parse_json(json.dumps(event))
            except ValueError:
                continue
            stream._handle_message(message)
        stream._handle_preview(frame)
        listener.node_seconds()
    read_preview(b"\0\0\0\4" + frame)
    assert all(isinstance(number, float) and not math.isnan(number) for _, *numbers in steps for number in numbers)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000, b"[" * 500 + b"]" * 500, b"[[]," * 4_000_000, b"[" + b"0," * 6_000_000 + b"0]", b"9" * 5000,
        b'{"a":' * 300 + b"1" + b"}" * 300, b"\xed\xa0\x80", b"[" + b"[[]]," * 5_000_000 + b"0]",
    ],
    ids=["open", "deep", "many lists", "many numbers", "long number", "deep objects", "half a surrogate", "large"],
)  # fmt: skip
def test_json_that_would_take_the_memory_or_the_stack_is_an_error(text):
    began = time.process_time()
    with pytest.raises(TransientError, match="is not JSON"):
        ServerResponse(200, {}, text).json_object()
    assert time.process_time() - began < 10


def test_half_a_surrogate_pair_becomes_a_question_mark_and_an_emoji_stays():
    assert parse_json(rb'{"\ud800a": ["\ud83d\ude00", 18446744073709551615]}') == {
        "?a": ["\N{GRINNING FACE}", 2**64 - 1]
    }


def test_node_ids_with_any_number_of_digits_sort_by_their_value():
    names = ["9" * 5000, "10", "2", "1:9", "a", "1", "010"]
    outputs = read_outputs({name: {"images": [{"filename": "f.png"}]} for name in names})
    assert [output.node for output in outputs] == ["1", "1:9", "2", "10", "010", "9" * 200, "a"]


@pytest.mark.parametrize("name", ["cloud", "comfyui", "v2"])
def test_job_with_more_files_than_the_limit_fails_with_the_reason(name):
    files = [{"filename": f"{number}.png", "name": "f.png", "id": f"{number}"} for number in range(30_000)]
    job = {"status": "succeeded", "outputs": files}
    if name != "v2":
        job = {"status": "completed", "outputs": {"2": {"images": files}}}
    state = drive(make_dialect(name).get_job(JOB), [job])
    assert (state.state, state.outputs) == ("failed", ())
    assert f"more than {MAX_OUTPUTS:,} output files" in state.error


def drive(running, answers):
    next(running)
    try:
        for answer in answers:
            running.send(ServerResponse(200, {}, json.dumps(answer).encode()))
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the flow asks for more answers")
