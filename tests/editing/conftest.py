"""A page without a browser: it follows the state of a server of `sweeper open` and posts changes to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from sweeper.editing.open_server import OpenServer
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
def _an_empty_folder_and_a_clean_environment(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in list(os.environ):
        if name.startswith(("SWEEPER_", "COMFY_")):
            monkeypatch.delenv(name)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "WIN_PD_OVERRIDE_LOCAL_APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
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
        self.http = httpx.Client(base_url=base, trust_env=False, timeout=30)
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

    def edit(self, *changes, status=200):
        return self.post("edit", status, version=self.state["version"], changes=list(changes))


@pytest.fixture
def open_page():
    """A function that serves an experiment, or nothing, and returns its page."""
    servers, pages = [], []

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
