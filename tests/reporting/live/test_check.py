"""The live view with a baseline: each cell shows its state of the check as soon as it is known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sweeper.cli import main
from tests.waiting import read_line

TEMPLATE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def write(widths, colour):
    slots = {name: {"at": f"1.{name}"} for name in ("width", "color")}
    Path("t.json").write_text(json.dumps(TEMPLATE))
    Path("t.slots.yaml").write_text(json.dumps({"slots": slots}))
    what = {"name": "e", "template": "t.json", "derive": {"color": colour}, "sweep": {"grid": {"width": widths}}}
    Path("e.yaml").write_text(json.dumps(what))


@pytest.fixture
def accepted(tmp_path, monkeypatch, capsys):
    """Two accepted pictures; then the experiment changes the colour of one and adds a third. No run is left."""
    monkeypatch.chdir(tmp_path)
    write([8, 16], "{{ 1 * width }}")
    assert main(["run", "e.yaml"]) == 0
    assert main(["accept", "results/e", "--yes"]) == 0
    shutil.rmtree("results")
    write([8, 16, 24], "{{ 8 if width == 8 else 16711680 }}")
    capsys.readouterr()


@pytest.fixture
def view():
    """The address of `sweeper view e.yaml` in a process of its own."""
    command = [sys.executable, "-m", "sweeper", "view", "e.yaml"]
    processes = []

    def start():
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ))
        return read_line(processes[-1].stdout).strip()

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture
def visit(browser):
    contexts, trouble = [], []

    def go(url):
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 800}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#view > *")
        return page

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


def wait_for_states(page):
    """Wait until every cell shows its expected state."""
    words = ["= same", "≠ changed", "+ new"]
    page.wait_for_function(
        "words => words.every((word, n) => "
        "document.querySelector(`[data-trial='${n}'] .verdict`)?.textContent === word)",
        arg=words,
    )


def test_cells_show_check_states_while_the_run_goes_on(accepted, view, visit):
    url = view()
    page = visit(url)
    page.evaluate("window.stillThere = true")
    assert page.locator(".verdict").all_inner_texts() == ["? not compared"] * 3
    assert main(["run", "e.yaml"]) == 0
    wait_for_states(page)
    assert page.evaluate("window.stillThere") is True
    page.get_by_label("Show", exact=True).select_option("check != 'same'")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 2")
    page.locator('[data-trial="1"]').click()
    page.get_by_role("button", name="Accepted as B").click()
    page.wait_for_function("() => document.querySelectorAll('.stage figure img').length === 2")
    page.wait_for_function("() => [...document.querySelectorAll('.stage img')].every(i => i.naturalWidth > 0)")
    assert "mae" in page.locator("dialog[open]").inner_text()
    wait_for_states(visit(url))  # a page that is opened later has the states in its data


def test_live_header_counts_states_and_lists_missing_cases(accepted, view, visit):
    write([8, 24], "{{ 8 if width == 8 else 16711680 }}")
    page = visit(view())
    counts = page.locator(".counts")
    assert "check: 2 not compared" in " ".join(counts.inner_text().split())
    assert main(["run", "e.yaml"]) == 0
    page.wait_for_selector(".missing:not([hidden])")
    page.wait_for_function("() => /1 same\\s+1 new/.test(document.querySelector('.counts').innerText)")
    assert "check: 1 same 1 new" in " ".join(counts.inner_text().split())
    page.get_by_text("1 missing").click()
    assert page.locator(".missing li").all_inner_texts() == ["width=16 [2]"]


def test_only_accepted_pictures_of_the_baseline_are_served(accepted, view, visit):
    assert main(["run", "e.yaml"]) == 0
    url = view()
    wait_for_states(visit(url))
    data = httpx.get(f"{url}data.json").json()
    shown = [file["path"] for file in data["files"] if file.get("accepted")]
    assert len(shown) == 2
    for path in shown:
        answer = httpx.get(url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("accepted/manifest.json", "accepted/..%2fmanifest.json", "accepted/x.png"):
        assert httpx.get(url + path).status_code == 404


def test_page_reports_unreadable_baseline(accepted, view, visit):
    assert main(["run", "e.yaml"]) == 0
    (manifest,) = Path("baselines/e").glob("manifest*")
    manifest.write_text("{")
    page = visit(view())
    page.wait_for_function(
        "() => document.querySelector('.counts').textContent.includes('cannot be compared with the baseline')"
    )


def test_live_page_without_baseline_has_no_check(accepted, view, visit):
    shutil.rmtree("baselines")
    assert visit(view()).locator(".verdict").count() == 0
