"""Contact sheets: their content, their pages and their labels."""

from __future__ import annotations

import io
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from sweeper.cli import main
from sweeper.errors import UsageError
from sweeper.reporting.contact_sheet import write_sheets
from sweeper.reporting.sheet_pages import wrap_text
from sweeper.wording import to_one_line
from tests.reporting.made_up_sweeps import Sweep

GRID = {"sampler": ["euler", "heun"], "steps": [4, 8, 16]}


def solid(colour, side=40):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def cells(sheet, colour=(200, 30, 60)):
    """Left edges and top edges of the areas with exactly that colour."""
    there = (np.asarray(sheet.convert("RGB")) == colour).all(axis=2)
    return [starts(there.any(axis=axis)) for axis in (0, 1)]


def starts(line):
    """The index where each run of true values begins."""
    return np.flatnonzero(np.diff(line.astype(int), prepend=0) == 1).tolist()


def test_sheet_arranges_pictures_along_the_requested_axes(tmp_path):
    out = Sweep(GRID, content=solid((200, 30, 60))).write(tmp_path / "r")
    (file,) = write_sheets(out, tmp_path / "s.png", x="steps", y="sampler", cell=40)
    with Image.open(file) as sheet:
        lefts, tops = cells(sheet)
    assert len(lefts) == 3
    assert len(tops) == 2
    assert {b - a for a, b in itertools.pairwise(lefts)} == {46}


def test_axis_without_a_direction_makes_sections(tmp_path):
    out = Sweep({**GRID, "cfg": [1.5, 7.0]}, content=solid((200, 30, 60))).write(tmp_path / "r")
    (file,) = write_sheets(out, tmp_path / "s.png", x="steps", y="sampler", cell=40)
    with Image.open(file) as sheet:
        assert [len(edges) for edges in cells(sheet)] == [3, 4]


@pytest.mark.parametrize(("outputs", "across", "down"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2)])
def test_all_pictures_of_a_trial_share_its_cell(tmp_path, outputs, across, down):
    out = Sweep({"steps": [4]}, outputs=outputs, content=solid((200, 30, 60))).write(tmp_path / "r")
    (file,) = write_sheets(out, tmp_path / "s.png", cell=200)
    with Image.open(file) as sheet:
        lefts, tops = cells(sheet)
        assert (len(lefts), len(tops)) == (across, down)
        there = (np.asarray(sheet.convert("RGB")) == (200, 30, 60)).all(axis=2)
    assert there.sum() == outputs * 40 * 40  # none is cut or enlarged


def test_cell_is_no_larger_than_its_pictures(tmp_path):
    sizes = []
    for side in (40, 120, 1000):
        out = Sweep({"steps": [4, 8]}, content=solid((200, 30, 60), side)).write(tmp_path / str(side))
        (file,) = write_sheets(out, tmp_path / f"{side}.png", cell=200)
        with Image.open(file) as sheet:
            lefts, _ = cells(sheet)
            sizes.append((lefts[1] - lefts[0], sheet.height))
    # A label needs 96 pixels; 6 are between two cells.
    assert [step for step, _ in sizes] == [96 + 6, 120 + 6, 200 + 6]
    assert sizes[1][1] - sizes[0][1] == 120 - 40


def test_row_is_no_higher_than_its_pictures(tmp_path):
    heights = []
    for low in (200, 50):
        sizes = [(200, 200)] * 2 + [(200, low)] * 2
        out = Sweep({"steps": [4, 8], "cfg": [1, 2]}, sizes=sizes).write(tmp_path / str(low))
        (file,) = write_sheets(out, tmp_path / f"{low}.png", x="cfg", y="steps")
        with Image.open(file) as sheet:
            heights.append(sheet.height)
    assert heights[0] - heights[1] == 150


def test_long_column_labels_widen_no_cell(tmp_path):
    steps = []
    for words in (1, 20, 2000):
        axes = {"prompt": ["a fox " * words, "b"]}
        out = Sweep(axes, content=solid((200, 30, 60))).write(tmp_path / str(words))
        (file,) = write_sheets(out, tmp_path / f"{words}.png", x="prompt", cell=200)
        with Image.open(file) as sheet:
            lefts, _ = cells(sheet)
            steps.append(lefts[1] - lefts[0])
    assert steps == [96 + 6] * 3


def test_unreadable_picture_does_not_hide_the_others(tmp_path):
    out = Sweep({"steps": [4]}, outputs=2, content=solid((200, 30, 60))).write(tmp_path / "r")
    first, _ = sorted((out / "artifacts").iterdir())
    first.write_bytes(b"no picture")
    (file,) = write_sheets(out, tmp_path / "s.png")
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels == (200, 30, 60)).all(axis=2).sum() == 40 * 40
    assert (pixels == (240, 240, 238)).all(axis=2).any()


def test_sheet_shows_eight_lines_of_a_failure(tmp_path):
    sizes = []
    for words in (1, 40, 4000):
        ends = {0: ("failed", ("E", "out of memory " * words))}
        out = Sweep({"steps": [4, 8]}, ends=ends, content=solid((200, 30, 60))).write(tmp_path / str(words))
        (file,) = write_sheets(out, tmp_path / f"{words}.png")
        with Image.open(file) as sheet:
            sizes.append(sheet.height)
    assert sizes[0] < sizes[1] == sizes[2]


def test_pages_stay_under_the_limit_and_lose_no_row(tmp_path):
    out = Sweep({"steps": [1, 2, 3], "seed": list(range(40))}, content=solid((200, 30, 60), 128)).write(tmp_path / "r")
    files = write_sheets(out, tmp_path / "s.png", x="steps", y="seed", cell=128, megapixels=1)
    assert [file.name for file in files] == ["s.png", *(f"s-{n}.png" for n in range(2, len(files) + 1))]
    rows = 0
    for file in files:
        with Image.open(file) as sheet:
            assert sheet.width * sheet.height <= 1_000_000
            rows += len(cells(sheet)[1])
    assert len(files) > 1
    assert rows == 40


def test_pdf_has_all_pages_in_one_file(tmp_path):
    out = Sweep({"steps": [*range(20)]}, content=solid((200, 30, 60), 256)).write(tmp_path / "r")
    written = write_sheets(out, tmp_path / "s.pdf", megapixels=1.0)
    assert written == [tmp_path / "s.pdf"]
    pages = int(re.findall(rb"/Count (\d+)", written[0].read_bytes())[-1])
    assert pages == len(write_sheets(out, tmp_path / "s.png", megapixels=1.0)) > 1


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_further_page_replaces_a_sheet_and_no_other_file(tmp_path, capsys, suffix):
    out, file = (
        Sweep({"steps": [*range(20)]}, content=solid((9, 9, 9), 200)).write(tmp_path / "out"),
        tmp_path / f"sheet.{suffix}",
    )
    command = ["report", str(out), "--sheet", str(file), "--megapixels", "1"]
    assert [main(command), main(command)] == [0, 0]  # a sheet may be drawn again
    other = tmp_path / f"sheet-2.{suffix}"
    assert other.exists()
    for content in (b"", b"not a picture", solid((1, 2, 3))):
        other.write_bytes(content)
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        assert main(command) == 2
        error = f"error: {other}: sweeper did not make this file; move it, or give --sheet another name"
        assert error in capsys.readouterr().err
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["sheet.pdf", "sheet.png"])
def test_interrupted_sheet_keeps_the_older_files(tmp_path, monkeypatch, name):
    out, file = Sweep({"steps": [*range(60)]}, content=solid((9, 9, 9), 200)).write(tmp_path / "out"), tmp_path / name
    assert len(write_sheets(out, file, megapixels=1)) == (1 if name.endswith("pdf") else 5)
    before = {path: path.read_bytes() for path in tmp_path.glob("sheet*")}
    save, saved = Image.Image.save, []

    def interrupt(image, *arguments, **options):
        save(image, *arguments, **options)
        saved.append(image)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_sheets(out, file, cell=128, megapixels=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_wide_row_continues_below(tmp_path):
    out = Sweep({"seed": list(range(30)), "steps": [1, 2]}, content=solid((200, 30, 60))).write(tmp_path / "r")
    files = write_sheets(out, tmp_path / "s.png", x="seed", y="steps", cell=64, megapixels=1)
    across = 0
    for file in files:
        with Image.open(file) as sheet:
            lefts, tops = cells(sheet)
            across += len(lefts) * len(tops)
    assert across >= 60  # the last part may be narrower than the page it shares


def test_sheet_with_failed_and_missing_trials_is_drawn(tmp_path):
    ends = {0: ("failed", ("E", "boom " * 200)), 1: ("pending", None)}
    sweep = Sweep(GRID, ends=ends, skip=frozenset({5}), size=(256, 192))
    (file,) = write_sheets(sweep.write(tmp_path / "r"), tmp_path / "s.png")
    with Image.open(file) as sheet:
        assert (251, 233, 231) in {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
        assert sheet.width > 700


def test_sheet_draws_a_dash_for_a_missing_trial(tmp_path):
    ends = {0: ("failed", ("E", "no")), 1: ("pending", None)}
    sweep = Sweep(GRID, ends=ends, skip=frozenset({5}), content=solid((200, 30, 60)))
    (file,) = write_sheets(sweep.write(tmp_path / "r"), tmp_path / "s.png", x="steps", y="sampler", cell=96)
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    lefts, tops = cells(Image.fromarray(pixels))
    dash = np.argwhere((pixels == (196, 200, 208)).all(axis=2))
    (top, left), (bottom, right) = dash.min(axis=0), dash.max(axis=0)
    assert len(dash) == (bottom - top + 1) * (right - left + 1)  # there is exactly one
    middle = lefts[-1] + 20  # the column's only picture is 40 wide and above it
    assert abs((left + right) / 2 - middle) <= 1
    assert tops[-1] < top < sheet.height


def test_long_prompt_makes_its_row_no_higher(tmp_path):
    sizes = []
    for n, text in enumerate(("short", "a very long prompt indeed " * 30)):
        out = Sweep({"prompt": [text, "b"], "steps": [1, 2]}).write(tmp_path / f"r{n}")
        (file,) = write_sheets(out, tmp_path / f"s{n}.png", x="steps", y="prompt", cell=64)
        with Image.open(file) as sheet:
            sizes.append(sheet.height)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\u2028", "\t"])
def test_row_label_with_a_line_break_is_drawn(tmp_path, break_):
    out = Sweep({"prompt": [f"a fox,{break_}in snow", "a cat"], "steps": [1, 2]}).write(tmp_path / "r")
    (file,) = write_sheets(out, tmp_path / "s.png", x="steps", y="prompt", cell=64)
    assert file.is_file()


@pytest.mark.parametrize(
    ("wish", "file", "message"),
    [
        ({"x": "stps"}, "s.png", "did you mean 'steps'"),
        ({"x": "stps", "y": "smpler"}, "s.png", "(?s)--x: .*steps.*--y: .*sampler"),
        ({"x": "steps", "y": "steps"}, "s.png", "--x, --y: both name 'steps', and need an axis each; axes: "),
        ({}, "s.bmp", ".png, .webp"),
        (
            {"cell": 2000, "megapixels": 1},
            "s.png",
            "--cell 2000: not one row of pictures fits the .* pixels of a page; make it smaller, or raise",
        ),
    ],
)
def test_undrawable_sheet_is_refused_and_not_written(tmp_path, wish, file, message):
    out = Sweep(GRID, content=solid((200, 30, 60), 2000)).write(tmp_path / "r")
    with pytest.raises(UsageError, match=message):
        write_sheets(out, tmp_path / file, **wish)
    assert not (tmp_path / file).exists()


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), max_size=120), st.integers(40, 300))
def test_wrapping_keeps_all_characters_within_the_width(text, width):
    lines = wrap_text(text, ImageFont.load_default(15).getlength, width, 200)
    assert "".join("".join(lines).split()) == "".join(to_one_line(text).split())
    assert all(ImageFont.load_default(15).getlength(line) <= width or len(line) == 1 for line in lines)


def test_text_that_goes_on_ends_with_an_ellipsis():
    assert wrap_text("a fox in snow", len, 5, 9) == ["a fox", "in", "snow"]
    assert wrap_text("a fox in snow", len, 5, 2) == ["a fox", "i…"]
    assert wrap_text("incomprehensible", len, 5, 9) == ["incom", "prehe", "nsibl", "e"]
    assert [len(wrap_text("x" * 10**6, len, 200, lines)) for lines in (1, 8)] == [1, 8]
    assert wrap_text(" \n", len, 5, 2) == [""]


def test_letters_of_other_scripts_are_drawn_where_a_font_has_them(tmp_path):
    sheets = []
    for label in ("\u00e9t\u00e9", "\u0161\u010d\u0159"):
        out = Sweep({"prompt": [label, "b"]}, content=solid((200, 30, 60)), name="x").write(tmp_path / label)
        (file,) = write_sheets(out, tmp_path / "s.png", x="prompt", cell=96)
        sheets.append(file.read_bytes())
    assert sheets[0] != sheets[1]  # not the sign for a letter that is missing
