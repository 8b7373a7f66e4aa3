"""What stands beside the pictures of a contact sheet: each value as itself, in its place, under its axis' name."""

from __future__ import annotations

import pytest
from made_up_sweeps import Sweep

from sweeper.reporting import sheets
from sweeper.reporting.sheets import SheetWish, write_sheets


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What a results folder has on its sheet, instead of the sheet."""

    def on_sheet(out, wish):
        seen = []
        monkeypatch.setattr(sheets, "draw_pages", lambda sheet, *_: seen.append(sheet) or [])
        write_sheets(out, tmp_path / "s.png", wish)
        return seen[0]

    return on_sheet


def labels(lines):
    return [label for _, label in lines]


def test_numbers_that_differ_in_the_seventh_digit_have_heads_that_differ(told, tmp_path):
    out = Sweep({"cfg": [0.1234567, 0.1234568, 1234567.25, 7.0], "steps": [4, 8]}).write(tmp_path / "r")
    sheet = told(out, SheetWish(x="cfg", y="steps"))
    assert labels(sheet.across) == ["0.1234567", "0.1234568", "1234567.25", "7"]
