"""The client over real sockets: what it says of a failed request decides whether a job is sent, and paid for, twice."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import logging
import os
import socket
import struct
import threading

import httpx
import pytest

from sweeper.comfy import client as client_module
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput, JobSubmission
from sweeper.comfy.retry import RetryPolicy
from sweeper.comfy.target import Target
from sweeper.errors import TransientError, Trouble, UnreachableError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
TAKEN = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"prompt_id": "p"}'
OUTPUT = JobOutput("9", "images", 0, "a b.png", "c+d", "output")
KEY = "k-0123456789-SECRET"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request):
    """The loops that sweeper runs in; they report a broken connection in different ways."""
    return None if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop


class Received(io.BytesIO):
    def restart(self):
        self.seek(0)
        self.truncate()


class Peer:
    """A server that reads whole requests and plays `answers` in turn: bytes to send, or None to hang up; a part that
    ends with `HANG_UP` is sent before it hangs up. The last is played for ever.
    """

    HANG_UP = b"<hang up>"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (line[16:] for line in head.splitlines() if line.lower().startswith("content-length:")), 0
                )
                self.requests.append((head, await reader.readexactly(int(length))))
                self.asked.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                writer.write(answer.removesuffix(self.HANG_UP))
                await writer.drain()
                if answer.endswith(self.HANG_UP):
                    break
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            writer.close()
            self.ended.set()

    def list_posted(self):
        return [body for head, body in self.requests if head.startswith("POST")]


def talk(peer, act, *, loop_factory=None, dialect="comfyui", url=None, key=None):
    """`act(client)` with a client of that peer, or of `url`, that tries nothing twice; what it returns."""

    async def go():
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        target = Target("t", url or f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", dialect, key=key)
        async with ComfyClient(target, retry_policy=RetryPolicy(attempts=1)) as client:
            found = await act(client)
        server.close()
        await asyncio.sleep(0)  # the peer's connections end
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(go())


async def submit(client):
    return await client.submit(JobSubmission("j", {"1": {"class_type": "X", "inputs": {}}}))


async def look(client):
    return (await client.get_job("x")).state


async def failure_of(work):
    with pytest.raises(TransientError) as caught:
        await work
    return caught.value


def fail_to_submit(peer, **options):
    return talk(peer, lambda client: failure_of(submit(client)), **options)


# --- whether a request can have left


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\nConte" + Peer.HANG_UP,
        OK[:-1] + Peer.HANG_UP,
        b"SSH-2.0-OpenSSH_9.9\r\n" + Peer.HANG_UP,
    ],
    ids=["nothing", "half a head", "half a body", "no HTTP"],
)
@pytest.mark.parametrize("used", [False, True], ids=["new connection", "used connection"])
def test_broken_connection_counts_as_sent_and_sends_nothing_twice(answer, used, loop_factory):
    peer = Peer(*([OK] if used else []), answer)

    async def act(client):
        if used:
            await look(client)
        return await failure_of(submit(client))

    error = talk(peer, act, loop_factory=loop_factory)
    assert (error.sent, error.trouble) == (True, Trouble.DROPPED)
    assert len(peer.list_posted()) == 1
    assert peer.connections == 1


def test_connection_closed_while_idle_is_replaced_before_the_request(loop_factory):
    peer = Peer(OK + Peer.HANG_UP, TAKEN)

    async def act(client):
        await look(client)
        await peer.ended.wait()
        await asyncio.sleep(0.05)  # the end of the connection has arrived here
        return await submit(client)

    assert talk(peer, act, loop_factory=loop_factory) == "p"
    assert len(peer.list_posted()) == 1
    assert peer.connections == 2


def test_connection_that_is_reset_at_once_is_a_failure_like_others(loop_factory):
    def reset(listener):
        with contextlib.suppress(OSError):  # it is closed at the end
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    async def act(client):  # of uvloop's connections, one in twenty is gone before anyone asks where it leads
        return [
            error
            for _ in range(20)
            for error in await asyncio.gather(*(look(client) for _ in range(10)), return_exceptions=True)
        ]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset, args=[listener])
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            errors = talk(Peer(OK), act, url=url, loop_factory=loop_factory)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)
    assert {type(error) for error in errors} == {TransientError}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_closed_port_means_not_sent_and_is_reported_with_address_and_reason(host, loop_factory):
    with socket.socket() as bound:  # nobody listens at a port that is only bound
        bound.bind(("127.0.0.1", 0))
        address = f"{host}:{bound.getsockname()[1]}"
        error = fail_to_submit(Peer(OK), url=f"http://{address}", loop_factory=loop_factory)
    assert (error.sent, error.trouble) == (False, Trouble.REFUSED)
    assert str(error) == f"ConnectError: {address}: Connection refused"


def test_unknown_host_means_not_sent_and_is_no_closed_port(loop_factory):
    error = fail_to_submit(Peer(OK), url="http://nowhere.invalid", loop_factory=loop_factory)
    assert (error.sent, error.trouble) == (False, Trouble.NO_CONNECTION)
    assert str(error).startswith("ConnectError: nowhere.invalid:80: ")


def test_silent_server_counts_as_sent(monkeypatch):
    monkeypatch.setattr(client_module, "TIMEOUT", httpx.Timeout(30, read=0.05))
    peer = Peer(b"")
    error = fail_to_submit(peer)
    assert (error.sent, error.trouble) == (True, Trouble.TIMEOUT)
    assert len(peer.list_posted()) == 1


def test_no_free_connection_means_not_sent(monkeypatch):
    monkeypatch.setattr(client_module, "TIMEOUT", httpx.Timeout(30, pool=0.02))
    monkeypatch.setattr(client_module, "LIMITS", httpx.Limits(max_connections=1))
    peer = Peer(b"")

    async def act(client):
        waiting = asyncio.create_task(look(client))
        await peer.asked.wait()
        error = await failure_of(submit(client))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return error

    assert not talk(peer, act).sent
    assert peer.list_posted() == []


@pytest.mark.parametrize("port", ["1", "peer"])
def test_proxy_that_gives_no_connection_means_not_sent_and_no_closed_port(monkeypatch, port):
    peer = Peer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async def go():
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        proxy = server.sockets[0].getsockname()[1] if port == "peer" else 1
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pass-WORD@127.0.0.1:{proxy}")
        target = Target("t", "https://gpu.invalid", "comfyui")
        async with ComfyClient(target, retry_policy=RetryPolicy(attempts=1)) as client:
            error = await failure_of(submit(client))
        server.close()
        return error

    error = asyncio.run(go())
    assert not error.sent
    assert error.trouble != Trouble.REFUSED
    assert "pass-WORD" not in str(error)
    if port == "1":
        assert str(error) == "ConnectError: gpu.invalid:443: proxy http://127.0.0.1:1: Connection refused"
    assert [head.split()[0] for head, _ in peer.requests] == ([] if port == "1" else ["CONNECT"])


# --- redirects and keys


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirected_submission_is_not_followed(status):
    other = Peer(TAKEN)

    async def act(client):
        server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
        where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prompt"
        peer.answers = [f"HTTP/1.1 {status} Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()]
        with pytest.raises(UnreachableError, match="answers with a redirect"):
            await submit(client)
        server.close()

    peer = Peer(OK)
    talk(peer, act, key=KEY)
    assert len(peer.requests) == 1
    assert KEY in peer.requests[0][0]
    assert other.requests == []


def test_file_behind_redirects_is_fetched_without_key_and_cookie(caplog):
    caplog.set_level(logging.DEBUG)
    away = b"HTTP/1.1 307 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    storage = Peer(away, OK)

    async def act(client):
        server = await asyncio.start_server(storage.serve, "127.0.0.1", 0)
        where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file?sig=1"
        head = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nSet-Cookie: node=7\r\nContent-Length: 0\r\n\r\n"
        peer.answers = [head.encode()]
        file = Received()
        await download(client, OUTPUT, file)
        server.close()
        return file.getvalue()

    peer = Peer(OK)
    assert talk(peer, act, key=KEY) == b"{}"
    assert [KEY in head for head, _ in peer.requests] == [True]
    assert [head.split()[1] for head, _ in storage.requests] == ["/file?sig=1", "/there"]
    assert not [head for head, _ in storage.requests if KEY in head or "cookie" in head.lower()]
    assert KEY not in caplog.text


@pytest.mark.parametrize("level", [1, logging.DEBUG, logging.INFO])
def test_no_log_record_has_a_signed_url_or_a_key(level):
    records = []
    handler = logging.Handler(level)
    handler.emit = records.append
    wire = ("httpcore", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
    loggers = [logging.getLogger(name) for name in ("", "httpx", *wire, "sweeper", "sweeper.comfy.http")]
    storage = Peer(f"HTTP/1.1 200 OK\r\nX-You: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    async def act(client):
        server = await asyncio.start_server(storage.serve, "127.0.0.1", 0)
        where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/SECRET-path/file?X-Amz-Signature=SECRET-sig"
        head = f"HTTP/1.1 302 {KEY}\r\nLocation: {where}\r\nSet-Cookie: {KEY}=7\r\nContent-Length: 0\r\n\r\n"
        peer.answers = [head.encode()]
        await download(client, OUTPUT, Received())
        server.close()
        peer.answers = [OK]
        async with httpx.AsyncClient(trust_env=False) as other:  # the application's own requests are not ours to hide
            await other.get(f"{client.target.url}/application")

    peer = Peer(OK)
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(level)
            logger.addHandler(handler)
        talk(peer, act, key=KEY)
    finally:
        for logger, old_level in zip(loggers, levels, strict=True):
            logger.setLevel(old_level)
            logger.removeHandler(handler)
    said = "\n".join(logging.Formatter().format(record) + repr(record.args) for record in records)
    assert storage.requests
    assert KEY not in said
    assert "SECRET" not in said
    assert "/application" in said
    if level < logging.INFO:
        assert "GET 127.0.0.1: HTTP 200" in said


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:999999/x", "http://127.0.0.1:0/x", "http://[::1/x", f"http://{'a' * 64}.x/", "/again"],
)
def test_redirect_that_leads_nowhere_fails_only_the_download(location):
    peer = Peer(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    error = talk(peer, lambda client: failure_of(download(client, OUTPUT, Received())))
    assert str(error).startswith("a b.png: ")
    assert len(peer.requests) == (7 if location == "/again" else 1)


# --- what travels


def test_requests_travel_as_written_on_one_connection():
    peer = Peer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: node=7; Path=/\r\n\r\n"), OK)

    async def act(client):
        response = await client.open_output(OUTPUT, {})
        await response.aread()
        await response.aclose()
        await look(client)

    talk(peer, act)
    first, second = (head for head, _ in peer.requests)
    assert first.startswith("GET /view?filename=a+b.png&subfolder=c%2Bd&type=output HTTP/1.1\r\n")
    assert first.lower().count("user-agent: sweeper") == first.lower().count("accept-encoding: identity") == 1
    assert first.lower().count("\r\nhost:") == 1
    assert "node=7" not in first
    assert second.lower().count("\r\ncookie: node=7") == 1  # a load balancer's cookie
    assert peer.connections == 1


def test_connection_with_an_unread_answer_is_not_used_again():
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000, OK)

    async def act(client):
        await (await client.open_output(OUTPUT, {})).aclose()
        return await look(client)

    assert talk(peer, act) == "underway"
    assert peer.connections == 2


def test_answer_compressed_against_our_wish_is_read():
    packed = gzip.compress(b'{"prompt_id": "p"}')
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    async def act(client):
        file = Received()
        await download(client, OUTPUT, file)
        return await submit(client), file.getvalue()

    assert talk(peer, act) == ("p", b'{"prompt_id": "p"}')
