"""The contact sheet of a search: its best points, one in each row."""

from __future__ import annotations

import pytest

from sweeper.reporting import contact_sheet
from sweeper.reporting.contact_sheet import write_sheets
from tests.reporting.made_up_searches import SearchSweep

POINTS = [
    [],
    [{"cfg": 2.5, "sampler": "euler"}, {"cfg": 8.0, "sampler": "heun"}, {"cfg": 6.25, "sampler": "euler"}],
    [{"cfg": 6.0, "sampler": "heun"}, {"cfg": 12.0, "sampler": "lcm"}],
]
MEASURES = {"sharpness": lambda point: 100 - (point["cfg"] - 6) ** 2, "brightness": lambda point: point["cfg"]}


@pytest.fixture
def sheets(monkeypatch):
    """The sheets that were drawn."""
    found = []
    draw = contact_sheet.draw_pages
    monkeypatch.setattr(contact_sheet, "draw_pages", lambda sheet, *rest: (found.append(sheet), draw(sheet, *rest))[1])
    return found


def write(sweep, tmp_path, **options):
    return write_sheets(sweep.write(tmp_path / "results"), tmp_path / "sheet.png", cell=32, **options)


def test_sheet_of_a_search_has_a_row_for_each_of_its_best_points(tmp_path, sheets):
    over = {"prompt": ["a fox", "a boat"], "seed": [7]}
    sweep = SearchSweep(POINTS, MEASURES, over=over, short={2: 1}, failed=frozenset({4}))  # 6.25 was stopped early
    (file,) = write(sweep, tmp_path)
    assert file.stat().st_size > 0
    (sheet,) = sheets
    assert [label for _, label in sheet.down] == [
        "sharpness 100 · cfg 6 · sampler heun",
        "sharpness 96 · cfg 8 · sampler heun",
        "sharpness 87.75 · cfg 2.5 · sampler euler",
    ]
    assert [label for _, label in sheet.across] == ["prompt a fox", "prompt a boat"]
    assert all(len(sheet.sections[0].cells[down, across].paths) == 1 for down in range(3) for across in range(2))
    assert sheet.footer == "made-up · 3 of 3 complete points: highest sharpness · made with sweeper"


def test_sheet_of_several_objectives_shows_the_front(tmp_path, sheets):
    write(SearchSweep(POINTS, MEASURES, (("sharpness", True), ("brightness", False))), tmp_path)
    (sheet,) = sheets
    assert [label for _, label in sheet.down] == [
        "sharpness 100 · brightness 6 · cfg 6 · sampler heun",
        "sharpness 87.75 · brightness 2.5 · cfg 2.5 · sampler euler",
    ]
    assert "2 of 2 points on the Pareto front: highest sharpness and lowest brightness" in sheet.footer


def test_sheet_without_objectives_shows_the_points_in_order(tmp_path, sheets):
    write(SearchSweep(POINTS, {"sharpness": lambda _: float("nan")}, pending=frozenset(range(5))), tmp_path)
    assert [label for _, label in sheets[0].down][:2] == ["cfg 2.5 · sampler euler", "cfg 8 · sampler heun"]


def test_requested_axes_give_the_usual_sheet(tmp_path, sheets):
    write(SearchSweep(POINTS, MEASURES), tmp_path, x="sampler", y="seed")
    assert [label for _, label in sheets[0].across] == ["sampler euler", "sampler heun", "sampler lcm"]
    assert len(sheets[0].sections) == 5  # one for each value of cfg
