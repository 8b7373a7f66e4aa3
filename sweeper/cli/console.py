"""Output of the commands: data on stdout in UTF-8 whatever the locale, everything else on stderr.

Colour appears only on a terminal. The texts themselves belong to the commands.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from sweeper.answers.cells import sanitize
from sweeper.answers.parts import Answer, Fail, Note, Part, Warn
from sweeper.answers.render import render_text, to_json
from sweeper.files import atomic_write
from sweeper.wording import encode_text

_COLOURS = {"red": 31, "green": 32, "yellow": 33}


def print_line(text: str = "") -> None:
    data = (text + "\n").encode("utf-8", "replace")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # stdout was replaced by a text stream
        sys.stdout.write(text + "\n")
    else:
        sys.stdout.flush()
        buffer.write(data)
        buffer.flush()


def open_output(file: str, files: ExitStack) -> BinaryIO:
    """The stream of a FILE or `-` option: a file that appears as a whole when `files` closes it, or stdout."""
    return sys.stdout.buffer if file == "-" else files.enter_context(atomic_write(Path(file)))


def write_lines(lines: Iterable[str], file: str) -> None:
    """Write lines to a file as a whole, or to stdout if its name is `-`."""
    with ExitStack() as files:
        handle = open_output(file, files)
        handle.writelines(map(encode_text, lines))
        handle.flush()


def print_status(text: str = "") -> None:
    # A run that costs money must go on even if its terminal is closed.
    with suppress(OSError):
        try:
            sys.stderr.write(text + "\n")
        except UnicodeEncodeError:
            sys.stderr.write(text.encode("ascii", "backslashreplace").decode() + "\n")
        sys.stderr.flush()


def print_error(text: str) -> None:
    print_status(f"{paint('error:', 'red')} {sanitize(text)}")


def warn(text: str) -> None:
    print_status(f"{paint('warning:', 'yellow')} {sanitize(text)}")


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


def print_answer(answer: Answer, *, as_json: bool, on_stderr: bool = False) -> None:
    """Print an answer on stdout: its fields as JSON, or its words and tables; with these, its warnings on stderr.

    `on_stderr`: print the words and tables there, because stdout has other data.
    """
    if as_json:
        print_json(answer)
        return
    parts = tuple(answer.parts())
    if on_stderr:
        for line in render_text(parts):
            print_status(line)
    else:
        print_parts(parts)
    print_warnings(parts)


def print_warnings(parts: Iterable[Part]) -> None:
    """Print on stderr what an answer says there: warnings, errors and notes."""
    for part in parts:
        match part:
            case Warn():
                warn(part.text)
            case Fail():
                print_error(part.text)
            case Note():
                print_status(sanitize(part.text))


def print_json(value: Any) -> None:
    print_line(format_json(value))


def format_json(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False, indent=2, allow_nan=False)


def print_parts(parts: Iterable[Part]) -> None:
    """Print words and tables on stdout. On a terminal, tables are cut to its width."""
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    for line in render_text(parts, width, bold=is_colour_enabled(sys.stdout)):
        print_line(line)
