"""Pictures in the terminal: whether it can show them, and a few of them below a table.

iTerm2's protocol is in `iterm`; kitty's and sixel are textual-image's work, and so are the half blocks of any other
terminal. That package asks the terminal what it can as soon as it is imported, and may swallow a key that is typed
meanwhile; so it is imported only where the environment names a terminal that will answer, or where pictures are asked
for.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeper.cli import console
from sweeper.errors import UsageError
from sweeper.images.file_types import PICTURES

if TYPE_CHECKING:
    from rich.console import RenderableType

# Pictures that come without being asked for: a screen or two, not a scrolled-away thousand.
_UNASKED: Final = 24
_WIDE: Final = 24  # terminal columns of a picture

# What terminals with a graphics protocol say of themselves; a multiplexer hides it and passes no pictures on.
_NAMED: Final = ("KITTY_WINDOW_ID", "WEZTERM_PANE", "KONSOLE_VERSION", "ITERM_SESSION_ID", "WT_SESSION")
_PROGRAMS: Final = ("iTerm.app", "WezTerm", "ghostty", "mintty", "rio")
_TERMS: Final = ("xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "mlterm", "contour")

# What a row is shown by: caption, results folder, outputs with their SHA-256, status.
Row = tuple[str, Path, Sequence[tuple[str, str]], str]


def known_for_pictures(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a terminal that shows pictures."""
    if environment.get("TERM", "").startswith(("screen", "tmux")) or environment.get("TERM") == "dumb":
        return False
    return (
        any(environment.get(name) for name in _NAMED)
        or environment.get("TERM_PROGRAM") in _PROGRAMS
        or environment.get("TERM") in _TERMS
    )


def wanted(asked: bool | None, rows: int) -> bool:
    """Whether pictures are to be shown: as asked for, else where the terminal can and there are not too many rows.

    Raises UsageError where they are asked for and stdout is no terminal: what reads it would get no table any more; or
    one without a size, which a pseudo-terminal is until somebody gives it one.
    """
    terminal = console.is_terminal(sys.stdout)
    if asked and not terminal:
        raise UsageError(
            "--images: stdout is no terminal; `sweeper report --sheet FILE` draws the pictures into a file"
        )
    if terminal and asked is not False and 0 in os.get_terminal_size(sys.stdout.fileno()):
        if asked:
            raise UsageError("--images: this terminal has no columns or no lines; `stty cols 80 rows 24` gives it some")
        return False
    if asked is not None:
        return asked
    return terminal and 0 < rows <= _UNASKED and known_for_pictures(os.environ) and _drawing() is not None


def show(rows: Sequence[Row]) -> None:
    """The first picture of each row over its caption, as many beside each other as there is room."""
    from rich.table import Table  # noqa: PLC0415 - 60 ms

    screen = console.rich_console(sys.stdout)
    per_line = max(1, shutil.get_terminal_size().columns // (_WIDE + 2))
    for start in range(0, len(rows), per_line):
        line = Table.grid(padding=(0, 2, 0, 0))
        part = rows[start : start + per_line]
        for _ in part:
            line.add_column(width=_WIDE)
        line.add_row(*(_drawn(row) for row in part))
        line.add_row(*(_caption(row) for row in part))
        screen.print(line)


def _drawing() -> Callable[[Any], RenderableType] | None:
    """What makes a picture in the terminal's own protocol, or None where it has none."""
    from sweeper.cli import iterm_images  # noqa: PLC0415 - Rich, only where there are pictures

    if iterm_images.speaks(os.environ):
        return lambda image: iterm_images.Picture(image, _WIDE)
    renderable = _textual_image()
    return _sized(renderable.Image) if renderable.Image in (renderable.SixelImage, renderable.TGPImage) else None


def _sized(drawing: Any) -> Callable[[Any], RenderableType]:
    return lambda image: drawing(image, width=_WIDE, height="auto")


def _half_blocks() -> Callable[[Any], RenderableType]:
    return _sized(_textual_image().HalfcellImage)


def _textual_image() -> Any:
    """The package's pictures. That a terminal answers none of its questions is no news to whoever asked for pictures:
    without a handler of its own its log goes to stderr, with a traceback.
    """
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    from textual_image import renderable  # noqa: PLC0415 - asks the terminal; see the module's docstring

    return renderable


def _drawn(row: Row) -> RenderableType:
    from PIL import Image  # noqa: PLC0415 - only where there is a picture

    drawing = _drawing() or _half_blocks()
    for path in _files(row):
        try:
            with Image.open(path) as image:
                image.draft("RGB", (512, 512))
                small = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        small.thumbnail((512, 512))
        return drawing(small)
    return ""


def _files(row: Row) -> Iterator[Path]:
    """What can be a picture, inside the results folder: the names in a table are no reason to read elsewhere."""
    from sweeper.store.remote_artifacts import place_here  # noqa: PLC0415

    home = row[1].resolve()
    for name, sha256 in row[2]:
        path = place_here(home, name, sha256).resolve()
        if path.suffix.lower() in PICTURES and path.is_relative_to(home):
            yield path


def _caption(row: Row) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - never mark-up

    caption, _, outputs, status = row
    more = f" (1 of {len(outputs)})" if len(outputs) > 1 else ""
    return Text(f"{caption}{more}" if status == "succeeded" else f"{caption}: {status}")
