"""The params of a trial in a real browser: exact values, and the differences between two trials."""

from __future__ import annotations

import itertools

import pytest

from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, read_all
from tests.reporting.page_modules import evaluate

TINY = [1e-7, 0.1234567, 0.1234568, 7.0, 1.5]


def params(page):
    """The texts of each line of the params table, by name."""
    lines = """rows => rows.map(row => [row.children[0].textContent,
        [...row.querySelectorAll('td')].map(cell => cell.textContent)])"""
    return dict(read_all(page, "dialog[open] .params tbody tr", lines))


def list_highlighted(page):
    return page.locator("dialog[open] .params .differs th").all_inner_texts()


def test_different_numbers_look_different(made, opened):
    page = opened(made(Sweep({"cfg": TINY, "steps": [1, 2]})), "#x=cfg&y=steps&trial=4&with=2")
    values = "all => all.map(one => one.firstElementChild.lastChild.data)"
    assert read_all(page, ".head", values) == ["1e-7", "0.1234567", "0.1234568", "7", "1.5"]
    assert params(page)["cfg"] == ["0.1234567", "0.1234568"]
    assert "cfg" in list_highlighted(page)


NUMBERS = {  # the exact and the rounded text of each
    1234567.25: ["1234567.25", "1234567"],
    16777217.5: ["16777217.5", "16777218"],
    0.123456789: ["0.123456789", "0.123457"],
    -2.5e-9: ["-2.5e-9", "-2.5e-9"],
    3: ["3", "3"],
}


def test_metrics_are_rounded_unless_that_hides_a_difference(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]}, slots={"cfg": 7})))
    both = "all => all.map(value => [ValueText.toText(value), ValueText.toRounded(value)])"
    assert evaluate(page, both, [*NUMBERS]) == [*NUMBERS.values()]
    page.evaluate("""() => { const { numbers } = sweeper.page.dataset.column('brightness');
        [numbers[0], numbers[1]] = [41.00000001, 41.00000002];
        sweeper.page.dataset.column('ran_s').numbers[0] = 3.25; }""")
    change_address(page, "#trial=1&with=0")
    shown = params(page)
    assert list(shown) == ["steps", "brightness", "run time (s)", "cfg"]
    assert shown["brightness"] == ["41.00000001", "41.00000002"]
    assert shown["run time (s)"] == ["3.25", "0.50"]
    assert list_highlighted(page) == ["steps", "brightness"]  # a duration does not count as a difference
    change_address(page, "#trial=0")
    assert page.locator(".params thead").count() == 0
    assert params(page)["brightness"] == ["41.00000001"]  # with the decimals of the column


def test_search_finds_a_metric_exact_or_rounded(made, opened):
    page = opened(made(Sweep({"steps": [4, 8]})))
    page.evaluate("() => { sweeper.page.dataset.column('brightness').numbers[0] = 41.00000001; }")
    found = "texts => texts.map(text => [0, 1].filter(Expression.compile(text, sweeper.page.dataset).holds))"
    assert evaluate(page, found, ["41", "1"]) == [[0], []]


FOX = "a red fox in deep snow, " * 20


@pytest.fixture
def labelled(made):
    """Two axes whose values have labels, one with a text as long as a prompt."""
    axes = {
        "scheduler": ["normal", "karras"],
        "scheduler.label": ["norm", "kar"],
        "prompt": [FOX, "norm"],
        "prompt.label": ["fox", None],
    }
    points = list(itertools.product(*axes.values()))
    right = {("normal", "norm"), ("karras", "kar")}, {(FOX, "fox"), ("norm", None)}
    skip = frozenset(n for n, (a, b, c, d) in enumerate(points) if (a, b) not in right[0] or (c, d) not in right[1])
    return made(Sweep(axes, skip=skip))


def test_label_is_shown_with_its_value_and_accepted_by_the_filter(labelled, opened):
    page = opened(labelled, "#trial=1&with=0")
    assert params(page) == {
        "prompt": [f"fox: {FOX}", "norm"],
        "scheduler": ["norm: normal", "norm: normal"],
        "brightness": ["10", "11"],
        "run time (s)": ["0.5", "0.5"],
    }
    cases = {
        "scheduler == 'norm'": [0, 1],
        "scheduler == 'normal'": [0, 1],
        "'kar' == scheduler": [2, 3],
        "scheduler != 'norm'": [2, 3],
        "scheduler in ['norm', 'x']": [0, 1],
        "scheduler not in ['kar']": [0, 1],
        "not (scheduler == 'norm' or prompt == 'fox')": [3],
        "scheduler.label == 'norm'": [0, 1],
        "prompt == 'norm'": [1, 3],
        "'snow' in prompt": [0, 2],
        "'fox' not in prompt": [1, 3],
        "prompt.label == none": [1, 3],
        "deep snow": [0, 2],
        "karras": [2, 3],
    }
    rows = "texts => texts.map(text => [0, 1, 2, 3].filter(Expression.compile(text, sweeper.page.dataset).holds))"
    assert dict(zip(cases, evaluate(page, rows, [*cases]), strict=True)) == cases


def test_missing_empty_and_blank_texts_look_different(made, opened):
    sweep = Sweep({"style": [None, "", " "], "seed": [1, "1"]}, slots={"negative": ""})
    page = opened(made(sweep), "#trial=2&with=0")
    assert params(page)["style"] == ["(none)", "(empty)"]
    assert params(page)["negative"] == ["(empty)", "(empty)"]
    assert list_highlighted(page)[0] == "style"
    change_address(page, "#trial=1&with=0")
    assert params(page)["seed"] == ["1", '"1"']
    change_address(page, '#view=table&columns=["style","negative"]')
    cells = read_all(page, ".tbody .trow", "rows => rows.map(row => [...row.children].slice(1).map(c => c.innerText))")
    assert cells[::2] == [["(none)", "(empty)"], ["(empty)", "(empty)"], ['" "', "(empty)"]]
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert read_all(page, ".tbody [role=gridcell]", cut) == 0


def test_params_omit_missing_metrics(made, opened):
    page = opened(made(Sweep({"steps": [1, 2]}, ends={0: ("pending", None), 1: ("pending", None)})), "#trial=1&with=0")
    assert list(params(page)) == ["steps"]
