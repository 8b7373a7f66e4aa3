"""axe-core finds nothing on any view, in either theme, on a wide and on a narrow screen."""

from __future__ import annotations

from importlib.resources import files

import pytest

from sweeper.reporting.page_answers import find_answers
from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_searches import SearchSweep
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import open_menu

SWEEP = {"prompt": ["a fox", "a boat"], "steps": [4, 8], "cfg": [5, 7], "seed": [1, 2]}
VIEWS = {
    "decide": "#view=decide",
    "grid": "#x=steps&y=prompt&xx=cfg&yy=seed",
    "shared cells": "#x=steps&y=prompt&xx=&yy=&colour=brightness",
    "opened cell": "#x=steps&y=prompt&xx=&yy=&open=0",
    "gallery": "#view=gallery&sort=-brightness",
    "table": "#view=table",
    "plots": "#view=plots&metric=brightness",
    "trial": "#trial=0&with=3&mode=side",
    "slider": "#trial=0&with=3&mode=slider",
    "difference": "#trial=0&with=3&mode=difference",
    "tray and axis": "#x=&y=prompt&xx=&yy=&time=steps&pin=steps:4&pick=0&pick=3&with=5",
    "collected": "#pick=0&pick=1&pick=3&trial=1&mode=picked",
}

FIND = """async () => {
    const found = (await axe.run(document, { resultTypes: ['violations'], preload: false })).violations;
    return found.flatMap(({ id, nodes }) => nodes.map(one => [id, one.target.join(' '), one.failureSummary])); }"""


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_on_any_view(tmp_path, opened, theme, width):
    out = Sweep(SWEEP, ends={3: ("failed", ("OOMError", "out of memory")), 5: ("pending", None)}).write(tmp_path)
    folder = write_report(out, answers=find_answers(out, None)).page.parent
    page = opened(folder, color_scheme=theme, viewport={"width": width, "height": 900})
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = {}
    for name, address in VIEWS.items():
        page.goto(f"{folder.as_uri()}/index.html{address}")  # only the part behind # changes
        found[name] = page.evaluate(FIND)
    page.keyboard.press("Escape")
    page.goto(f"{folder.as_uri()}/index.html#view=grid")
    open_menu(page, "View")
    found["menu"] = page.evaluate(FIND)
    page.get_by_role("button", name="Axes and values…").click()
    found["values"] = page.evaluate(FIND)
    page.get_by_role("button", name="Done").click()
    page.keyboard.press("?")
    found["keys"] = page.evaluate(FIND)
    assert {place: problems for place, problems in found.items() if problems} == {}


def test_steps_are_read_aloud_and_blinking_waits_if_motion_is_unwanted(made, opened):
    page = opened(made(Sweep(SWEEP)), "#x=steps&y=prompt&trial=0&with=4&mode=blink", reduced_motion="reduce")
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Flip").click()
    assert page.locator("#zoom figcaption").inner_text().startswith("trial 0 ")
    page.keyboard.press("ArrowRight")
    assert page.locator("#zoom > [role=status]").text_content().startswith("trial 4: prompt: a fox · steps: 8")


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_on_the_page_of_a_search(tmp_path, opened, theme, width):
    rounds = [[{"cfg": 3, "sampler": "euler"}], [{"cfg": 9, "sampler": "heun"}, {"cfg": 5, "sampler": "euler"}]]
    measures = {"sharpness": lambda point: point["cfg"], "brightness": lambda point: 10 - point["cfg"]}
    goals = [("sharpness", True), ("brightness", True)]
    sweep = SearchSweep(rounds, measures, goals, short={1: 1}, failed=frozenset({2}))
    folder = write_report(sweep.write(tmp_path)).page.parent
    page = opened(folder, color_scheme=theme, viewport={"width": width, "height": 900})
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    page.get_by_role("img", name="Pareto front").press("ArrowRight")  # opens the card
    assert page.locator(".card").is_visible()
    assert page.evaluate(FIND) == []
