"""What stands beside the pictures of a contact sheet, and of the page: each value as itself, in its place, under its
axis' name.
"""

from __future__ import annotations

import json

import httpx
import pytest
from made_up_sweeps import Sweep
from PIL import Image

import sweeper
from sweeper.reporting import sheets
from sweeper.reporting.folder import write_report
from sweeper.reporting.sheets import SheetWish, write_sheets
from sweeper.store import Store
from sweeper.store.records import Layout
from sweeper.viewing import LiveView


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What a results folder has on its sheet, or on those of an animation, instead of the pictures."""

    def on_sheet(out, wish):
        seen = []
        monkeypatch.setattr(sheets, "draw_pages", lambda sheet, *_: seen.append(sheet) or [])
        monkeypatch.setattr(sheets, "draw_frames", lambda frames, *_: seen.append(frames) or [Image.new("L", (1, 1))])
        write_sheets(out, tmp_path / "s.png", wish)
        return seen[0]

    return on_sheet


def labels(lines):
    return [label for _, label in lines]


def test_numbers_that_differ_in_the_seventh_digit_have_heads_that_differ(told, tmp_path):
    out = Sweep({"cfg": [0.1234567, 0.1234568, 1234567.25, 7.0], "steps": [4, 8]}).write(tmp_path / "r")
    sheet = told(out, SheetWish(x="cfg", y="steps"))
    assert labels(sheet.across) == ["0.1234567", "0.1234568", "1234567.25", "7"]


def excluding(folder, grid, exclude, **more):
    """A results folder of a sweep over slots of these names, whose run has not begun yet."""
    names = list(grid)
    folder.mkdir()
    graph = {"1": {"class_type": "A", "inputs": dict.fromkeys(names, 0)}}
    slots = {"slots": {name: {"at": f"1.{name}"} for name in names}}
    (folder / "t.json").write_text(json.dumps(graph))
    (folder / "t.slots.yaml").write_text(json.dumps(slots))
    sweep = {"grid": grid, "exclude": exclude, **more}
    (folder / "e.yaml").write_text(json.dumps({"name": "e", "template": "t.json", "sweep": sweep}))
    plan = sweeper.plan(sweeper.load(folder / "e.yaml"))
    with Store.open(folder / "r") as store, store.transaction():
        layout = Layout("e", plan.axis_columns, plan.slot_names, (), plan.value_order)
        run = store.begin(layout, file=str(folder / "e.yaml"), targets=["embedded"], now=1.0)
        store.add_trials(run, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])
    return folder / "r"


GRID = {"sampler": ["euler", "heun"], "steps": [None, 2, 3, 4, 5]}
EXCLUDE = [{"sampler": "euler", "steps": None}, {"sampler": "euler", "steps": 2}, {"sampler": "heun", "steps": 4}]


def test_values_stand_as_they_were_written_whatever_was_left_out(told, tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    sheet = told(out, SheetWish(x="steps", y="sampler"))
    assert [label.removeprefix("steps: ") for label in labels(sheet.across)] == ["(none)", "2", "3", "4", "5"]
    assert [place for place, _ in sheet.across] == [-1, 0, 1, 2, 3]


def test_sections_and_frames_stand_as_their_values_were_written(told, tmp_path):
    out = excluding(tmp_path / "e", {**GRID, "seed": [1, 2]}, EXCLUDE)
    sections = told(out, SheetWish(x="seed", y="sampler")).sections
    assert [section.title for section in sections] == ["steps (none)", "steps 2", "steps 3", "steps 4", "steps 5"]
    frames = told(out, SheetWish(x="seed", y="sampler", animate="steps"))
    assert [frame.now for frame in frames] == ["steps (none)", "steps 2", "steps 3", "steps 4", "steps 5"]


def test_the_page_is_told_the_written_order_too_and_where_none_stands_in_it(tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    data = json.loads((write_report(out).page.parent / "data.json").read_text())
    (steps,) = [column for column in data["columns"] if column["name"] == "steps"]
    assert (steps["values"], steps["none"], steps["of"]) == ([2, 3, 4, 5], 0, [1, 2, 3, -1, 0, 1, 3])
    (asked,) = [axis for axis in data["left_out"]["blocks"][0]["axes"] if axis["name"] == "steps"]
    assert asked["of"] == [-1, 0, 1, 2, 3]


def test_a_page_of_what_was_never_run_has_that_order_as_well(tmp_path):
    excluding(tmp_path / "e", GRID, EXCLUDE)
    with LiveView(tmp_path / "none", experiment=sweeper.load(tmp_path / "e/e.yaml")) as view:
        columns = httpx.get(f"{view.url}data.json").json()["columns"]
    assert [column["values"] for column in columns if column["name"] == "steps"] == [[2, 3, 4, 5]]
