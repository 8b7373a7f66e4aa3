"""`sweeper view`: its address, its end, its mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sweeper.cli import main
from tests import ROOT
from tests.waiting import read_line

GRAPH = {"1": {"class_type": "Save", "inputs": {"seed": 0}}}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.json").write_text(json.dumps(GRAPH))
    Path("t.slots.yaml").write_text("slots: {seed: {at: '1.seed', schema: {type: integer}}}")
    Path("e.yaml").write_text("name: e\ntemplate: t.json\nsweep: {grid: {seed: [1, 2, 3]}}\n")
    return "e.yaml"


@pytest.fixture
def view():
    """Start `sweeper view`; gives the process and its first line on stdout."""
    processes = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeper", "view", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        processes.append(process)
        return process, read_line(process.stdout).strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def test_the_first_line_is_the_address_and_sigterm_ends_it(plan, view):
    process, url = view(plan)
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}data.json").json()["experiment"] == "e"
    process.send_signal(signal.SIGTERM)
    rest, said = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert "Ctrl-C stops it" in said


def test_a_plan_that_was_never_run_is_shown_as_not_run_yet(plan, view):
    _, url = view(plan)
    data = httpx.get(f"{url}data.json").json()
    assert [data["statuses"][place] for place in data["status"]] == ["pending"] * 3
    assert data["workflow"]["known"] == [1, 1, 1]


def test_elsewhere_than_on_loopback_the_address_holds_the_token_and_says_so(plan, view):
    process, url = view(plan, "--host", "0.0.0.0", SWEEPER_VIEW_TOKEN="told before")
    assert url.endswith("/#token=told%20before")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "anyone with this address can see it" in said


def test_json_gives_the_address_to_programs(plan, view):
    _, line = view(plan, "--json")
    assert json.loads(line)["url"].startswith("http://127.0.0.1:")


def test_what_cannot_be_shown_is_told(plan, capsys):
    assert main(["view", "nothing"]) == 2
    assert "nothing: no such results folder" in capsys.readouterr().err
    assert main(["view", plan, "--host", "host.invalid"]) == 2
    assert "cannot listen on host.invalid" in capsys.readouterr().err
