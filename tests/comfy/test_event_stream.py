"""The event stream against a WebSocket server that each test scripts."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from websockets.asyncio.server import serve

from sweeper.comfy import event_stream, job_listener
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.target import Target


def make_event(kind, **data):
    return json.dumps({"type": kind, "data": data})


def with_stream(talk, act, dialect="comfyui"):
    """Run `act(stream, paths)` with a stream from a server whose connections are `talk(socket)`."""

    async def go():
        paths = []

        async def connection(socket):
            paths.append(socket.request.path)
            await talk(socket)

        async with serve(connection, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            target = Target("t", f"http://127.0.0.1:{port}", dialect, key="k&y")
            async with ComfyClient(target) as client, EventStream(client) as stream:
                async with asyncio.timeout(60):
                    await act(stream, paths)

    asyncio.run(go())


@pytest.mark.parametrize(
    "last",
    [
        make_event("execution_success", prompt_id="p"),
        make_event("execution_error", prompt_id="p"),
        make_event("execution_interrupted", prompt_id="p"),
        make_event("executing", prompt_id="p", node=None),
    ],
)
def test_each_end_event_wakes_the_listener(last):
    async def talk(socket):
        await socket.send(last)
        await socket.wait_closed()

    async def act(stream, paths):
        other = Listener()
        with stream.listen("p", Listener()) as listener, stream.listen("q", other):
            await listener.woken.wait()
            assert not other.woken.is_set()

    with_stream(talk, act)


def test_end_event_before_the_submission_response_is_kept():
    listening = asyncio.Event()

    async def talk(socket):
        await socket.send(make_event("execution_success", prompt_id="early"))
        await listening.wait()
        await socket.send(make_event("execution_success", prompt_id="later"))
        await socket.wait_closed()

    async def act(stream, paths):
        with stream.listen("later", Listener()) as later:
            listening.set()
            await later.woken.wait()
        with stream.listen("early", Listener()) as early:
            assert early.woken.is_set()

    with_stream(talk, act)


def test_listener_gets_progress_and_start_time():
    heard = asyncio.Event()

    async def talk(socket):
        await heard.wait()
        await socket.send(make_event("status", status={}))
        await socket.send(b"\0\0\0\1 a preview")
        await socket.send("not json")
        await socket.send("[]")
        await socket.send(make_event("executing", prompt_id="p", node="3"))
        await socket.send(make_event("progress", prompt_id="p", node="3", value=2, max=20))
        await socket.send(make_event("executing", prompt_id="p", node=None))
        await socket.wait_closed()

    async def act(stream, paths):
        steps = []
        with stream.listen("p", Listener(lambda *step: steps.append(step))) as listener:
            heard.set()
            await listener.woken.wait()
        assert steps == [("3", 0.0, 0.0), ("3", 2.0, 20.0)]
        assert listener.started_at is not None

    with_stream(talk, act)


def test_reconnect_uses_a_new_client_id_and_wakes_all_listeners():
    connections = []

    async def talk(socket):
        connections.append(socket)
        if len(connections) > 1:
            await socket.send(make_event("execution_success", prompt_id="q"))
            await socket.wait_closed()

    async def act(stream, paths):
        with stream.listen("p", Listener()) as waiting, stream.listen("q", Listener()) as again:
            await waiting.woken.wait()
            again.woken.clear()  # the drop woke all listeners
            await again.woken.wait()
        first, second = paths
        assert first != second
        assert f"clientId={stream.client_id}" in second

    with_stream(talk, act)


def test_stream_that_is_silent_after_a_submission_is_replaced(monkeypatch):
    monkeypatch.setattr(event_stream, "_SILENCE_TIMEOUT", 0.0)
    connections = []

    async def talk(socket):
        connections.append(socket)
        if len(connections) > 1:
            await socket.send(make_event("execution_success", prompt_id="q"))
        await socket.wait_closed()

    async def act(stream, paths):
        first = stream.client_id
        with stream.listen("q", Listener()) as again:
            stream.expect_status()
            await again.woken.wait()
            again.woken.clear()
            await again.woken.wait()
        assert stream.client_id not in (first, None)
        assert len(paths) == 2

    with_stream(talk, act)


def test_stream_url_contains_the_key_on_cloud_only():
    async def cloud(stream, paths):
        assert paths[0].endswith("&token=k%26y")

    async def local(stream, paths):
        assert "token" not in paths[0]

    with_stream(lambda socket: socket.wait_closed(), cloud, "cloud")
    with_stream(lambda socket: socket.wait_closed(), local, "comfyui")


def test_missing_stream_does_not_block_the_run():
    async def go():
        async with ComfyClient(Target("t", "http://127.0.0.1:9", "comfyui")) as client, EventStream(client) as stream:
            assert not stream.is_connected
            assert stream.client_id is None

    asyncio.run(go())


def test_a_flood_of_events_is_read_slowly_and_forgotten_early(monkeypatch):
    monkeypatch.setattr(event_stream, "_MAX_FRAMES_PER_SECOND", 100)
    monkeypatch.setattr(job_listener, "_MAX_NODE_STARTS", 50)
    flood = make_event("executing", prompt_id="p", node="3")

    async def talk(socket):
        while True:
            await socket.send(flood)

    async def act(stream, paths):
        steps, many, began = [], asyncio.Event(), time.monotonic()

        def take(*step):
            steps.append(step)
            if len(steps) == 250:  # from three periods of a second, so they take at least the second one
                many.set()

        async with asyncio.timeout(60):
            with stream.listen("p", Listener(take)) as listener:
                await many.wait()
        assert time.monotonic() - began > 0.9
        assert len(listener.node_starts) == 50

    with_stream(talk, act)


def test_numbers_that_are_no_progress_do_not_end_the_stream():
    listening = asyncio.Event()

    async def talk(socket):
        await listening.wait()
        for number in ("1" + "0" * 400, "NaN", "Infinity", "-1e999", "9" * 5000, '"2"', "[" * 3000):
            await socket.send(make_event("progress", prompt_id="p", node="3", max=1, value=7).replace("7", number))
        await socket.send(make_event("execution_success", prompt_id="p"))
        await socket.wait_closed()

    async def act(stream, paths):
        steps, ends = [], []
        listener = Listener(lambda *step: steps.append(step), on_success=lambda: ends.append("success"))
        with stream.listen("p", listener):
            listening.set()
            await listener.woken.wait()
        assert (steps, ends) == ([], ["success"])

    with_stream(talk, act)


def test_stream_follows_no_redirect():
    """A public server could make us connect to this machine, or to where its address contains our key."""
    reached = []

    async def hear(socket):
        reached.append(socket.request.path)
        await socket.wait_closed()

    async def go():
        asked = asyncio.Event()

        async with serve(hear, "127.0.0.1", 0) as other:
            where = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/ws"

            def redirect(connection, _):
                asked.set()
                response = connection.respond(302, "")
                response.headers["Location"] = where
                return response

            async with serve(hear, "127.0.0.1", 0, process_request=redirect) as server:
                target = Target("t", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "comfyui")
                async with ComfyClient(target) as client, EventStream(client) as stream, asyncio.timeout(60):
                    await asked.wait()
                    await asyncio.sleep(0.2)
                    assert not stream.is_connected

    asyncio.run(go())
    assert reached == []
