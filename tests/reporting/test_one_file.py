"""`sweeper report --one-file`: a page to send, in a real Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

import pytest

import sweeper
from sweeper.cli import main
from sweeper.embedded import EmbeddedServer
from sweeper.reporting.thumbnails import is_whole_webp
from sweeper.running.folder_lock import lock_itself
from sweeper.store import Store
from sweeper.store.votes import Mark
from tests.platforms import needs_signals
from tests.reporting import painting
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import press_in_menu

LOADED = "() => [...document.querySelectorAll('#view img')].filter(image => image.naturalWidth).length"


@pytest.fixture
def visit(lend_pages):
    """Open one file from the disk; a request, an error or a word on the console fails the test."""
    files, trouble = [], []
    hear = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
        "request": lambda request: request.url.startswith(tuple(files)) or trouble.append(request.url[:80]),
    }

    def go(file, address="#view=grid"):
        files.append(file.as_uri())
        page = lend()
        page.goto(f"{file.as_uri()}{address}")
        page.wait_for_selector("#view .cell")
        return page

    with lend_pages(hear) as lend:
        yield go
    assert [text for text in trouble if not text.startswith(("data:", "blob:"))] == []


def send(capsys, out, file, *options):
    code = main(["report", str(out), "--one-file", str(file), *map(str, options)])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


@pytest.fixture
def out(tmp_path):
    return Sweep({"steps": [1, 2, 3]}, size=(900, 700)).write(tmp_path / "mine")


def test_one_file_opens_alone_and_its_marks_come_back(out, tmp_path, capsys, visit):
    file = tmp_path / "away" / "client.html"
    code, said, err = send(capsys, out, file)
    assert (code, said, err.endswith("MB, with all files\n")) == (0, f"{file}\n", True)
    assert not (out / "report").exists()
    assert str(tmp_path) not in file.read_text("utf-8")
    page = visit(file)
    page.wait_for_function(f"({LOADED})() === 3")
    assert (page.title(), page.locator(".made").inner_text()) == ("made-up · sweeper", "made with sweeper")
    icon = page.locator("link[rel=icon]").get_attribute("href")
    page.evaluate("src => Object.assign(new Image(), { src }).decode()", icon)  # the policy of the page allows it
    page.evaluate("sweeper.page.marks.set(1, {verdict: 'keep', comment: '</script>'})")
    page.get_by_label("Filter").fill("steps < 3")
    with page.expect_download() as download:
        press_in_menu(page, "Share", "Save a copy with this view and these marks")
    download.value.save_as(tmp_path / "copy.html")
    page.evaluate("localStorage.clear()")
    copy = visit(tmp_path / "copy.html", "")
    copy.wait_for_function(f"({LOADED})() === 2")
    assert copy.evaluate("sweeper.page.marks.get(1).comment") == "</script>"
    assert copy.locator("#bar, #message").count() == 2
    marks = page.evaluate("sweeper.page.marks.toFile()")
    (tmp_path / "marks.json").write_text(marks)
    code, said, _ = send(capsys, out, file, "--marks", tmp_path / "marks.json", "--marked", "keep", "--json")
    assert (code, json.loads(said)["trials"]) == (0, 1)


@pytest.mark.parametrize("is_broken", [False, True])
def test_one_file_names_no_folder_of_this_machine(tmp_path, capsys, is_broken):
    painter = painting.Painter()
    painter.go_on.set()
    experiment = painting.experiment(tmp_path, ["a fox"])
    with EmbeddedServer(nodes=painter.nodes) as server:
        sweeper.run(experiment, server.url, tmp_path / "out")
    assert main(["accept", str(tmp_path / "out"), "--yes"]) == 0
    if is_broken:
        experiment.file.write_text("name: [")
    code, _, err = send(capsys, tmp_path / "out", tmp_path / "client.html")
    assert (code, "not compared" in err) == (0, is_broken)
    text = (tmp_path / "client.html").read_text("utf-8")
    assert str(tmp_path).lstrip("/") not in text
    assert ("sweeper accept out" in text) is not is_broken


def test_results_that_take_no_new_folder_give_one_file(out, tmp_path, capsys, monkeypatch):
    make = tempfile.TemporaryDirectory

    def refuse(**options):
        if "dir" in options:
            raise PermissionError(13, "Permission denied", str(options["dir"]))
        return make(**options)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    file = tmp_path / "client.html"
    assert send(capsys, out, file)[:2] == (0, f"{file}\n")


@pytest.mark.parametrize(
    ("megabytes", "words"), [(1.4, "pictures as WebP of at most 2048 pixels"), (0.62, "thumbnails only")]
)
def test_pictures_become_smaller_until_they_fit(out, capsys, visit, megabytes, words):
    file = out.parent / "client.html"
    code, _, err = send(capsys, out, file, "--max-mb", megabytes)
    assert (code, words in err) == (0, True), err
    assert file.stat().st_size <= megabytes * 1e6
    visit(file).wait_for_function(f"({LOADED})() === 3")


def test_what_cannot_fit_is_refused_and_nothing_is_written(tmp_path, capsys):
    out = Sweep({"steps": [*range(300)]}).write(tmp_path / "mine")
    code, said, err = send(capsys, out, tmp_path / "client.html", "--max-mb", 0.5)
    assert (code, said) == (2, "")
    assert "300 trials do not fit into 0.5 MB" in err
    assert "--max-mb more, or select some" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    assert not list(out.glob(".one-file-*"))


KILLED_REPORT = """
import os, sys
from sweeper.cli import main
sys.addaudithook(lambda event, _: event == "os.link" and os._exit(9))
main(["report", sys.argv[1], "--one-file", "client.html"])
"""


@needs_signals
def test_folder_of_a_killed_call_is_removed_and_none_that_is_in_use(out, tmp_path, capsys):
    killed = subprocess.run([sys.executable, "-c", KILLED_REPORT, str(out)], cwd=tmp_path, timeout=60, check=False)
    assert killed.returncode == 9
    (left,) = out.glob(".one-file-*")
    used = out / ".one-file-used"
    used.mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "kept").touch()
    (link := out / ".one-file-link").symlink_to(elsewhere)
    with lock_itself(used):
        assert send(capsys, out, tmp_path / "client.html")[0] == 0
    assert not left.exists()
    assert {*out.glob(".one-file-*")} == {used, link}
    assert (elsewhere / "kept").exists()


@pytest.mark.parametrize("keep", [0, 6, 200])
def test_damaged_thumbnails_are_made_again(out, tmp_path, capsys, visit, keep):
    assert main(["report", str(out)]) == 0
    thumbs = [path for path in out.glob("report/thumbs/*.webp") if not path.name.startswith("sprites")]
    for path in thumbs:
        path.write_bytes(path.read_bytes()[:keep])
    for options in (("--max-mb", 0.7), ("--where", "steps > 1")):  # with the sprites of the report, and with new ones
        code, _, err = send(capsys, out, tmp_path / "client.html", *options)
        assert (code, ".one-file" in err) == (0, False)
        visit(tmp_path / "client.html").wait_for_function(f"({LOADED})() === {2 if '--where' in options else 3}")
    assert main(["report", str(out), "--where", "steps > 1"]) == 0
    assert all(is_whole_webp(path) for path in out.glob("report/thumbs/*.webp"))


def test_nothing_but_a_page_is_replaced(out, capsys):
    code, said, err = send(capsys, out, out / "sweeper.sqlite")
    assert (code, said, err.endswith("sweeper.sqlite: the name of a page ends in .html\n")) == (2, "", True)
    assert send(capsys, out, out.parent / "page.html")[0] == 0


def test_marked_selects_trials_by_the_marks_of_the_folder(out, tmp_path, capsys):
    with Store.open(out) as store, store.transaction():
        rows = list(store.results())
        store.marks.add([Mark(rows[0].digest, "keep", changed=1), Mark(rows[1].digest, "reject", changed=1)])
    found = {}
    for verdict in ("keep", "reject", "none"):
        _, said, _ = send(capsys, out, tmp_path / "c.html", "--marked", verdict, "--json", "--set", "steps=[1, 3]")
        found[verdict] = json.loads(said).get("trials") if said else None
    assert found == {"keep": 1, "reject": None, "none": 1}
