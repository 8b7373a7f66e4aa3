"""Hostile and meaningless requests: each gets a 4xx and changes nothing, and the next job runs."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import http.client
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sweeper.embedded import EmbeddedServer
from tests.embedded.clients import Cloud, Comfy
from tests.embedded.probes import chain, probe_nodes

Client = Cloud | Comfy


@pytest.fixture(scope="module", params=["cloud", "comfyui"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A server that has run a job."""
    with EmbeddedServer(request.param, nodes=probe_nodes()) as server:
        kind = Cloud if request.param == "cloud" else Comfy
        client = kind(server)
        client.run(chain())
        yield client
        client.http.close()


def state(client: Client) -> Any:
    """Everything that a request could have changed: jobs and files."""
    base = client.server.folders.base
    files = {
        path.relative_to(base).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }
    jobs = "/api/jobs" if isinstance(client, Cloud) else "/history"
    return files, client.http.get(jobs).json(), client.http.get("/api/prompt").json(), client.server.seen.accepted


def alive(client: Client) -> None:
    """Check that the worker still runs jobs."""
    job = client.run(chain(seed=1))
    assert "success" in json.dumps(job)


def check_refused(client: Client, method: str, path: str, **request: Any) -> None:
    before = state(client)
    answer = client.http.request(method, path, **request)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:200])
    assert state(client) == before


def make_nested(depth: int) -> bytes:
    return b'{"prompt":' + b"[" * depth + b"]" * depth + b"}"


def long_chain(length: int) -> dict[str, Any]:
    graph = chain()
    for number in range(length):
        source = "4" if number == 0 else f"n{number - 1}"
        graph[f"n{number}"] = {"class_type": "ProbeFail", "inputs": {"image": [source, 0], "fail": False}}
    graph["9"]["inputs"]["images"] = [f"n{length - 1}", 0]
    return graph


def make_picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(content, "PNG")
    return content.getvalue()


RED = make_picture()


def cyclic() -> dict[str, Any]:
    graph = chain()
    graph["4"]["inputs"]["image"] = ["4", 0]
    return graph


def bomb(width: int, height: int) -> bytes:
    """A PNG of many pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "body",
    [
        make_nested(150),
        make_nested(100_000),
        b'{"prompt":' + json.dumps(chain()).replace("7.0", "NaN").encode() + b"}",
        b'{"prompt":' + json.dumps(chain()).replace("7.0", "Infinity").encode() + b"}",
        b'{"prompt":' + json.dumps(chain()).replace("7.0", "1e999").encode() + b"}",
        b'{"prompt":{"1":{"class_type":"ProbeLoader","inputs":{"model_name":' + b"9" * 10_000 + b"}}}}",
        b'{"prompt":[' + b"{}," * 5_000_001 + b"{}]}",
        json.dumps({"prompt": long_chain(1500)}).encode(),
        json.dumps({"prompt": cyclic()}).encode(),
        json.dumps({"prompt": {**chain(), "zz": {"class_type": "ProbeSave"}}}).encode(),
        json.dumps({"prompt": chain(model="../../../etc/passwd")}).encode(),
        json.dumps({"prompt": chain(), "client_id": [1]}).encode(),
        json.dumps({"prompt": chain(), "extra_data": None}).encode(),
        b"\xff\xfe\x00",
        b'{"prompt": {"1": "\xff"}}',
        b"",
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_dangerous_bodies_are_refused(client, body):
    check_refused(client, "POST", "/api/prompt", content=body)
    alive(client)


@pytest.mark.parametrize(
    "path",
    [
        "/api/view?filename=../jobs.sqlite",
        "/api/view?filename=%2e%2e%2fjobs.sqlite&type=output",
        "/api/view?filename=x&subfolder=../..",
        "/api/view?filename=x&subfolder=/etc",
        "/api/view?filename=mine.json&type=user",
        "/api/view?filename=%00",
        f"/api/view?filename={'a' * 5000}",
        "/api/../../etc/passwd",
        "/api/experiment/models/..%2f..",
    ],
)
def test_paths_out_of_their_folder_are_refused(client, path):
    check_refused(client, "GET", path)


def test_bodies_above_the_limit_are_refused(client, monkeypatch):
    host, port = client.http.base_url.host, client.http.base_url.port
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=60)) as connection:
        connection.putrequest("POST", "/api/prompt")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()  # refused before any of it is sent
        assert connection.getresponse().status == 413
    monkeypatch.setattr("sweeper.embedded.http_helpers.MAX_BODY", 50_000)
    for path in ("/api/prompt", "/api/upload/image", "/api/upload/mask"):
        check_refused(client, "POST", path, content=iter([b"x" * 30_000] * 3))  # without a declared length
    alive(client)


@pytest.mark.parametrize(
    "data", [bomb(60_000, 60_000), bomb(20_000, 10), bomb(16_000, 16_000), b"GIF89a", b"", bomb(4, 4)[:40]], ids=len
)
def test_decompression_bombs_and_broken_pictures_are_refused(client, data):
    before = state(client)
    answer = client.http.post("/api/upload/image", files={"image": ("x.png", data)})
    if isinstance(client, Cloud) and len(data) > 40:
        assert answer.status_code == 400
        assert state(client) == before
        return
    # A server accepts any other file, and must survive it.
    reference_ = {"filename": answer.json()["name"], "type": "input"}
    reference = json.dumps(reference_)
    check_refused(
        client, "POST", "/api/upload/mask", files={"image": ("m.png", data)}, data={"original_ref": reference}
    )


@pytest.mark.parametrize("reference", ["", "[]", "5", "{}", '{"filename": "../x"}', '{"filename": 5}', "[" * 50_000])
def test_masks_without_an_original_are_refused(client, reference):
    sent = {"image": ("m.png", bomb(4, 4))}
    check_refused(client, "POST", "/api/upload/mask", files=sent, data={"original_ref": reference})


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://[v1.]", "null"])
def test_broken_origins_are_refused(client, origin):
    check_refused(client, "GET", "/api/prompt", headers={"origin": origin})
    check_refused(client, "POST", "/api/prompt", json={"prompt": chain()}, headers={"origin": origin})


@pytest.mark.parametrize("span", ["{}-", "-{}", "0-{}"])
def test_ranges_of_too_many_digits_are_refused(client, span):
    sent = {"files": {"image": ("a.png", RED)}}
    name = client.http.post("/api/upload/image", **sent).json()["name"]
    headers = {"range": f"bytes={span.format('9' * 5000)}"}
    query = {"filename": name, "type": "input"}
    answer = client.http.get("/api/view", params=query, headers=headers, follow_redirects=True)
    assert answer.status_code == 400


def test_forms_with_too_many_fields_are_refused(client):
    check_refused(client, "POST", "/api/upload/image", files=[("image", (f"{n}", b"x")) for n in range(500)])
    fields = {f"field{number}": "x" for number in range(500)}
    check_refused(client, "POST", "/api/upload/image", files={"image": ("x.png", bomb(4, 4))}, data=fields)
    check_refused(client, "POST", "/api/upload/image", content=b"--", headers={"content-type": "multipart/form-data"})


def test_stream_that_sends_too_much_is_closed_without_harm(client):
    url = client.server.url.replace("http", "ws") + "/ws?clientId="
    with connect(url + "quiet", max_queue=None) as quiet, connect(url + "loud", max_size=None, close_timeout=1) as loud:
        quiet.recv(timeout=60)
        with contextlib.suppress(ConnectionClosed):
            loud.send("x" * 5_000_000)
        with pytest.raises(ConnectionClosed):
            _ = [loud.recv(timeout=60) for _ in range(3)]
        for junk in ("not json", "[" * 10_000, json.dumps({"type": "feature_flags", "data": 5})):
            quiet.send(junk)
        alive(client)
        assert json.loads(quiet.recv(timeout=60))["data"]


# --- wrong types everywhere ------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
SENT: dict[str, Any] = {
    "/api/prompt": {
        "prompt": chain(), "client_id": "me", "extra_data": {"extra_pnginfo": {"a": 1}}, "number": 1, "front": True,
        "partial_execution_targets": ["9"],
    },
    "/api/queue": {"delete": ["x"], "clear": False},
    "/api/history": {"delete": ["x"], "clear": False},
    "/api/interrupt": {"prompt_id": "x"},
    "/api/free": {"free_memory": True, "unload_models": True},
}  # fmt: skip


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from list_paths(child, (*path, key))


@st.composite
def spoil(draw: st.DrawFn) -> tuple[str, Any]:
    """(path, body) of a valid request in which one part, at any depth, is replaced by something else."""
    path = draw(st.sampled_from(sorted(SENT)))
    body = copy.deepcopy(SENT[path])
    reference_ = draw(st.sampled_from(list(list_paths(body))))
    value = draw(VALUES)
    if not reference_:
        return path, value
    parent = body
    for key in reference_[:-1]:
        parent = parent[key]
    parent[reference_[-1]] = value
    return path, body


@given(spoil())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_wrong_types_never_cause_a_500(client, request_):
    path, body = request_
    before = client.server.seen.accepted
    answer = client.http.post(path, content=json.dumps(body).encode())
    assert answer.status_code < 500, answer.text[:300]
    if answer.status_code >= 400:
        assert client.server.seen.accepted == before


NAMES = ("view", "history", "jobs", "v2/assets", "job", "object_info", "experiment/models")
QUERY = ("filename", "dir", "limit", "max_items", "status", "channel", "preview", "type")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
TEXT = st.text(max_size=30)


@given(st.tuples(st.sampled_from(METHODS), st.sampled_from(NAMES), TEXT), st.tuples(st.sampled_from(QUERY), TEXT))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_path_and_query_gets_an_answer_below_500(client, path, query):
    method, name, tail = path
    url = f"/api/{name}/{quote(tail, errors='replace')}?{query[0]}={quote(query[1], errors='replace')}"
    answer = client.http.request(method, url)
    assert answer.status_code < 500


def test_server_still_works_after_hostile_requests(client):
    alive(client)
