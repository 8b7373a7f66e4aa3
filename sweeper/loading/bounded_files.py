"""Read the files that an experiment names: only regular files of bounded size, and patterns that look at bounded many.

`lines: /dev/zero` has no end, a FIFO never answers, and `/**/*.png` may look at a whole disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, Final

MAX_TEXT_BYTES: Final = 64 * 1024 * 1024  # of one text file; the largest known workflows have 2 MB
MAX_INPUT_BYTES: Final = 16 * 1024**3  # of one file that a slot names, such as a film
MAX_ENTRIES: Final = 200_000  # files and folders that a pattern may look at
_CHUNK: Final = 1 << 20
_NON_BLOCKING: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a FIFO would wait otherwise


class BoundError(ValueError):
    """A file or pattern is beyond a limit. The message completes a sentence that begins with its name."""


def read_text_bytes(path: Path, *, is_regular: bool = True) -> bytes:
    """Read a text file. `is_regular` False: the user named it, so it may be a pipe. Raises OSError, BoundError."""
    with _open(path) if is_regular else path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise BoundError(f"has more than {MAX_TEXT_BYTES:,} bytes")
    return content


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file as 64 hex digits. Raises OSError, BoundError."""
    hasher = hashlib.sha256()
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_INPUT_BYTES:
            raise BoundError(f"has more than {MAX_INPUT_BYTES:,} bytes")
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _open(path: Path) -> BinaryIO:
    """Open a regular file. Raises BoundError for a device, a pipe or a socket."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise BoundError("is not a regular file; copy its content into one")
    file = os.fdopen(os.open(path, os.O_RDONLY | _NON_BLOCKING), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it was replaced meanwhile
        file.close()
        raise BoundError("is not a regular file; copy its content into one")
    return file


def find_matching_files(folder: Path, pattern: str) -> set[Path]:
    """Return the files below `folder` that match a pattern of `pathlib`: `**` is any depth of folders, without links.

    Raises ValueError for a pattern that is not valid, and BoundError if it looks at too many files.
    """
    parts = Path(pattern).parts
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must stand alone between two /")
    return {path for path in _Search().iter_matches(folder, parts) if path.is_file()}


class _Search:
    """One search, which counts the entries that it looks at."""

    def __init__(self) -> None:
        self.entries = 0

    def iter_matches(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        if not parts:
            yield folder
        elif parts[0] == "**":
            yield from self.iter_matches(folder, parts[1:])
            for entry in self.list_entries(folder):
                if entry.is_dir(follow_symlinks=False):
                    yield from self.iter_matches(folder / entry.name, parts)
        elif any(letter in parts[0] for letter in "*?["):
            for entry in self.list_entries(folder):
                if fnmatch(_compose(entry.name), _compose(parts[0])) and (len(parts) == 1 or entry.is_dir()):
                    yield from self.iter_matches(folder / entry.name, parts[1:])
        elif (folder / parts[0]).exists():
            yield from self.iter_matches(folder / parts[0], parts[1:])

    def list_entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """List a folder; a folder that cannot be read has no entries."""
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as opened:
                for entry in opened:
                    self.entries += 1
                    if self.entries > MAX_ENTRIES:
                        raise BoundError(f"looks at more than {MAX_ENTRIES:,} files and folders; name the folder")
                    entries.append(entry)
        except OSError:
            return []
        return entries


def _compose(name: str) -> str:
    """Return the name with composed letters, because macOS may store "é" as "e" and an accent."""
    return unicodedata.normalize("NFC", name)
