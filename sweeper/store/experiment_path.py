"""Store the experiment's path relative to the results folder, so that it still resolves after both are moved.

Older stores hold the path relative to the folder in which `sweeper run` was called.
"""

from __future__ import annotations

import os
from pathlib import Path

from sweeper.errors import ResultsError


def to_relative(results: Path, file: str) -> str:
    """The path of a file relative to the results folder, with `/`. Unchanged if there is no such file.

    Raises ResultsError for a name with bytes that are not UTF-8, because SQLite stores only Unicode.
    """
    name = os.fsencode(file).decode("utf-8", "backslashreplace")
    if name != file:
        raise ResultsError(
            f"{name}: the system's locale cannot read this file name; rename the file, or use a locale with UTF-8, "
            "such as `export LC_ALL=C.UTF-8`"
        )
    if not Path(file).is_file():
        return file
    try:
        return Path(os.path.relpath(file, results)).as_posix()
    except ValueError:  # another drive, on Windows
        return str(Path(file).absolute())


def from_relative(file: str, results: Path) -> str:
    """Resolve a path written by `to_relative`.

    The result is relative if it is below the current folder, absolute otherwise. Unchanged if there is no such file.
    """
    path = Path(os.path.normpath(results.absolute() / file))
    return display_path(path) if path.is_file() else file


def display_path(path: Path) -> str:
    """A path for people: relative to the current folder if it is below it, absolute otherwise."""
    current, absolute = Path.cwd(), Path(os.path.normpath(path.absolute()))
    return str(absolute.relative_to(current) if absolute.is_relative_to(current) else absolute)
