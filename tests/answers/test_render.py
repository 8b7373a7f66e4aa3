"""What strangers wrote cannot control a terminal, Markdown or a page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.parts import Fact, Facts, Heading, Item, Line, Pictures, ShownPicture, Table, Warn
from sweeper.answers.render import render_html, render_markdown, render_text, to_json

_HOSTILE = "<script>alert(1)</script> \x1b[2J `x` | @team #1 \u202e &amp;\nnext"


def _make_parts(text):
    picture = ShownPicture(text, lambda: "data:image/png;base64,AA==")
    return [Heading(text), Line(text), Item(text), Item(text), Warn(text), Facts([Fact(text, 1, text)]),
            Table([text, "n"], [[text, 1.5], [{"a": text}, picture]]), Pictures([picture])]  # fmt: skip


@pytest.mark.parametrize("render", [render_markdown, render_html])
def test_no_tag_of_a_stranger_survives(render):
    assert "<script" not in render(_make_parts(_HOSTILE)).replace("\\<script", "")


@given(st.text())
def test_no_text_has_control_characters(text):
    for line in render_text(_make_parts(text)):
        assert "\x1b" not in line
        assert "\n" not in line
    assert "\x1b" not in render_markdown(_make_parts(text))


@given(st.text(min_size=1))
def test_a_markdown_table_keeps_its_columns(text):
    lines = render_markdown([Table(["a", "b"], [[text, 1]])]).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\\\", "").replace("\\|", "").count("|") == 3


def test_numbers_are_aligned_and_measured_ones_rounded():
    table = Table(["name", "seconds"], [["a", 1.23456789], ["bb", 12.0]], rounded=("seconds",))
    assert list(render_text([table])) == ["name  seconds", "a     1.23457", "bb         12"]


def test_json_has_no_number_that_json_lacks():
    assert to_json({"psnr": math.inf, "path": Path("a/b"), "rows": (1, 2)}) == {
        "psnr": None, "path": str(Path("a/b")), "rows": [1, 2],
    }  # fmt: skip


def test_a_table_of_records_leaves_out_empty_columns():
    table = Table.from_records([{"a": 1, "b": "", "c": None}, {"a": 2, "d": 0}])
    assert list(table.columns) == ["a", "d"]


def test_markdown_leaves_pictures_out_wherever_they_stand():
    pictures = Pictures([ShownPicture("a fox", lambda: "data:image/png;base64,AA==")])
    assert render_markdown([pictures, Line("one"), pictures, Line("two"), pictures]) == "one\n\ntwo\n"
