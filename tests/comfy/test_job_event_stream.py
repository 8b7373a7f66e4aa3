"""The Server-Sent Events of single jobs: they wake and show, and whatever is wrong with them costs nothing but time."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from sweeper.comfy import event_stream
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.protocol import JobSubmission
from sweeper.comfy.target import Target
from sweeper.embedded import EmbeddedServer
from tests.waiting import wait_until

SAMPLED = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {"class_type": "KSampler", "inputs": {
        "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "seed": 1, "steps": 3,
        "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "p"}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _open_at_once(monkeypatch):
    monkeypatch.setattr(event_stream, "_OPEN_AFTER", 0.0)


def follow(*replies, jobs=1):
    """Follow jobs on a server that answers each request for events with the next of the replies, the last for ever.

    Returns what the listeners heard, and how many requests there were.
    """
    heard, waiting, count = [], list(replies), 0

    def reply(request):
        nonlocal count
        count += 1
        assert request.headers["authorization"] == "Bearer k"
        assert request.headers["accept"] == "text/event-stream"
        status, content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return httpx.Response(status, content=content)

    async def go():
        target = Target("t", "http://server", dialect="v2", key="k")
        async with ComfyClient(target, httpx.MockTransport(reply)) as client, EventStream(client) as events:
            for job in range(jobs):
                listener = Listener(lambda *facts: heard.append(facts), lambda *facts: heard.append(facts))
                listener.on_success = lambda: heard.append("success")
                with events.follow(f"job{job}", listener):
                    (task,) = events._job_streams._tasks or [asyncio.sleep(0)]
                    async with asyncio.timeout(60):
                        await task
                heard.append("woken" if listener.woken.is_set() else "asleep")

    asyncio.run(go())
    return heard, count


def event(kind, data):
    return f"event: {kind}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()


def test_a_job_of_the_server_is_shown_and_its_end_wakes():
    shown, previews, ended = [], [], asyncio.Event()

    async def go(server):
        async with ComfyClient(Target("t", server.url, dialect="v2")) as client, EventStream(client) as events:
            await client.connect()
            prompt_id = await client.submit(JobSubmission("1" * 32, SAMPLED))
            listener = Listener(lambda *facts: shown.append(facts), lambda *facts: previews.append(facts), ended.set)
            with events.follow(prompt_id, listener):
                async with asyncio.timeout(60):
                    await asyncio.to_thread(wait_until, lambda: server.seen.connections)
                    server.faults.release()
                    await listener.woken.wait()
            return listener

    with EmbeddedServer("v2") as server:
        server.faults.stall_nodes = {"EmptyLatentImage"}
        listener = asyncio.run(go(server))
    assert ended.is_set()
    assert any(node == "4" and maximum == 3.0 for node, _, maximum in shown)
    assert {node for node, _ in previews} == {"4"}
    assert previews[0][1].startswith(b"\xff\xd8\xff")
    assert listener.started_at is not None
    assert {"4", "5"} <= {node for node, _ in listener.node_seconds()}


def test_events_end_with_the_job():
    stream = (
        b": keepalive\n\n"
        + event("status", {"status": "running", "queue_position": None})
        + event("progress", {"current_node": "3", "step": 1, "steps": 4, "value": 0.1})
        + b"event: progress\ndata: {not json}\n\n"
        + event("progress", {"current_node": "3", "step": 1e400, "steps": [1]})
        + event("preview", {"node_id": "3", "data_base64": "bm8gcGljdHVyZQ=="})
        + event("preview", {"node_id": "3", "data_base64": "###"})
        + event("log", {"message": "hello"})
        + event("status", {"status": "succeeded"})
    )
    heard, _ = follow((200, stream))
    assert heard == [("3", 0.0, 0.0), ("3", 1.0, 4.0), "success", "woken"]
    assert follow((200, event("status", {"status": "failed"})))[0] == ["woken"]


def test_a_server_without_events_is_asked_once():
    assert follow((501, b"{}"), jobs=3) == (["asleep"] * 3, 1)


def test_a_refused_or_spoiled_stream_is_left_alone(monkeypatch):
    monkeypatch.setattr(event_stream, "_MAX_EVENT_BYTES", 1000)
    end = event("status", {"status": "succeeded"})
    for reply in (
        (429, b"{}"),
        (302, end),
        (200, b"x" * 2000 + end),
        (200, 9 * (b"data: " + b"x" * 200 + b"\n") + end),
    ):
        assert follow(reply, jobs=2) == (["asleep"] * 2, 2)
