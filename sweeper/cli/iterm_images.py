"""A picture in iTerm2's own protocol, OSC 1337, which WezTerm speaks too: the file itself, in a box of cells.

Sharper than sixel (true colours, the screen's own pixels), and nothing has to be asked of the terminal first: who it is
stands in the environment. Which rows have a picture, and what other terminals get, is `inline`'s business.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.control import Control
from rich.measure import Measurement
from rich.segment import ControlType, Segment

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_PROGRAMS: Final = ("iTerm.app", "WezTerm")
_OTHER_TERMINALS: Final = ("KITTY_WINDOW_ID", "ALACRITTY_WINDOW_ID", "XTERM_VERSION", "KONSOLE_VERSION")
_DEFAULT_CELL_RATIO: Final = 2.0  # a cell's height over its width, where the terminal does not tell
# Rich lets through what it takes for the control of a terminal: a step of no columns.
_RAW_CONTROL: Final = [(ControlType.CURSOR_FORWARD, 0)]


def is_iterm_terminal(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a terminal of this protocol; one that was started from such a one inherits its
    name, and is told by its own.
    """
    term = environment.get("TERM", "")
    if not term.startswith(("xterm-256color", "wezterm")) or any(environment.get(name) for name in _OTHER_TERMINALS):
        return False
    return environment.get("TERM_PROGRAM") in _PROGRAMS


class ITermImage:
    """A Rich renderable: a Pillow image in so many columns, and as many lines as its shape needs."""

    def __init__(self, image: Any, width: int) -> None:
        self._width = width
        self._height = max(1, round(width * image.height / image.width / _get_cell_ratio()))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        self._file = buffer.getvalue()

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        # Blanks first, so that Rich knows the room; then back to their first line, the picture, and to their end.
        for _ in range(self._height):
            yield Segment(" " * self._width + "\n")
        yield Segment("\x1b7", control=_RAW_CONTROL)
        yield Control.move(0, -self._height)
        box = f"width={self._width};height={self._height};preserveAspectRatio=1"
        text = base64.b64encode(self._file).decode("ascii")
        yield Segment(f"\x1b]1337;File=inline=1;size={len(self._file)};{box}:{text}\x07", control=_RAW_CONTROL)
        yield Segment("\x1b8", control=_RAW_CONTROL)

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(self._width, self._width)


def _get_cell_ratio() -> float:
    """A cell's height over its width, from the terminal's size in pixels."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
        import struct  # noqa: PLC0415
        import termios  # noqa: PLC0415

        told = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))  # type: ignore[union-attr]
        rows, columns, wide, high = struct.unpack("HHHH", told)
        return float(high / rows / (wide / columns))
    except (ImportError, OSError, ValueError, ZeroDivisionError, AttributeError):
        return _DEFAULT_CELL_RATIO
