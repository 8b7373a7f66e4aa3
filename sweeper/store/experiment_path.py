"""Where a run's experiment file is, told so that it is found again: from any folder, and when all was moved together.

The database has the way to it from the results folder; people get the way from where they are. Stores of before that
have the way from where `sweeper run` was called, which holds as long as one stands there.
"""

from __future__ import annotations

import os
from pathlib import Path


def to_relative(results: Path, file: str) -> str:
    """The way from a results folder to a file, with `/`; what is no file stays as it is."""
    if not Path(file).is_file():
        return file
    try:
        return Path(os.path.relpath(file, results)).as_posix()
    except ValueError:  # another drive, on Windows
        return str(Path(file).absolute())


def from_relative(file: str, results: Path) -> str:
    """The way from here to a file that `seen_from` told, whole where it does not lie below here; what is not found
    stays as it is.
    """
    place = Path(os.path.normpath(results.absolute() / file))
    if not place.is_file():
        return file
    here = Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)
