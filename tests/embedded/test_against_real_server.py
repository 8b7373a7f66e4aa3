"""The comfyui dialect beside a real ComfyUI: the same requests to both, answers compared field by field.

The answers of a ComfyUI 0.3.64 are recorded. Where SWEEPER_REAL_COMFYUI is the URL of one that may be used freely (jobs
are submitted, files uploaded, settings written), it is asked as well, also about the events and histories of jobs. What
differs on purpose: where the real server says 500 to bad input, ours says 400; texts that describe nodes are left out.
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
from tests.embedded.exchanges import RECORDED, REQUESTS, Request, answers, blend, graph, plain
from tests.waiting import wait_until

REAL = os.environ.get("SWEEPER_REAL_COMFYUI", "")

beside_real = pytest.mark.skipif(not REAL, reason="SWEEPER_REAL_COMFYUI names no server")


def agree(request: Request, ours: Any, real: Any) -> None:
    if real[0] == 500:
        assert ours[0] == 400
    elif real[0] >= 400 and request[1].startswith("/upload"):
        assert ours[0] == real[0]  # ours says why
    else:
        assert ours == real


def test_recorded_answers_are_given():
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
def test_the_same_requests_have_the_same_answers(both):
    pairs = zip(REQUESTS, *(answers(str(client.base_url)) for client in both), strict=True)
    for request, (_, ours), (_, real) in pairs:
        agree(request, ours, real)


def told(client: httpx.Client, nodes: dict[str, Any], **fields: Any) -> tuple[list[Any], Any]:
    """(the messages of an event stream, the history entry) of a job."""
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
    number, prompt_id, kept, extra, outputs = entry["prompt"]
    assert extra.pop("client_id") == me
    assert isinstance(number, int | float)
    return messages, {**entry, "prompt": [kept, extra, outputs]}


def summary(messages: list[Any], entry: Any) -> Any:
    """What may be compared: how pictures are written out as text may not."""
    for message in [*messages, *({"data": data} for _, data in entry["status"]["messages"])]:
        for name, value in message["data"].get("current_inputs", {}).items():
            if "tensor" in str(value) or "array" in str(value) or name.startswith("image"):
                message["data"]["current_inputs"][name] = "a picture"
        if "exception_message" in message["data"]:
            message["data"]["exception_message"] = re.sub(r"'/.*/", "'", message["data"]["exception_message"])
    # A status in between may be joined with the next, by either server.
    return plain([message for message in messages if message["type"] != "status"]), plain(entry)


@beside_real
@pytest.mark.parametrize("case", ["runs", "runs again", "fails", "fails to save", "saves again", "has metadata"])
def test_a_job_says_the_same_and_leaves_the_same(both, case):
    run = uuid.uuid4().hex
    nodes, fields = {
        "runs": (graph(f"sweeper/{run}"), {}),
        "runs again": (graph(f"sweeper/{run}"), {}),
        "fails": (blend(f"sweeper/{run}", blend_mode="nope"), {}),
        "fails to save": (graph(f"sweeper/{'x' * 300}"), {}),
        "saves again": (graph(f"sweeper/{run}"), {}),
        "has metadata": (graph(f"sweeper/{run}", n9_extra=5), {"extra_data": {"extra_pnginfo": {"sweeper": 1}}}),
    }[case]
    found = []
    for client in both:
        told(client, graph(f"sweeper/{run}", n1_color=7))  # now both have the same results at hand
        if case == "runs again":
            told(client, nodes)
        if case == "saves again":
            told(client, graph(f"sweeper/{run}"))
            client.post("/free", json={"free_memory": True})
            wait_until(lambda client=client: client.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
        found.append(summary(*told(client, nodes, **fields)))
    (our_messages, our_entry), (messages, entry) = found
    assert our_messages == messages
    assert our_entry == entry


@beside_real
def test_a_queue_of_jobs_is_listed_run_and_deleted_alike(both):
    run, found = uuid.uuid4().hex, []
    for client in both:
        slow = graph(f"sweeper/{run}", n1_width=1500, n1_height=1500, n1_batch_size=2)
        client.post("/prompt", json={"prompt": slow, "prompt_id": f"{run}-slow"})
        for number in (5, -3, 4):
            nodes = graph(f"sweeper/q{number}")
            client.post("/prompt", json={"prompt": nodes, "prompt_id": f"{run}{number}", "number": number})
        queue = client.get("/queue").json()
        client.post("/queue", json={"delete": [f"{run}4", "nobody"]})
        wait_until(lambda client=client: client.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
        listed = sorted(item[1:] for item in queue["queue_pending"])
        history = client.get("/history?max_items=3").json()
        found.append((plain(listed), list(history), client.get(f"/history/{run}4").json()))
    assert found[0] == found[1]
    assert found[0][1] == [f"{run}{name}" for name in ("-slow", -3, 5)]
