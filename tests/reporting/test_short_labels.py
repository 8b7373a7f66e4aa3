"""Long values of an axis on the page: the short labels of two prompts that differ in one word are different."""

from __future__ import annotations

import json

import pytest

from tests.reporting.made_up_sweeps import Sweep

BEFORE = "A cinematic wide photograph of a lighthouse on a cliff above the waves, " + "with clouds and gulls, " * 16
AFTER = "in soft evening light, " + "very sharp and detailed, " * 15 + "35mm"
PROMPTS = [f"{BEFORE}drawn in {medium} {AFTER}" for medium in ("charcoal", "watercolour")]
LABELS = ["…drawn in charcoal in soft…", "…drawn in watercolour in soft…"]


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
    page = opened(folder, "#x=steps&y=prompt")
    assert list_texts(page, ".side") == LABELS
    page = opened(folder, "#x=steps&yy=prompt")
    assert list_texts(page, ".band-title") == [f"prompt {label}" for label in LABELS]


def test_captions_titles_and_tables_of_long_prompts_differ(folder, opened):
    page = opened(folder, "#view=gallery&trial=0&with=2&mode=side")
    captions = list_texts(page, "dialog[open] figcaption")
    assert [label in caption for caption, label in zip(captions, LABELS, strict=True)] == [True, True]
    assert LABELS[0] in page.locator("dialog[open] h2").inner_text()
    assert PROMPTS[0].strip() in page.locator("dialog[open] .params").inner_text()
    page = opened(folder, "#view=table")
    cells = page.get_by_role("gridcell").filter(has_text="drawn in")
    assert cells.all_inner_texts() == [LABELS[0]] * 2 + [LABELS[1]] * 2
    assert cells.first.get_attribute("title") == PROMPTS[0]


def test_plots_of_long_prompts_name_the_words_that_differ(folder, opened):
    page = opened(folder, "#view=plots&x=steps&y=prompt")
    assert list_texts(page, ".heat tbody th") == LABELS
    assert list_texts(page, ".key li") == LABELS
    assert [item.get_attribute("title") for item in page.locator(".key li").all()] == PROMPTS


def test_menus_of_long_prompts_name_the_words_that_differ(folder, opened):
    page = opened(folder, "#x=steps&y=")
    options = page.locator("select option").all_inner_texts()
    assert set(LABELS) <= set(options)


def test_the_data_keep_the_whole_prompts(folder):
    data = json.loads((folder / "data.json").read_text())
    prompt, steps = data["columns"]
    assert prompt["values"] == PROMPTS
    assert prompt["names"] == LABELS
    assert "names" not in steps
