"""A page without a browser: it follows the state of a server of `sweeper open` and posts changes to it."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import httpx
import pytest

from sweeper.editing.open_server import OpenServer
from sweeper.embedded import EmbeddedServer
from tests.cli.conftest import SLOTS, TXT2IMG
from tests.waiting import wait_until

EXPERIMENT = """\
# mine
template: t.json
target: embedded
sweep:
  grid:
    steps: [2, 4]  # few
"""


@pytest.fixture(autouse=True)
def _an_empty_folder_and_a_clean_environment(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    (home / "work").mkdir()
    monkeypatch.chdir(home / "work")
    for name in list(os.environ):
        if name.startswith(("SWEEPER_", "COMFY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SWEEPER_TRUST_FILE", str(home / "trusted.json"))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "WIN_PD_OVERRIDE_LOCAL_APPDATA"):
        monkeypatch.setenv(name, str(home / "config"))
    monkeypatch.setattr("sweeper.serving.access.WRONG_TOKEN_SECONDS", 0.0)


@pytest.fixture
def write():
    """A function that writes an experiment in the folder `mine`, with its template, and returns the file."""

    def make(text=EXPERIMENT):
        folder = Path("mine")
        folder.mkdir(exist_ok=True)
        (folder / "t.json").write_text(json.dumps(TXT2IMG))
        (folder / "t.slots.yaml").write_text(SLOTS)
        file = folder / "experiment.yaml"
        file.write_text(text)
        return file

    return make


class Page:
    """What the page does, by HTTP."""

    def __init__(self, url):
        base, _, token = url.partition("#token=")
        self.http = httpx.Client(base_url=base, trust_env=False, timeout=60)
        assert self.http.post("session", json={"token": token}).json() == {"entered": True}
        self.state = self.http.get("state").json()

    def follow(self, condition=lambda state: not state["checking"]):
        """The first state, from the last known on, that is as wanted."""

        def look():
            if not condition(self.state):
                self.state = self.http.get("state", params={"after": self.state["number"]}).json()
            return condition(self.state)

        wait_until(look)
        return self.state

    def post(self, path, status=200, **body):
        """The JSON of an answer, which must have this status."""
        response = self.http.post(path, json=body)
        assert response.status_code == status, response.text
        answer = response.json()
        self.state = answer if "number" in answer else self.state
        return answer

    def edit(self, *changes, status=200, **more):
        more = more or {"changes": list(changes)}
        return self.post("edit", status, **{"version": self.state["version"], **more})


@pytest.fixture
def open_page(python, monkeypatch):
    """A function that serves an experiment, or nothing, and returns its page. Its runs are forked."""
    servers, pages = [], []
    started_by = SimpleNamespace(executable=python, platform=sys.platform)
    monkeypatch.setattr("sweeper.editing.run_process.sys", started_by)

    def make(file=None, **options):
        server = OpenServer(file, **options)
        servers.append(server.__enter__())
        pages.append(Page(server.url))
        return pages[-1]

    yield make
    for page in pages:
        page.http.close()
    for server in servers:
        server.runner.stop()
        server.__exit__()


@contextmanager
def serve(answers):
    """A ComfyUI with other answers to some paths. Gives its address and the paths and headers of its requests."""
    seen = []
    with EmbeddedServer(dialect="comfyui") as real:

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                seen.append((self.path, self.headers.as_string()))
                if path in answers:
                    content = answers[path]
                    body = content if isinstance(content, bytes) else json.dumps(content).encode()
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                elif path.startswith(("/userdata", "/history")):
                    self.send_error(404)
                else:
                    with urlopen(real.url + self.path) as answer:
                        body = answer.read()
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()
        server.server_close()
