"""The menu `Share`: what a served page saves, the commands of a page from a disk, and the page on paper."""

from __future__ import annotations

import io
import shlex

import httpx
from PIL import Image

from sweeper.cli import main
from sweeper.reporting.live import LiveView
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import press_in_menu

SWEEP = Sweep({"steps": [4, 8, 16], "cfg": [3, 5]}, size=(96, 64))


def test_served_page_saves_what_is_shown(lend_pages, tmp_path):
    with LiveView(SWEEP.write(tmp_path / "r")) as view, lend_pages({}) as lend:
        page = lend()
        page.goto(f"{view.url}#x=cfg&y=steps&where=steps+%3E+4")
        page.wait_for_selector(".cell[data-trial]")
        saved = {}
        for text in ("one file", "contact sheet"):
            with page.expect_download() as download:
                press_in_menu(page, "Share", text)
            saved[text] = tmp_path / download.value.suggested_filename
            download.value.save_as(saved[text])
        page.goto(saved["one file"].as_uri())
        page.wait_for_selector(".cell[data-trial]")
        assert page.evaluate("[sweeper.page.dataset.size, sweeper.page.getState().y]") == [4, "steps"]
    with Image.open(saved["contact sheet"]) as sheet:
        assert sheet.height > sheet.width / 3


def test_page_from_a_disk_copies_commands_that_work(made, opened, tmp_path, monkeypatch, capsys):
    page = opened(made(SWEEP), "#x=cfg&y=steps&where=steps+%3E+4", permissions=["clipboard-read", "clipboard-write"])
    press_in_menu(page, "Share", "Copy command: contact sheet")
    page.wait_for_function("() => document.querySelector('#message').textContent.includes('command')")
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert command[3:] == ["--sheet", "made-up.png", "--x", "cfg", "--y", "steps", "--where", "trial in [2, 3, 4, 5]"]
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0, capsys.readouterr().err
    assert (tmp_path / "made-up.png").exists()


def test_paper_shows_the_whole_arrangement_without_controls(made, opened):
    page = opened(made(Sweep({"steps": [*range(60)], "cfg": [3, 5]})), "#x=cfg&y=steps")
    page.evaluate(
        "() => { window.print = () => { window.printed = document.querySelectorAll('#print-sheet img').length } }"
    )
    press_in_menu(page, "Share", "Print or save as PDF")
    page.wait_for_function("() => window.printed === 120")
    page.emulate_media(media="print")
    assert not page.locator("#bar").is_visible()
    assert page.locator("#print-sheet tbody tr").count() == 60
    with io.BytesIO(page.pdf(format="A4")) as pdf:
        assert pdf.getvalue().count(b"/Type /Page\n") > 2


WISH = {"file": "x.html", "x": "", "y": "", "trials": "", "address": ""}


def test_server_shares_only_what_its_page_asks_for(tmp_path):
    wishes = [
        (WISH | {"trials": "0-1"}, 200),
        (WISH | {"file": "../x.yaml"}, 422),
        (WISH | {"file": "x.png", "x": "no"}, 422),
        (WISH | {"trials": "0-999999999"}, 422),
        (WISH | {"trials": "1;2"}, 422),
        (WISH | {"x": "y" * 5000}, 413),
        ({"file": "x.html"}, 400),
        (["x.html"], 400),
    ]
    with LiveView(SWEEP.write(tmp_path / "r")) as view:
        url = f"{view.url}share"
        assert [httpx.post(url, json=wish, timeout=60).status_code for wish, _ in wishes] == [
            each for _, each in wishes
        ]
        assert httpx.post(url, json=WISH, headers={"origin": "http://evil.example"}).status_code == 403
        assert httpx.post(url, content=b"{}", headers={"content-type": "text/plain"}).status_code == 403
        assert httpx.get(url).status_code == 404
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]
