"""The client over real sockets: against our server in both dialects, or against a real ComfyUI.

SWEEPER_REAL_COMFYUI=URL uses a running ComfyUI (see `servers.py`). Only core nodes are used, and faults come from the
proxy in between, so that every server has to pass the same tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from uuid import uuid4

import pytest
from PIL import Image

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener
from sweeper.comfy.jobs_api import add_marker, fingerprint
from sweeper.comfy.protocol import JobSearch, JobSubmission, QueueFull
from sweeper.comfy.target import Target
from sweeper.errors import LostError, RejectedError, TransientError, UnreachableError
from tests.running.servers import DIALECTS, REAL, REAL_V2, Served

KINDS = ("submits", "looks", "downloads", "uploads")  # properties of a request to the proxy


@pytest.fixture(scope="module", params=DIALECTS)
def server(request, tmp_path_factory):
    with Served(request.param, tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def using(server):
    """Run `act(client)` with a client of that server, which has to detect the dialect."""

    def run(act, *, faults=()):
        proxies = [proxy for proxy in (server.proxy, server.storage) if proxy is not None]
        waiting = list(faults)  # (a kind of request or a part of the path, fault), each to strike once, in this order

        def decide(asked):
            part = waiting[0][0] if waiting else None
            if part is not None and (getattr(asked, part) if part in KINDS else part in asked.path):
                return waiting.pop(0)[1]
            return None

        async def go():
            async with ComfyClient(Target("t", server.proxy.url)) as client, asyncio.timeout(60):
                await client.connect()
                for proxy in proxies:
                    proxy.decide = decide
                return await act(client)

        try:
            found = asyncio.run(go())
        finally:
            for proxy in proxies:
                proxy.decide = lambda _: None
        assert not waiting, "a fault had no request to strike"
        return found

    return run


def graph_of(colour=0x123456, size=16, **more):
    """A picture of one colour, which every server draws alike."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": colour}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "client"}},
        **more,
    }


async def wait_for_end(client, prompt_id):
    misses = 0
    while True:
        state = await client.get_job(prompt_id)
        misses = misses + 1 if state.state == "lost" else 0
        if state.is_over and misses in (0, client.dialect.lost_after_checks):
            return state
        await asyncio.sleep(0.02)


def submission(graph, client_id=None):
    job = str(uuid4())
    return JobSubmission(job, add_marker(graph, "client", job), client_id)


def sought(sent, since):
    return JobSearch(sent.job_id, fingerprint(sent.graph), since, time.time(), lambda _: False)


def test_connect_detects_the_dialect_and_fetches_node_classes(server, using):
    async def act(client):
        return await client.connect(), await client.models.get_object_info()

    found, classes = using(act)
    assert found.dialect == server.dialect
    assert (found.version != "") == (server.dialect == "comfyui")
    assert classes is None if server.dialect == "v2" else {"EmptyImage", "SaveImage", "LoadImage"} <= set(classes)


@pytest.mark.parametrize("fault", ["drop", "reset", "swallow", "half", "half_head", "502", "503_after", "429", "page"])
def test_polling_a_job_survives_every_fault(using, fault):
    async def act(client):
        prompt_id = await client.submit(submission(graph_of()))
        return await wait_for_end(client, prompt_id)

    state = using(act, faults=[("looks", fault)] * 3)
    assert state.state == "succeeded"
    assert [(output.node, output.kind, output.type) for output in state.outputs] == [("2", "images", "output")]
    assert REAL_V2 or (state.started is not None and state.ended is not None)  # comfy-api-proxy tells no times
    assert REAL_V2 or abs(state.ended - time.time()) < 60


@pytest.mark.parametrize("fault", ["swallow", "swallow_reset", "half", "half_head", "late", "502_after", "shape"])
def test_a_submission_with_a_lost_response_is_found_and_runs_once(server, using, fault):
    since = time.time()
    graph = graph_of(0x777777)

    async def act(client):
        sent = submission(graph)
        with pytest.raises(TransientError) as caught:
            await client.submit(sent)
        assert caught.value.sent
        prompt_id = await client.find_submission(sought(sent, since))
        assert prompt_id is not None
        return prompt_id, await wait_for_end(client, prompt_id)

    before = len(server.proxy.accepted)
    prompt_id, state = using(act, faults=[("submits", fault)])
    assert state.state == "succeeded"
    assert [job.prompt_id for job in server.proxy.accepted[before:]] == [prompt_id]


def test_a_gateways_503_does_not_hide_an_accepted_job(using):
    async def act(client):
        sent = submission(graph_of())
        answer = await client.submit(sent)
        assert isinstance(answer, QueueFull)
        assert answer.may_be_accepted
        return await client.find_submission(sought(sent, time.time()), allow_late_arrival=False)

    assert using(act, faults=[("submits", "503_after")]) is not None
    assert using(act, faults=[("submits", "503")]) is None


@pytest.mark.parametrize("fault", ["reset", "500", "page"])
def test_a_submission_that_never_arrived_is_not_found(using, fault):
    async def act(client):
        sent = submission(graph_of())
        with pytest.raises(TransientError):
            await client.submit(sent)
        return await client.find_submission(sought(sent, time.time()))

    assert using(act, faults=[("submits", fault)]) is None


class Memory(io.BytesIO):
    """A file in memory that a download fills. comfy-api-proxy sends no ETag, so there it may start again."""

    def restart(self):
        self.seek(0)
        self.truncate()


def test_a_download_is_complete_after_every_fault(server, using):
    async def act(client):
        state = await wait_for_end(client, await client.submit(submission(graph_of(0x0080FF, size=512))))
        file = Memory()
        return await download(client, state.outputs[0], file), file

    # On Cloud the file comes from the storage host, and its address from the server.
    path = "downloads" if server.storage is None else ".png"
    found, file = using(act, faults=[(path, "half"), ("downloads", "503"), ("downloads", "drop"), (path, "page")])
    assert found.sha256 == hashlib.sha256(file.getvalue()).hexdigest()
    assert found.content_type == "image/png"
    with Image.open(file) as picture:
        assert (picture.size, picture.getpixel((511, 511))) == ((512, 512), (0, 0x80, 0xFF))


def test_an_unknown_job_or_file_is_lost(using):
    async def act(client):
        assert (await client.get_job(str(uuid4()))).state == "lost"
        state = await wait_for_end(client, await client.submit(submission(graph_of())))
        output = state.outputs[0]
        names = {"subfolder": "none"} if client.dialect.name == "v2" else {}  # it finds files by their ids
        for wrong in (
            {"filename": "no-such.png", **names},
            {"subfolder": "../.."},
            {"filename": "../../x.png", **names},
        ):
            gone = type(output)(**{name: wrong.get(name, getattr(output, name)) for name in output.__slots__})
            with pytest.raises(LostError):
                await download(client, gone, io.BytesIO())

    using(act)


def test_an_uploaded_file_has_the_name_that_the_server_returned(using, tmp_path):
    path = tmp_path / "photo.png"
    colour = tuple(uuid4().bytes[:3])  # new, because a server may know its files by their content
    Image.new("RGB", (8, 8), colour).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    async def act(client):
        name = await client.uploads.ensure_uploaded(path, sha256)
        graph = graph_of()
        graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        state = await wait_for_end(client, await client.submit(submission(graph)))
        file = Memory()
        await download(client, state.outputs[0], file)
        return file

    with Image.open(using(act, faults=[("uploads", fault) for fault in ("swallow", "500", "half")])) as picture:
        assert picture.getpixel((7, 7)) == colour


def test_a_rejection_names_the_node_and_the_input(using):
    async def act(client):
        for change, expected in (
            ({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "NoSuchNode"),
            ({"2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}, "node 2 (SaveImage) images: "),
            ({"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 8, "batch_size": 1, "color": 0}}},
             "node 1 (EmptyImage) width: "),
        ):  # fmt: skip
            with pytest.raises(RejectedError) as caught:
                await client.submit(submission({**graph_of(), **change}))
            assert expected in str(caught.value)

    using(act)


def test_a_partly_valid_workflow_is_rejected_and_leaves_no_job(server, using):
    if server.dialect == "v2":
        pytest.skip("the API does not say that the server left out invalid outputs")
    graph = graph_of(0xABCDEF, **{"3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "broken"}}})

    async def act(client):
        sent = submission(graph)
        with pytest.raises(RejectedError, match=r"node 3 \(SaveImage\) images: "):
            await client.submit(sent)

    using(act)


def test_a_failed_node_gives_the_error_type_and_message(using):
    """A prefix that leaves the output folder passes the validation of every server."""

    async def act(client):
        graph = graph_of()
        graph["2"]["inputs"]["filename_prefix"] = "../" * 9 + "evil/x"
        return await wait_for_end(client, await client.submit(submission(graph)))

    state = using(act)
    assert state.state == "failed"
    assert state.error.startswith("node 2 (SaveImage): ")
    assert state.error_type


def test_cancelling_a_waiting_job_leaves_the_running_one(server, using):
    async def act(client):
        # Large enough to run for a while on every server, behind which the other waits.
        slow = await client.submit(submission(graph_of(size=2048 if REAL else 1024)))
        ours = await client.submit(submission(graph_of(size=24)))
        await client.cancel(frozenset([ours]))
        for _ in range(600):
            state = await client.get_job(ours)
            if state.is_over:
                break
            await asyncio.sleep(0.05)
        return state, await wait_for_end(client, slow)

    ours, slow = using(act)
    assert ours.state in ("cancelled", "lost" if server.dialect == "comfyui" or REAL_V2 else "cancelled")
    assert slow.state == "succeeded"


def test_events_report_the_end_of_a_job(using):
    async def act(client):
        async with EventStream(client) as stream:
            sent = submission(graph_of(), stream.client_id)
            prompt_id = await client.submit(sent)
            with stream.follow(prompt_id, Listener()) as listener:
                async with asyncio.timeout(60):
                    await listener.woken.wait()
            return await wait_for_end(client, prompt_id)

    assert using(act).state == "succeeded"


@pytest.mark.parametrize("fault", ["ws_refuse", "ws_cut", "ws_mute"])
def test_a_broken_event_stream_costs_nothing_but_time(server, using, fault):
    if server.dialect == "v2":
        pytest.skip("has no WebSocket; see tests/comfy/test_job_event_stream.py")

    async def act(client):
        async with EventStream(client) as stream:
            return await wait_for_end(client, await client.submit(submission(graph_of(), stream.client_id)))

    assert using(act, faults=[("/ws", fault)]).state == "succeeded"


def test_a_proxy_without_a_server_is_unreachable(server):
    async def go():
        async with ComfyClient(Target("t", server.proxy.url)) as client:
            await client.connect()

    server.proxy.down = True
    try:
        with pytest.raises(UnreachableError, match=r"^t: cannot be reached: "):
            asyncio.run(go())
    finally:
        server.proxy.down = False
