"""What stands beside the pictures of a contact sheet, and of the page: each value as itself, in its place, under its
axis' name.
"""

from __future__ import annotations

import json

import httpx
import pytest
from PIL import Image

import sweeper
from sweeper.reporting.live import LiveView
from sweeper.reporting.sheets import contact_sheet
from sweeper.reporting.sheets.contact_sheet import SheetOptions, write_sheets
from sweeper.reporting.write_report import write_report
from sweeper.store import Store
from sweeper.store.records import TableLayout
from tests.reporting.made_up_sweeps import Sweep


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What a results folder has on its sheet, or on those of an animation, instead of the pictures."""

    def on_sheet(out, wish):
        seen = []
        monkeypatch.setattr(contact_sheet, "draw_pages", lambda sheet, *_: seen.append(sheet) or [])
        monkeypatch.setattr(
            contact_sheet, "draw_frames", lambda frames, *_: seen.append(frames) or [Image.new("L", (1, 1))]
        )
        write_sheets(out, tmp_path / "s.png", wish)
        return seen[0]

    return on_sheet


def labels(lines):
    return [label for _, label in lines]


def test_numbers_that_differ_in_the_seventh_digit_have_heads_that_differ(told, tmp_path):
    out = Sweep({"cfg": [0.1234567, 0.1234568, 1234567.25, 7.0], "steps": [4, 8]}).write(tmp_path / "r")
    sheet = told(out, SheetOptions(x="cfg", y="steps"))
    assert labels(sheet.across) == ["0.1234567", "0.1234568", "1234567.25", "7"]


def planned(folder, sweep, slots, *, older=False):
    """A results folder of a sweep over slots of these names, whose run has not begun yet."""
    folder.mkdir()
    (folder / "t.json").write_text(json.dumps({"1": {"class_type": "A", "inputs": dict.fromkeys(slots, 0)}}))
    (folder / "t.slots.yaml").write_text(json.dumps({"slots": {name: {"at": f"1.{name}"} for name in slots}}))
    (folder / "e.yaml").write_text(json.dumps({"name": "e", "template": "t.json", "sweep": sweep}))
    plan = sweeper.plan(sweeper.load(folder / "e.yaml"))
    known = () if older else (plan.value_order, plan.together)
    with Store.open(folder / "r") as store, store.transaction():
        layout = TableLayout("e", plan.axis_columns, plan.slot_names, (), *known)
        run = store.create_run(layout, file=str(folder / "e.yaml"), targets=["embedded"], now=1.0)
        store.add_trials(run, [(t.index, t.digest, t.params, t.columns) for t in plan.written()])
    return folder / "r"


def excluding(folder, grid, exclude):
    return planned(folder, {"grid": grid, "exclude": exclude}, grid)


GRID = {"sampler": ["euler", "heun"], "steps": [None, 2, 3, 4, 5]}
EXCLUDE = [{"sampler": "euler", "steps": None}, {"sampler": "euler", "steps": 2}, {"sampler": "heun", "steps": 4}]


def test_values_stand_as_they_were_written_whatever_was_left_out(told, tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    sheet = told(out, SheetOptions(x="steps", y="sampler"))
    assert labels(sheet.across) == ["steps: (none)", "2", "3", "4", "5"]
    assert [place for place, _ in sheet.across] == [-1, 0, 1, 2, 3]


def test_sections_and_frames_stand_as_their_values_were_written(told, tmp_path):
    out = excluding(tmp_path / "e", {**GRID, "seed": [1, 2]}, EXCLUDE)
    sections = told(out, SheetOptions(x="seed", y="sampler")).sections
    assert [section.title for section in sections] == ["steps: (none)", "steps 2", "steps 3", "steps 4", "steps 5"]
    frames = told(out, SheetOptions(x="seed", y="sampler", animate="steps"))
    assert [frame.frame_label for frame in frames] == ["steps: (none)", "steps 2", "steps 3", "steps 4", "steps 5"]


def test_the_page_is_told_the_written_order_too_and_where_none_stands_in_it(tmp_path):
    out = excluding(tmp_path / "e", GRID, EXCLUDE)
    data = json.loads((write_report(out).page.parent / "data.json").read_text())
    (steps,) = [column for column in data["columns"] if column["name"] == "steps"]
    assert (steps["values"], steps["none"], steps["of"]) == ([2, 3, 4, 5], 0, [1, 2, 3, -1, 0, 1, 3])
    (asked,) = [axis for axis in data["left_out"]["blocks"][0]["axes"] if axis["name"] == "steps"]
    assert asked["of"] == [-1, 0, 1, 2, 3]


def test_the_page_shows_that_order_in_a_browser(opened, tmp_path):
    page = opened(write_report(excluding(tmp_path / "e", GRID, EXCLUDE)).page.parent)
    page.get_by_label("X axis", exact=True).select_option("steps")
    assert page.get_by_role("columnheader").all_inner_texts() == ["(none)", "2", "3", "4", "5"]
    assert page.get_by_role("rowheader").all_inner_texts() == ["euler", "heun"]


def test_a_page_of_what_was_never_run_has_that_order_as_well(tmp_path):
    excluding(tmp_path / "e", GRID, EXCLUDE)
    with LiveView(tmp_path / "none", experiment=sweeper.load(tmp_path / "e/e.yaml")) as view:
        columns = httpx.get(f"{view.url}data.json").json()["columns"]
    assert [column["values"] for column in columns if column["name"] == "steps"] == [[2, 3, 4, 5]]


def titles(sheet):
    return [section.title for section in sheet.sections]


def shown(sheet):
    """Every cell of a sheet by all that stands at it."""
    across, down = dict(sheet.across), dict(sheet.down)
    cells = [(section.title, at) for section in sheet.sections for at in section.cells]
    return [(title, down[place[0]], across[place[1]]) for title, place in cells]


@pytest.mark.parametrize("older", [False, True])
def test_an_axis_that_merely_happens_to_follow_from_the_others_is_told(told, tmp_path, older):
    # Of the eight combinations four, in which `c` follows from `a` and `b`; both of which are needed to tell it.
    rows = [{"a": 0, "b": 0, "c": 1}, {"a": 0, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 1}]
    sweep = {"grid": {"a": [0, 1], "b": [0, 1], "c": [0, 1]}, "exclude": rows}
    sheet = told(planned(tmp_path / "e", sweep, "abc", older=older), SheetOptions(x="a", y="b"))
    assert titles(sheet) == ["c 0", "c 1"]
    assert len(set(shown(sheet))) == 4


def test_a_sample_in_which_every_seed_stands_once_names_the_other_axes(told, tmp_path):
    sweep = {"grid": {"seed": list(range(9)), "shape": ["sq", "tall"], "cfg": [1, 2]}, "sample": {"n": 3}}
    sheet = told(planned(tmp_path / "e", sweep, ["seed", "shape", "cfg"]), SheetOptions(y="seed", x="cfg"))
    assert {title.split()[0] for title in titles(sheet)} == {"shape"}


@pytest.mark.parametrize("older", [False, True])
def test_partners_in_a_zip_and_the_groups_of_choices_are_told_by_each_other(told, tmp_path, older):
    zipped = [{"a": [1, 2, 1], "b": ["x", "y", "z"]}]
    out = planned(tmp_path / "e", {"grid": {"c": [1, 2]}, "zip": zipped}, "abc", older=older)
    assert titles(told(out, SheetOptions(x="b", y="c"))) == [""]
    assert titles(told(out, SheetOptions(x="a", y="c"))) == ["b x", "b y", "b z"]  # two of them have one `a`
    out = planned(tmp_path / "f", {"grid": {"p": {"choices": "{a|b} {c|d}"}}}, "p", older=older)
    assert titles(told(out, SheetOptions(x="p.1", y="p.2"))) == [""]
    assert titles(told(out, SheetOptions(x="p"))) == [""]


def test_axes_that_another_block_sweeps_apart_are_no_partners(told, tmp_path):
    sweep = [{"zip": [{"a": [1, 2], "b": [3, 4]}]}, {"grid": {"a": [7, 8], "b": [9, 10]}, "where": "b - a == 2"}]
    out = planned(tmp_path / "e", sweep, "ab")
    assert titles(told(out, SheetOptions(x="a"))) == [""]
    assert labels(told(out, SheetOptions(x="a")).down) == ["3", "4", "9", "10"]


def test_what_shows_nothing_of_itself_has_a_word_and_the_name_of_its_axis(told, tmp_path):
    grid = {"prompt": ["", " ", "a fox"], "seed": [1, 2], "steps": [1, 2]}
    out = planned(tmp_path / "e", {"grid": grid}, grid)
    assert titles(told(out, SheetOptions(x="seed", y="steps"))) == ["prompt: (empty)", 'prompt: " "', "prompt a fox"]
    assert labels(told(out, SheetOptions(x="prompt")).across) == ["prompt: (empty)", 'prompt: " "', "a fox"]


def test_an_axis_of_one_value_that_some_trials_lack_is_told(told, tmp_path):
    sweep = [{"grid": {"s": [1, 2], "t": [1, 2], "u": [None, "a"]}}]
    assert titles(told(planned(tmp_path / "e", sweep, "stu"), SheetOptions(x="s", y="t"))) == ["u: (none)", "u a"]
