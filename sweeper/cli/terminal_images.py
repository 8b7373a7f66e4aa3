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
from sweeper.images.file_types import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from rich.console import RenderableType

# Pictures that come without being asked for: a screen or two, not a scrolled-away thousand.
_MAX_DEFAULT_ROWS: Final = 24
_IMAGE_COLUMNS: Final = 24  # terminal columns of a picture

# What terminals with a graphics protocol say of themselves; a multiplexer hides it and passes no pictures on.
_TERMINAL_VARIABLES: Final = ("KITTY_WINDOW_ID", "WEZTERM_PANE", "KONSOLE_VERSION", "ITERM_SESSION_ID", "WT_SESSION")
_TERM_PROGRAMS: Final = ("iTerm.app", "WezTerm", "ghostty", "mintty", "rio")
_TERMS: Final = ("xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "mlterm", "contour")

# What a row is shown by: caption, results folder, outputs with their SHA-256, status.
ImageRow = tuple[str, Path, Sequence[tuple[str, str]], str]


def can_show_images(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a terminal that shows pictures."""
    if environment.get("TERM", "").startswith(("screen", "tmux")) or environment.get("TERM") == "dumb":
        return False
    return (
        any(environment.get(name) for name in _TERMINAL_VARIABLES)
        or environment.get("TERM_PROGRAM") in _TERM_PROGRAMS
        or environment.get("TERM") in _TERMS
    )


def should_show_images(requested: bool | None, rows: int) -> bool:
    """Whether pictures are to be shown: as asked for, else where the terminal can and there are not too many rows.

    Raises UsageError where they are asked for and stdout is no terminal: what reads it would get no table any more; or
    one without a size, which a pseudo-terminal is until somebody gives it one.
    """
    terminal = console.is_terminal(sys.stdout)
    if requested and not terminal:
        raise UsageError(
            "--images: stdout is no terminal; `sweeper report --sheet FILE` draws the pictures into a file"
        )
    if terminal and requested is not False and 0 in os.get_terminal_size(sys.stdout.fileno()):
        if requested:
            raise UsageError("--images: this terminal has no columns or no lines; `stty cols 80 rows 24` gives it some")
        return False
    if requested is not None:
        return requested
    return terminal and 0 < rows <= _MAX_DEFAULT_ROWS and can_show_images(os.environ) and _find_renderer() is not None


def show(rows: Sequence[ImageRow]) -> None:
    """The first picture of each row over its caption, as many beside each other as there is room."""
    from rich.table import Table  # noqa: PLC0415 - 60 ms

    screen = console.make_rich_console(sys.stdout)
    per_line = max(1, shutil.get_terminal_size().columns // (_IMAGE_COLUMNS + 2))
    for start in range(0, len(rows), per_line):
        line = Table.grid(padding=(0, 2, 0, 0))
        part = rows[start : start + per_line]
        for _ in part:
            line.add_column(width=_IMAGE_COLUMNS)
        line.add_row(*(_render_image(row) for row in part))
        line.add_row(*(_render_caption(row) for row in part))
        screen.print(line)


def _find_renderer() -> Callable[[Any], RenderableType] | None:
    """What makes a picture in the terminal's own protocol, or None where it has none."""
    from sweeper.cli import iterm_images  # noqa: PLC0415 - Rich, only where there are pictures

    if iterm_images.is_iterm_terminal(os.environ):
        return lambda image: iterm_images.ITermImage(image, _IMAGE_COLUMNS)
    renderable = _import_renderables()
    return (
        _make_renderer(renderable.Image) if renderable.Image in (renderable.SixelImage, renderable.TGPImage) else None
    )


def _make_renderer(renderable_class: Any) -> Callable[[Any], RenderableType]:
    return lambda image: renderable_class(image, width=_IMAGE_COLUMNS, height="auto")


def _make_half_block_renderer() -> Callable[[Any], RenderableType]:
    return _make_renderer(_import_renderables().HalfcellImage)


def _import_renderables() -> Any:
    """The package's pictures. That a terminal answers none of its questions is no news to whoever asked for pictures:
    without a handler of its own its log goes to stderr, with a traceback.
    """
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    from textual_image import renderable  # noqa: PLC0415 - asks the terminal; see the module's docstring

    return renderable


def _render_image(row: ImageRow) -> RenderableType:
    from PIL import Image

    drawing = _find_renderer() or _make_half_block_renderer()
    for path in _iter_image_paths(row):
        try:
            with Image.open(path) as image:
                image.draft("RGB", (512, 512))
                small = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        small.thumbnail((512, 512))
        return drawing(small)
    return ""


def _iter_image_paths(row: ImageRow) -> Iterator[Path]:
    """What can be a picture, inside the results folder: the names in a table are no reason to read elsewhere."""
    from sweeper.store.remote_artifacts import local_path  # noqa: PLC0415

    home = row[1].resolve()
    for name, sha256 in row[2]:
        path = local_path(home, name, sha256).resolve()
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_relative_to(home):
            yield path


def _render_caption(row: ImageRow) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - never mark-up

    caption, _, outputs, status = row
    more = f" (1 of {len(outputs)})" if len(outputs) > 1 else ""
    return Text(f"{caption}{more}" if status == "succeeded" else f"{caption}: {status}")
