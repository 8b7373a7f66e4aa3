"""The page of a search: its history, the Pareto front, parallel coordinates and slices, which lead to the pictures."""

from __future__ import annotations

import json

import pytest

from sweeper.cli import main
from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_searches import SearchSweep
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, open_menu, read_all
from tests.reporting.page_modules import evaluate

POINTS = [
    [{"cfg": 3.5, "lr": 0.0001, "sampler": "euler"}],
    [{"cfg": 1.25, "lr": 0.01, "sampler": "heun"}, {"cfg": 9.75, "lr": 0.001, "sampler": "euler"}],
    [{"cfg": 6.0, "lr": 0.00002, "sampler": "heun"}, {"cfg": 7.5, "lr": 0.03, "sampler": "lcm"}],
    [{"cfg": 5.5, "lr": 0.005, "sampler": "euler"}, {"cfg": 2.0, "lr": 0.0007, "sampler": "lcm"}],
]
MEASURES = {"sharpness": lambda point: 100 - (point["cfg"] - 6) ** 2, "brightness": lambda point: point["cfg"]}
ONE = SearchSweep(POINTS, MEASURES, short={4: 1}, failed=frozenset({2}))  # point 5 stopped early, point 3 failed
TWO = SearchSweep(POINTS, MEASURES, (("sharpness", True), ("brightness", False)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_report(ONE.write(tmp_path_factory.mktemp("one"))).page.parent


@pytest.fixture(scope="module")
def pareto(tmp_path_factory):
    return write_report(TWO.write(tmp_path_factory.mktemp("two"))).page.parent


def find_section(page, title):
    return page.locator("section", has=page.get_by_role("heading", name=title, exact=True))


def list_marks(section):
    """The [number of the point, classes] of each mark in a chart, in the order of the points."""
    marks = section.locator(".chart .mark").evaluate_all(
        "all => all.map(m => [Number(m.dataset.point), m.classList[1]])"
    )
    return sorted(marks)


def point_at(page, section, number):
    """Move the pointer to the mark of a point. It may be a cross, which has nothing in its middle."""
    mark = section.locator(f'.mark[data-point="{number}"]')
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*place)
    return place


def list_trials(page):
    page.wait_for_selector(".cell")
    return sorted(read_all(page, "#view .cell", "cells => cells.map(c => Number(c.dataset.trial))"))


def count_pale_lines(page):
    return page.locator(".line.out").count()


def test_search_view_comes_first_and_tells_kinds_of_points_apart(folder, opened):
    page = opened(folder)
    assert page.get_by_role("tab", selected=True).inner_text() == "Search"
    history = find_section(page, "History")
    kinds = ["earlier", "tried", "failed", "tried", "stopped", "tried", "tried"]
    assert list_marks(history) == [[number, kind] for number, kind in enumerate(kinds, 1)]
    assert history.locator(".key li").all_inner_texts() == [
        "4 tried by the search",
        "1 done before the search",
        "1 stopped early or incomplete",
        "1 failed, so without an objective",
    ]
    line = history.locator(".best-line").get_attribute("d")
    assert line.count("V") == 1  # from point 1 to point 4, the best: it steps only where the objective improves
    shapes = set(history.locator(".chart .mark").evaluate_all("all => all.map(m => m.getAttribute('d'))"))
    assert len(shapes) == 4
    best = find_section(page, "Best points").locator("button")
    assert [text.splitlines()[0] for text in best.all_inner_texts()] == [
        "sharpness 100.0", "sharpness 99.8", "sharpness 93.8", "sharpness 84.0", "sharpness 77.4",
    ]  # fmt: skip
    note = find_section(page, "Best points").locator("p.dim").inner_text()
    assert note.startswith("These numbers are too good, because their points were chosen for them; `sweeper search ")
    # A slice has a logarithmic scale if its values span decades, or its categories.
    texts = "all => all.map(c => [...c.querySelectorAll('text')].map(t => t.textContent))"
    cfg, lr, sampler = read_all(page, ".slices .chart", texts)
    assert cfg[-1] == "cfg"
    assert lr[-1] == "lr (log)"
    assert {"0.00001", "0.001", "0.1"} <= set(lr)
    assert {"euler", "heun", "lcm"} <= set(sampler)


def test_point_leads_to_its_pictures_by_pointer_and_keyboard(folder, opened):
    page = opened(folder, alone=True)
    card = page.locator(".card")
    point_at(page, find_section(page, "History"), 3)
    assert "no objective" in card.inner_text()
    assert card.locator(".error").inner_text() == "OOMError: out of memory"
    place = point_at(page, find_section(page, "History"), 5)
    assert card.inner_text().splitlines() == [
        "sharpness 97.8", "cfg: 7.5", "lr: 0.03", "sampler: lcm",
        "point 5 · round 2 · 1 of 2 trials · stopped early or incomplete",
    ]  # fmt: skip
    assert card.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    chosen = read_all(page, ".chart", "all => all.map(c => c.querySelectorAll('.chosen').length)")
    assert chosen == [1, 0, 1, 1, 1, 1]  # the same point in all charts; parallel coordinates have a second layer
    page.mouse.click(*place)
    assert list_trials(page) == [8]
    page.go_back()
    page.get_by_role("img", name="objective along cfg").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "cfg: 2\n" in card.inner_text()
    page.keyboard.press("Enter")
    assert list_trials(page) == [11, 12]


def test_dragged_range_filters_points_in_all_charts(folder, opened):
    page = opened(folder)
    page.locator(".overlay").scroll_into_view_if_needed()
    track = page.locator(".track").first.bounding_box()  # of cfg, from 0 to 10
    middle = track["x"] + track["width"] / 2

    def find_y(cfg):
        return track["y"] + 8 + (track["height"] - 16) * (1 - cfg / 10)

    page.mouse.move(middle, find_y(5))
    page.mouse.down()
    page.mouse.move(middle, find_y(8), steps=3)
    page.mouse.up()
    text = page.get_by_label("Filter", exact=True)
    assert text.input_value() == "cfg >= 5.5 and cfg <= 7.5"
    assert count_pale_lines(page) == 4
    assert find_section(page, "History").locator(".mark.out").count() == 4
    assert len(find_section(page, "Best points").locator("button").all()) == 2  # point 5 is incomplete
    page.get_by_role("slider", name="Lowest cfg shown").press("ArrowUp")
    assert text.input_value() == "cfg >= 6 and cfg <= 7.5"
    page.keyboard.press("ArrowUp")  # the handle keeps the focus
    assert text.input_value() == "cfg >= 7.5 and cfg <= 7.5"
    page.get_by_role("slider", name="Highest sampler shown").press("ArrowDown")
    assert text.input_value() == "cfg >= 7.5 and cfg <= 7.5 and sampler in ['euler', 'heun']"
    page.get_by_role("button", name="Remove the ranges").click()
    assert text.input_value() == ""
    assert count_pale_lines(page) == 0
    change_address(page, "#where=seed+%3D%3D+1+or+lr+%3E+1")  # a range keeps the rest of the filter
    low = page.get_by_role("slider", name="Lowest objective shown")
    low.press("ArrowUp")
    assert text.input_value().startswith("(seed == 1 or lr > 1) and objective >= 84 and objective <= ")
    low.press("Home")
    assert text.input_value() == "seed == 1 or lr > 1"
    # A drag that leaves its axis opens no point.
    change_address(page, "#where=cfg+%3E%3D+1+and+cfg+%3C%3D+8")
    page.locator(".overlay").scroll_into_view_if_needed()
    track = page.locator(".track").nth(2).bounding_box()  # of the samplers, whose points share their places
    page.mouse.move(track["x"] + 15, track["y"] + track["height"] / 2 - 20)
    page.mouse.down()
    page.mouse.move(track["x"] + 60, track["y"] + track["height"] / 2 + 20, steps=3)
    page.mouse.up()
    assert text.input_value() == "cfg >= 1.25 and cfg <= 7.5 and sampler in ['heun']"
    assert page.get_by_role("tab", selected=True).inner_text() == "Search"


def test_pareto_front_respects_directions(pareto, opened):
    page = opened(pareto)
    front = find_section(page, "Pareto front")
    # Sharpness is highest at cfg 6, brightness lowest at small cfg: what lies above 6 is dominated.
    dominated = front.locator(".mark.dominated").evaluate_all("all => all.map(m => Number(m.dataset.point))")
    assert sorted(dominated) == [3, 5]
    assert (
        front.locator("text").filter(has_text="lower is better").text_content()
        == "objective.brightness, lower is better →"
    )
    assert len(find_section(page, "On the front").locator("button").all()) == 5
    page.get_by_label("Objective", exact=True).select_option("objective.brightness")
    assert "metric=objective.brightness" in page.url
    assert find_section(page, "Slices: objective.brightness, lower is better").count() == 1
    assert (
        find_section(page, "On the front")
        .locator("button")
        .first.inner_text()
        .startswith("sharpness 77.4 · brightness 1.25")
    )


def test_grid_of_a_search_has_few_columns_and_the_best_on_top(tmp_path, opened):
    rounds = [[], [{"cfg": 1 + number / 7, "sampler": ["euler", "lcm"][number % 2]} for number in range(20)]]
    page = opened(write_report(SearchSweep(rounds, MEASURES).write(tmp_path)).page.parent, "#view=grid")
    assert page.locator("#view .cell").count() == 4  # of 2 samplers and 2 seeds, and not of 20 values of cfg
    assert page.locator(".cell .caption").first.inner_text().startswith("highest objective 9")
    page.get_by_role("tab", name="Gallery").click()
    assert page.get_by_label("Sort by").input_value() == "objective"
    open_menu(page, "View")
    assert page.get_by_label("Colour by").input_value() == "objective"


def test_page_of_a_sweep_has_no_search_view(tmp_path, opened):
    page = opened(write_report(Sweep({"steps": [4, 8]}).write(tmp_path)).page.parent, "#view=search")
    assert page.get_by_role("tab").all_inner_texts() == ["Grid", "Gallery", "Table", "Plots"]
    assert page.get_by_role("tab", selected=True).inner_text() == "Grid"


def test_trials_of_a_search_have_workflows_but_no_rerun_command(project, tmp_path, opened):
    search = {
        "maximize": "brightness",
        "trials": 3,
        "space": {"width": [8, 16, 24], "color": {"from": 0, "to": 9, "step": 1}},
    }
    out = tmp_path / "results"
    assert main(["search", str(project(sweep=None, search=search)), "--out", str(out), "-q"]) == 0
    page = opened(write_report(out).page.parent, "#view=grid&x=width&y=color&xx=&yy=&trial=2")
    actions = page.locator(".actions")
    assert actions.get_by_role("button", name="Copy workflow").count() == 1
    assert "No rerun command: a search chooses its trials itself" in actions.inner_text()
    graph = json.loads(evaluate(page, "Workflow.toText(sweeper.page.dataset, 2)"))
    assert graph["1"]["inputs"]["width"] == page.evaluate("sweeper.page.dataset.column('width').value(2)")
    page.keyboard.press("Escape")
    words = page.evaluate("sweeper.page.dataset.explainExclusion(new Map([['width', 0], ['color', 1]]))")
    assert words == "Not tried: the search has not chosen these values"


def test_point_is_complete_with_the_combinations_that_where_allows(project, tmp_path, opened):
    search = {
        "maximize": "brightness", "trials": 6, "space": {"width": [8, 16]}, "over": {"color": [0, 255, 65280]},
        "where": "width == 8 or color > 0",
    }  # fmt: skip
    out = tmp_path / "results"
    assert main(["search", str(project(sweep=None, search=search)), "--out", str(out), "-q"]) == 0
    page = opened(write_report(out).page.parent)
    assert find_section(page, "History").locator(".key").inner_text() == "2 tried by the search"
