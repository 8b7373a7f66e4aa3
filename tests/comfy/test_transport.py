"""The transport over real sockets: what is said of a request that failed decides whether a job is sent again."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket

import httpx
import pytest

from sweeper.comfy.http_client import HttpClient
from sweeper.comfy.transport import AiohttpTransport, is_connection_refused

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


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
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def talk(peer, work, **options):
    """`work(http, url)` with a client over the transport, against that peer; what it returns."""

    async def go():
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        limits = httpx.Limits(max_connections=options.pop("connections", 2))
        async with httpx.AsyncClient(transport=AiohttpTransport(limits), trust_env=False, **options) as http:
            found = await work(http, url)
        server.close()
        await asyncio.sleep(0)  # the peer's connections end
        return found

    return asyncio.run(go())


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nConte" + Peer.HANG_UP, OK[:-1] + Peer.HANG_UP])
@pytest.mark.parametrize("used", [False, True], ids=["new connection", "used connection"])
def test_a_connection_that_breaks_after_the_request_is_no_connection_error_and_sends_nothing_twice(answer, used):
    peer = Peer(*([OK] if used else []), answer)

    async def work(http, url):
        if used:
            await http.get(url)
        with pytest.raises(httpx.ReadError):  # a ConnectError or ConnectTimeout would say that nothing was sent
            await http.post(url + "/prompt", json={"a": 1})

    talk(peer, work)
    assert [body for head, body in peer.requests if head.startswith("POST /prompt")] == [b'{"a":1}']


def test_nobody_there_is_told_apart_from_a_break():
    async def work(http, url):
        with pytest.raises(httpx.ConnectError):
            await http.post("http://127.0.0.1:1/prompt", json={})

    talk(Peer(OK), work)


def test_a_silent_server_is_a_read_timeout_and_a_full_pool_is_not():
    peer = Peer(b"")

    async def work(http, url):
        waiting = asyncio.create_task(http.post(url, json={}, timeout=httpx.Timeout(30)))
        await peer.asked.wait()
        with pytest.raises(httpx.ConnectTimeout):  # never sent: there is no second connection
            await http.post(url, json={}, timeout=httpx.Timeout(30, pool=0.02))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(httpx.ReadTimeout):
            await http.post(url, json={}, timeout=httpx.Timeout(30, read=0.05))

    talk(peer, work, connections=1)
    assert len(peer.requests) == 2


def test_an_answer_that_is_no_http_is_an_error_of_httpx():
    async def work(http, url):
        with pytest.raises(httpx.ReadError):
            await http.get(url)

    talk(Peer(b"SSH-2.0-OpenSSH_9.9\r\n" + Peer.HANG_UP), work)


def test_requests_and_answers_pass_as_httpx_has_them():
    answer = (
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw"
    )
    peer = Peer(answer, OK)

    async def work(http, url):
        async with http.stream("GET", url + "/view?filename=a%20b+c%2Fd") as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
        await http.get(url)
        return response.status_code, response.headers.get_list("set-cookie"), raw

    assert talk(peer, work, headers={"User-Agent": "sweeper", "Accept-Encoding": "identity"}) == (
        302, ["a=1", "b=2"], b"raw",
    )  # fmt: skip
    first, second = (head for head, _ in peer.requests)
    assert first.startswith("GET /view?filename=a%20b+c%2Fd HTTP/1.1\r\n")
    assert first.lower().count("user-agent: sweeper") == first.lower().count("accept-encoding: identity") == 1
    assert first.lower().count("\r\nhost:") == 1
    assert second.lower().count("\r\ncookie:") == 1  # httpx's, and no second one
    assert peer.connections == 1


def test_a_connection_whose_answer_was_not_read_to_its_end_is_not_used_again():
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000, OK)

    async def work(http, url):
        async with http.stream("GET", url):
            pass
        return (await http.get(url)).json()

    assert talk(peer, work) == {}
    assert peer.connections == 2


def exchanges(peer, count, *, streamed=False, **options):
    """So many GETs by our client, over the transport; the answers' statuses."""

    async def one(http, url):
        if not streamed:
            return (await http.exchange("GET", url, {}))[0]
        stream = await http.open_stream("GET", url, {})
        await stream.close()
        return stream.status

    async def go():
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with HttpClient(AiohttpTransport(httpx.Limits(max_connections=2)), trust_env=False, **options) as http:
            statuses = [await one(http, f"{url}/here") for _ in range(count)]
        server.close()
        return statuses

    return asyncio.run(go())


def test_a_cookie_of_a_load_balancer_comes_back_with_the_next_request():
    peer = Peer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: node=7; Path=/\r\n\r\n"))
    assert exchanges(peer, 2) == [200, 200]
    assert "node=7" not in peer.requests[0][0]
    assert "node=7" in peer.requests[1][0]


@pytest.mark.parametrize(("streamed", "asked_for"), [(True, True), (True, False), (False, True)])
def test_a_redirect_is_followed_only_where_that_was_asked_for_and_never_for_an_exchange(streamed, asked_for):
    followed = streamed and asked_for
    away = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    peer = Peer(away, away if followed else OK, OK)
    statuses = exchanges(peer, 1, streamed=streamed, follow_redirects=asked_for)
    assert statuses == ([200] if followed else [302])
    assert [head.split()[1] for head, _ in peer.requests] == (["/here", "/here", "/there"] if followed else ["/here"])


def test_who_listens_to_the_log_of_httpx_hears_of_every_exchange(caplog):
    caplog.set_level(logging.INFO, logger="httpx")
    assert exchanges(Peer(OK), 2) == [200, 200]
    assert len([record for record in caplog.records if record.name == "httpx"]) == 2


@pytest.mark.parametrize("whole_way", [False, True], ids=["cut short", "through httpx"])
def test_an_answer_that_is_compressed_although_we_asked_not_to_is_read_all_the_same(whole_way, caplog):
    packed = gzip.compress(b'{"a": 1}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: %d\r\n\r\n"
    peer = Peer(head % len(packed) + packed)
    if whole_way:
        caplog.set_level(logging.INFO, logger="httpx")

    async def go():
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prompt?a=b%20c"
        async with HttpClient(AiohttpTransport(httpx.Limits(max_connections=2)), trust_env=False) as http:
            answer = await http.exchange("POST", url, {"X-Own": "7"}, b"{}")
            stream = await http.open_stream("GET", url, {})
            raw = b"".join([chunk async for chunk in stream.aiter_raw()])
            await stream.close()
            second = await http.open_stream("GET", url, {})
            decoded = b"".join([chunk async for chunk in second.aiter_bytes()])
            await second.close()
        server.close()
        return answer, raw, decoded, stream.url

    (status, headers, body), raw, decoded, url = asyncio.run(go())
    assert (status, headers["x-twice"], body) == (200, "2", b'{"a": 1}')
    assert (raw, decoded) == (packed, b'{"a": 1}')
    assert url.endswith("/prompt?a=b%20c")
    assert peer.requests[0][0].startswith("POST /prompt?a=b%20c HTTP/1.1\r\n")
    assert "x-own: 7" in peer.requests[0][0].lower()
    assert peer.requests[0][1] == b"{}"
    assert peer.connections == 1


def test_an_address_that_is_none_is_told_as_httpx_tells_it():
    async def work(_, url):
        async with HttpClient(AiohttpTransport(httpx.Limits(max_connections=2)), trust_env=False) as http:
            for wrong in (f"{url}999999/x", "http://[::1/x", f"http://{'a' * 64}.x/"):
                with pytest.raises(httpx.InvalidURL):
                    await http.open_stream("GET", wrong, {})

    talk(Peer(OK), work)


def test_a_connection_that_is_not_made_is_told_by_where_and_why():
    with socket.socket() as bound:  # nobody listens at a port that is only bound
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        closed, unknown = asyncio.run(refusals(port))
    assert str(closed) == f"127.0.0.1:{port}: Connection refused"
    assert str(unknown).startswith("nowhere.invalid:80: ")
    assert "ssl" not in str(unknown)
    assert is_connection_refused(closed)
    assert not is_connection_refused(unknown)


async def refusals(port):
    """What is said of a port where nobody listens, and of a name that nobody has."""
    async with HttpClient(AiohttpTransport(httpx.Limits(max_connections=2)), trust_env=False) as http:
        with pytest.raises(httpx.ConnectError) as closed:
            await http.exchange("GET", f"http://127.0.0.1:{port}/x", {})
        with pytest.raises(httpx.ConnectError) as unknown:
            await http.exchange("GET", "http://nowhere.invalid/x", {})
    return closed.value, unknown.value
