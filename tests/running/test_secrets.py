"""A key in its right place appears nowhere else: in no file, log, event, exception or request to another host."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import threading
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

import pytest

import sweeper
from sweeper.comfy.target import resolve_targets
from sweeper.embedded import EmbeddedServer
from sweeper.errors import RefusedError, SweeperError, UsageError
from tests.running.conftest import NODES

KEY = "comfyui-0123456789abcdef-SECRET"
ENVIRON = {"MY_KEY": KEY}


@pytest.fixture
def keyed():
    with EmbeddedServer(dialect="cloud", nodes=NODES, api_key=KEY) as server:
        yield server


@pytest.fixture
def target(keyed):
    return {"url": keyed.url, "dialect": "cloud", "api_key_env": "MY_KEY", "name": "keyed"}


def test_the_key_appears_in_no_file_log_or_event(keyed, target, experiment, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "websockets", "websockets.client", "asyncio", "sweeper"):
        caplog.set_level(logging.DEBUG, logger=name)
    keyed.faults.error_500_times = 1
    keyed.faults.drop_after_accept = 1
    events = []
    run = sweeper.run(experiment(seed=[1, 2]), target, tmp_path / "out", environ=ENVIRON, progress=events.append)
    assert run.succeeded == 2
    assert keyed.seen.connections >= 1
    assert KEY not in repr((events, run))
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # the server's own log
    assert any(record.name == "sweeper.comfy.http" for record in ours)
    assert not any(record.name == "httpx" for record in ours)  # its records would hold signed URLs
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


def test_a_wrong_key_is_refused_without_showing_it(keyed, target, experiment, tmp_path):
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
def test_a_key_inside_a_target_is_refused_without_repeating_it(spec):
    with pytest.raises(UsageError) as caught:
        resolve_targets(spec, environ={})
    assert KEY not in str(caught.value)


@contextmanager
def answering(get, post=None):
    """The URL of a server whose `get(path, key)` and `post(path, key)` return status and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, function):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = function(self.path, self.headers["X-API-Key"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self):
            self.answer(get)

        def do_POST(self):
            self.answer(post)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_key_that_a_server_echoes_is_in_no_exception(experiment, tmp_path):
    with answering(lambda _, key: (401, f"no entry with {key}")) as url:
        target = {"url": url, "dialect": "cloud", "api_key_env": "MY_KEY"}
        with pytest.raises(SweeperError) as caught:
            sweeper.run(experiment(seed=[1]), target, tmp_path / "out", environ=ENVIRON)
    assert "no entry with ***" in str(caught.value)


ODD = 'sk/live+0123456789"=SECRET\\end'


def escape(text, digits="x"):
    return "".join(f"\\u{ord(letter):04{digits}}" for letter in text)


SPELLINGS = {
    "as JSON writes it": lambda key: json.dumps(key)[1:-1],
    "with its slashes escaped": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "in lower-case code points": escape,
    "in upper-case code points": lambda key: escape(key, "X"),
    "its first letter as a code point": lambda key: escape(key[0]) + json.dumps(key[1:])[1:-1],
    "as JSON in JSON": lambda key: json.dumps(json.dumps({"key": key}).replace("/", "\\/"))[1:-1],
    "as a URL writes it": lambda key: quote(key, safe=""),
    "as a URL in lower case": lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "as a form writes it": quote_plus,
    "as a URL in a URL": lambda key: quote(quote(key, safe=""), safe=""),
    "as Base64": lambda key: base64.b64encode(key.encode()).decode(),
    "as the Base64 of URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
}
STATS = json.dumps({"system": {"comfyui_version": "0.3.64", "argv": ["main.py"]}, "devices": []})


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("key", [KEY, ODD])
def test_no_encoding_of_an_echoed_key_gets_into_the_results(experiment, tmp_path, spell, key):
    def refuse(path, given):
        return 404 if path.startswith(
            "/api/jobs"
        ) else 400, '{"error": {"type": "x", "message": "bad key <%s>"}, "node_errors": {}}' % spell(given)  # noqa: UP031

    said = []
    with answering(lambda path, _: (200, STATS) if path == "/system_stats" else (404, "{}"), refuse) as url:
        target = {"url": url, "dialect": "comfyui", "api_key_env": "MY_KEY"}
        out = tmp_path / "out"
        sweeper.run(experiment(seed=[1]), target, out, environ={"MY_KEY": key}, progress=said.append)
    (error,) = sweeper.results(out)["error"]
    assert error.replace("=", "").endswith(("bad key <***>", 'bad key <{"key": "***"}>'))
    texts = [repr(said), *(file.read_bytes().decode("latin-1") for file in out.rglob("*") if file.is_file())]
    pieces = (key, spell(key), json.loads(f'"{spell(key)}"'), base64.b64encode(key.encode()).decode().rstrip("="))
    assert not [piece for piece in pieces for text in texts if piece in text]
