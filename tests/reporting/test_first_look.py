"""What one sees and learns before one changes anything: the bar, the labels, the keys, the filter's help."""

from __future__ import annotations

import json

import pytest

from sweeper.cli import main
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import open_menu, press_in_menu

GRID = {"prompt": ["a fox", "a boat"], "seed": [11, 12, 13], "cfg": [5, 7]}


@pytest.fixture
def zipped_report(project, tmp_path, capsys):
    """A report of a sweep whose width and color vary together."""
    file = project(sweep={"grid": {"height": [8, 16]}, "zip": [{"width": [8, 16, 24], "color": [1, 2, 3]}]})
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--target", "embedded"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out" / "report"


def test_heads_show_the_partners_of_a_zip(zipped_report, opened):
    page = opened(zipped_report, "#x=width&y=height")
    assert page.get_by_role("columnheader").all_inner_texts() == ["8 · 1", "16 · 2", "24 · 3"]
    assert "width · color" in page.locator(".corner").inner_text().replace("\n", " ")
    page.get_by_label("Y axis", exact=True).select_option("color")  # it has a head of its own then
    assert page.get_by_role("columnheader").all_inner_texts() == ["8", "16", "24"]
    plots = opened(zipped_report, "#view=plots&x=width&y=height")
    assert plots.locator(".heat [scope=col]").all_inner_texts() == ["8 · 1", "16 · 2", "24 · 3"]


def test_bar_is_one_line_and_prompts_come_before_seeds(made, opened):
    page = opened(made(Sweep(GRID)), viewport={"width": 1440, "height": 900})
    axes = [page.get_by_label(f"{name} axis", exact=True).input_value() for name in ("X", "Y")]
    assert axes == ["cfg", "prompt"]
    assert page.locator("#bar").bounding_box()["height"] < 100
    for name in ("View", "Marks"):
        open_menu(page, name)
        assert page.locator(".menu-panel:visible").count() == 1  # another press closes it
    page.keyboard.press("Escape")
    assert page.locator(".menu-panel:visible").count() == 0
    page.evaluate("() => sweeper.page.update({ colour: 'brightness' })")
    assert page.locator("#bar").bounding_box()["height"] < 100  # the legend needs no line of its own


def test_menus_fit_into_a_narrow_window(made, opened):
    page = opened(made(Sweep(GRID)), viewport={"width": 390, "height": 800})
    for name in ("View", "Marks"):
        open_menu(page, name)
        box = page.locator(".menu-panel:visible").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_fit_shows_all_columns(made, opened):
    page = opened(made(Sweep({"steps": list(range(12)), "cfg": [5, 7]})), "#x=steps&y=cfg")
    overflow = "() => { const one = document.querySelector('.scroller'); return one.scrollWidth - one.clientWidth; }"
    assert page.evaluate(overflow) > 0
    press_in_menu(page, "View", "Fit")
    assert page.evaluate(overflow) <= 0


def test_question_mark_lists_the_keys(made, opened):
    page = opened(made(Sweep(GRID)), "#trial=0")
    page.keyboard.press("?")
    assert "side by side, blink" in page.get_by_role("dialog", name="Keys").inner_text()
    page.get_by_role("button", name="Done").click()
    assert page.get_by_role("dialog", name="One trial").is_visible()


def test_comparison_is_announced_in_the_dialog_and_ends(made, opened):
    page = opened(made(Sweep(GRID)), "#trial=0")
    page.keyboard.press("h")
    said = page.locator("dialog #message")
    assert said.inner_text() == "Comparing with trial 0. Move to another trial."
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    assert page.locator("#zoom figure").count() == 2
    page.get_by_role("button", name="B: trial 0").click()
    assert page.locator("#zoom figure").count() == 0
    assert "with" not in page.url.partition("#")[2]


def test_filter_suggests_names_and_values(made, opened):
    page = opened(made(Sweep(GRID)))
    field = page.get_by_label("Filter")

    def suggest(text):
        field.fill(text)
        return page.locator("#filter-options option").evaluate_all("all => all.map(one => one.value)")

    assert suggest("cfg > 5 and pr") == ["cfg > 5 and prompt"]
    assert suggest("PROMPT == 'a b") == ["PROMPT == 'a boat'"]
    assert suggest("prompt in 'a b") == []  # this is a text
    assert suggest("cfg ==") == ["cfg == 5", "cfg == 7"]


def test_lost_picture_says_so(made, browser):
    folder = made(Sweep({"steps": [1, 2]}))
    for file in folder.rglob("*.webp"):
        file.unlink()
    page = browser.new_page()  # not `opened`, because the console reports each lost file
    page.goto(f"{folder.as_uri()}/index.html")
    page.wait_for_function("() => document.querySelectorAll('.cell img[alt*=\"cannot be loaded\"]').length === 2")
    page.close()


def test_keep_frame_is_above_the_picture(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]})))
    page.evaluate("sweeper.page.marks.set(0, {verdict: 'keep'})")
    style = "one => { const { borderTopWidth: w, zIndex: z } = getComputedStyle(one, '::before'); return [w, z]; }"
    assert page.locator(".cell.keep").evaluate(style) == ["3px", "1"]


def test_description_is_the_subtitle(project, tmp_path, opened, capsys):
    file = project(description="Which width is best?")
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--target", "embedded"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    page = opened(tmp_path / "out" / "report")
    assert page.locator(".subtitle").inner_text() == "Which width is best?"
    assert json.loads((tmp_path / "out" / "report" / "data.json").read_text())["together"] == []
