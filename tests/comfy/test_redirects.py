"""Redirects of /view: a server may lead us to public addresses and to its own kind, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import re
import socket
from dataclasses import replace
from hashlib import sha256

import httpx
import pytest

from sweeper.comfy import client as client_module
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput
from sweeper.comfy.retry import RetryPolicy
from sweeper.comfy.target import Target
from sweeper.comfy.transport import check_redirect, classify_address
from sweeper.errors import LostError, TransientError

OUTPUT = JobOutput("9", "images", 0, "a.png", "", "output")
KINDS = {
    "public": ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8"],
    "loopback": ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "2002:7f00:1::"],
    "private": ["10.0.0.1", "172.16.0.1", "192.168.1.1", "fc00::1", "100.64.0.1", "64:ff9b::10.0.0.1"],
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0"],
    "metadata": ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "64:ff9b::a9fe:a9fe"],
    "special": ["224.0.0.1", "255.255.255.255", "ff02::1", "240.0.0.1"],
}


class Received(io.BytesIO):
    def restart(self):
        self.seek(0)
        self.truncate()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(("kind", "address"), [(kind, address) for kind, all_ in KINDS.items() for address in all_])
def test_addresses_have_kinds(kind, address):
    assert classify_address(address) == kind


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_redirect_leads_to_public_addresses_or_to_the_targets_own_kind(target, kind):
    if kind == "public" or (kind == target and kind != "metadata"):
        check_redirect(kind, target)
    else:
        with pytest.raises(TransientError, match=f"redirects to a {kind} address"):
            check_redirect(kind, target)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]/x", "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.5/x", "http://[fe80::1]/x", "http://[::ffff:127.0.0.1]/x", "http://0.0.0.0/x",
    ],
)  # fmt: skip
def test_public_target_may_not_redirect_to_a_private_address(location):
    requests = []

    def serve(request):
        requests.append(str(request.url))
        return httpx.Response(302, headers={"Location": location})

    async def go():
        target = Target("t", "https://gpu.example", "cloud")
        policy = RetryPolicy(attempts=1)
        async with ComfyClient(target, httpx.MockTransport(serve), retry_policy=policy) as client:
            with pytest.raises(TransientError, match=r"redirects to a (loopback|metadata|private|link-local) address"):
                await download(client, OUTPUT, Received())

    asyncio.run(go())
    assert len(requests) == 1


def fetch(output, serve, url="https://gpu.example"):
    """Download an output of a target with a key, from what `serve` answers; returns the file and the requests."""
    requests, received = [], Received()

    def answer(request):
        requests.append(request)
        return serve(request)

    async def go():
        async with ComfyClient(
            Target("t", url, "cloud", key="sk-secret"),
            httpx.MockTransport(answer),
            retry_policy=RetryPolicy(attempts=1),
        ) as client:
            return await download(client, output, received)

    try:
        result = asyncio.run(go())
        assert (result.bytes, result.sha256) == (len(received.getvalue()), sha256(received.getvalue()).hexdigest())
    except (LostError, TransientError) as error:
        return error, requests
    return received.getvalue(), requests


def test_a_file_in_the_answer_about_its_job_needs_no_request():
    assert fetch(replace(OUTPUT, content=b"picture"), None) == (b"picture", [])


def test_a_url_in_the_answer_about_a_job_is_opened_without_the_key():
    found, (request,) = fetch(
        replace(OUTPUT, url="https://bucket.example/a?s=1"), lambda _: httpx.Response(200, text="x")
    )
    assert (found, str(request.url)) == (b"x", "https://bucket.example/a?s=1")
    assert set(request.headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}
    refused, requests = fetch(replace(OUTPUT, url="https://bucket.example/a"), lambda _: httpx.Response(403))
    assert isinstance(refused, LostError)  # the answer would name the same URL again
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://bucket.example/a.png", "a URL that is not https"),
        ("https://bucket.example/a.png?k=sk-secret", "contains our key"),
        ("https://169.254.169.254/latest", "a metadata address"),
        ("https://127.0.0.1/a.png", "a loopback address"),
        ("file:///etc/passwd", r"not http\(s\)"),
    ],
)
def test_an_unsafe_url_in_the_answer_about_a_job_is_not_opened(url, message):
    error, requests = fetch(replace(OUTPUT, url=url), None)
    assert re.search(message, str(error))
    assert requests == []
    error, requests = fetch(
        replace(OUTPUT, url="https://bucket.example/a"), lambda _: httpx.Response(302, headers={"Location": url})
    )
    assert re.search(message, str(error))
    assert len(requests) == 1


def test_a_target_without_tls_may_name_a_url_without_tls():
    found, _ = fetch(
        replace(OUTPUT, url="http://bucket.example/a"), lambda _: httpx.Response(200, text="x"), "http://gpu"
    )
    assert found == b"x"


class Storage:
    """Counts connections and remembers what it receives."""

    def __init__(self):
        self.received = b""
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        while chunk := await reader.read(1000):
            self.received += chunk
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\nOK")
        writer.close()


@pytest.mark.parametrize("host", ["storage.example", "127.1", "2130706433"])
@pytest.mark.parametrize("kind", ["public", "private", "loopback"])
def test_name_that_resolves_to_this_machine_gets_nothing_from_us(kind, host, monkeypatch):
    """The name is public; only its address is not. The server learns nothing, and a target on this machine may."""
    storage, real = Storage(), socket.getaddrinfo

    def resolve(host, *args, **options):
        return real("127.0.0.1" if host in ("storage.example", b"storage.example") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(client_module, "classify_peer", lambda _stream: kind)  # of the target

    async def go():
        server = await asyncio.start_server(storage.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def redirect(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            location = f"http://{host}:{port}/file?sig=1"
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()

        first = await asyncio.start_server(redirect, "127.0.0.1", 0)
        target = Target("t", f"http://127.0.0.1:{first.sockets[0].getsockname()[1]}", "cloud")
        async with ComfyClient(target, retry_policy=RetryPolicy(attempts=1)) as client:
            if kind == "loopback":
                await download(client, OUTPUT, Received())
            else:
                with pytest.raises(TransientError, match=f"a loopback address, but is itself at a {kind} one"):
                    await download(client, OUTPUT, Received())
        first.close()
        server.close()
        await asyncio.sleep(0.05)

    asyncio.run(go())
    assert storage.connections == 1
    assert (storage.received == b"") == (kind != "loopback")


class Proxy:
    """Redirects requests to `gpu.*` to `location`, and answers all others with a file; keeps the request lines."""

    def __init__(self, location):
        self.location, self.lines = location, []

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.lines.append(head.splitlines()[0])
        if "://gpu" in self.lines[-1]:
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {self.location}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\nOK")
        await writer.drain()
        writer.close()


ADDRESSES = {
    "inside.example": "10.0.0.5", "here.example": "127.0.0.1", "cloud.example": "169.254.169.254",
    "outside.example": "8.8.8.8", "tunnel.example": "198.18.0.9", "gpu.inside.example": "10.0.0.6",
}  # fmt: skip


def download_through_proxy(monkeypatch, target, location):
    """Download a file of `target`, which redirects to `location`: the request lines at the proxy, and the error."""

    real = socket.getaddrinfo

    def resolve(host, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host
        if name == "127.0.0.1":  # the proxy
            return real(host, *rest, **more)
        if name not in ADDRESSES:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESSES[name], 0))]

    async def go():
        proxy = Proxy(location)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        error = None
        async with ComfyClient(Target("t", target, "cloud"), retry_policy=RetryPolicy(attempts=1)) as client:
            try:
                await download(client, OUTPUT, Received())
            except TransientError as failure:
                error = str(failure)
        server.close()
        return proxy.lines, error

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://inside.example/x", "private"), ("http://here.example/x", "loopback"),
        ("http://cloud.example/x", "metadata"), ("http://metadata.google.internal/x", "private"),
        ("http://storage.lan/x", "private"), ("http://intranet/x", "private"), ("http://printer.LOCAL./x", "private"),
        ("http://10.1/x", "special"), ("http://2130706433/x", "special"), ("http://0x7f.0.0.1/x", "special"),
        ("http://127%2e0%2e0%2e1/x", "special"),
    ],
)  # fmt: skip
def test_redirect_by_name_behind_a_proxy_does_not_lead_inside(monkeypatch, location, kind):
    lines, error = download_through_proxy(monkeypatch, "http://gpu.example", location)
    assert len(lines) == 1
    assert f"redirects to a {kind} address, but is itself at a public one" in error


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("http://gpu.example", "http://outside.example/x"),
        ("http://gpu.example", "http://only-the-proxy-resolves.example/x"),
        ("http://gpu.example", "http://tunnel.example/x"),
        ("http://gpu.lan", "http://storage.lan/x"),
        ("http://gpu", "http://storage/x"),
        ("http://gpu.inside.example", "http://inside.example/x"),
    ],
)
def test_redirect_by_name_behind_a_proxy_is_followed_to_public_and_like_hosts(monkeypatch, target, location):
    lines, error = download_through_proxy(monkeypatch, target, location)
    assert error is None
    assert lines[1:] == [f"GET {location} HTTP/1.1"]
