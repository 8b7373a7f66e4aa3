"""The page in a real browser: checks, dragging, favourites, excluded combinations, commands."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest

import sweeper
from sweeper.cli import main
from sweeper.embedded import EmbeddedServer
from sweeper.model.result import PIXEL_HASH
from sweeper.regression.cases import Case
from sweeper.regression.comparison import Comparison, Comparisons
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from tests.reporting import painting
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, open_menu, read_all
from tests.reporting.page_modules import evaluate

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16]}


@pytest.fixture
def checked(tmp_path):
    """A page with a check: one trial is same, one changed, one new; the others were not compared."""
    out = Sweep(GRID).write(tmp_path / "results")
    accepted = tmp_path / "accepted.png"
    accepted.write_bytes((out / "artifacts/picture-5.png").read_bytes())
    cases = [Case({"steps": steps}, "9", 0) for steps in (4, 8, 16, 2, "<b>1</b>")]
    measures = {"ssim": 0.1, "psnr": float("inf")}
    reason = "ssim 0.1, allowed >= 0.95 <b>"
    items = (
        Comparison(cases[1], "changed", "", reason, measures, trial=1, accepted_file=str(accepted)),
        *(Comparison(case, "missing") for case in cases[3:]),
        Comparison(cases[2], "new", reason="no picture was accepted for it yet", trial=2),
        Comparison(cases[0], "same", trial=0, accepted_file=str(accepted)),
    )
    return write_report(out, checked=Comparisons("made-up", tmp_path, out, items)).page.parent


def test_check_shows_states_reasons_and_accepted_pictures(checked, opened):
    page = opened(checked, "#x=steps&y=sampler")
    words = [page.locator(f'[data-trial="{n}"] .verdict').inner_text() for n in range(4)]
    assert words == ["= same", "≠ changed", "+ new", "? not compared"]
    assert "ssim 0.1, allowed >= 0.95 <b>" in page.locator('[data-trial="1"]').get_attribute("aria-label")
    assert "none of its cases was compared" in page.locator('[data-trial="3"]').get_attribute("title")
    looks = "cells => new Set(cells.map(c => getComputedStyle(c.querySelector('.verdict')).color + c.innerText)).size"
    assert read_all(page, "#view .cell", looks) >= 3
    open_menu(page, "Marks")
    page.get_by_label("Show", exact=True).select_option("check != 'same'")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 5")
    change_address(page, "#view=table&sort=check_ssim")
    assert page.locator(".tbody .trow").first.get_attribute("data-trial") == "1"
    change_address(page, "#x=&y=sampler")  # a shared cell counts the states of the trials that it hides
    told = read_all(page, "#view .cell", "cells => cells.map(c => [c.title, c.innerText])")
    assert "3 trials share this cell: 1 same, 1 changed, 1 new" in told[0][0]
    assert "+2 · 1 changed" in told[0][1]
    assert "3 trials share this cell: 3 not compared" in told[1][0]
    change_address(page, "#trial=1")
    page.get_by_role("button", name="Beside the accepted").click()
    page.wait_for_function("() => document.querySelectorAll('.stage figure img').length === 2")
    sources = read_all(page, ".stage figure img", "images => images.map(i => i.getAttribute('src'))")
    assert sources[1].startswith("files/")
    assert sources[0].startswith("accepted/")
    page.wait_for_function("() => [...document.querySelectorAll('.stage img')].every(i => i.naturalWidth > 0)")
    page.keyboard.press("d")
    page.wait_for_selector(".subtracted img + img")
    page.keyboard.press("ArrowRight")  # this trial has no accepted picture
    assert page.get_by_role("button", name="Beside the accepted").count() == 0


def test_page_says_which_axis_changed_no_picture(tmp_path, opened):
    out = Sweep(GRID).write(tmp_path / "results")
    with Store.open(out) as store:
        hashes = {row.sha256[0]: row.columns["sampler"] for row in store.results()}
        store.cache_metrics([(sha256, PIXEL_HASH, pixels) for sha256, pixels in hashes.items()])
    page = opened(write_report(out).page.parent)
    sentence = "steps: all 3 values gave equal pictures in all 2 matched sets of trials; it changes nothing here"
    assert page.locator(".counts .menu > button").inner_text() == f"{sentence} ▾"


def test_shared_cell_shows_status_of_hidden_trials(made, opened):
    ends = dict.fromkeys([1, 2, 6, 11], ("failed", ("E", "no"))) | dict.fromkeys([5, 10], ("pending", None))
    page = opened(made(Sweep({"steps": [1, 2, 3, 4], "cfg": [5, 6, 7]}, ends=ends)), "#x=&y=steps")
    cells = [page.locator(f'[data-trial="{n}"]') for n in (0, 3, 6, 9)]
    badges = ["+2 · 2 failed", "+2 · 1 not run yet", "+2", "+2 · 1 failed"]  # the most urgent state of those below
    assert [cell.locator(".badge").inner_text() for cell in cells] == badges
    told = ["1 succeeded, 2 failed", "2 succeeded, 1 not run yet", "1 failed, 2 succeeded"]
    told += ["1 succeeded, 1 not run yet, 1 failed"]
    for cell, words in zip(cells, told, strict=True):
        assert f"3 trials share this cell: {words}" in cell.get_attribute("title")
        assert f"3 trials share this cell: {words}" in cell.get_attribute("aria-label")
    grounds = [cell.locator(".badge").evaluate("one => getComputedStyle(one).backgroundColor") for cell in cells]
    assert grounds[0] not in grounds[1:3]  # urgent states have a colour of their own
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    assert "2 failed" in cells[0].get_attribute("title")
    open_menu(page, "View")
    page.get_by_label("Size").fill("112")
    page.wait_for_function(
        "() => document.querySelectorAll('.badge')[1].textContent === '+2 …'"
    )  # there is no room for words
    assert cells[0].locator(".badge").inner_text() == "+2 · 2 failed"
    page.get_by_label("Size").fill("64")
    page.wait_for_function("() => document.querySelector('.badge').textContent === '+2 !'")
    page.get_by_label("Filter").fill("status != 'failed' and steps < 3")
    page.wait_for_function("() => document.querySelectorAll('.badge').length === 1")


def test_check_shows_how_texts_differ(tmp_path, opened):
    out = Sweep({"steps": [1, 2]}).write(tmp_path / "results")
    texts = {"accepted": "a fox", "now": "<script>alert(1)</script>"}
    accepted, now = (tmp_path / f"{name}.txt" for name in texts)
    accepted.write_text(texts["accepted"])
    now.write_text(texts["now"])
    found = tuple(
        Comparison(
            Case({"steps": n}, "9", 0), "changed", metrics={"mae": n}, trial=n,
            accepted_file=str(accepted), current_file=str(now),
        )
        for n in range(2)
    )  # fmt: skip
    report = write_report(out, checked=Comparisons("made-up", tmp_path, out, found), is_review=True)
    lines = "--- accepted\n+++ now\n@@ -1 +1 @@\n-a fox\n+<script>alert(1)</script>"
    page = opened(report.page.parent)
    assert read_all(page, ".cell", "all => all.map(one => one.dataset.trial)") == ["1", "0"]
    page.locator(".cell").first.click()
    assert page.locator("#zoom pre").inner_text() == lines


def test_header_counts_states_and_lists_missing_cases(checked, opened):
    page = opened(checked, "#x=steps&y=sampler")
    found = page.get_by_role("group", name="Result of the check")
    assert found.inner_text().split("\n") == ["1 same", "1 changed", "1 new", "3 not compared"]
    page.get_by_role("button", name="3 not compared").click()
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 3")
    assert page.get_by_label("Filter").input_value() == "check == 'not compared'"
    assert page.get_by_role("button", pressed=True).all_inner_texts() == ["3 not compared"]
    page.get_by_role("button", name="3 not compared").press("Enter")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 6")
    page.get_by_role("button", name="2 missing · causes").click()
    assert page.locator(".missing li").all_inner_texts() == ["steps=2 [9]", "steps=<b>1</b> [9]"]


def test_header_of_a_check_fits_on_a_phone(checked, opened):
    page = opened(checked, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.locator("#bar").bounding_box()["height"] < 120
    edge = page.get_by_role("button", name="3 not compared").evaluate("one => one.getBoundingClientRect().right")
    assert edge <= 390


def test_page_without_a_baseline_has_counts_but_no_check(made, opened):
    page = opened(made(Sweep(GRID, ends={1: ("failed", ("E", "no"))})))
    assert page.locator(".verdict").count() == 0
    assert "check" not in page.evaluate("sweeper.page.dataset.columns.map(column => column.name)")
    page.get_by_role("button", name="1 failed", exact=True).click()  # which filters by it
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 1")
    assert page.locator(".missing").count() == 0


CARRIED = """node => {
  const data = new DataTransfer();
  node.dispatchEvent(new DragEvent('dragstart', {dataTransfer: data, bubbles: true}));
  return Object.fromEntries(['text/uri-list', 'DownloadURL'].map(kind => [kind, data.getData(kind)]));
}"""


def test_dragging_a_cell_or_picture_takes_the_artifact(made, opened):
    folder = made(Sweep(GRID))
    page = opened(folder)
    address = (folder / "files/picture-3.png").as_uri()
    carried = {"text/uri-list": address, "DownloadURL": f"image/png:picture-3.png:{address}"}
    assert page.locator('[data-trial="3"]').evaluate(CARRIED) == carried
    change_address(page, "#trial=3")
    assert page.locator(".stage img").evaluate(CARRIED) == carried
    # Only a picture that contains its workflow opens that in ComfyUI.
    assert page.get_by_text("Drag the picture into ComfyUI").count() == 0


def test_filtered_and_excluded_cells_look_different_and_say_why(made, opened):
    folder = made(Sweep({"steps": [1, 2], "cfg": [5, 6]}, skip=frozenset({0})))
    page = opened(folder, "#x=cfg&y=steps&where=trial%20!%3D%202", has_touch=True)
    labels = read_all(page, ".cell.none", "cells => cells.map(c => c.getAttribute('aria-label'))")
    assert [label.partition(":")[0] for label in labels] == ["Not in the plan", "left out by the filter"]
    reasons = read_all(page, ".cell.none", "cells => cells.map(cell => cell.title)")
    assert [reason.partition(":")[0].partition(",")[0] for reason in reasons] == [
        "Not in the plan",
        "Left out by the filter",
    ]

    def expect_message(reason):
        page.wait_for_function("told => document.querySelector('#message.shown')?.textContent === told", arg=reason)

    page.get_by_role("grid").focus()
    for keys, reason in zip((["ArrowRight"], ["ArrowLeft", "ArrowDown"]), reasons, strict=True):
        for key in (*keys, "Enter"):
            page.keyboard.press(key)
        expect_message(reason)
    for place, reason in enumerate(reasons):
        page.locator(".cell.none").nth(place).tap()
        expect_message(reason)
    assert page.locator("dialog[open]").count() == 0


def test_favourites_are_found_after_a_reload(made, opened):
    folder = made(Sweep(GRID))
    page = opened(folder)
    page.evaluate("sweeper.page.marks.set(2, {stars: 3}); sweeper.page.marks.set(4, {verdict: 'keep'})")
    page.evaluate("sweeper.page.marks.set(5, {verdict: 'reject'})")
    open_menu(page, "Marks")
    page.get_by_label("Show", exact=True).select_option(label="favourites")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 2")
    page.evaluate("sweeper.page.marks.set(2, {stars: 0})")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 1")
    page.get_by_label("Filter").fill("mark != 'reject'")
    page.wait_for_function("() => sweeper.page.getArrangement().shown === 5")


def test_files_of_a_trial_share_its_cell_and_the_address_has_the_shown_one(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]}, outputs=3)))
    page.wait_for_function("""() => document.querySelectorAll('[data-trial="0"] img').length === 3""")
    change_address(page, "#trial=1")
    page.get_by_role("group", name="Files of this trial").get_by_text("3").click()
    address = "#" + page.url.partition("#")[2]
    change_address(page, "#trial=1")
    assert "picture-5.png" not in page.locator(".stage img").get_attribute("src")
    change_address(page, address)
    assert "picture-5.png" in page.locator(".stage img").get_attribute("src")


def test_table_heads_show_distributions_and_rows_are_marked_with_the_mouse(made, opened):
    page = opened(made(Sweep(GRID, slots={"cfg": 7})), "#view=table")
    names = read_all(page, ".thead canvas", "all => all.map(c => c.getAttribute('aria-label'))")
    assert "Distribution of steps: 4 to 16" in names
    assert not any("sampler" in name for name in names)
    row = page.locator('.trow[data-trial="2"]')
    row.hover()
    row.get_by_role("button", name="Keep").click()
    assert page.locator("[role=columnheader]").last.inner_text() == "mark"
    row.get_by_role("button", name="3 of 5").click()
    row.get_by_role("button", name="4 of 5").click()
    assert row.inner_text().split()[-9:-7] == ["keep", "4"]
    assert page.locator("dialog[open]").count() == 0


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real run of a small experiment, made once."""
    folder = tmp_path_factory.mktemp("real")
    painter = painting.Painter()
    painter.go_on.set()
    experiment = painting.experiment(folder, ["a fox", 'b\'s "den"', "c"])
    with EmbeddedServer(nodes=painter.nodes) as server:
        sweeper.run(experiment, server.url, folder / "out")
    return folder


def test_accept_command_accepts_exactly_the_kept_trials(real, opened, capsys):
    page = opened(write_report(real / "out").page.parent)
    page.evaluate("for (const row of [0, 1]) sweeper.page.marks.set(row, {verdict: 'keep'})")
    command = shlex.split(evaluate(page, "MarkExport.makeAcceptCommand(sweeper.page.dataset, sweeper.page.marks)"))
    assert command[:2] == ["sweeper", "accept"]
    assert main([*command[1:], "--yes"]) == 0
    capsys.readouterr()
    assert main(["report", str(real / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["trials"] == 3
    data = json.loads(Path(report["page"]).with_name("data.json").read_text())
    states, of = data["check"]["columns"][0]["values"], data["check"]["columns"][0]["of"]
    assert [states[place] for place in of] == ["same", "same", "new"]


def test_exported_kept_cases_are_accepted(real, opened, capsys, tmp_path):
    main(["accept", str(real / "out"), "--yes"])
    capsys.readouterr()
    assert main(["report", str(real / "out")]) == 0
    page = opened(Path(capsys.readouterr().out.strip()).parent)
    open_menu(page, "Marks")
    exported = page.get_by_role("button", name="Accept the kept (file of cases)")
    page.evaluate("for (const row of [0, 1, 2]) sweeper.page.marks.set(row, {verdict: ''})")
    assert not exported.is_visible()
    page.evaluate("sweeper.page.marks.set(1, {verdict: 'keep'})")
    with page.expect_download() as told:
        exported.click()
    file = tmp_path / "kept.txt"
    told.value.save_as(file)
    baseline = tmp_path / "baseline"
    assert main(["accept", str(real / "out"), "--cases", str(file), "--baseline", str(baseline), "--yes"]) == 0
    capsys.readouterr()
    assert main(["report", str(real / "out"), "--baseline", str(baseline)]) == 0
    data = json.loads(Path(capsys.readouterr().out.strip()).with_name("data.json").read_text())
    states, of = data["check"]["columns"][0]["values"], data["check"]["columns"][0]["of"]
    assert [states[place] for place in of] == ["new", "same", "new"]


def test_table_has_heat_by_rank_and_no_column_that_says_nothing(tmp_path, opened):
    out = Sweep(GRID).write(tmp_path / "results")
    choices = [{"metric": "brightness", "maximize": False, "axes": [], "notes": [], "more_seeds": 0}]
    told = {"brightness": {"lines": [], "shares": [], "choices": choices}}
    page = opened(write_report(out, answers={"by_metric": told}).page.parent, "#view=table")
    names = [name.strip(" ▲") for name in page.locator("[role=columnheader]").all_inner_texts()]
    assert names == ["picture", "trial", "sampler", "steps", "ran_s", "brightness"]
    heats = read_all(page, ".tbody .number:last-child", "all => all.map(c => parseInt(c.style.cssText.slice(7)))")
    assert heats == sorted(heats, reverse=True)  # lower is better
    assert heats[0] > heats[-1] == 0
    edges = "all => all.map(one => Math.round(one.getBoundingClientRect().right))"
    head, number = (read_all(page, place, edges) for place in (".thead > .number", ".tbody .trow:first-child .number"))
    assert head == number


def test_page_says_when_a_picture_contains_its_workflow(made, opened):
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "{}")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=text)
    page = opened(made(Sweep({"steps": [1]}, content=buffer.getvalue())), "#trial=0")
    assert page.get_by_text("Drag the picture into ComfyUI").count() == 1
