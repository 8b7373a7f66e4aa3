"""An empty cell of the page says that its combination is not in the plan."""

from __future__ import annotations

from tests.reporting.made_up_sweeps import Sweep


def test_empty_cell_says_that_its_combination_is_not_in_the_plan(made, opened):
    page = opened(made(Sweep({"steps": [1, 2], "cfg": [1, 2]}, skip=frozenset({3}))))
    hole = page.locator(".cell.none")
    assert hole.get_attribute("title").startswith("Not in the plan: `exclude`, `where` or `sample` leaves it out")
    assert hole.get_attribute("aria-label") == hole.get_attribute("title")
