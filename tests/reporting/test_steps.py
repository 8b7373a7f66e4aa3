"""Moving to the next trial without a keyboard, in a real browser."""

from __future__ import annotations

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16]}
PHONE = {"viewport": {"width": 380, "height": 800}, "has_touch": True, "is_mobile": True}


def read_shown_trial(page):
    return page.locator("dialog[open] .zoom-head").inner_text().partition("trial ")[2][0]


def swipe(page, start, end):
    """Move one finger from one point of the window to another, as a touch screen reports it."""
    session = page.context.new_cdp_session(page)
    places = [[start[way] + (end[way] - start[way]) * part / 4 for way in (0, 1)] for part in range(5)]
    for kind, place in zip(("touchStart", *["touchMove"] * 4), places, strict=True):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": place[0], "y": place[1]}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_buttons_lead_to_neighbours_or_are_disabled(made, opened, options):
    page = opened(made(Sweep(GRID)), "#x=steps&y=sampler&trial=0", **options)
    ways = {name: page.get_by_role("button", name=f"The trial {name}") for name in
            ("to the left", "to the right", "above", "below")}  # fmt: skip
    assert {name: button.is_disabled() for name, button in ways.items()} == {
        "to the left": True,
        "to the right": False,
        "above": True,
        "below": False,
    }
    assert all(button.is_visible() for button in ways.values())
    assert page.evaluate("document.activeElement.ariaLabel") == "One trial"
    ways["to the right"].click()
    ways["to the right"].press("Enter")
    assert read_shown_trial(page) == "2"
    assert page.evaluate("document.activeElement.ariaLabel") == "The trial to the right"  # also at the last trial
    ways["to the right"].press("Enter")
    assert read_shown_trial(page) == "2"
    ways["below"].click()
    assert read_shown_trial(page) == "5"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_table_has_two_neighbours_of_a_trial_that_its_mark_filtered_out(made, opened):
    page = opened(made(Sweep(GRID)), "#view=table&sort=-steps&trial=2")
    assert page.get_by_role("group", name="Neighbours").get_by_role("button").all_inner_texts() == ["↑", "↓"]
    assert page.get_by_role("button", name="The trial above").is_disabled()
    page.get_by_role("button", name="The trial below").click()
    assert read_shown_trial(page) == "5"
    for view, key in (("gallery", "ArrowRight"), ("table", "ArrowDown")):
        page.evaluate("sweeper.page.marks.set(1, { verdict: '' })")
        change_address(page, f"#view={view}&sort=-steps&trial=1&where=mark == ''")  # the order is 2 5 1 4 0 3
        page.keyboard.press("k")
        page.wait_for_function("() => sweeper.page.getRows().length === 5")
        page.keyboard.press(key)
        assert read_shown_trial(page) == "4", view


def test_swipe_leads_to_the_next_trial_but_scroll_does_not(made, opened):
    page = opened(made(Sweep(GRID)), "#x=steps&y=sampler&trial=0", **PHONE)
    assert not page.locator(".keys").is_visible()
    swipe(page, (300, 350), (80, 360))
    page.wait_for_function("() => sweeper.page.getState().trial === '1'")
    swipe(page, (80, 350), (300, 340))
    page.wait_for_function("() => sweeper.page.getState().trial === '0'")
    swipe(page, (200, 400), (190, 200))
    assert read_shown_trial(page) == "0"
    change_address(page, "#x=steps&y=sampler&trial=0&with=3&mode=slider")  # which a finger moves, and nothing else
    picture = page.locator(".stack").bounding_box()
    middle = picture["y"] + picture["height"] / 2
    swipe(page, (300, middle), (40, middle))
    assert read_shown_trial(page) == "0"
    assert float(page.get_by_label("How much of the left picture is visible").input_value()) < 30
