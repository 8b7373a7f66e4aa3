"""The page of a check in a real browser: its views, its keys, and the list for `sweeper accept`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sweeper
from sweeper.regression.cases import Case
from sweeper.regression.comparison import Comparison, Comparisons
from sweeper.regression.html_page import write_page


@pytest.fixture
def open_page(browser):
    """Open a page from disk. The test fails if the page logs to the console, throws, or uses the network."""
    contexts, trouble = [], []

    def visit(file: Path, **options):
        context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda one: trouble.append(one.url) if not one.url.startswith(("file:", "blob:")) else None)
        page.goto(file.resolve().as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert trouble == []


def picture(path, level, side=40, *, spot=0):
    array = np.full((side, side, 3), level, np.uint8)
    array[: spot or 0, : spot or 0] = 255 - level
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def page_of(tmp_path):
    """A page of made-up cases: a small change, a large one, another size, a text, a new one, a failed one."""

    def case(name, *, accepted=None, now=None, **rest):
        files = {"accepted_file": accepted and str(accepted), "current_file": now and str(now)}
        return Comparison(Case({"case": name}, "9", 0), **files, **rest)

    def make_changed(name, before, now, mae, **rest):
        return case(name, state="changed", metrics={"mae": mae}, accepted=before, now=now, **rest)

    one, two, three = (picture(tmp_path / f"{n}.png", 100 + n, spot=4 * n) for n in range(3))
    large = picture(tmp_path / "large.png", 9, side=60)
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    texts[0].write_text("a red fox\n<b>in snow</b>\n")
    texts[1].write_text("a red fox\n<script>alert(1)</script>\n")
    items = (
        make_changed("small", one, two, 1.0, reason="pixels differ", verdict="the server drifted"),
        make_changed("great", one, three, 30.0),
        case("size", state="changed", reason="size: 40 x 40, 60 x 60", accepted=one, now=large),
        case("text", state="changed", metrics={"text_ratio": 0.5}, accepted=texts[0], now=texts[1]),
        case("new", state="new", now=one),
        case("failed", state="failed", reason="OutOfMemory: <img src=x>"),
        case("same", state="same", accepted=one, now=one),
    )
    return write_page(Comparisons("made & up", tmp_path / "baseline", tmp_path / "results", items), tmp_path / "page")


def names(page):
    return page.locator("section").evaluate_all("all => all.map(one => one.dataset.case)")


def visible_parts(page, index):
    """The captions of one section, and whether its stack is visible."""
    section = page.locator("section").nth(index)
    figures = section.locator("figure").evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map(one => one.querySelector('figcaption').textContent)"
    )
    stack = section.locator(".stack")
    return figures, bool(stack.count()) and stack.is_visible()


def test_greatest_change_comes_first_and_texts_are_escaped(page_of, open_page):
    page = open_page(page_of)
    order = [name.removeprefix("case=").removesuffix(" [9]") for name in names(page)]
    assert order == ["size", "failed", "text", "great", "small", "new"]
    assert page.locator("h1").inner_text() == "made & up: review needed"
    assert page.locator("section").nth(1).locator("p").text_content() == "OutOfMemory: <img src=x>"
    assert "+<script>alert(1)</script>" in (page.locator("pre").text_content() or "")
    assert visible_parts(page, 3) == (["base", "now", "difference"], False)
    assert visible_parts(page, 0) == (["base", "now"], False)
    assert page.locator("section").nth(4).locator(".verdict").inner_text() == "the server drifted"
    for image in page.locator("section img:visible").all():
        image.scroll_into_view_if_needed()
        page.wait_for_function("one => one.complete && one.naturalWidth > 0", arg=image.element_handle())


def test_each_key_selects_a_view(page_of, open_page):
    page = open_page(page_of)
    page.keyboard.press("d")
    assert visible_parts(page, 3) == (["difference"], False)
    assert visible_parts(page, 0) == (["base", "now"], False)  # nothing to lay together: shown as ever
    page.keyboard.press("b")
    page.locator("section").nth(3).scroll_into_view_if_needed()  # what is far from view is not laid out
    page.locator("section").nth(3).locator(".stack").wait_for()
    assert visible_parts(page, 3) == ([], True)
    turned = "state => getComputedStyle(document.querySelector('.pile .now')).visibility === state"
    for state in ("visible", "hidden", "visible"):
        page.wait_for_function(turned, arg=state)
    page.keyboard.press("l")
    pile = page.locator(".pile").first
    page.locator("input[type=range]").first.fill("20")
    assert pile.evaluate("one => getComputedStyle(one.querySelector('.now')).clipPath") == "inset(0px 0px 0px 20%)"
    page.get_by_role("button", name="Side by side").click()
    assert visible_parts(page, 3) == (["base", "now", "difference"], False)
    assert page.locator("[aria-pressed=true]").inner_text() == "Side by side"


def test_slider_shows_base_on_the_left_and_now_on_the_right(page_of, open_page, tmp_path):
    page = open_page(page_of)
    page.keyboard.press("l")
    pile = page.locator("section").nth(3).locator(".pile")
    pile.scroll_into_view_if_needed()
    slider = page.locator("section").nth(3).locator("input[type=range]")
    levels = {}
    for index in ("100", "0"):
        slider.fill(index)
        pile.screenshot(path=tmp_path / "pile.png")
        with Image.open(tmp_path / "pile.png") as image:
            levels[index] = np.asarray(image.convert("RGB"))[30, 10].tolist()
    assert levels == {"100": [100] * 3, "0": [102] * 3}  # base, and now


def test_keyboard_accepts_cases_and_the_list_survives_a_reload(page_of, open_page, tmp_path):
    page = open_page(page_of)
    for key in ("j", "a", "a", "a", "k", "k", "a"):  # size; failed has no picture to accept; text; back to failed
        page.keyboard.press(key)
    listed = page.locator("textarea").input_value()
    assert listed == "case=size [9]\ncase=text [9]\n"
    assert page.locator("#count").inner_text() == "2"
    assert page.locator("section.taken").count() == 2
    for _ in range(10):  # a browser may read for the new page before it has written for the old one
        page.reload()
        if page.locator("textarea").input_value() == listed:
            break
    assert page.locator("textarea").input_value() == listed
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the list").click()
    download.value.save_as(tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text() == listed
    page.get_by_role("button", name="Accept all, or none").click()
    assert page.locator("#count").inner_text() == "5"
    page.locator("section").nth(0).get_by_role("checkbox").uncheck()
    assert page.locator("#count").inner_text() == "4"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(page_of, open_page, scheme):
    page = open_page(page_of, color_scheme=scheme)
    contrast = """one => {
        const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((n) => n / 255)
            .map((n) => (n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = getComputedStyle(one.closest('section')).backgroundColor;
        const [a, b] = [getComputedStyle(one).color, ground].map(light);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }"""
    for words in page.locator("section h2, section p, section .state, section figcaption").all():
        assert words.evaluate(contrast) >= 4.5  # WCAG 2.2, 1.4.3
    ground = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
    assert (int(ground[4:].split(",")[0]) < 128) == (scheme == "dark")


def test_accept_takes_the_list_of_the_page(shop, command, open_page):
    assert command("run", "shop.yaml", "-q").code == 0
    assert command("accept", "results/shop").code == 0
    shop.rewire(cfg=2.0)
    assert command("check", "shop.yaml", "--html", "page", "-q").code == 1
    page = open_page(Path("page/index.html"))
    page.keyboard.press("j")
    page.keyboard.press("a")
    Path("accepted.txt").write_text(page.locator("textarea").input_value())
    told = page.locator(".accepted code").inner_text()
    assert told == "sweeper accept results/shop-check --cases accepted.txt"
    assert command(*told.split()[1:], "--yes").code == 0
    assert [one.state for one in sweeper.check("results/shop-check", "baselines/shop")] == ["changed", "same"]


def test_only_the_files_of_an_earlier_check_are_removed(page_of, tmp_path):
    folder = page_of.parent / "files"
    (folder / "mine.png").write_bytes(b"mine")
    write_page(Comparisons("made & up", tmp_path, tmp_path, ()), page_of.parent)
    assert [path.name for path in folder.iterdir()] == ["mine.png"]
