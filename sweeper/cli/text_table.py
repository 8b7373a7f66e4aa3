"""Small tables of text in the output of a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sweeper.answers.cells import sanitize
from sweeper.wording import shorten

_MAX_CELL_LENGTH: Final = 32  # characters of a value


def print_table(rows: Sequence[Mapping[str, str]], print_line: Callable[[str], None], *, last: str = "") -> None:
    """Print a table without its empty columns; the column `last` comes last."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    names.sort(key=lambda name: name == last)
    lines = [dict(zip(names, names, strict=True)), *rows]
    widths = [max(len(line.get(name, "")) for line in lines) for name in names]
    for line in lines:
        cells = [f"{line.get(name, ''):<{width}}" for name, width in zip(names, widths, strict=True)]
        print_line(sanitize("  " + "  ".join(cells).rstrip()))


def shorten_cell(text: str) -> str:
    """Cut a value to what a column can show."""
    return shorten(text, _MAX_CELL_LENGTH)
