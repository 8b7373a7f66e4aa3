"""An empty cell of the page names the rule of the sweep that excluded its combination."""

from __future__ import annotations

import json

import pytest

import sweeper
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from sweeper.store.records import TableLayout
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import change_address, read_all

TEMPLATE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
SLOTS = {name: {"at": f"1.{name}"} for name in ("width", "height", "color")}


@pytest.fixture
def reported(tmp_path):
    """The report of a run of `sweep` that has not begun; `later` replaces the experiment's file before the report."""

    def make(sweep, later=None):
        (tmp_path / "template.json").write_text(json.dumps(TEMPLATE))
        (tmp_path / "template.slots.yaml").write_text(json.dumps({"slots": SLOTS}))
        file = tmp_path / "e.yaml"

        def write(what):
            file.write_text(json.dumps({"name": "e", "template": "template.json", "sweep": what}))

        write(sweep)
        plan = sweeper.plan(sweeper.load(file))
        out = tmp_path / "results"
        with Store.open(out) as store, store.transaction():
            layout = TableLayout("e", tuple(plan.axis_columns), tuple(plan.slot_names))
            run = store.create_run(layout, file=str(file), targets=["embedded"], now=1.0)
            store.add_trials(run, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])
        write(later or sweep)
        return write_report(out).page.parent

    return make


def holes(page):
    return sorted(read_all(page, ".cell.none", "cells => cells.map(cell => cell.title)"))


RULES = {
    "grid": {"width": [8, 16, 24], "height": [8, 16, 24]},
    "exclude": [{"width": 24, "height": 24}, {"width": 16, "height": 8}],
    "where": "width * height <= 256",
}


def test_empty_cell_names_the_exclude_row_or_where(reported, opened):
    page = opened(reported(RULES))
    assert holes(page) == [
        "Not in the plan: left out by exclude[0] {width: 24, height: 24}",
        "Not in the plan: left out by exclude[1] {width: 16, height: 8}",
        "Not in the plan: left out by where width * height <= 256",
        "Not in the plan: left out by where width * height <= 256",
    ]
    hole = page.locator(".cell.none").first
    assert hole.get_attribute("aria-label") == hole.get_attribute("title")


def test_empty_cell_names_all_rules_of_its_combinations(reported, opened):
    sweep = {
        "grid": {"width": [8, 16, 24], "height": [{"label": "low", "value": 8}, 16, 24], "color": [1, 2]},
        "exclude": [{"height": "low", "width": 16, "color": 1}],
        "where": "width != 16 or height != 8",
    }
    page = opened(reported(sweep), "#x=width&y=height&xx=&yy=")
    both = "Not in the plan: left out by exclude[0] {height: low, width: 16, color: 1}; by where {}"
    assert holes(page) == [both.replace("{}", sweep["where"])]
    change_address(page, "#x=width&y=height&xx=color&yy=")
    assert len(holes(page)) == 2
    assert sum("exclude" in text for text in holes(page)) == 1


def test_empty_cell_names_the_sample_and_its_block(reported, opened):
    first = {"grid": {"width": [8, 16], "height": [8, 16]}, "sample": {"n": 3}}
    page = opened(reported([first, {"grid": {"width": [24], "height": [32]}}]))
    assert holes(page) == sorted(
        ["Not in the plan: left out by sample {n: 3, seed: 0} (of sweep[0])"]
        + ["Not in the plan: the sweep never combines these values"] * 4
    )


@pytest.mark.parametrize("change", [{"exclude": []}, {"where": "width < 16 or height < 16"}])
def test_changed_sweep_explains_no_empty_cell(reported, opened, change):
    page = opened(reported(RULES, RULES | change))
    assert set(holes(page)) == {"Not in the plan: `exclude`, `where` or `sample` of the experiment leaves it out"}


def test_empty_cell_is_not_explained_without_the_experiment(made, opened):
    page = opened(made(Sweep({"steps": [1, 2], "cfg": [1, 2]}, skip=frozenset({3}))))
    assert holes(page) == ["Not in the plan: `exclude`, `where` or `sample` of the experiment leaves it out"]
