"""Pictures in the terminal: a simulated terminal answers queries and records its output."""

from __future__ import annotations

import base64
import io
import os
import re
import select
import struct
import subprocess
import sys
import time

import pytest
from PIL import Image

from sweeper.cli.terminal_images import can_show_images
from tests import ROOT

fcntl = pytest.importorskip("fcntl", reason="pseudo-terminals are POSIX")
termios = pytest.importorskip("termios", reason="pseudo-terminals are POSIX")

ASKED = re.compile(rb"\x1b\[c|\x1b_G[^\x1b]*\x1b\\")
SIXEL, PLAIN = b"\x1b[?62;4c", b"\x1b[?62c"  # responses to the query DA1; 4 means sixel graphics


def run_in_terminal(arguments, *, device=PLAIN, kitty=False, size=(40, 100, 1000, 800), **environment):
    """What `sweeper` writes to such a terminal. `size` is in lines, columns, and pixels across and down."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KITTY", "TERM", "WEZTERM"))}
    env |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    child = subprocess.Popen(
        [sys.executable, "-m", "sweeper", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env | environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen, answered, until = b"", 0, time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                got = os.read(ours, 65536)
            except OSError:  # the child closed its side
                break
            seen += got
            for asked in ASKED.finditer(seen, answered):
                answered = asked.end()
                if asked[0] == b"\x1b[c":
                    os.write(ours, device)
                elif kitty and b"a=q" in asked[0]:
                    os.write(ours, b"\x1b_Gi=1;OK\x1b\\")
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    return seen.decode("utf-8", "replace")


@pytest.fixture
def pictured(recorded):
    """The recorded run, with a picture for the first of its four trials."""
    (recorded / "artifacts").mkdir()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(recorded / "artifacts" / "a.png")
    return recorded


def test_sixel_terminal_shows_pictures_by_default(pictured):
    seen = run_in_terminal(["results", pictured], device=SIXEL, WT_SESSION="x")
    assert seen.index("bright") < seen.index("\x1bP")  # the table comes first, then a sixel string
    assert seen.count("\x1bP") == 1
    assert "trial 0" in seen
    assert "trial 1: failed" in seen


def test_terminal_without_cell_size_gets_half_blocks(pictured):
    seen = run_in_terminal(["results", pictured, "--images"], device=b"", size=(40, 100, 0, 0))
    assert "\N{UPPER HALF BLOCK}" in seen
    assert "Traceback" not in seen
    assert "Failed" not in seen


def test_terminal_without_columns_gets_an_error_with_next_step(pictured):
    seen = run_in_terminal(["results", pictured, "--images"], size=(0, 0, 0, 0))
    assert "--images: this terminal has no columns or no lines; `stty cols 80 rows 24` sets them" in seen
    assert "trial 0" not in run_in_terminal(["results", pictured], device=SIXEL, size=(0, 0, 0, 0), WT_SESSION="x")


@pytest.mark.parametrize("program", ["iTerm.app", "WezTerm"])
def test_iterm2_gets_the_picture_file_without_queries(pictured, program):
    Image.new("RGB", (64, 32), (255, 0, 0)).save(pictured / "artifacts" / "a.png")
    seen = run_in_terminal(["results", pictured], device=SIXEL, TERM_PROGRAM=program)
    images = re.findall(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", seen)
    assert len(images) == 1
    data = base64.b64decode(images[0][1])
    # 24 columns of 10 pixels are 240 pixels wide; half of that high, in lines of 20 pixels
    assert images[0][0].split(";") == ["inline=1", f"size={len(data)}", "width=24", "height=6", "preserveAspectRatio=1"]
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.getpixel((5, 5))) == ("PNG", (64, 32), (255, 0, 0))
    assert "\x1bP" not in seen
    assert "\x1b[c" not in seen
    assert seen.index("1337") > seen.index("\x1b7") > seen.index("bright")
    assert seen.index("\x1b8") < seen.index("trial 0")


@pytest.mark.parametrize(
    "environment",
    [{"KITTY_WINDOW_ID": "1"}, {"ALACRITTY_WINDOW_ID": "1"}, {"TERM": "foot"}, {"TERM": "tmux-256color"}],
)
def test_terminal_started_from_iterm2_does_not_get_its_protocol(pictured, environment):
    seen = run_in_terminal(["results", pictured, "--images"], device=SIXEL, TERM_PROGRAM="iTerm.app", **environment)
    assert "1337" not in seen
    assert "\x1bP" in seen


def test_kitty_gets_its_own_protocol(pictured):
    seen = run_in_terminal(["results", pictured], kitty=True, KITTY_WINDOW_ID="1")
    assert re.search(r"\x1b_G[^;]*f=100", seen)  # a PNG
    assert "\U0010eeee" in seen  # the placeholder characters for it
    assert "\x1bP" not in seen


def test_other_terminals_get_no_queries_and_no_pictures(pictured):
    seen = run_in_terminal(["results", pictured], device=SIXEL)
    assert "\x1b[c" not in seen
    assert "trial 0" not in seen


def test_images_option_shows_half_blocks_in_any_terminal(pictured):
    seen = run_in_terminal(["results", pictured, "--images"])
    assert re.search(r"38;2;25[45];0;0|48;2;25[45];0;0", seen)
    assert "trial 0" in seen


@pytest.mark.parametrize("options", [["--no-images"], ["--by", "style"], ["--json"]])
def test_no_pictures_with_no_images_groups_or_json(pictured, options):
    seen = run_in_terminal(["results", pictured, *options], device=SIXEL, KITTY_WINDOW_ID="1")
    assert "\x1bP" not in seen
    assert "\x1b[c" not in seen


def test_pipe_gets_only_the_table_and_images_is_an_error(sweeper, pictured, monkeypatch):
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    assert "\x1b" not in sweeper("results", pictured).out
    outcome = sweeper("results", pictured, "--images")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --images: stdout is not a terminal; ")


def test_images_excludes_groups_and_json(sweeper, pictured):
    outcome = sweeper("results", pictured, "--images", "--by", "style", "--json")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "error: --images: a group has no picture",
        "error: --images: cannot be combined with --json",
    ]


@pytest.mark.parametrize(
    ("environment", "known"),
    [
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "xterm-256color", "WT_SESSION": "x"}, True),
        ({"TERM": "foot"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, False),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, False),
        ({}, False),
    ],
)
def test_terminals_are_recognized_by_their_environment(environment, known):
    assert can_show_images(environment) == known
