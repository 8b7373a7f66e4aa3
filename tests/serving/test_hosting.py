"""`ServerThread`: connections that arrive while it stops, that keep it waiting, and that are too many."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from email.utils import parsedate_to_datetime

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from sweeper.serving import hosting
from sweeper.serving.hosting import ServerThread, base_url, bind
from tests.waiting import wait_until

HEAD = "POST / HTTP/1.1\r\nHost: here\r\n"
WEBSOCKET = (
    "GET /stream HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_connection_accepted_while_stopping_is_closed():
    loops, holding, release, stop_requested = [], threading.Event(), threading.Event(), threading.Event()
    listener = bind("127.0.0.1", 0)
    server = ServerThread([(listener, PlainTextResponse("here"))], {}, loops.append)
    server.start()
    response = httpx.get(base_url(listener))
    assert response.text == "here"
    assert abs(parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()) < 60  # as real servers do
    (loop,) = loops
    tell = loop.call_soon_threadsafe

    def hold():
        holding.set()
        release.wait(60)

    def tell_and_stop(*call):
        handle = tell(*call)
        stop_requested.set()
        return handle

    tell(hold)
    assert holding.wait(60)
    loop.call_soon_threadsafe = tell_and_stop
    stopping = threading.Thread(target=server.stop)
    with socket.create_connection(listener.getsockname(), timeout=60) as late:
        stopping.start()
        assert stop_requested.wait(60)
        release.set()  # the next round both accepts and stops
        with contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""
    stopping.join(60)
    assert not stopping.is_alive()


async def read_whole(request):
    if "late" in request.query_params:
        await asyncio.sleep(1.5)
    return PlainTextResponse(str(len(await request.body())))


async def send_much(_request):
    return PlainTextResponse("x" * 30_000_000)


async def stream(websocket):
    await websocket.accept()
    await asyncio.sleep(1.5)
    await websocket.send_text("still here")
    await websocket.close()


ROUTES = [Route("/", read_whole, methods=["POST"]), Route("/much", send_much), WebSocketRoute("/stream", stream)]


@pytest.fixture
def transports():
    """The open connections of the server at `address`."""
    return {}


@pytest.fixture
def address(monkeypatch, transports):
    """The address of a server with short deadlines that holds ten connections."""
    for name, value in {"WAIT_SECONDS": 0.5, "STALL_SECONDS": 1, "CHECK_SECONDS": 0.05, "MAX_CONNECTIONS": 10}.items():
        monkeypatch.setattr(hosting, name, value)
    listener = bind("127.0.0.1", 0)
    server = ServerThread([(listener, Starlette(routes=ROUTES))], transports, lambda _loop: None)
    server.start()
    yield listener.getsockname()
    server.stop()


def read_to_end(connection):
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "POST / HT",
        HEAD,
        f"{HEAD}Content-Length: 4000\r\n\r\nabc",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\na",
    ],
    ids=["nothing", "half line", "half head", "half body", "half chunk"],
)
def test_half_request_does_not_hold_its_connection(address, sent):
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(sent.encode())
        assert read_to_end(connection) == b""


@pytest.mark.parametrize("head", ["", f"{HEAD}Content-Length: 4000\r\n\r\n"], ids=["head", "body"])
def test_request_that_drips_is_closed(address, head):
    with socket.create_connection(address, timeout=60) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head.encode())
        end = time.monotonic() + 20
        while time.monotonic() < end:
            connection.sendall(b"G")
            time.sleep(0.1)
        raise AssertionError("the connection is still open")


def test_slow_upload_that_goes_on_is_read_whole(address, monkeypatch):
    monkeypatch.setattr(hosting, "STALL_SECONDS", 60)  # a busy machine may pause too; each part is worth four seconds

    def drip():
        for _ in range(30):
            time.sleep(0.05)
            yield b"x" * 2000

    assert httpx.post(f"http://127.0.0.1:{address[1]}/", content=drip(), timeout=60).text == "60000"


def test_client_that_waits_for_the_server_is_not_closed(address):
    with socket.create_connection(address, timeout=60) as connection:
        head = HEAD.replace("/ ", "/?late ")
        connection.sendall(f"{head}Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert b"100" in connection.recv(100)
        connection.sendall(b"abc")
        assert read_to_end(connection).endswith(b"\r\n\r\n3")


def test_event_stream_outlives_the_deadlines(address):
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(WEBSOCKET.encode())
        answer = b""
        while b"still here" not in answer:
            answer += (part := connection.recv(65536))
            assert part


def test_unread_response_does_not_hold_its_connection(address, transports):
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: here\r\n\r\n")
        wait_until(lambda: transports)
        wait_until(lambda: not transports)
        assert len(read_to_end(connection)) < 30_000_000


def test_half_requests_do_not_lock_out_a_whole_one(address, monkeypatch):
    monkeypatch.setattr(hosting, "WAIT_SECONDS", 60)
    monkeypatch.setattr(hosting, "STALL_SECONDS", 60)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(30)]
        for connection in connections:
            with contextlib.suppress(ConnectionError):
                connection.sendall(f"{HEAD}Content-Length: 4000\r\n\r\nabc".encode())
        assert httpx.post(f"http://127.0.0.1:{address[1]}/", content=b"abc", timeout=60).text == "3"
        assert all(read_to_end(connection) == b"" for connection in connections[:20])
        connections[-1].setblocking(False)  # among the last nine, which are still open
        with pytest.raises(BlockingIOError):
            connections[-1].recv(1)


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_wrong_chunk_is_refused_without_a_traceback(address, caplog, path):
    caplog.set_level(logging.ERROR)
    for pause in (0, 0.1):
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(f"{HEAD.replace('/ ', path + ' ')}Transfer-Encoding: chunked\r\n\r\n".encode())
            time.sleep(pause)
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"zz\r\n")
            read_to_end(connection)
    assert caplog.records == []


@pytest.mark.parametrize(
    "sent",
    [
        f"{HEAD}Content-Length: 4000\r\n\r\nabc",
        f"{HEAD.replace('/ ', '/?late ')}\r\n",
        "GET /much HTTP/1.1\r\nHost: here\r\n\r\n",
        WEBSOCKET,
    ],
    ids=["half body", "slow answer", "unread answer", "websocket"],
)
def test_stop_with_an_open_request_shows_no_traceback(monkeypatch, caplog, sent):
    monkeypatch.setattr(hosting, "GRACE_SECONDS", 0.1)
    server = ServerThread([(listener := bind("127.0.0.1", 0), Starlette(routes=ROUTES))], {}, lambda _loop: None)
    server.start()
    with socket.create_connection(listener.getsockname(), timeout=60) as connection:
        connection.sendall(sent.encode())
        time.sleep(0.3)  # the request is under way
        server.stop()
    assert caplog.records == []
