"""Output of the commands: data on stdout in UTF-8 whatever the locale, everything else on stderr.

Colour appears only on a terminal. The texts themselves belong to the commands.
"""

from __future__ import annotations

import json
import math
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
_EMOJI_CATEGORIES = ("So", "Sm")  # Unicode categories; some arrows are mathematical symbols


def print_line(text: str = "") -> None:
    """Print a line of data on stdout."""
    data = (text + "\n").encode("utf-8", "replace")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # stdout was replaced by a text stream
        sys.stdout.write(text + "\n")
    else:
        sys.stdout.flush()
        buffer.write(data)
        buffer.flush()


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    print_line(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def to_json_number(value: float | None) -> float | None:
    """The number, or None if JSON has no such number: the PSNR of equal pictures is infinite."""
    return value if value is not None and math.isfinite(value) else None


def print_status(text: str = "") -> None:
    """Print a line for the user on stderr."""
    # A run that costs money must go on even if its terminal is closed.
    with suppress(OSError):
        try:
            sys.stderr.write(text + "\n")
        except UnicodeEncodeError:
            sys.stderr.write(text.encode("ascii", "backslashreplace").decode() + "\n")
        sys.stderr.flush()


def print_error(text: str) -> None:
    """Print a line that begins with `error:` on stderr."""
    print_status(f"{paint('error:', 'red')} {sanitize(text)}")


def warn(text: str) -> None:
    """Print a line that begins with `warning:` on stderr."""
    print_status(f"{paint('warning:', 'yellow')} {sanitize(text)}")


def sanitize(text: str) -> str:
    """Replace each control character by a space, so that text from files and servers cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or _is_emoji_joiner(text, index) else " " for index, char in enumerate(text)
    )


def _is_emoji_joiner(text: str, index: int) -> bool:
    """Whether a zero-width joiner at `index` joins two emoji. Anywhere else it would be an invisible character."""
    before, char, after = text[max(index - 1, 0)], text[index], text[index + 1 : index + 2]
    return (
        char == _JOINER
        # Sk: a skin tone
        and (before == _EMOJI_SELECTOR or unicodedata.category(before) in (*_EMOJI_CATEGORIES, "Sk"))
        and bool(after)
        and unicodedata.category(after) in _EMOJI_CATEGORIES
    )


def paint(text: str, colour: str) -> str:
    """The text in a colour, if stderr shows colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if is_colour_enabled(sys.stderr) else text


def is_colour_enabled(stream: IO[str]) -> bool:
    """Whether to use colour: the stream is a terminal and NO_COLOR is not set (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: IO[str]) -> bool:
    """Whether the stream is a terminal; false for a closed stream."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def make_rich_console(stream: IO[str]) -> Console:
    """A rich console that writes to `stream`."""
    from rich.console import Console

    return Console(file=stream, no_color=not is_colour_enabled(stream), highlight=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, rounded: Collection[str] = ()) -> None:
    """Print a table on stdout, with numbers aligned right. On a terminal it is cut to the terminal's width.

    `rounded` names the columns whose numbers are rounded: metrics and seconds. rich's tables are not used because they
    take half a millisecond a row, and a sweep has thousands of rows.
    """
    formatters = [format_measure if header in rounded else format_cell for header in headers]
    lines = [[form(value) for form, value in zip(formatters, row, strict=True)] for row in rows]
    columns = [[header, *(line[index] for line in lines)] for index, header in enumerate(headers)]
    widths = [max(map(_compute_width, column)) for column in columns]
    if is_terminal(sys.stdout):
        widths = _fit_widths(widths, shutil.get_terminal_size().columns)
    numeric = [all(_is_number(cell) for cell in column[1:] if cell) and len(column) > 1 for column in columns]
    for number, line in enumerate([headers, *lines]):
        fields = [
            _pad_or_cut(cell, width, align_right=right)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        text = "  ".join(fields).rstrip()
        print_line(f"\x1b[1m{text}\x1b[0m" if number == 0 and is_colour_enabled(sys.stdout) else text)


def _fit_widths(widths: list[int], line_width: int) -> list[int]:
    """The column widths, the widest cut first until a line fits; no column is cut below eight characters."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > line_width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    return widths


def _compute_width(text: str) -> int:
    """How many terminal columns the text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pad_or_cut(text: str, width: int, *, align_right: bool) -> str:
    missing = width - _compute_width(text)
    if missing >= 0:
        return " " * missing + text if align_right else text + " " * missing
    start = text[: width - 1]
    while (room := width - 1 - _compute_width(start)) < 0:
        start = start[:-1]
    return start + " " * room + "\N{HORIZONTAL ELLIPSIS}"


def format_cell(value: object) -> str:
    """A value as one line without control characters. Numbers are not rounded: two values must not look alike."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_number(value)
    return sanitize(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def format_measure(value: object) -> str:
    """A metric or a number of seconds, rounded."""
    return format_rounded(value) if isinstance(value, float) else format_cell(value)


def _is_number(text: str) -> bool:
    """Whether a cell is aligned right: a number, or a mean with its standard deviation."""
    try:
        float(text.partition(" \N{PLUS-MINUS SIGN} ")[0])
    except ValueError:
        return False
    return True
