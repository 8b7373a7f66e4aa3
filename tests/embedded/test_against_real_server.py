"""The comfyui dialect answers like a real ComfyUI: the same requests go to both, and the answers are compared.

The answers of a ComfyUI 0.33.0 are recorded. If SWEEPER_REAL_COMFYUI is the URL of a ComfyUI, the tests also compare to
that one, including events and histories of jobs. They submit jobs, upload files and write settings there. Two
differences are intended: ours answers 400 where ComfyUI answers bad input with 500, and has no descriptions of nodes.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from sweeper.embedded import EmbeddedServer
from tests.embedded.exchanges import RECORDED, REQUESTS, Request, answers, graph, plain
from tests.waiting import wait_until

REAL = os.environ.get("SWEEPER_REAL_COMFYUI", "")

beside_real = pytest.mark.skipif(not REAL, reason="SWEEPER_REAL_COMFYUI names no server")


def agree(request: Request, ours: Any, real: Any) -> None:
    if real[0] == 500:
        assert ours[0] == 400
    elif real[0] >= 400 and request[1].startswith("/upload"):
        assert ours[0] == real[0]  # ours gives a reason
    else:
        assert ours == real


def test_answers_equal_the_recorded_ones():
    with EmbeddedServer("comfyui") as server:
        ours = json.loads(json.dumps(answers(server.url)))
    for request, (name, answer), (recorded, real) in zip(REQUESTS, ours, json.loads(RECORDED.read_text()), strict=True):
        assert name == recorded, "record the exchanges anew"
        agree(request, answer, real)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with (
        EmbeddedServer("comfyui") as server,
        httpx.Client(base_url=server.url) as ours,
        httpx.Client(base_url=REAL, timeout=30) as real,
    ):
        yield ours, real


@beside_real
def test_same_requests_get_same_answers(both):
    pairs = zip(REQUESTS, *(answers(str(client.base_url)) for client in both), strict=True)
    for request, (_, ours), (_, real) in pairs:
        agree(request, ours, real)


def run_and_record(client: httpx.Client, nodes: dict[str, Any], **fields: Any) -> tuple[list[Any], Any]:
    """Run a job. Returns (the messages of its event stream, its history entry)."""
    prompt_id, me = str(uuid.uuid4()), uuid.uuid4().hex
    messages = []
    url = str(client.base_url).replace("http", "ws").rstrip("/")
    with connect(f"{url}/ws?clientId={me}", max_size=None, ping_interval=None) as socket:
        socket.recv(timeout=20)
        client.post("/prompt", json={"prompt": nodes, "prompt_id": prompt_id, "client_id": me, **fields})
        while True:
            message = json.loads(socket.recv(timeout=20))
            messages.append(message)
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
    entry = client.get(f"/history/{prompt_id}").json()[prompt_id]
    number, prompt_id, graph_, extra, outputs = entry["prompt"]
    assert extra.pop("client_id") == me
    assert isinstance(number, int | float)
    return messages, {**entry, "prompt": [graph_, extra, outputs]}


def summary(messages: list[Any], entry: Any) -> Any:
    """The comparable part of a job's messages and history; texts that describe pictures are left out."""
    for message in [*messages, *({"data": data} for _, data in entry["status"]["messages"])]:
        for name, value in message["data"].get("current_inputs", {}).items():
            if "tensor" in str(value) or "array" in str(value) or name.startswith("image"):
                message["data"]["current_inputs"][name] = "a picture"
        if "exception_message" in message["data"]:
            message["data"]["exception_message"] = re.sub(r"'/.*/", "'", message["data"]["exception_message"])
    # Either server may merge a status with the next one.
    return plain([message for message in messages if message["type"] != "status"]), plain(entry)


# A node that fails although its input is valid.
BROKEN_PICTURE = {"3": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}}}


@beside_real
@pytest.mark.parametrize("case", ["runs", "runs again", "fails", "fails to save", "saves again", "has metadata"])
def test_job_sends_same_events_and_leaves_same_files(both, case):
    run = uuid.uuid4().hex
    nodes, fields = {
        "runs": (graph(f"sweeper/{run}"), {}),
        "runs again": (graph(f"sweeper/{run}"), {}),
        "fails": (graph(f"sweeper/{run}", n9_images=["3", 0]) | BROKEN_PICTURE, {}),
        "fails to save": (graph(f"sweeper/{'x' * 300}"), {}),
        "saves again": (graph(f"sweeper/{run}"), {}),
        "has metadata": (graph(f"sweeper/{run}", n9_extra=5), {"extra_data": {"extra_pnginfo": {"sweeper": 1}}}),
    }[case]
    results = []
    for client in both:
        run_and_record(client, graph(f"sweeper/{run}", n1_color=7))  # now both have the same cached results
        client.post("/upload/image", files={"image": ("broken.png", b"no picture")}, data={"overwrite": "true"})
        if case == "runs again":
            run_and_record(client, nodes)
        if case == "saves again":
            run_and_record(client, graph(f"sweeper/{run}"))
            client.post("/free", json={"free_memory": True})
            wait_until(lambda client=client: client.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
        results.append(summary(*run_and_record(client, nodes, **fields)))
    (our_messages, our_entry), (messages, entry) = results
    assert our_messages == messages
    assert our_entry == entry
    assert (entry["status"]["status_str"] == "error") == case.startswith("fails")


@beside_real
def test_queued_jobs_are_listed_run_and_deleted_alike(both):
    run, results = uuid.uuid4().hex, []
    ids = {name: str(uuid.uuid4()) for name in ("slow", 5, -3, 4)}
    for client in both:
        slow = graph(f"sweeper/{run}", n1_width=2500, n1_height=2500, n1_batch_size=2)
        client.post("/prompt", json={"prompt": slow, "prompt_id": ids["slow"]})
        for number in (5, -3, 4):
            nodes = graph(f"sweeper/q{number}")
            client.post("/prompt", json={"prompt": nodes, "prompt_id": ids[number], "number": number})
        queue = client.get("/queue").json()
        client.post("/queue", json={"delete": [ids[4], "nobody"]})
        wait_until(lambda client=client: client.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
        queued = sorted(item[1:] for item in queue["queue_pending"])
        history = client.get("/history?max_items=3").json()
        results.append((plain(queued), list(history), client.get(f"/history/{ids[4]}").json()))
    assert results[0] == results[1]
    assert results[0][1] == [ids[name] for name in ("slow", -3, 5)]
