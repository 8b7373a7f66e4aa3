"""Keyboard focus while the page rebuilds parts of itself, in a real browser."""

from __future__ import annotations

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, open_menu, press_in_menu

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16], "seed": [1, 2]}


def read_focused(page):
    """The name of the focused element, as a screen reader reads it."""
    return page.evaluate(
        """() => {
        const at = document.activeElement;
        return at.labels?.[0]?.textContent || at.getAttribute('aria-label') || at.title || at.tagName; }"""
    )


@pytest.fixture
def page(made, opened):
    return opened(made(Sweep(GRID)), "#x=steps&y=sampler&xx=&yy=")


def test_focus_stays_on_moved_and_ticked_values(page):
    press_in_menu(page, "View", "Axes and values…")
    page.get_by_role("button", name="Move 16 up").focus()
    for _ in range(3):  # the third press finds it at the top
        page.keyboard.press("Enter")
        assert read_focused(page) == "Move 16 up"
    assert page.locator("#values li").first.inner_text().startswith("16")
    box = page.get_by_role("checkbox", name="8")
    box.focus()
    page.keyboard.press("Space")
    assert read_focused(page) == "8"
    page.keyboard.press("Space")
    assert box.is_checked()
    page.get_by_role("button", name="Show all").press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Show all"
    page.go_back()
    page.wait_for_function("() => [...document.querySelectorAll('#values input')].some(box => !box.checked)")


def test_focus_stays_on_pin_menus_column_boxes_and_sort_heads(page):
    menu = page.get_by_label("seed", exact=True)
    menu.focus()
    menu.select_option("2")
    assert read_focused(page) == "seed"
    page.go_back()
    page.wait_for_function("() => sweeper.page.getState().pins.seed === undefined")
    assert menu.input_value() == ""  # it shows the state while it has the focus, too
    page.get_by_role("tab", name="Table").click()
    open_menu(page, "View")
    box = page.get_by_role("checkbox", name="seed")
    box.focus()
    for state in (False, True):
        page.keyboard.press("Space")
        assert read_focused(page) == "seed"
        assert box.is_checked() is state
    page.get_by_title("Sort by steps").focus()
    for order in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert read_focused(page) == "Sort by steps"
        assert page.get_by_role("columnheader", name="steps").get_attribute("aria-sort") == order


def test_current_trial_survives_a_rebuild_by_a_mark(page):
    for view in ("grid", "table"):
        page.evaluate("for (let row = 0; row < 12; row++) sweeper.page.marks.set(row, { verdict: '' })")
        change_address(page, f"#x=steps&y=sampler&xx=&yy=&view={view}&where=mark == ''")
        page.locator("[role=grid]").focus()
        page.evaluate("() => { window.old = document.querySelector('[role=grid]'); }")
        for key in ("ArrowDown", "ArrowDown", "k", "ArrowUp"):
            page.keyboard.press(key)
        before = page.locator(".current").get_attribute("data-trial")
        page.wait_for_function("() => !window.old.isConnected")
        assert read_focused(page) == "Trials", view
        assert page.locator(".current").get_attribute("data-trial") == before, view


def test_arrows_switch_tabs_and_tab_reaches_one(page):
    at = "() => [document.activeElement.textContent, document.querySelector('[aria-selected=true]').textContent]"
    page.get_by_role("tab", name="Grid").focus()
    walked = {"ArrowRight": "Gallery", "End": "Plots", "ArrowLeft": "Table", "Home": "Grid"}
    for key, view in walked.items():
        page.keyboard.press(key)
        assert page.evaluate(at) == [view, view]
    for key, view in {"ArrowLeft": "Plots", "ArrowRight": "Grid"}.items():  # from one end to the other
        page.keyboard.press(key)
        assert page.evaluate(at) == [view, view]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") != "tab"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(at) == ["Grid", "Grid"]
    page.go_back()  # each change was a step
    page.wait_for_selector(".plots")
