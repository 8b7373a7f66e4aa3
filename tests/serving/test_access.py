"""Who may see a page that requires its token on loopback too, and which page may show it in a frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sweeper.errors import UsageError
from sweeper.serving.access import PageServer, check_embedder, read_json

COMFYUI = "http://127.0.0.1:8188"


async def store(request: Request) -> Response:
    return PlainTextResponse(str(len(json.dumps(await read_json(request, limit=100_000)))))


@pytest.fixture
def guarded() -> Iterator[PageServer]:
    server = PageServer("127.0.0.1", 0, "test", None, needs_token=True, embedder=COMFYUI)
    server.start(Starlette(routes=[Route("/store", store, methods=["POST", "GET"])]), writable=["/store"])
    yield server
    server.stop()


@contextmanager
def enter(server: PageServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url.partition("#")[0], trust_env=False) as client:
        assert client.post("session", json={"token": server.token}).json() == {"entered": True}
        yield client


def test_a_page_can_require_its_token_on_loopback(guarded: PageServer) -> None:
    assert guarded.token is not None
    assert guarded.url.endswith(f"#token={guarded.token}")
    with httpx.Client(base_url=guarded.url.partition("#")[0], trust_env=False) as client:
        assert client.get("store").status_code == 401
        assert client.post("store", json={}).status_code == 401
        assert client.post("session", json={"token": "guessed"}).status_code == 403
    with enter(guarded) as client:
        assert client.post("store", json={}).text == "2"


def test_a_route_chooses_how_long_its_bodies_may_be(guarded: PageServer) -> None:
    with enter(guarded) as client:
        assert client.post("store", json="x" * 99_998).text == "100000"
        assert client.post("store", json="x" * 99_999).status_code == 413


def test_one_origin_may_show_the_page_in_a_frame(guarded: PageServer) -> None:
    with enter(guarded) as client:
        headers = client.post("store", json={}).headers
        assert headers["content-security-policy"].endswith(f"frame-ancestors {COMFYUI}")
        assert "x-frame-options" not in headers


@pytest.mark.parametrize(
    "origin",
    ["*", "", "http://evil.example", "http://127.0.0.1:8188/page", "http://127.0.0.1.evil.example", "file://localhost",
     "http://user@127.0.0.1", "http://127.0.0.1:8188; script-src *", "http://127.0.0.1:99999", "http://[::1", "null"],
)  # fmt: skip
def test_no_other_origin_may_show_a_page_in_a_frame(origin: str) -> None:
    with pytest.raises(UsageError, match="not the origin of a page on this machine"):
        check_embedder(origin)


@pytest.mark.parametrize("origin", [COMFYUI, "http://localhost:8188", "https://[::1]:8188", "http://127.0.0.1/"])
def test_an_origin_on_this_machine_may_be_named(origin: str) -> None:
    assert check_embedder(origin) == origin.rstrip("/")


@pytest.mark.parametrize("origin", ["http://[::1%a; script-src *]", "http://localhost;x", "http://localhost\n", "null"])
def test_an_embedder_adds_nothing_to_the_policy(origin):
    with pytest.raises(UsageError, match="is not the origin of a page on this machine"):
        check_embedder(origin)
