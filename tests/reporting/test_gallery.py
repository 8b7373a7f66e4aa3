"""From many trials to the right ones: shared cells, the gallery, sorted values, and plots that lead to pictures."""

from __future__ import annotations

import json

import pytest

from sweeper.cli import main
from sweeper.reporting.write_report import write_report
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, list_heads, open_menu, press_in_menu, read_all
from tests.reporting.page_modules import evaluate

SWEEP = {"steps": [4, 8], "sampler": ["euler", "heun"], "seed": [1, 2, 3]}  # brightness is 10 to 21, in written order


@pytest.fixture
def folder(made):
    return made(Sweep(SWEEP))


def list_trials(page):
    return read_all(page, "#view .cell[data-trial]", "cells => cells.map(one => Number(one.dataset.trial))")


def test_shared_cell_shows_the_mean_or_an_extreme_and_values_sort_by_it(folder, opened):
    page = opened(folder, "#x=steps&y=sampler&xx=&yy=&colour=brightness")
    captions = page.locator(".cell .caption")
    assert captions.all_inner_texts() == [f"mean brightness {n} of 3\nseed 1" for n in (11, 17, 14, 20)]
    assert list_trials(page) == [0, 6, 3, 9]
    open_menu(page, "View")
    page.get_by_label("Of several in a cell").select_option(label="the highest brightness")
    assert captions.all_inner_texts() == [f"highest brightness {n} of 3\nseed 3" for n in (12, 18, 15, 21)]
    assert list_trials(page) == [2, 8, 5, 11]
    page.keyboard.press("Escape")
    press_in_menu(page, "View", "Axes and values…")
    page.get_by_role("dialog").get_by_label("Sort by").select_option(label="the mean brightness")
    page.get_by_role("button", name="Done").click()
    assert list_heads(page) == ["8", "4"]


def test_shared_cell_opens_in_its_place_as_a_small_grid(folder, opened):
    page = opened(folder, "#x=steps&y=sampler&xx=&yy=")
    cells = page.locator(".opened .cell")
    below = page.locator('[data-trial="3"]').first.bounding_box()
    page.locator(".cell .badge").nth(1).click()
    assert cells.evaluate_all("all => all.map(one => Number(one.dataset.trial))") == [6, 7, 8]
    assert cells.locator(".caption").all_inner_texts() == ["seed 1", "seed 2", "seed 3"]
    cell, small = (page.locator(place).first.bounding_box() for place in ('.row [data-trial="6"]', ".opened"))
    assert cell["y"] == small["y"]
    assert page.locator('[data-trial="3"]').first.bounding_box() == below  # the other cells stay where they are
    assert small["x"] + small["width"] <= 1400
    cells.first.focus()
    for key in ("ArrowRight", "k"):
        page.keyboard.press(key)
    assert page.evaluate("sweeper.page.marks.get(7).verdict") == "keep"
    assert "keep" in cells.nth(1).get_attribute("class")
    address = "#" + page.url.partition("#")[2]
    page.keyboard.press("Escape")
    assert page.locator(".opened").count() == 0
    change_address(page, address)
    assert cells.count() == 3


def test_colours_leave_out_extremes_and_have_a_legend(made, opened):
    page = opened(made(Sweep({"seed": list(range(60))})), "#colour=brightness")
    assert page.locator("#bar .scale").inner_text().split() == ["brightness", "≤", "11", "≥", "68"]


def test_gallery_sorts_by_any_column_and_a_table_has_thumbnails(folder, opened):
    page = opened(folder, "#view=gallery&sort=-brightness&where=sampler == 'euler'")
    assert list_trials(page) == [8, 7, 6, 2, 1, 0]
    captions = page.locator(".cell .caption")
    assert captions.first.inner_text() == "brightness 18\nsteps 8 · seed 3"
    assert "①" not in "".join(captions.all_inner_texts())
    page.evaluate("sweeper.page.update({ by: '-brightness' })")  # nobody knew before whether more of it is better
    assert [text.split()[:2] for text in captions.all_inner_texts()[-2:]] == [["②", "brightness"], ["①", "brightness"]]
    page.get_by_role("button", name="Descending").click()
    assert list_trials(page) == [0, 1, 2, 6, 7, 8]
    page.get_by_label("Sort by", exact=True).select_option("seed")
    assert list_trials(page) == [0, 6, 1, 7, 2, 8]
    page.locator(".cell").nth(1).click()
    page.keyboard.press("ArrowRight")
    assert "trial 1" in page.locator("#zoom .zoom-head").inner_text()
    change_address(page, "#view=table")
    page.wait_for_function("() => document.querySelectorAll('.tbody .picture img').length === 12")
    loaded = "all => all.every(one => one.complete && one.naturalWidth > 0)"
    page.wait_for_function(f"() => ({loaded})([...document.querySelectorAll('.tbody .picture img')].slice(0, 8))")


def test_plots_lead_to_their_trials(folder, opened):
    address = "#view=plots&x=steps&y=sampler"
    page = opened(folder, address)
    page.locator(".heat td button").nth(3).click()
    assert list_trials(page) == [9, 10, 11]
    page.go_back()
    page.locator(".plot circle").first.press("Enter")
    assert list_trials(page) == [0, 1, 2]
    page.go_back()
    bar = page.locator(".plot rect").last
    assert bar.get_attribute("aria-label") == "brightness 20 to 25: 2 trials"
    bar.press("Enter")
    assert page.get_by_label("Filter").input_value() == "brightness >= 20 and brightness <= 25"
    assert list_trials(page) == [10, 11]
    page.go_back()
    axis = page.locator(".plot").nth(1).locator("text").all_text_contents()
    assert {"10", "15", "20"} <= set(axis)
    change_address(page, "#view=plots&metric=brightness&against=ran_s")
    dots = page.locator(".scatter")
    dots.press("ArrowRight")
    dots.press("ArrowRight")
    assert page.locator(".plots [role=status]").last.inner_text().startswith("trial 1: ran_s 0.5, brightness 11")
    dots.press("Enter")
    assert page.locator("#zoom").is_visible()


# Of each trial: whether the condition of its value finds exactly the trials with that value.
EXACT = """() => {
  const { dataset } = sweeper.page;
  const find = (...value) => dataset.filterRows(Expression.compile(Expression.makeCondition(...value), dataset).holds);
  return dataset.axes.flatMap((axis) => axis.order.flatMap((code) => {
    const rows = dataset.filterRows((row) => axis.codes[row] === code);
    return String(find(axis, code)) === String(rows) ? [] : [Expression.makeCondition(axis, code)];
  }));
}"""


@pytest.mark.parametrize(
    "axes",
    [
        {"in": ["y'z", 'q"r', "b\\", "a\nb", "`", "", " ", "none", "true", "1", "<b>", "x == 1", None, True, 1, 1.5]},
        {"a `b` c": [-3, 0.1, 1e-9, 1e25, 1.2345678901234567e19, 2**60, 1 - 2**61, 10**29]},
        {"size": [[1, 2], [1, "2"], [], {}, {"a": 1}, {"a": [None]}, None]},
        {"style": ["a", "b"], "style.label": ["b", "a"]},
    ],
    ids=["texts", "numbers", "lists", "labels"],
)
def test_condition_finds_exactly_the_trials_of_a_value(made, opened, axes):
    page = opened(made(Sweep({**axes, "seed": [1, 2]}, distinct=1)))
    assert evaluate(page, EXACT) == []


# For each bar: the count that it names, and how many trials the filter finds that a press on it sets.
PRESS_BARS = """() => {
  const { dataset, update, getRows } = sweeper.page;
  const values = [-0.3, -0.27, -0.24, -0.2, -0.1 - 0.2, -0.25, -0.2, -0.15, -0.1, -0.1, -0.05, 0];
  dataset.metrics[0].value = (row) => values[row];
  const findBars = () => [...document.querySelectorAll(".plot rect")];
  update({ view: "plots", metric: dataset.metrics[0].name });
  return findBars().map((_, index) => {
    const bar = findBars()[index];
    bar.dispatchEvent(new MouseEvent("click"));
    const counts = [Number(bar.getAttribute("aria-label").match(/: (\\d+)/)[1]), getRows().length];
    update({ view: "plots", where: "" });
    return counts;
  });
}"""


def test_plots_open_the_trials_that_they_count_with_search_and_filter(folder, opened):
    page = opened(folder, "#view=plots&x=steps&y=")
    first = page.locator(".heat td button").first
    for kept, trials in {"hide=seed:3&hide=sampler:euler": [3, 4], "where=heun": [3, 4, 5]}.items():
        change_address(page, f"#view=plots&x=steps&y=&{kept}")
        first.click()
        assert list_trials(page) == trials, kept
    change_address(page, "#view=plots&x=steps&y=")
    for text in ("seed == 1", "seed == 1 and"):  # the second is not in effect yet
        page.get_by_label("Filter").fill(text)
        page.wait_for_function("text => sweeper.page.getState().where === text", arg=text)
    first.click()
    assert list_trials(page) == [0, 3]
    change_address(page, "")
    counts = page.evaluate(PRESS_BARS)
    assert sum(named for named, _ in counts) == 12
    assert [named for named, _ in counts] == [found for _, found in counts]


def test_plots_begin_with_what_changes_a_metric(tmp_path, opened):
    out = Sweep(SWEEP).write(tmp_path / "results")
    lines = ["steps: 9 is higher than 3 in 9 of 9 pairs", "<b>12</b> trials"]
    told = {"lines": lines, "shares": [("steps", 0.99), ("rest", 0.01)], "choices": []}
    answers = {"by_metric": {"brightness": told}}
    page = opened(write_report(out, answers=answers).page.parent, "#view=plots&metric=brightness")
    assert page.locator(".plots section").first.inner_text().split("\n") == [
        "What changes brightness", "steps 99 %", "rest 1 %", *lines
    ]  # fmt: skip
    most, least = read_all(page, ".shares i", "all => all.map(one => one.getBoundingClientRect().width)")
    assert most / least == pytest.approx(99, abs=1)


def test_report_says_what_changes_a_metric(tmp_path, capsys):
    out = Sweep(SWEEP).write(tmp_path / "results")
    assert main(["report", str(out)]) == 0
    data = json.loads((out / "report" / "data.json").read_text())
    assert any(line.startswith("steps: ") for line in data["answers"]["by_metric"]["brightness"]["lines"])
