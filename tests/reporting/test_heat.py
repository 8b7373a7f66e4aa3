"""Heat maps with too many cells for a table, in a real browser."""

from __future__ import annotations

import itertools

import pytest

from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import read_all

STEPS, CFG = range(1, 61), [n / 8 for n in range(50)]
AT = "#view=plots&x=steps&y=cfg&metric=brightness"
SIZES = [{"viewport": {"width": width, "height": 900}} for width in (380, 800, 1400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sweep = Sweep({"steps": STEPS, "cfg": CFG}, distinct=30, skip=frozenset({len(CFG)}))
    return write_report(sweep.write(tmp_path_factory.mktemp("heat"))).page.parent


def read_status(page):
    return page.locator(".heat-status").inner_text()


@pytest.mark.parametrize("options", SIZES, ids=["380", "800", "1400"])
def test_drawn_heat_map_fits_and_its_labels_do_not_overlap(folder, opened, options):
    page = opened(folder, AT, **options)
    boxes = """all => all.map(one => { const { left, right, top, bottom } = one.getBoundingClientRect();
        return [one.lastChild.textContent, left, right, top, bottom]; })"""
    across = read_all(page, ".drawn text[text-anchor=middle]", boxes)[:-1]
    down = read_all(page, ".side-label", boxes)
    assert {float(text) for text, *_ in across} <= set(STEPS)
    assert {float(text) for text, *_ in down} <= set(CFG)
    assert min(len(across), len(down)) >= 5
    assert all(one[2] <= other[1] for one, other in itertools.pairwise(across))
    assert all(one[4] <= other[3] + 0.5 for one, other in itertools.pairwise(down))
    section = page.locator(".plots section").first
    assert section.evaluate("one => one.scrollWidth <= one.clientWidth")
    assert page.locator(".wide").first.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_drawn_heat_map_is_read_by_pointer_and_keys(folder, opened):
    page = opened(folder, AT)
    canvas = page.locator(".drawn")
    box = page.locator(".drawn .plane").bounding_box()
    # In two steps, because the first movement over a page has no length for Chromium.
    page.mouse.move(box["x"] + box["width"] * 10.5 / 60, box["y"] + box["height"] * 4.5 / 50, steps=2)
    page.wait_for_function("() => document.querySelector('.heat-status').textContent.startsWith('steps: 11')")
    value = page.evaluate("sweeper.page.dataset.column('brightness').value(10 * 50 + 4 - 1)")
    assert read_status(page) == f"steps: 11 · cfg: 0.5 · brightness: {value}"
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert read_status(page).startswith("steps: 12 · cfg: 0.625 · brightness: ")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
    assert read_status(page) == "steps: 1 · cfg: 0 · brightness: 10"
    here, plane = page.locator(".here").bounding_box(), page.locator(".drawn .plane").bounding_box()
    page.keyboard.press("ArrowRight")
    assert read_status(page) == "steps: 2 · cfg: 0 · brightness: no value"
    assert abs(here["x"] - plane["x"]) < 2 > abs(here["y"] - plane["y"])


def test_heat_map_shows_the_range_of_shared_points(made, opened):
    page = opened(made(Sweep({"steps": STEPS, "cfg": CFG[:30], "seed": [1, 2]}, distinct=90)), AT)
    page.locator(".drawn").focus()
    page.keyboard.press("ArrowDown")
    assert read_status(page) == "steps: 1 · cfg: 0 · brightness: 10.5 (2 trials, 10.0 to 11.0)"


LONG = "a lighthouse on a rock in a storm, waves as high as its gallery, " * 3


def test_row_labels_break_between_words_only(made, opened):
    values = ["0.1234567", "279842640", "lighthouse", LONG]
    folder = made(Sweep({"steps": range(30), "prompt": values}))
    lines = """all => all.map(one => { const range = document.createRange(); range.selectNodeContents(one);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size; })"""
    letters = """one => { const text = one.firstChild, words = [...text.data.matchAll(/\\S+/g)], range = new Range();
        return words.filter(word => { range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
            return range.getClientRects().length > 1; }).map(String); }"""
    for options in SIZES:
        page = opened(folder, "#view=plots&x=steps&y=prompt", **options)
        heads = page.locator(".heat tbody th span")
        assert heads.evaluate_all(lines)[:3] == [1, 1, 1], options
        assert heads.nth(3).evaluate(letters) == [], options


@pytest.mark.parametrize(
    ("steps", "seeds", "distinct"), [(1, 1, 1), (3, 1, 3), (71, 3, 5), (7, 71, 2), (1, 7, 7)], ids=str
)
def test_trials_are_counted_in_whole_numbers(made, opened, steps, seeds, distinct):
    sweep = Sweep({"steps": range(steps), "seed": range(seeds)}, distinct=distinct)
    page = opened(made(sweep), "#view=plots&x=steps&metric=brightness")
    plot = page.get_by_role("group", name="Distribution of brightness")
    counts = [int(text) for text in plot.locator("text[text-anchor=end]").all_text_contents()]
    most = max(int(text.split()[-2]) for text in plot.locator("rect title").all_text_contents())
    assert counts[0] == 0
    assert 2 <= len(counts) <= 6
    assert most <= counts[-1] < most + counts[1]
