"""Starting and stopping, arguments, threads, and malformed requests."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from sweeper.embedded import EmbeddedServer, Faults
from sweeper.errors import UsageError
from sweeper.serving.hosting import ServerThread
from tests.embedded.clients import job_id
from tests.embedded.probes import chain, probe_nodes, waiting


def test_import_loads_nothing_heavy():
    code = (
        "import sys, sweeper.embedded, sweeper.embedded.faults\n"
        "heavy = {'numpy', 'PIL', 'starlette', 'uvicorn', 'sqlite3', 'pandas', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sweeper.embedded.EmbeddedServer\n"
        "heavy = {'numpy', 'PIL', 'pandas', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stop_leaves_no_threads_sockets_or_folders():
    before = set(threading.enumerate())
    with EmbeddedServer(nodes=probe_nodes(), workers=3) as server:
        assert len(set(threading.enumerate()) - before) == 4
        base, url = server.folders.base, server.url
        assert httpx.get(url + "/api/user").status_code == 200
    assert set(threading.enumerate()) == before
    assert not base.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/api/user")


def test_stop_during_a_job_and_requests_is_clean(gate):
    with EmbeddedServer("comfyui", nodes=probe_nodes(gate)) as server, httpx.Client(base_url=server.url) as client:
        client.post("/prompt", json={"prompt": waiting()})
        assert gate.entered.wait(60)
        server.stop()
        server.stop()
        with pytest.raises(httpx.TransportError):
            client.get("/prompt")


def test_server_can_be_started_again():
    server = EmbeddedServer(nodes=probe_nodes())
    for use in (lambda: server.url, lambda: server.folders, lambda: server.storage_url):
        with pytest.raises(UsageError, match="not running"):
            use()
    assert server.seen.submits == 0
    assert "stopped" in repr(server)
    urls = set()
    for _ in range(2):
        with server:
            assert server.start() is server
            urls.add(server.url)
            assert httpx.post(server.url + "/api/prompt", json={"prompt": chain()}).status_code == 200
            assert server.url in repr(server)
        assert server.seen.submits == 1
    assert len(urls) == 1, "who knew the URL finds it again"


def test_concurrent_stop_waits_and_allows_a_start(tmp_path, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    real = ServerThread.stop

    def slow(hosting):
        reached.set()
        go_on.wait(60)
        real(hosting)

    monkeypatch.setattr(ServerThread, "stop", slow)
    with EmbeddedServer(nodes=probe_nodes(), data=tmp_path) as server:
        first, second = (threading.Thread(target=server.stop) for _ in range(2))
        first.start()
        assert reached.wait(60)
        second.start()
        second.join(0.1)
        assert second.is_alive()
        go_on.set()
        second.join(60)
        server.start()  # a folder that is still in use would be refused
        first.join(60)
        assert httpx.get(server.url + "/api/user").status_code == 200


def test_server_serves_a_client_in_the_callers_event_loop():
    async def run(server):
        async with httpx.AsyncClient(base_url=server.url) as client:
            answers = await asyncio.gather(*(client.post("/prompt", json={"prompt": chain(seed=i)}) for i in range(20)))
            return {answer.status_code for answer in answers}

    with EmbeddedServer("comfyui", nodes=probe_nodes()) as server:
        assert asyncio.run(run(server)) == {200}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "v3"}, r"dialect 'v3': the embedded server speaks 'cloud', 'comfyui' and 'v2'"),
        ({"workers": 0}, "workers 0: at least one"),
        ({"cache": "lru"}, r"cache 'lru': give 'classic', 'none', 'lru N'"),
        ({"cache": "lru 0"}, "cache 'lru 0'"),
        ({"cache": "big"}, "cache 'big'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, message):
    with pytest.raises(UsageError, match=message):
        EmbeddedServer(**options)


def test_port_in_use_is_reported_with_its_address():
    with EmbeddedServer(nodes=probe_nodes()) as server:
        port = httpx.URL(server.url).port
        with pytest.raises(UsageError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*try another port"):
            EmbeddedServer("comfyui", port=port, nodes=probe_nodes()).start()


def test_ipv6_address_makes_a_url(serve):
    try:
        client = serve("cloud", host="::1")
    except UsageError:
        pytest.skip("no IPv6 here")
    assert client.server.url.startswith("http://[::1]:")
    assert client.run(chain())["status"] == "completed"


@pytest.mark.parametrize("dialect", ["cloud", "comfyui"])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"null", b"[]", b"3", b'"text"', b"{}", b'{"prompt": null}', b'{"prompt": "text"}',
        b'{"prompt": [{}]}', b'{"prompt": 3}', b'{"prompt": true}', b"\xff\xfe", b'{"prompt": {"1": NaN}}',
        b'{"prompt": {"1": {"class_type": "ProbeLoader", "inputs": {"x": Infinity}}}}',
        b'{"prompt": {"1": {"class_type": "ProbeLoader", "inputs": {"x": 1e999}}}}',
        b'{"prompt": {"1": {"class_type": ["ProbeLoader"], "inputs": {}}}}',
        b'{"prompt": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"prompt": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_malformed_submissions_get_400(serve, dialect, body):
    client = serve(dialect)
    answer = client.http.post("/api/prompt", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    client.run(chain())


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_data": None}, {"extra_data": []}, {"extra_data": None, "client_id": "me"}, {"client_id": [1]},
        {"client_id": {}}, {"client_id": None}, {"client_id": 3}, {"extra_data": {"client_id": [1]}},
        {"number": None}, {"number": "abc"}, {"number": []}, {"number": "nan"}, {"number": "inf"},
        {"number": 10**400}, {"prompt_id": ["x"]}, {"prompt_id": {}},
        {"partial_execution_targets": "9"}, {"partial_execution_targets": [9]}, {"partial_execution_targets": ["77"]},
    ],
)  # fmt: skip
def test_fields_that_break_a_real_server_get_400(comfy, fields):
    answer = comfy.http.post("/prompt", json={"prompt": chain(), **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json()["node_errors"] == {}
    assert comfy.run(chain())["status"]["status_str"] == "success"
    assert comfy.server.seen.rejected == 1


def test_jobs_with_equal_number_and_id_are_both_queued(comfy, gate):
    comfy.submit(waiting())
    assert gate.entered.wait(60)
    for seed in (1, 2):
        comfy.submit(chain(seed=seed), prompt_id=job_id("same"), number=5)
    gate.opened.set()
    comfy.wait_for_end(job_id("same"))
    assert comfy.run(chain())["status"]["status_str"] == "success"
    assert comfy.server.seen.executions[job_id("same")] == 2


@pytest.mark.parametrize("path", ["/queue", "/history"])
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"delete": null}', b'{"delete": [1]}', b'{"delete": "x"}'])
def test_malformed_queue_and_history_bodies_get_400(comfy, path, body):
    assert comfy.http.post(path, content=body).status_code == 400


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"prompt_id": 3}'])
def test_malformed_interrupts_get_400(comfy, body):
    assert comfy.http.post("/interrupt", content=body).status_code == 400


def test_bodies_over_100_mib_get_413(comfy):
    size = 104_857_601
    declared = comfy.http.build_request("POST", "/prompt", content=b"", headers={"content-length": str(size)})
    declared.stream = httpx.ByteStream(b"x" * 1000)
    answer = raw(
        comfy.server.url, f"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"Maximum request body size 104857600 exceeded.")
    answer = raw(
        comfy.server.url,
        f"POST /upload/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {size}\r\n\r\n".encode(),
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_lone_surrogates_are_kept_everywhere(comfy):
    body = json.dumps({"prompt": chain(text="\ud800 fox", prefix="s")})
    answer = comfy.http.post("/prompt", content=body.encode())
    assert answer.status_code == 200
    entry = comfy.wait_for_end(answer.json()["prompt_id"])
    assert entry["prompt"][2]["2"]["inputs"]["text"] == "\ud800 fox"


def raw(url, request):
    """Send bytes, read until the server closes."""
    target = httpx.URL(url)
    with socket.create_connection((target.host, target.port), timeout=60) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_server_uses_the_given_faults():
    faults = Faults(error_500_times=1)
    with EmbeddedServer(nodes=probe_nodes(), faults=faults) as server:
        assert server.faults is faults
        assert httpx.get(server.url + "/api/user").status_code == 500
        assert httpx.get(server.url + "/api/user").status_code == 200


def test_requests_are_logged_without_secrets(serve):
    client = serve("cloud", api_key="s3cret")
    client.http.get("/api/user?token=s3cret")
    request = client.server.seen.requests[-1]
    assert (request.method, request.path) == ("GET", "/api/user")
    assert "x-api-key" in request.headers
    assert "s3cret" not in repr(client.server.seen)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:PORT", 200),
        ("http://127.0.0.1", 403),
        ("http://localhost:PORT", 403),
        ("http://127.0.0.1:1", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_cross_origin_requests_are_refused(comfy, origin, status):
    headers = {} if origin is None else {"origin": origin.replace("PORT", str(comfy.http.base_url.port))}
    assert comfy.http.get("/prompt", headers=headers).status_code == status


FOREIGN_NAMES = [
    "evil.example",
    "evil.example:PORT",
    "127.0.0.1.evil.example",
    "localhost.evil.example:1",
    "0.0.0.0:PORT",
]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_requests_to_a_foreign_name_are_refused(serve, name):
    # Another site can point its name at 127.0.0.1. Its pages then have the origin that they address.
    for client in (serve("comfyui"), serve("cloud")):
        own = name.replace("PORT", str(client.http.base_url.port))
        headers = {"host": own, "origin": f"http://{own}"}
        assert client.http.get("/api/prompt", headers=headers).status_code == 403
        assert client.http.post("/api/prompt", json={"prompt": chain()}, headers=headers).status_code == 403
        stream = raw(
            client.server.url,
            f"GET /ws HTTP/1.1\r\nHost: {own}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
        )
        assert stream.startswith(b"HTTP/1.1 403 ")
        assert client.server.seen.accepted == 0


def test_refusal_of_a_foreign_name_says_what_to_do(comfy):
    answer = comfy.http.get("/prompt", headers={"host": "evil.example"})
    assert "as localhost, or start it with `sweeper serve --host NAME`" in answer.text


def test_storage_host_refuses_a_foreign_name(cloud):
    answer = httpx.get(f"{cloud.server.storage_url}/x", headers={"host": "evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:PORT", "127.0.0.1:PORT", "127.0.0.2", "[::1]:PORT"])
def test_requests_to_a_loopback_name_are_served(comfy, name):
    headers = {"host": name.replace("PORT", str(comfy.http.base_url.port))}
    assert comfy.http.get("/prompt", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [("localhost", 200), ("192.168.1.5:8188", 200), ("0.0.0.0:8188", 200), ("HOSTNAME", 200), ("evil.example", 403)],
)
def test_server_on_all_addresses_is_served_by_address(serve, name, status):
    client = serve("comfyui", host="0.0.0.0")
    headers = {"host": name.replace("HOSTNAME", socket.gethostname())}
    assert client.http.get("/prompt", headers=headers).status_code == status
    crossed = {"host": "0.0.0.0:8188", "origin": "http://evil.example"}
    assert client.http.get("/prompt", headers=crossed).status_code == 403
