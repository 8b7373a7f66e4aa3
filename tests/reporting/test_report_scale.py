"""Ten thousand cells: what the page builds stays small, wherever it is scrolled to and whichever axes it shows.

Durations are not asserted, since a busy machine has others; the number of elements is what they follow from.
"""

from __future__ import annotations

import pytest
from made_up_sweeps import Sweep

from sweeper.reporting.folder import write_report

MOST = 3000  # elements of the whole document


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    sweep = Sweep({"seed": list(range(100)), "cfg": [1 + n / 4 for n in range(100)]}, distinct=40, size=(32, 32))
    return write_report(sweep.write(tmp_path_factory.mktemp("large"))).page.parent


@pytest.mark.parametrize(
    "address", ["", "#size=48", "#x=cfg&y=&xx=", "#x=&y=", "#x=cfg&y=&yy=seed", "#view=table", "#view=plots"]
)
def test_the_document_stays_small(large, opened, address):
    page = opened(large, address)
    assert page.locator("*").count() <= MOST


def test_scrolling_to_the_end_shows_the_last_cell_and_builds_no_more(large, opened):
    page = opened(large)
    page.locator(".scroller").evaluate("s => s.scrollTo(s.scrollWidth, s.scrollHeight)")
    page.wait_for_selector('[data-trial="9999"] img')
    assert page.locator('[data-trial="0"]').count() == 0
    assert page.locator("*").count() <= MOST


def test_labels_stay_in_view_while_the_grid_scrolls(large, opened):
    page = opened(large)
    page.locator(".scroller").evaluate("s => s.scrollTo(3000, 4000)")
    page.wait_for_function("() => !document.querySelector('[data-trial=\"0\"]')")
    frame = page.locator(".scroller").bounding_box()
    heads = page.get_by_role("columnheader")
    sides = page.get_by_role("rowheader")
    assert all(abs(heads.nth(n).bounding_box()["y"] - frame["y"]) < 2 for n in range(3))
    assert all(abs(sides.nth(n).bounding_box()["x"] - frame["x"]) < 2 for n in range(3))


def test_the_keyboard_reaches_the_far_end(large, opened):
    page = opened(large)
    page.locator("[role=grid]").focus()
    page.keyboard.press("End")
    current = page.locator(".cell.current")
    assert page.locator("[role=grid]").get_attribute("aria-activedescendant") == current.get_attribute("id")
    assert current.get_attribute("aria-colindex") == "101"
    assert page.evaluate(
        """() => {
        const [c, s] = ['.cell.current', '.scroller'].map(q => document.querySelector(q).getBoundingClientRect());
        return c.right <= s.right && c.bottom <= s.bottom; }"""
    )


def test_a_filter_over_all_rows_leaves_exactly_those_that_hold(large, opened):
    page = opened(large, "#where=" + "seed in [3, 99] and cfg >= 25".replace(" ", "%20"))
    assert page.evaluate("() => sweeper.page.arranged().shown") == 2 * 4
