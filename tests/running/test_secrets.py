"""A key planted where it belongs is found nowhere else: no file, log, event, exception, foreign request."""

from __future__ import annotations

import logging

import pytest

import sweeper
from sweeper.comfy.target import resolve_targets
from sweeper.embedded import EmbeddedServer
from sweeper.errors import RefusedError, SweeperError, UsageError

from .conftest import NODES

KEY = "comfyui-0123456789abcdef-SECRET"
ENVIRON = {"MY_KEY": KEY}


@pytest.fixture
def keyed():
    with EmbeddedServer(dialect="cloud", nodes=NODES, api_key=KEY) as server:
        yield server


@pytest.fixture
def target(keyed):
    return {"url": keyed.url, "dialect": "cloud", "api_key_env": "MY_KEY", "name": "keyed"}


def test_the_key_opens_the_server_and_is_found_in_no_file_log_or_event(keyed, target, experiment, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "aiohttp.client", "websockets", "websockets.client", "asyncio", "sweeper"):
        caplog.set_level(logging.DEBUG, logger=name)
    keyed.faults.error_500_times = 1
    keyed.faults.drop_after_accept = 1
    events = []
    run = sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out", environ=ENVIRON, progress=events.append)
    assert run.succeeded == 2
    assert keyed.seen.connections >= 1
    assert KEY not in repr((events, run))
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # the server's own log
    assert any(record.name.startswith("httpx") for record in ours)
    assert not [record for record in ours if KEY in record.getMessage()]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_storage_host_behind_the_redirect_never_sees_the_key(keyed, target, experiment, tmp_path):
    sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out", environ=ENVIRON)
    assert keyed.seen.redirects == 2
    assert len(keyed.seen.storage_requests) == 2
    assert keyed.seen.foreign_keys == 0
    assert not any("x-api-key" in request.headers for request in keyed.seen.storage_requests)


def test_a_wrong_key_is_refused_and_not_shown(keyed, target, experiment, tmp_path):
    with pytest.raises(RefusedError) as caught:
        sweeper.run(experiment(seed=[1]), target, tmp_path / "out", environ={"MY_KEY": KEY + "x"})
    assert KEY not in str(caught.value)
    assert "keyed" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_no_repr_of_a_target_shows_its_key():
    (target,) = resolve_targets(
        {"url": "https://a.example", "dialect": "cloud", "api_key_env": "MY_KEY"}, environ=ENVIRON
    )
    assert target.key == KEY
    assert KEY not in repr(target)


@pytest.mark.parametrize(
    "spec",
    [
        f"https://user:{KEY}@cloud.example",
        f"https://{KEY}@cloud.example/x",
        {"url": "https://cloud.example", "api_key": KEY},
        {"url": "https://cloud.example", "token": KEY},
        f"https://cloud.example/?token={KEY}",
    ],
)
def test_a_key_written_into_a_target_is_refused_without_repeating_it(spec):
    with pytest.raises(UsageError) as caught:
        resolve_targets(spec, environ={})
    assert KEY not in str(caught.value)


def test_a_server_that_echoes_the_key_cannot_get_it_into_an_exception(experiment, tmp_path):
    import http.server
    import threading

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()
            self.wfile.write(f"no entry with {self.headers['X-API-Key']}".encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        target = {"url": f"http://127.0.0.1:{echo.server_port}", "dialect": "cloud", "api_key_env": "MY_KEY"}
        with pytest.raises(SweeperError) as caught:
            sweeper.run(experiment(seed=[1]), target, tmp_path / "out", environ=ENVIRON)
        echo.shutdown()
    assert "no entry with ***" in str(caught.value)
