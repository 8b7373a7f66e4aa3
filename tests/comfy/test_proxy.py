"""Proxies of the environment: a target that one is not meant for is reached, and one that cannot be used is told."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sweeper.comfy.client import ComfyClient
from sweeper.comfy.download import download
from sweeper.comfy.protocol import JobOutput
from sweeper.comfy.retry import RetryPolicy
from sweeper.comfy.target import Target
from sweeper.errors import TransientError, UsageError

SOCKS = "socks5://me:pass-WORD@127.0.0.1:1"
OUTPUT = JobOutput("9", "images", 0, "a.png", "", "output")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server():
    """A ComfyUI of few words, which keeps the request lines that it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            lines.append(self.requestline)
            body = b'{"system": {"comfyui_version": "0.3.64", "argv": []}, "devices": []}'
            self.send_response(302 if "/view" in self.path else 200)
            self.send_header("Location", "http://pictures.invalid/a.png")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    lines = []
    with ThreadingHTTPServer(("0.0.0.0", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.lines = lines
        yield listening
        listening.shutdown()


def read_version(url):
    async def go():
        async with ComfyClient(Target("lab", url, "comfyui")) as client:
            return (await client.connect()).version

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "value", "spared"),
    [
        ("ALL_PROXY", SOCKS, "0.0.0.0"),
        ("all_proxy", SOCKS, "example.com, 0.0.0.0:{port}"),
        ("HTTP_PROXY", "socks://127.0.0.1:1", "*"),
        ("http_proxy", "no proxy at all", "0.0.0.0,example.com"),
        ("HTTPS_PROXY", SOCKS, ""),
    ],
)
def test_target_exempt_from_the_proxy_is_reached(server, monkeypatch, name, value, spared):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", spared.format(port=server.server_port))
    assert read_version(f"http://0.0.0.0:{server.server_port}") == "0.3.64"
    assert read_version(f"http://127.0.0.1:{server.server_port}") == "0.3.64"


def test_request_goes_through_the_environments_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "elsewhere.invalid,gpu.invalid:1")
    assert read_version("http://gpu.invalid") == "0.3.64"
    assert server.lines == ["GET http://gpu.invalid/system_stats HTTP/1.1"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "ALL_PROXY",
            SOCKS,
            "the proxy socks5://127.0.0.1:1, which cannot be used: it needs one more package: ",
        ),
        (
            "all_proxy",
            "socks://me:pass-WORD@h:1",
            "socks://h:1, which cannot be used: it is not a valid",
        ),
        ("HTTP_PROXY", "ftp://h", "the proxy ftp://h, which cannot be used: it is not a valid"),
        ("http_proxy", "http://me:pass-WORD@", "which cannot be used: it has no host or port; correct it"),
        ("http_proxy", "http://me:pass-WORD@h:99999", "http://h:99999, which cannot be used: it is not"),
    ],
)
def test_unusable_proxy_is_reported_without_its_password(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(UsageError) as caught:
        read_version("http://gpu.invalid:8188")
    told = str(caught.value)
    assert told.startswith("target lab: the environment sends requests to gpu.invalid through the proxy ")
    assert said in told
    assert told.endswith("correct it or unset it (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY), or add gpu.invalid to NO_PROXY")
    assert "pass-WORD" not in told


def test_download_through_an_unusable_proxy_is_reported(server, monkeypatch, tmp_path):
    monkeypatch.setenv("ALL_PROXY", SOCKS)
    monkeypatch.setitem(sys.modules, "socksio", None)

    async def go():
        async with ComfyClient(Target("lab", f"http://127.0.0.1:{server.server_port}", "comfyui")) as client:
            client.retry_policy = RetryPolicy(attempts=1)
            with (tmp_path / "a.png").open("wb") as file:
                await download(client, OUTPUT, file)

    with pytest.raises(
        TransientError, match=r"requests to pictures\.invalid through the proxy socks5://127\.0\.0\.1:1"
    ):
        asyncio.run(go())
