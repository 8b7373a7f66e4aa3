"""The end of `sweeper run`: where to look, a report that stays current, and `--open`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SWEEP = "name: shop\ntemplate: t.json\nsweep: {grid: {seed: [7, 8]}}\n"


def read_last_line(outcome):
    assert outcome.code == 0, outcome.err
    return outcome.out.splitlines()[-1].removeprefix("report").strip()


def test_run_names_the_command_that_shows_it(sweeper, write):
    file = write(SWEEP, name="my shop.yaml")
    assert read_last_line(sweeper("run", file, "--limit", "1")) == "sweeper report 'my shop.yaml'"
    assert read_last_line(sweeper("run", file, "--limit", "1", "--out", "else where")) == "sweeper report 'else where'"
    assert sweeper("report", "else where").code == 0


def test_run_updates_the_report_that_exists(sweeper, write):
    file = write(SWEEP)
    sweeper("run", file, "--limit", "1")
    sweeper("report", file)
    page, data = Path("results/shop/report/index.html"), Path("results/shop/report/data.json")
    statuses = json.loads(data.read_text())["status"]
    assert read_last_line(sweeper("run", file)) == f"{page} (up to date)"
    assert json.loads(data.read_text())["status"] != statuses
    page.unlink()
    page.parent.rename("aside")
    page.parent.parent.joinpath("report").mkdir()
    assert read_last_line(sweeper("run", file)) == "sweeper report shop.yaml"


def test_report_that_cannot_be_written_leaves_the_exit_code(sweeper, write):
    file = write(SWEEP)
    sweeper("run", file)
    sweeper("report", file)
    files = Path("results/shop/report/files")
    files.rename("elsewhere")
    files.symlink_to(Path("elsewhere").resolve())  # sweeper refuses a link in the place of its own folder
    outcome = sweeper("run", file)
    assert read_last_line(outcome) == "sweeper report shop.yaml"
    assert "warning: the report is not up to date: " in outcome.err


@pytest.fixture
def browser(tmp_path):
    """Environment variables with which Python's `webbrowser` writes the address to a file, and that file."""
    script, seen = tmp_path / "browser.py", tmp_path / "seen"
    script.write_text(f"import sys, pathlib\npathlib.Path({str(seen)!r}).write_text(sys.argv[1])\n")
    return {"BROWSER": f"{sys.executable} {script} %s"}, seen


def test_open_shows_the_page_in_the_browser(process, write, browser):
    environment, seen = browser
    assert process("run", write(SWEEP), "--open", env=environment).code == 0
    page = Path("results/shop/report/index.html")
    assert page.is_file()
    assert seen.read_text() == page.resolve().as_uri()
    seen.unlink()
    assert process("report", "shop.yaml", "--sheet", "sheet.png", "--open", env=environment).code == 0
    assert seen.read_text() == Path("sheet.png").resolve().as_uri()
