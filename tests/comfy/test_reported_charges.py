"""What servers say that jobs were charged, which nodes ran, and what is left on the account."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from fractions import Fraction

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import serve

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.event_stream import EventStream
from sweeper.comfy.job_listener import Listener, find_charged, find_executed
from sweeper.comfy.protocol import JobOutput, JobState, JobSubmission, ReportedCharges
from sweeper.comfy.responses import read_charged, read_price_text
from sweeper.comfy.target import Target
from sweeper.embedded import EmbeddedServer, Faults, Scenario
from sweeper.model.money import TargetPrice, to_micros

FILES = (JobOutput("3", "images", 0, "a.png", "", "output"),)
JOB, OTHER = "0b9c4f0e-0000-4000-8000-000000000001", "0b9c4f0e-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    ("text", "usd"),
    [
        ("Price: 6.33 credits", 0.03),
        ("Status: Completed\nPrice: 2,110 credits\nTime elapsed: 3s", 10.0),
        ("Price: $0.0300", 0.03),
        ("Price: 0 credits", 0.0),
        ("Price: 6.33", None),
        ("Price: $6.33 credits", None),
        ("price: 6.33 credits", None),
        ("The Price: 6.33 credits", None),
        ("Price: 1e9 credits", None),
        ("Price: 9999999999999 credits", None),
        ("Price: 1.2.3 credits", None),
        ("Price: ٣ credits", None),
        ("", None),
    ],
)
def test_price_in_the_text_of_a_node(text, usd):
    assert read_price_text(text) == (None if usd is None else to_micros(usd))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["credits_used", "x"]), inner),
)


@given(JSON, st.text(max_size=40))
def test_odd_charges_are_ignored(metrics, header):
    charged = read_charged({"metrics": metrics}, {"x-comfy-credits-used": header})
    assert charged is None or 0 <= charged.whole <= 10**15


def query(dialect, answer, headers=(), *, price=None, ask=lambda client: client.get_job(JOB)):
    """What the client says if the server gives that answer to each request."""

    def reply(_request):
        return httpx.Response(200, content=json.dumps(answer), headers=dict(headers))

    async def go():
        target = Target("t", "http://server", dialect, price=price)
        async with ComfyClient(target, httpx.MockTransport(reply)) as client:
            return await ask(client)

    return asyncio.run(go())


@pytest.mark.parametrize("dialect", ["cloud", "v2"])
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("says", ["header", "metrics"])
def test_charge_of_a_job_is_in_its_details_or_their_header(dialect, status, says):
    status = {"completed": "succeeded", "cancelled": "canceled"}.get(status, status) if dialect == "v2" else status
    metrics = {"execution_ms": 9, "credits_used": 21.1 if says == "metrics" else None}
    details = {"id": JOB, "status": status, "metrics": metrics}
    headers = {"X-Comfy-Credits-Used": "21.10"} if says == "header" else {}
    assert query(dialect, details, headers).charged == ReportedCharges(whole=Fraction(100_000))
    assert query(dialect, details, headers, price=TargetPrice(credits_per_usd=Fraction(422))).charged.whole == 50_000
    assert query(dialect, {**details, "metrics": {"execution_ms": 9}}).charged is None


@pytest.mark.parametrize(
    ("answer", "usd"),
    [
        ({"amount_micros": 1250.5, "currency": "usd"}, 12.505),
        ({"amount_micros": 900, "effective_balance_micros": -100, "currency": "usd"}, -1.0),
        ({"effective_balance_micros": "300"}, 3.0),
        ({"amount_micros": 100, "currency": "eur"}, None),
        ({"amount_micros": True}, None),
        ({"amount_micros": "NaN"}, None),
        ([], None),
    ],
)
def test_balance_of_the_account_is_in_cents(answer, usd):
    assert query("cloud", answer, ask=lambda client: client.get_balance()) == usd


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_balance_is_unknown_if_the_server_does_not_say_it(status):
    async def go():
        transport = httpx.MockTransport(lambda _: httpx.Response(status, json={"amount_micros": 5}))
        async with ComfyClient(Target("t", "http://server", "cloud"), transport) as client:
            return await client.get_balance()

    assert asyncio.run(go()) is None


# --- which nodes ran


def details(*messages):
    return {"id": JOB, "status": "completed", "execution_status": {"messages": [["execution_start", {}], *messages]}}


def test_nodes_from_the_cache_did_not_run():
    cached = ["execution_cached", {"nodes": ["1", "2", 7]}]
    state = query("comfyui", details(cached, ["execution_success", {}]))
    assert find_executed({"1", "2", "3"}, state) == {"3"}
    older = {JOB: {"outputs": {}, "status": details(cached)["execution_status"] | {"status_str": "success"}}}

    def reply(request):
        return httpx.Response(
            200, json=older if "history" in request.url.path else {"queue_running": [], "queue_pending": []}
        )

    async def go():
        async with ComfyClient(Target("t", "http://server", "comfyui"), httpx.MockTransport(reply)) as client:
            client.dialect._is_current = False
            return await client.get_job(JOB)

    assert find_executed({"1", "2", "3"}, asyncio.run(go())) == {"3"}


def test_failed_job_ran_the_nodes_that_it_lists():
    failure = ["execution_error", {"executed": ["3"], "node_id": "4", "node_type": "Flux", "exception_message": "no"}]
    state = query("comfyui", details(["execution_cached", {"nodes": ["1"]}], failure))
    assert state.state == "failed"
    assert find_executed({"1", "3", "4", "5"}, state) == {"3", "4"}


@pytest.mark.parametrize("message", [[], ["execution_cached", {}], ["execution_cached", {"nodes": "all"}], "x"])
def test_nodes_that_ran_are_unknown_without_the_message(message):
    assert find_executed({"1"}, query("comfyui", details(message, ["execution_success", {}]))) is None


def event(kind, **data):
    return json.dumps({"type": kind, "data": {"prompt_id": JOB, **data}})


def text_frame(node, text, *prompt_id):
    parts = [part.encode() for part in (*prompt_id, node)]
    return struct.pack(">I", 3) + b"".join(struct.pack(">I", len(part)) + part for part in parts) + text.encode()


STARTED = [event("execution_start"), event("execution_cached", nodes=["1"]), event("executing", node="2")]
ENDED = [event("executing", node="3"), event("execution_success")]


def follow(*messages, dialect="comfyui", price=None):
    """The listener of a job after the server sent these messages. None between them closes the stream once."""
    parts = [list(messages)]
    if None in messages:
        cut = messages.index(None)
        parts = [messages[:cut], messages[cut + 1 :]]

    async def talk(socket):
        await socket.recv()  # the feature flags: then somebody listens
        for message in parts.pop(0):
            await socket.send(message)
        if not parts:
            await socket.wait_closed()

    async def go():
        async with serve(talk, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            client, listener = ComfyClient(Target("t", url, dialect, price=price)), Listener()
            stream = EventStream(client)
            with stream.listen(JOB, listener):
                async with client, stream, asyncio.timeout(60):
                    while not listener.node_starts or listener.node_starts[-1][0]:
                        await listener.woken.wait()
                        listener.woken.clear()
            return listener

    return asyncio.run(go())


def test_events_show_which_nodes_ran_and_what_they_cost():
    listener = follow(
        *STARTED,
        text_frame("2", "Status: Queued"),
        text_frame("2", "Price: 1 credits"),
        text_frame("2", "Status: Completed\nPrice: 21.1 credits"),
        text_frame("9", "Price: 7 credits"),  # of a node that did not begin
        *ENDED,
        text_frame("3", "Price: 7 credits"),  # the job has ended, so it is the next job's
    )
    assert listener.executed_nodes == {"2", "3"}
    assert listener.node_charges == ReportedCharges({"2": 100_000})


def test_prices_are_in_the_credits_of_the_target():
    listener = follow(
        *STARTED, text_frame("2", "Price: 100 credits"), *ENDED, price=TargetPrice(credits_per_usd=Fraction(200))
    )
    assert listener.node_charges == ReportedCharges({"2": 500_000})


def test_text_may_name_its_job():
    listener = follow(
        *STARTED, text_frame("2", "Price: 21.1 credits", JOB), text_frame("2", "Price: 7 credits", OTHER), *ENDED
    )
    assert listener.node_charges == ReportedCharges({"2": 100_000})


def test_events_that_may_be_missing_show_nothing():
    assert follow(*STARTED[1:], *ENDED).executed_nodes is None
    assert follow(*STARTED, None, *ENDED).executed_nodes is None


def test_frames_of_other_shapes_are_ignored():
    frame = text_frame("2", "Price: 7 credits")
    odd = [frame[:size] for size in range(0, len(frame) - 1, 3)]
    assert follow(*STARTED, *odd, struct.pack(">II", 3, 2**32 - 1) + b"2Price: 7 credits", *ENDED).node_charges is None


# --- both sources


def test_events_go_before_details_and_a_charge_of_the_job_beside_those_of_nodes():
    state = JobState("succeeded", charged=ReportedCharges(whole=Fraction(500_000)), cached=frozenset("1"))
    assert find_executed({"1", "2"}, state, Listener()) == {"2"}
    assert find_charged(state, Listener()) == ReportedCharges(whole=Fraction(500_000))
    listener = follow(*STARTED, text_frame("2", "Price: 21.1 credits"), *ENDED)
    assert find_executed({"1", "2", "3", "4"}, state, listener) == {"2", "3"}
    assert find_charged(state, listener) == ReportedCharges({"2": 100_000}, Fraction(500_000))
    assert find_charged(JobState("succeeded")) is None


@pytest.mark.parametrize(
    ("facts", "executed"),
    [
        ({"outputs": FILES}, None),  # nobody named a node, although one made the files
        ({"outputs": FILES, "cached": frozenset("23")}, frozenset("1")),
        ({"outputs": FILES, "cached": frozenset("123")}, frozenset()),
        ({"outputs": ()}, frozenset()),
    ],
)
def test_that_no_node_ran_is_not_believed_of_a_job_with_files(facts, executed):
    listener = follow(event("execution_start"), event("execution_success"))
    assert listener.executed_nodes == frozenset()
    assert find_executed({"1", "2", "3"}, JobState("succeeded", **facts), listener) == executed
    failed = JobState("failed", executed=frozenset(), **facts)
    assert find_executed({"1", "2", "3"}, failed) == executed


def graph(radius):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": radius, "sigma": 1.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": f"r{radius}"}},
    }


@pytest.mark.parametrize("dialect", ["comfyui", "cloud", "v2"])
def test_both_agree_with_the_account_of_the_embedded_server(dialect):
    keys = {"prices": {"EmptyImage": "0.50 USD", "ImageBlur": "0.03 USD"}, "tells_charges": True}
    faults = Faults(scenario=Scenario.from_mapping(keys))

    async def run(client, stream, radius):
        listener, job_id = Listener(), str(uuid.uuid4())
        with stream.listen(job_id, listener):  # a ComfyUI keeps the id
            prompt_id = await client.submit(JobSubmission(job_id, graph(radius), stream.client_id))
        with stream.follow(prompt_id, listener):
            while True:
                state = await client.get_job(prompt_id)
                if state.is_over and (dialect != "comfyui" or listener.executed_nodes is not None):
                    break
                await asyncio.sleep(0.01)
        charged = find_charged(state, listener)
        return find_executed(graph(radius), state, listener), charged and (charged.whole or charged.nodes)

    async def go(server):
        async with ComfyClient(Target("t", server.url, dialect)) as client, EventStream(client) as stream:
            await client.connect()
            async with asyncio.timeout(60):
                first, second = await run(client, stream, 1), await run(client, stream, 2)
                faults.scenario = Scenario.from_mapping(keys | {"tells_charges": False})
                return first, second, await run(client, stream, 3)

    with EmbeddedServer(dialect, faults=faults) as server:
        first, second, third = asyncio.run(go(server))
        assert server.charge_total == pytest.approx(0.5 + 3 * 0.03)
    close = {"abs": 1 + 5_000 / 211}  # the texts have two decimals of a credit
    if dialect == "comfyui":
        assert first == ({"1", "2", "3"}, pytest.approx({"1": 500_000, "2": 30_000}, **close))
        assert second == ({"2", "3"}, pytest.approx({"2": 30_000}, **close))
    else:
        known = dialect == "cloud"  # API v2 has no messages
        assert first == ({"1", "2", "3"} if known else None, pytest.approx(530_000, **close))
        assert second == ({"2", "3"} if known else None, pytest.approx(30_000, **close))
    assert third == (second[0], None)
