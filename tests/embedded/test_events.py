"""The event stream: which client gets which events, and in which order, as measured on a real ComfyUI."""

from __future__ import annotations

import io
import json
import logging
import struct
from contextlib import contextmanager

import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.embedded.probes import chain, waiting
from tests.waiting import wait_until


@contextmanager
def stream(client, query="clientId=me", path="/ws"):
    url = client.server.url.replace("http", "ws") + f"{path}?{query}"
    with connect(url, max_size=None, close_timeout=0.1) as socket:
        yield socket


def receive(socket):
    frame = socket.recv(timeout=60)
    return json.loads(frame) if isinstance(frame, str) else frame


def read_until_end(socket, prompt_id):
    """Read all messages up to the last one of this job and three statuses, without the greeting."""
    messages = []
    while True:
        message = receive(socket)
        messages.append(message)
        if message["type"] == "executing" and message["data"] == {"node": None, "prompt_id": prompt_id}:
            return messages


def types(messages):
    """The types of messages, each with its most important detail."""
    words = []
    for message in messages:
        kind, data = message["type"], message["data"]
        if kind == "status":
            words.append(f"status({data['status']['exec_info']['queue_remaining']})")
        elif kind in {"executing", "executed"}:
            words.append(f"{kind}({data['node']})")
        elif kind == "progress":
            words.append(f"progress({data['node']},{data['value']}/{data['max']})")
        elif kind == "progress_state":
            node, state = list(data["nodes"].items())[-1]
            words.append(f"state({node},{state['state']},{state['value']:g}/{state['max']:g})")
        else:
            words.append(kind)
    return words


def test_greeting_contains_queue_length_and_id(comfy):
    with stream(comfy) as socket:
        assert receive(socket) == {
            "type": "status",
            "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"},
        }
    with stream(comfy, query="", path="/api/ws") as socket:
        sid = receive(socket)["data"]["sid"]
        assert len(sid) == 32
        prompt_id = comfy.submit(chain(), client_id=sid)
        assert types(read_until_end(socket, prompt_id))[-1] == "executing(None)"


def test_normal_run_sends_exactly_these_events(comfy):
    with stream(comfy) as socket:
        receive(socket)
        prompt_id = comfy.submit(chain(steps=2), client_id="me")
        messages = read_until_end(socket, prompt_id)
    assert types(messages) == [
        "status(1)", "status(1)", "execution_start", "execution_cached",
        "state(1,running,0/1)", "executing(1)", "state(1,finished,1/1)",
        "state(2,running,0/1)", "executing(2)", "state(2,finished,1/1)",
        "state(3,running,0/1)", "executing(3)",
        "state(3,running,1/2)", "progress(3,1/2)", "state(3,running,2/2)", "progress(3,2/2)",
        "state(3,finished,2/2)",
        "state(4,running,0/1)", "executing(4)", "state(4,finished,1/1)",
        "state(9,running,0/1)", "executing(9)", "executed(9)", "state(9,finished,1/1)",
        "execution_success", "status(0)", "executing(None)",
    ]  # fmt: skip
    by_type = {message["type"]: message["data"] for message in messages}
    assert by_type["execution_start"]["prompt_id"] == prompt_id
    assert by_type["execution_start"]["timestamp"] > 10**12
    assert by_type["execution_cached"]["nodes"] == []
    assert set(by_type["progress_state"]["nodes"]) == {"1", "2", "3", "4", "9"}
    assert by_type["progress_state"]["nodes"]["9"] == {
        "value": 1.0, "max": 1.0, "state": "finished", "node_id": "9", "prompt_id": prompt_id,
        "display_node_id": "9", "parent_node_id": None, "real_node_id": "9",
    }  # fmt: skip
    assert by_type["executed"]["output"]["images"][0]["type"] == "output"


def test_cached_run_sends_exactly_these_events(comfy):
    entry = comfy.run(chain())
    with stream(comfy) as socket:
        receive(socket)
        messages = read_until_end(socket, comfy.submit(chain(), client_id="me"))
    assert types(messages) == [
        "status(1)", "status(1)", "execution_start", "execution_cached", "executed(9)", "state(9,finished,1/1)",
        "execution_success", "status(0)", "executing(None)",
    ]  # fmt: skip
    assert messages[3]["data"]["nodes"] == ["1", "2", "3", "4", "9"]
    assert messages[4]["data"]["output"] == entry["outputs"]["9"]


def test_failing_run_ends_with_its_error(comfy):
    with stream(comfy) as socket:
        receive(socket)
        prompt_id = comfy.submit(chain(fail=True), client_id="me")
        messages = read_until_end(socket, prompt_id)
    assert types(messages)[-5:] == [
        "state(4,running,0/1)", "executing(4)", "execution_error", "status(0)", "executing(None)",
    ]  # fmt: skip
    assert messages[-3]["data"] == comfy.wait_for_end(prompt_id)["status"]["messages"][-1][1]


def test_interrupted_run_ends_with_its_interruption(comfy, gate):
    with stream(comfy) as socket:
        receive(socket)
        prompt_id = comfy.submit(waiting(), client_id="me")
        assert gate.entered.wait(60)
        comfy.http.post("/interrupt", json={"prompt_id": prompt_id})
        messages = read_until_end(socket, prompt_id)
    assert types(messages)[-4:] == ["executing(5)", "execution_interrupted", "status(0)", "executing(None)"]
    assert set(messages[-3]["data"]) == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}


def test_history_lists_the_job_before_the_last_event(comfy):
    with stream(comfy) as socket:
        receive(socket)
        for seed in range(30):
            prompt_id = comfy.submit(chain(seed=seed, steps=1), client_id="me")
            read_until_end(socket, prompt_id)
            assert prompt_id in comfy.http.get(f"/history/{prompt_id}").json()


def test_rejected_prompt_sends_no_events(comfy):
    with stream(comfy) as socket:
        receive(socket)
        assert comfy.http.post("/prompt", json={"prompt": {}, "client_id": "me"}).status_code == 400
        prompt_id = comfy.submit(chain(), client_id="me")
        assert types(read_until_end(socket, prompt_id))[:3] == ["status(1)", "status(1)", "execution_start"]


def test_other_clients_get_only_the_status(comfy):
    with stream(comfy) as mine, stream(comfy, "clientId=other") as other:
        receive(mine), receive(other)
        read_until_end(mine, comfy.submit(chain(), client_id="me"))
        assert types(receive(other) for _ in range(3)) == ["status(1)", "status(1)", "status(0)"]


def test_job_without_client_id_sends_only_progress_to_all(comfy):
    with stream(comfy) as socket:
        receive(socket)
        comfy.run(chain(steps=1))
        words = []
        while words.count("status(0)") < 1:
            words += types([receive(socket)])
    assert {word.split("(")[0] for word in words} == {"status", "state", "progress"}


SHOWN = {"preview_method": "auto"}
PICTURE = {
    "1": {"class_type": "ProbePicture", "inputs": {}},
    "9": {"class_type": "ProbeSave", "inputs": {"images": ["1", 0], "filename_prefix": "p"}},
}


def collect(socket, prompt_id):
    frames = []
    while True:
        frame = receive(socket)
        if isinstance(frame, bytes):
            frames.append(frame)
        elif frame["type"] == "executing" and frame["data"].get("node") is None:
            return frames


def test_previews_are_event_1_unless_metadata_was_requested(serve):
    comfy = serve("comfyui")
    with stream(comfy) as socket:
        receive(socket)
        (frame,) = collect(socket, comfy.submit(PICTURE, client_id="me", extra_data=SHOWN))
    assert struct.unpack(">II", frame[:8]) == (1, 1)
    assert frame[8:10] == b"\xff\xd8"  # JPEG


def test_comfyui_sends_previews_only_for_jobs_that_ask(serve):
    comfy = serve("comfyui", cache="none")
    assert comfy.http.get("/system_stats").json()["system"]["argv"] == ["main.py", "--cache-none"]
    with stream(comfy) as socket:
        receive(socket)
        for method, count in ((None, 0), ("auto", 1), ("taesd", 1), ("nonsense", 0), ("none", 0), ("default", 0)):
            prompt_id = comfy.submit(PICTURE, client_id="me", extra_data={"preview_method": method})
            assert len(collect(socket, prompt_id)) == count, method


def test_pictures_can_be_sent_instead_of_saved(serve):
    comfy = serve("comfyui", nodes=None)
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 600, "height": 8, "batch_size": 2, "color": 255}},
        "9": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }
    with stream(comfy) as socket:
        receive(socket)
        for _ in range(2):  # an equal job sends them again
            frames = collect(socket, comfy.submit(graph, client_id="me"))
            assert [frame[:8] for frame in frames] == [struct.pack(">II", 1, 2)] * 2
            pictures = [Image.open(io.BytesIO(frame[8:])) for frame in frames]
            assert [(picture.format, picture.size) for picture in pictures] == [("PNG", (600, 8))] * 2


def test_previews_with_metadata_are_event_4(serve):
    comfy = serve("comfyui")
    with stream(comfy) as socket:
        socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        replies = [receive(socket), receive(socket)]
        assert replies[1]["type"] == "feature_flags"
        assert replies[1]["data"]["max_upload_size"] == 104857600
        prompt_id = comfy.submit(PICTURE, client_id="me", extra_data=SHOWN)
        (frame,) = collect(socket, prompt_id)
    event, length = struct.unpack(">II", frame[:8])
    assert event == 4
    assert json.loads(frame[8 : 8 + length]) == {
        "node_id": "1", "prompt_id": prompt_id, "display_node_id": "1", "parent_node_id": None, "real_node_id": "1",
        "image_type": "image/jpeg",
    }  # fmt: skip
    assert frame[8 + length :][:2] == b"\xff\xd8"


def test_feature_flags_count_only_in_the_first_message(serve):
    comfy = serve("comfyui")
    with stream(comfy) as socket:
        for junk in (
            "not json",
            "[]",
            json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}),
        ):
            socket.send(junk)
        receive(socket)
        (frame,) = collect(socket, comfy.submit(PICTURE, client_id="me", extra_data=SHOWN))
        assert frame[:4] == b"\x00\x00\x00\x01"


def test_second_stream_of_a_client_replaces_the_first(comfy):
    with stream(comfy) as first:
        receive(first)
        with stream(comfy) as second:
            receive(second)
            first.close()
            wait_until(lambda: comfy.server.seen.connections == 2)
            read_until_end(second, comfy.submit(chain(), client_id="me"))


def test_client_that_stops_reading_does_not_block_others(serve):
    comfy = serve("comfyui")
    with stream(comfy, "clientId=deaf"), stream(comfy) as mine:
        for index in range(40):  # 8 MB of previews, far more than the socket buffers hold
            graph = {**PICTURE, "1": {"class_type": "ProbePicture", "inputs": {"unknown": index}}}
            last = comfy.submit(graph, client_id="deaf", extra_data=SHOWN)
        comfy.wait_for_end(last)
        receive(mine)
        assert len(collect(mine, comfy.submit({**PICTURE}, client_id="me", extra_data=SHOWN))) == 1


def test_cloud_needs_the_token_and_sends_jobs_without_id_to_all(serve):
    client = serve("cloud", api_key="s3cret")
    for query in ("clientId=me", "clientId=me&token=wrong"):
        with pytest.raises(InvalidStatus) as refused, stream(client, query):
            pass
        assert refused.value.response.status_code == 401
    with stream(client, "clientId=me&token=s3cret") as socket:
        assert receive(socket)["data"]["sid"] == "me"
        prompt_id = client.submit(chain(steps=1))
        words = types(read_until_end(socket, prompt_id))
    assert words[2:6] == ["notification", "execution_start", "execution_cached", "state(1,running,0/1)"]
    assert words[-3:] == ["execution_success", "status(0)", "executing(None)"]
    assert not any("s3cret" in request.path for request in client.server.seen.requests)


def test_cloud_sends_every_job_to_every_stream(serve):
    client = serve("cloud")
    with stream(client, "clientId=one") as rich, stream(client, "clientId=two") as plain:
        rich.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        assert [receive(rich)["type"], receive(rich)["type"]] == ["status", "feature_flags"]
        receive(plain)
        prompt_id = client.submit(PICTURE, client_id="somebody else")
        assert [collect(socket, prompt_id)[0][:4] for socket in (rich, plain)] == [b"\0\0\0\4", b"\0\0\0\1"]


def test_cloud_sends_missed_events_to_the_next_stream(serve):
    client = serve("cloud")
    prompt_id = client.run(chain())["id"]
    with stream(client) as socket:
        events = [receive(socket) for _ in range(4)]
    assert [message["type"] for message in events[1:]] == ["execution_start", "executed", "execution_success"]
    assert all(message["data"]["prompt_id"] == prompt_id for message in events[1:])
    with stream(client, "clientId=later") as socket:
        assert receive(socket)["type"] == "status"
        assert receive_nothing(socket)


def receive_nothing(socket):
    with pytest.raises(TimeoutError):
        socket.recv(timeout=0)
    return True


def test_token_is_in_no_log(serve, caplog):
    caplog.set_level(logging.DEBUG)
    client = serve("cloud", api_key="s3cret")
    with stream(client, "clientId=me&token=s3cret") as socket:
        receive(socket)
    with pytest.raises(InvalidStatus), stream(client, "clientId=me&token=s3cret-but-wrong"):
        pass
    ours = [
        record for record in caplog.records if not record.name.startswith(("websockets.client", "httpx", "httpcore"))
    ]
    assert not any("s3cret" in record.getMessage() for record in ours)


def test_muted_refused_and_dropped_streams(comfy):
    faults = comfy.server.faults
    faults.mute_events = True
    with stream(comfy) as socket:
        receive(socket)
        comfy.run(chain(), client_id="me")
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0)
    faults.reset()
    faults.refuse_events = True
    with pytest.raises(InvalidStatus) as refused, stream(comfy):
        pass
    assert refused.value.response.status_code == 403
    faults.reset()
    faults.drop_events_times = 1
    with stream(comfy) as socket, pytest.raises(ConnectionClosed):
        list(socket)
