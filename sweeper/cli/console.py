"""How commands speak: data on stdout as UTF-8 whatever the locale, all else on stderr, colour only on a terminal.

What is said is the commands' business. rich is imported where a bar is drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from sweeper.tables.export import format_number, format_rounded

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"red": 31, "green": 32, "yellow": 33}
_JOINER = "\N{ZERO WIDTH JOINER}"
_EMOJI_SELECTOR = "\N{VARIATION SELECTOR-16}"
_EMOJI_CATEGORIES = ("So", "Sm")  # the categories of emoji; some arrows are mathematical


def print_line(text: str = "") -> None:
    """A line of data on stdout."""
    data = (text + "\n").encode("utf-8", "replace")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # somebody put a text stream there
        sys.stdout.write(text + "\n")
    else:
        sys.stdout.flush()
        buffer.write(data)
        buffer.flush()


def print_json(value: Any) -> None:
    """One JSON value on stdout, and nothing else."""
    print_line(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def print_status(text: str = "") -> None:
    """A line for the person, on stderr."""
    # A terminal that is gone must not stop a run that is being paid for.
    with suppress(OSError):
        try:
            sys.stderr.write(text + "\n")
        except UnicodeEncodeError:
            sys.stderr.write(text.encode("ascii", "backslashreplace").decode() + "\n")
        sys.stderr.flush()


def print_error(text: str) -> None:
    """A line that begins with `error:`, on stderr."""
    print_status(f"{paint('error:', 'red')} {sanitize(text)}")


def warn(text: str) -> None:
    """A line that begins with `warning:`, on stderr."""
    print_status(f"{paint('warning:', 'yellow')} {sanitize(text)}")


def sanitize(text: str) -> str:
    """One line without control characters: what files and servers say must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or _is_emoji_joiner(text, place) else " " for place, char in enumerate(text)
    )


def _is_emoji_joiner(text: str, index: int) -> bool:
    """Whether a joiner stands there between two emoji, and makes one of them. Elsewhere it is only unseen."""
    before, char, after = text[max(index - 1, 0)], text[index], text[index + 1 : index + 2]
    return (
        char == _JOINER
        and (
            before == _EMOJI_SELECTOR or unicodedata.category(before) in (*_EMOJI_CATEGORIES, "Sk")
        )  # Sk: a colour of skin
        and bool(after)
        and unicodedata.category(after) in _EMOJI_CATEGORIES
    )


def paint(text: str, colour: str) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if is_colour_enabled(sys.stderr) else text


def is_colour_enabled(stream: IO[str]) -> bool:
    """Whether colour is welcome: a terminal, and no NO_COLOR (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def make_rich_console(stream: IO[str]) -> Console:
    """A rich console on that stream."""
    from rich.console import Console  # noqa: PLC0415 - 60 ms

    return Console(file=stream, no_color=not is_colour_enabled(stream), highlight=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, rounded: Collection[str] = ()) -> None:
    """A plain table on stdout: columns under headings, numbers to the right; cut to the terminal's width, whole
    anywhere else. (rich's own tables take half a millisecond a row, and a sweep has thousands.)

    `measured` names the columns that hold metrics and seconds, which are rounded.
    """
    texts = [format_measure if header in rounded else format_cell for header in headers]
    cells = [[text(cell) for text, cell in zip(texts, row, strict=True)] for row in rows]
    columns = [[header, *(row[place] for row in cells)] for place, header in enumerate(headers)]
    widths = [max(map(_compute_width, column)) for column in columns]
    if is_terminal(sys.stdout):
        widths = _fit_widths(widths, shutil.get_terminal_size().columns)
    sides = [all(_is_number(cell) for cell in column[1:] if cell) and len(column) > 1 for column in columns]
    for number, line in enumerate([headers, *cells]):
        fields = [
            _pad_or_cut(cell, width, align_right=side) for cell, width, side in zip(line, widths, sides, strict=True)
        ]
        text = "  ".join(fields).rstrip()
        print_line(f"\x1b[1m{text}\x1b[0m" if number == 0 and is_colour_enabled(sys.stdout) else text)


def _fit_widths(widths: list[int], line_width: int) -> list[int]:
    """The widths, the widest cut first, until a line has room; eight characters are left to each."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > line_width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    return widths


def _compute_width(text: str) -> int:
    """Terminal columns: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - only where it is needed

    return cell_len(text)


def _pad_or_cut(text: str, width: int, *, align_right: bool) -> str:
    missing = width - _compute_width(text)
    if missing >= 0:
        return " " * missing + text if align_right else text + " " * missing
    from rich.cells import set_cell_size  # noqa: PLC0415

    return set_cell_size(text, width - 1) + "\N{HORIZONTAL ELLIPSIS}"


def format_cell(value: object) -> str:
    """A cell on a terminal: one line, no control characters, and a number whole, as two values must not look alike."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_number(value)
    return sanitize(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def format_measure(value: object) -> str:
    """A cell of a metric or of seconds."""
    return format_rounded(value) if isinstance(value, float) else format_cell(value)


def _is_number(text: str) -> bool:
    """Whether a cell stands to the right: a number, or a mean with its deviation."""
    try:
        float(text.partition(" \N{PLUS-MINUS SIGN} ")[0])
    except ValueError:
        return False
    return True
