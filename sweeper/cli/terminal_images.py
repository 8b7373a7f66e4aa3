"""Show pictures in the terminal below a table of results.

iTerm2's protocol is implemented here; kitty's, sixel and the half blocks for other terminals come from textual-image.
That package queries the terminal when it is imported and may swallow a key typed meanwhile. So it is imported only if
the environment names a terminal that will answer, or if the user asks for pictures.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import logging
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from sweeper.cli import console
from sweeper.errors import ImageError, UsageError
from sweeper.images.file_types import PICTURE_SUFFIXES
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels
from sweeper.store.remote_artifacts import local_path

if sys.platform != "win32":
    import fcntl
    import termios

# Without --images, pictures appear only for so many rows: a screen or two.
_MAX_DEFAULT_ROWS: Final = 24
_IMAGE_COLUMNS: Final = 24  # terminal columns of a picture

# Set by terminals with a graphics protocol. Multiplexers hide these variables, and pass no pictures on.
_TERMINAL_VARIABLES: Final = ("KITTY_WINDOW_ID", "WEZTERM_PANE", "KONSOLE_VERSION", "ITERM_SESSION_ID", "WT_SESSION")
_TERM_PROGRAMS: Final = ("iTerm.app", "WezTerm", "ghostty", "mintty", "rio")
_TERMS: Final = ("xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "mlterm", "contour")

_ITERM_PROGRAMS: Final = ("iTerm.app", "WezTerm")
_NOT_ITERM_VARIABLES: Final = ("KITTY_WINDOW_ID", "ALACRITTY_WINDOW_ID", "XTERM_VERSION", "KONSOLE_VERSION")
_DEFAULT_CELL_RATIO: Final = 2.0  # height of a cell over its width, if the terminal does not report its size in pixels
# Rich prints a segment unchanged if it carries a control code; this one moves the cursor by no columns.
_RAW_CONTROL: Final = [(ControlType.CURSOR_FORWARD, 0)]

# A row as it is shown: caption, results folder, output names with their SHA-256, status.
ImageRow = tuple[str, Path, Sequence[tuple[str, str]], str]


def can_show_images(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a terminal with a graphics protocol."""
    if environment.get("TERM", "").startswith(("screen", "tmux")) or environment.get("TERM") == "dumb":
        return False
    return (
        any(environment.get(name) for name in _TERMINAL_VARIABLES)
        or environment.get("TERM_PROGRAM") in _TERM_PROGRAMS
        or environment.get("TERM") in _TERMS
    )


def should_show_images(requested: bool | None, rows: int) -> bool:
    """Whether to show pictures: as `requested`, or (None) if the terminal can and the table has few rows.

    Raises UsageError if pictures are requested but stdout is not a terminal, because a program that reads it expects a
    table, or if the terminal has no size, as a new pseudo-terminal does.
    """
    terminal = console.is_terminal(sys.stdout)
    if requested and not terminal:
        raise UsageError(
            "--images: stdout is not a terminal; `sweeper report --sheet FILE` draws the pictures into a file"
        )
    if terminal and requested is not False and 0 in os.get_terminal_size(sys.stdout.fileno()):
        if requested:
            raise UsageError("--images: this terminal has no columns or no lines; `stty cols 80 rows 24` sets them")
        return False
    if requested is not None:
        return requested
    return terminal and 0 < rows <= _MAX_DEFAULT_ROWS and can_show_images(os.environ) and _find_renderer() is not None


def show(rows: Sequence[ImageRow]) -> None:
    """Print the first picture of each row above its caption, as many side by side as fit."""
    screen = console.make_rich_console(sys.stdout)
    per_line = max(1, shutil.get_terminal_size().columns // (_IMAGE_COLUMNS + 2))
    for start in range(0, len(rows), per_line):
        line = Table.grid(padding=(0, 2, 0, 0))
        shown = rows[start : start + per_line]
        for _ in shown:
            line.add_column(width=_IMAGE_COLUMNS)
        line.add_row(*(_render_image(row) for row in shown))
        line.add_row(*(_render_caption(row) for row in shown))
        screen.print(line)


def _render_image(row: ImageRow) -> RenderableType:
    renderer = _find_renderer() or _make_half_block_renderer()
    for path in _iter_image_paths(row):
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                image.draft("RGB", (512, 512))  # makes JPEG decode at about this size
                check_pixels(image.size)
                thumbnail = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ImageError):
            continue
        thumbnail.thumbnail((512, 512))
        return renderer(thumbnail)
    return ""


def _iter_image_paths(row: ImageRow) -> Iterator[Path]:
    """The row's picture files. The store has checked that they are the run's."""
    for name, sha256 in row[2]:
        path = local_path(row[1].resolve(), name, sha256)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            yield path


def _render_caption(row: ImageRow) -> RenderableType:
    caption, _, outputs, status = row
    more = f" (1 of {len(outputs)})" if len(outputs) > 1 else ""
    return Text(f"{caption}{more}" if status == "succeeded" else f"{caption}: {status}")  # Text: no markup


def _find_renderer() -> Callable[[Any], RenderableType] | None:
    """A function that renders a Pillow image in the terminal's own protocol; None if it has none."""
    if _is_iterm_terminal(os.environ):
        return lambda image: _ITermImage(image, _IMAGE_COLUMNS)
    renderable = _import_renderables()
    return (
        _make_renderer(renderable.Image) if renderable.Image in (renderable.SixelImage, renderable.TGPImage) else None
    )


def _make_half_block_renderer() -> Callable[[Any], RenderableType]:
    return _make_renderer(_import_renderables().HalfcellImage)


def _make_renderer(renderable_class: Any) -> Callable[[Any], RenderableType]:
    return lambda image: renderable_class(image, width=_IMAGE_COLUMNS, height="auto")


def _import_renderables() -> Any:
    """Import textual-image's renderables.

    Without the log handler, it logs a traceback to stderr if the terminal does not answer its queries.
    """
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    return importlib.import_module("textual_image.renderable")


def _is_iterm_terminal(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a terminal with iTerm2's protocol.

    Another terminal that was started from iTerm2 inherits its TERM_PROGRAM; its own variables give it away.
    """
    term = environment.get("TERM", "")
    if not term.startswith(("xterm-256color", "wezterm")):
        return False
    if any(environment.get(name) for name in _NOT_ITERM_VARIABLES):
        return False
    return environment.get("TERM_PROGRAM") in _ITERM_PROGRAMS


class _ITermImage:
    """A Rich renderable: a Pillow image in iTerm2's protocol (OSC 1337), which sends the image file itself.

    Sharper than sixel (true colours, the screen's own pixels), and needs no query to the terminal. The image is `width`
    columns wide, and as many lines high as its shape requires.
    """

    def __init__(self, image: Image.Image, width: int) -> None:
        self._width = width
        self._height = max(1, round(width * image.height / image.width / _get_cell_ratio()))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        self._file = buffer.getvalue()

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        # First print blanks, so that Rich knows the size; then go to their first line, print the image, and return.
        for _ in range(self._height):
            yield Segment(" " * self._width + "\n")
        yield Segment("\x1b7", control=_RAW_CONTROL)
        yield Control.move(0, -self._height)
        box = f"width={self._width};height={self._height};preserveAspectRatio=1"
        data = base64.b64encode(self._file).decode("ascii")
        yield Segment(f"\x1b]1337;File=inline=1;size={len(self._file)};{box}:{data}\x07", control=_RAW_CONTROL)
        yield Segment("\x1b8", control=_RAW_CONTROL)

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(self._width, self._width)


def _get_cell_ratio() -> float:
    """The height of a cell over its width, from the terminal's size in pixels."""
    if sys.platform != "win32" and sys.__stdout__ is not None:
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            size = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))
            rows, columns, width, height = struct.unpack("HHHH", size)
            return float(height / rows / (width / columns))
    return _DEFAULT_CELL_RATIO
