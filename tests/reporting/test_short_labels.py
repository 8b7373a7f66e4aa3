"""Long values of an axis on the page: the short labels of two prompts that differ in one word are different."""

from __future__ import annotations

import json

import pytest

from tests.long_prompts import LABELS, PROMPTS
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, read_all
from tests.reporting.page_modules import evaluate


@pytest.fixture
def folder(made):
    assert len(PROMPTS[0].split()) > 140
    return made(Sweep({"prompt": PROMPTS, "steps": [4, 8]}))


def list_texts(page, selector):
    page.locator(selector).first.wait_for()
    return page.locator(selector).all_inner_texts()


def test_heads_of_long_prompts_differ_and_show_all_on_hover(folder, opened):
    page = opened(folder, "#x=prompt&y=steps")
    assert list_texts(page, ".head") == LABELS
    assert [head.get_attribute("title") for head in page.locator(".head").all()] == PROMPTS
    overflow = "heads => heads.map(head => head.firstElementChild.scrollHeight - head.clientHeight)"
    assert max(read_all(page, ".head", overflow)) <= 0  # there is room for the whole label
    change_address(page, "#x=steps&y=prompt")
    assert list_texts(page, ".side") == LABELS
    change_address(page, "#x=steps&yy=prompt")
    assert list_texts(page, ".band-title") == [f"prompt {label}" for label in LABELS]


def test_captions_titles_and_tables_of_long_prompts_differ(folder, opened):
    page = opened(folder, "#view=gallery&trial=2&with=0&mode=side")
    captions = list_texts(page, "dialog[open] figcaption")
    assert [label in caption for caption, label in zip(captions, LABELS, strict=True)] == [True, True]
    assert LABELS[1] in page.locator("dialog[open] h2").inner_text()
    change_address(page, "#trial=0")
    assert PROMPTS[0] in page.locator("dialog[open] .params").first.inner_text()
    change_address(page, "#view=table")
    cells = page.get_by_role("gridcell").filter(has_text="drawn in")
    assert cells.all_inner_texts() == [LABELS[0]] * 2 + [LABELS[1]] * 2
    assert cells.first.get_attribute("title") == PROMPTS[0]


def test_slot_that_is_no_axis_has_short_labels_in_the_table(made, opened):
    page = opened(made(Sweep({"steps": [4, 8]}, slots={"prompt": PROMPTS[0]})), '#view=table&columns=["prompt"]')
    cell = page.get_by_role("gridcell").filter(has_text="A cinematic").first
    assert len(cell.inner_text()) <= 40
    assert cell.get_attribute("title") == PROMPTS[0]


def test_plots_and_menus_of_long_prompts_name_the_words_that_differ(folder, opened):
    page = opened(folder, "#view=plots&x=steps&y=prompt")
    assert list_texts(page, ".heat tbody th") == LABELS
    assert list_texts(page, ".key li") == ["prompt:", *LABELS]
    assert [item.get_attribute("title") for item in page.locator(".key li[title]").all()] == PROMPTS
    change_address(page, "#x=steps&y=")
    options = page.locator("select option").all_inner_texts()
    assert set(LABELS) <= set(options)


def test_the_data_keep_the_whole_prompts(folder):
    data = json.loads((folder / "data.json").read_text())
    prompt, steps = data["columns"]
    assert prompt["values"] == PROMPTS
    assert prompt["names"] == LABELS
    assert "names" not in steps


TEXTS = [
    ("one two three four", "zero one three five four"),
    ("a " * 700, "b " * 700 + "a"),
    ("一只红色狐狸在雪地里", "一只白色狐狸在雪地里跑"),
    ("", "a\n b"),
    ("x y x y x", "y x y"),
]


def test_two_compared_prompts_are_one_text_with_their_differences_marked(folder, opened):
    page = opened(folder, "#trial=2&with=0")
    whole = page.locator("dialog[open] .params .whole td")
    assert (whole.count(), whole.inner_text()) == (1, PROMPTS[0].replace("charcoal", "charcoal watercolour"))
    assert whole.locator("del").inner_text().strip() == "charcoal"
    assert whole.locator("ins").inner_text().strip() == "watercolour"
    width = "node => node.getBoundingClientRect().width"
    assert whole.evaluate(width) > 0.9 * page.locator("dialog[open] .params").first.evaluate(width)
    compared = evaluate(
        page,
        """texts => texts.map(([a, b]) => Params.joinTexts(a, b).map(part =>
            typeof part === "string" ? ["same", part] : [part.localName, part.textContent]))""",
        TEXTS,
    )
    for (first, second), parts in zip(TEXTS, compared, strict=True):  # the marks give back both texts
        assert "".join(text for kind, text in parts if kind != "ins") == first
        assert "".join(text for kind, text in parts if kind != "del") == second
