"""Labels on contact sheets and on the page: exact values, in the written order, under their names."""

from __future__ import annotations

import json

import httpx
import pytest

import sweeper
from sweeper.reporting import contact_sheet
from sweeper.reporting.contact_sheet import write_sheets
from sweeper.reporting.live import LiveView
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from sweeper.store.records import TableLayout
from tests.reporting.made_up_sweeps import Sweep
from tests.reporting.page_actions import choose_axis, list_heads


@pytest.fixture
def told(monkeypatch, tmp_path):
    """The texts on the sheet of a results folder."""

    def on_sheet(out, **wish):
        seen = []
        monkeypatch.setattr(contact_sheet, "draw_pages", lambda sheet, *_: seen.append(sheet) or [])
        write_sheets(out, tmp_path / "s.png", **wish)
        return seen[0]

    return on_sheet


def labels(lines):
    return [label for _, label in lines]


def test_labels_distinguish_numbers_in_the_seventh_digit(told, tmp_path):
    out = Sweep({"cfg": [0.1234567, 0.1234568, 1234567.25, 7.0], "steps": [4, 8]}).write(tmp_path / "r")
    sheet = told(out, x="cfg", y="steps")
    assert labels(sheet.across) == ["cfg 0.1234567", "cfg 0.1234568", "cfg 1234567.25", "cfg 7"]


def test_width_and_height_that_vary_together_are_one_size_on_a_sheet(told, tmp_path):
    sweep = Sweep({"width": [64, 96], "height": [64, 48], "sampler": ["a", "b"]}, skip=frozenset(range(1, 7)),
                  together=(("width", "height"), ("width", "sampler")))  # fmt: skip
    sheet = told(sweep.write(tmp_path / "r"), x="width")
    assert labels(sheet.across) == ["64 x 64 · sampler a", "96 x 48 · sampler b"]


def plan_sweep(folder, sweep, slots):
    """A results folder of a sweep over slots with these names; its run has not begun."""
    folder.mkdir()
    (folder / "t.json").write_text(json.dumps({"1": {"class_type": "A", "inputs": dict.fromkeys(slots, 0)}}))
    (folder / "t.slots.yaml").write_text(json.dumps({"slots": {name: {"at": f"1.{name}"} for name in slots}}))
    (folder / "e.yaml").write_text(json.dumps({"name": "e", "template": "t.json", "sweep": sweep}))
    plan = sweeper.plan(sweeper.load(folder / "e.yaml"))
    with Store.open(folder / "r") as store, store.transaction():
        layout = TableLayout("e", plan.axis_columns, plan.slot_names, (), plan.value_order, plan.together)
        run = store.create_run(layout, file=str(folder / "e.yaml"), targets=["embedded"], now=1.0)
        store.add_trials(run, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])
    return folder / "r"


def excluding(folder, grid, exclude):
    return plan_sweep(folder, {"grid": grid, "exclude": exclude}, grid)


GRID = {"sampler": ["euler", "heun"], "steps": [None, 2, 3, 4, 5]}
EXCLUDE = [{"sampler": "euler", "steps": None}, {"sampler": "euler", "steps": 2}, {"sampler": "heun", "steps": 4}]


def test_values_have_the_written_order_despite_exclusions(told, tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    sheet = told(out, x="steps", y="sampler")
    assert labels(sheet.across) == ["steps (none)", "steps 2", "steps 3", "steps 4", "steps 5"]
    assert [place for place, _ in sheet.across] == [-1, 0, 1, 2, 3]


def test_sections_have_the_written_order(told, tmp_path):
    out = excluding(tmp_path / "e", {**GRID, "seed": [1, 2]}, EXCLUDE)
    sections = told(out, x="seed", y="sampler").sections
    assert [section.title for section in sections] == ["steps (none)", "steps 2", "steps 3", "steps 4", "steps 5"]


def test_data_has_the_written_order_and_the_rank_of_none(tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    data = json.loads((write_report(out).page.parent / "data.json").read_text())
    (steps,) = [column for column in data["columns"] if column["name"] == "steps"]
    assert (steps["values"], steps["none"], steps["of"]) == ([2, 3, 4, 5], 0, [1, 2, 3, -1, 0, 1, 3])
    (asked,) = [axis for axis in data["left_out"]["blocks"][0]["axes"] if axis["name"] == "steps"]
    assert asked["of"] == [-1, 0, 1, 2, 3]


def test_page_shows_the_written_order(opened, tmp_path):
    page = opened(write_report(excluding(tmp_path / "e", GRID, EXCLUDE)).page.parent)
    choose_axis(page, "X axis", "steps")
    assert list_heads(page) == ["(none)", "2", "3", "4", "5"]
    assert list_heads(page, ".side") == ["euler", "heun"]


def test_page_of_a_plan_has_the_written_order_too(tmp_path):
    excluding(tmp_path / "e", GRID, EXCLUDE)
    with LiveView(tmp_path / "none", experiment=sweeper.load(tmp_path / "e/e.yaml")) as view:
        columns = httpx.get(f"{view.url}data.json").json()["columns"]
    assert [column["values"] for column in columns if column["name"] == "steps"] == [[2, 3, 4, 5]]


def titles(sheet):
    return [section.title for section in sheet.sections]


def list_texts(sheet):
    """The texts of every cell of a sheet, with its labels."""
    across, down = dict(sheet.across), dict(sheet.down)
    cells = [(section.title, at) for section in sheet.sections for at in section.cells]
    return [(title, down[place[0]], across[place[1]]) for title, place in cells]


def test_axis_that_follows_by_chance_is_shown(told, tmp_path):
    # Four of the eight combinations, in which only `a` and `b` together fix `c`.
    rows = [{"a": 0, "b": 0, "c": 1}, {"a": 0, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 1}]
    sweep = {"grid": {"a": [0, 1], "b": [0, 1], "c": [0, 1]}, "exclude": rows}
    sheet = told(plan_sweep(tmp_path / "e", sweep, "abc"), x="a", y="b")
    assert titles(sheet) == ["c 0", "c 1"]
    assert len(set(list_texts(sheet))) == 4


def test_sample_with_unique_seeds_shows_the_other_axes(told, tmp_path):
    sweep = {"grid": {"seed": list(range(9)), "shape": ["sq", "tall"], "cfg": [1, 2]}, "sample": {"n": 3}}
    sheet = told(plan_sweep(tmp_path / "e", sweep, ["seed", "shape", "cfg"]), y="seed", x="cfg")
    assert {title.split()[0] for title in titles(sheet)} == {"shape"}


def test_zip_partners_and_choice_groups_imply_each_other(told, tmp_path):
    zipped = [{"a": [1, 2, 1], "b": ["x", "y", "z"]}]
    out = plan_sweep(tmp_path / "e", {"grid": {"c": [1, 2]}, "zip": zipped}, "abc")
    assert titles(told(out, x="b", y="c")) == [""]
    assert titles(told(out, x="a", y="c")) == ["b x", "b y", "b z"]  # two of them have the same `a`
    out = plan_sweep(tmp_path / "f", {"grid": {"p": {"choices": "{a|b} {c|d}"}}}, "p")
    assert titles(told(out, x="p.1", y="p.2")) == [""]
    assert titles(told(out, x="p")) == [""]


def test_axes_swept_apart_in_another_block_are_not_linked(told, tmp_path):
    sweep = [{"zip": [{"a": [1, 2], "b": [3, 4]}]}, {"grid": {"a": [7, 8], "b": [9, 10]}, "where": "b - a == 2"}]
    out = plan_sweep(tmp_path / "e", sweep, "ab")
    assert titles(told(out, x="a")) == [""]
    assert labels(told(out, x="a").down) == ["b 3", "b 4", "b 9", "b 10"]


def test_blank_values_are_described_with_their_axis(told, tmp_path):
    grid = {"prompt": ["", " ", "a fox"], "seed": [1, 2], "steps": [1, 2]}
    out = plan_sweep(tmp_path / "e", {"grid": grid}, grid)
    assert titles(told(out, x="seed", y="steps")) == ["prompt (empty)", 'prompt " "', "prompt a fox"]
    assert labels(told(out, x="prompt").across) == ["prompt (empty)", 'prompt " "', "prompt a fox"]


def test_axis_of_one_value_that_some_trials_lack_is_shown(told, tmp_path):
    sweep = [{"grid": {"s": [1, 2], "t": [1, 2], "u": [None, "a"]}}]
    assert titles(told(plan_sweep(tmp_path / "e", sweep, "stu"), x="s", y="t")) == ["u (none)", "u a"]
