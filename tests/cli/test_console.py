"""Console output: tables, JSON, colours and control characters."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sweeper.answers.cells import format_cell, sanitize
from sweeper.answers.parts import Table
from sweeper.cli import console


def print_table(*arguments, **rest):
    console.print_parts([Table(*arguments, **rest)])


class Terminal(io.TextIOWrapper):
    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def isatty(self):
        return True

    def lines(self):
        self.flush()
        return self.buffer.getvalue().decode().splitlines()


def test_table_aligns_numbers_right_and_texts_left(capsys):
    rows = [(5, "a", 0.123456789), (100, "bb", None), (None, "\u6f22", 2.0)]
    print_table(("n", "name", "share"), rows, rounded=("share",))

    assert capsys.readouterr().out.splitlines() == [
        "  n  name     share",
        "  5  a     0.123457",
        "100  bb",
        "     \u6f22           2",
    ]


def test_different_values_never_look_alike(capsys):
    print_table(("cfg", "sharpness"),
                  [(0.1234567, 0.1234567), (0.1234568, 0.1234568), (1234567.25, 7.0), (7.0, 1)],
                  rounded=("sharpness",))  # fmt: skip

    assert capsys.readouterr().out.splitlines() == [
        "       cfg  sharpness",
        " 0.1234567   0.123457",
        " 0.1234568   0.123457",
        "1234567.25          7",
        "         7          1",
    ]


def test_table_without_rows_prints_its_header(capsys):
    print_table(("a", "b"), [])

    assert capsys.readouterr().out == "a  b\n"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_header_is_bold_on_a_terminal_unless_no_color_is_set(monkeypatch, no_color):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    print_table(("a",), [("x",)])

    assert terminal.lines() == (["a", "x"] if no_color else ["\x1b[1ma\x1b[0m", "x"])


@given(st.lists(st.lists(st.text("ab \u6f22\u00e9", max_size=90), min_size=3, max_size=3), min_size=1, max_size=5))
def test_table_fits_the_width_of_the_terminal(rows):
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "40")
        print_table(("first", "second", "third"), rows)

    assert all(cell_len(line) <= 40 for line in terminal.lines())
    assert len(terminal.lines()) == len(rows) + 1


def test_json_is_utf_8_in_any_locale(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    console.print_json({"prompt": "\u00e9\u6f22"})

    assert stream.buffer.getvalue().decode("utf-8") == '{\n  "prompt": "\u00e9\u6f22"\n}\n'


def test_closed_stderr_does_not_stop_the_program(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _text):
            raise OSError

    monkeypatch.setattr(sys, "stderr", Gone())

    console.print_status("x")


@pytest.mark.parametrize(
    "char", ["\u202e", "\u2066", "\u200e", "\u200b", "\u200d", "\x1b", "\x9b", "\r", "\n", "\u2028", "\ufeff"]
)
def test_control_and_invisible_characters_become_spaces(char):
    assert sanitize(f"a{char}b") == "a b"
    assert sanitize(char) == " "
    assert sanitize(f"\N{FOX FACE}{char}") == "\N{FOX FACE} "
    assert sanitize(f"{char}\N{FOX FACE}") == " \N{FOX FACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.25, "1234567"), (999999.7, "1000000"), (-1234567.75, "-1234568"), (123456.78, "123457"),
        (1e-9 / 3, "3.33333e-10"), (1e300, "1e+300"), (float("inf"), "inf"), (12, "12"), ("a", "a"), (None, ""),
    ],
)  # fmt: skip
def test_rounding_keeps_the_whole_part_of_a_measure(value, text):
    assert format_cell(value, rounded=True) == text
