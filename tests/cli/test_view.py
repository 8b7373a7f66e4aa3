"""`sweeper view`: address, token, signals and mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from sweeper.cli import main
from tests import ROOT
from tests.platforms import needs_scripts, needs_signals
from tests.waiting import read_line, wait_until

GRAPH = {"1": {"class_type": "Save", "inputs": {"seed": 0}}}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.json").write_text(json.dumps(GRAPH))
    Path("t.slots.yaml").write_text("slots: {seed: {at: '1.seed', schema: {type: integer}}}")
    Path("e.yaml").write_text("name: e\ntemplate: t.json\nsweep: {grid: {seed: [1, 2, 3]}}\n")
    return "e.yaml"


@pytest.fixture
def view(python):
    """A function that starts `sweeper view` and returns the process and its first line on stdout."""
    processes = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [python, "-m", "sweeper", "view", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        processes.append(process)
        return process, read_line(process.stdout).strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


@needs_signals
def test_view_prints_its_address_first_and_sigterm_stops_it(plan, view):
    process, url = view(plan)
    assert url.startswith("http://127.0.0.1:")
    data = httpx.get(f"{url}data.json").json()
    assert (data["experiment"], data["live"]["can_act"]) == ("e", False)
    note = read_line(process.stderr).strip()
    assert note.startswith(f"with the buttons of cells: {url}#token=")
    data = httpx.get(f"{url}data.json", headers={"authorization": f"Bearer {note.rpartition('=')[2]}"}).json()
    assert data["live"]["can_act"]
    assert "Ctrl-C stops it" in read_line(process.stderr)
    process.send_signal(signal.SIGTERM)
    assert (process.wait(30), process.stdout.read()) == (0, "")


def test_view_shows_a_plan_before_its_first_run(plan, view):
    _, url = view(plan)
    data = httpx.get(f"{url}data.json").json()
    assert [data["statuses"][index] for index in data["status"]] == ["pending"] * 3
    assert data["workflow"]["known"] == [1, 1, 1]


@needs_scripts
def test_open_keeps_the_token_out_of_the_browsers_arguments(plan, view, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened.tmp && mv opened.tmp opened\n')
    browser.chmod(0o755)

    _, url = view(plan, "--host", "0.0.0.0", "--open", SWEEPER_VIEW_TOKEN="my-token", BROWSER=f"{browser} %s")
    wait_until(Path("opened").exists)

    opened = Path("opened").read_text().strip()
    assert opened.startswith("file:")
    page = Path(opened.removeprefix("file://"))
    assert f"url={url}" in page.read_text()
    assert page.parent.stat().st_mode & 0o77 == 0  # only this user can read it
    assert "my-token" in url


@needs_scripts
def test_open_gives_the_browser_a_session_on_loopback_too(plan, view, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\n(echo "$1"; cat "${1#file://}") > opened.tmp && mv opened.tmp opened\n')
    browser.chmod(0o755)
    process, url = view(plan, "--open", BROWSER=f"{browser} %s")
    wait_until(Path("opened").exists)
    assert "#" not in url
    address, content = Path("opened").read_text().split("\n")
    assert f"url={url}#token=" in content
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert not Path(address.removeprefix("file://")).parent.exists()


@needs_signals
def test_address_has_a_token_unless_on_loopback(plan, view):
    process, url = view(plan, "--host", "0.0.0.0", SWEEPER_VIEW_TOKEN="my token")
    assert url.endswith("/#token=my%20token")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert "anyone with this address can see it" in stderr
    assert "SWEEPER_VIEW_TOKEN: a token of 8 characters can be guessed; use 22 or more random ones" in stderr


def test_view_json_has_the_address(plan, view):
    _, line = view(plan, "--json")
    assert json.loads(line)["url"].startswith("http://127.0.0.1:")


def test_view_reports_mistakes(plan, capsys):
    assert main(["view", "nothing"]) == 2
    assert "nothing: no such results folder" in capsys.readouterr().err
    assert main(["view", plan, "--host", "host.invalid"]) == 2
    assert "cannot listen on host.invalid" in capsys.readouterr().err
