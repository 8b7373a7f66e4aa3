"""Read the files that an experiment names: only regular files of bounded size, and patterns that look at bounded many.

`lines: /dev/zero` has no end, a FIFO never answers, `/**/*.png` may look at a whole disk, and `/proc/self/environ`
holds keys. `sweeper.loading.read_scope` decides which of the other files may be read, and resolves the paths; so
nothing here follows a link that took the place of a file since.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

MAX_TEXT_BYTES: Final = 64 * 1024 * 1024  # of one text file; the largest known workflows have 2 MB
MAX_INPUT_BYTES: Final = 16 * 1024**3  # of one file that a slot names, such as a film
MAX_ENTRIES: Final = 200_000  # files and folders that a pattern may look at
_MAX_PATTERN: Final = 4_096  # characters; `fnmatch` compiles some patterns in quadratic time
_MAX_DEPTHS: Final = 2  # `**` of a pattern
_SYSTEM_FOLDERS: Final = (Path("/proc"), Path("/sys"), Path("/dev"))
_MEMORY_DISK: Final = Path("/dev/shm")  # noqa: S108 - a disk in memory for everybody's files, and not of devices
_NON_BLOCKING: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a FIFO would wait otherwise
# O_PATH needs only the right to pass through a folder, as an ordinary `open` does.
_OPEN_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class BoundError(ValueError):
    """A file or pattern is beyond a limit. The message completes a sentence that begins with its name."""


def check_is_no_system_file(path: Path) -> None:
    """Raise BoundError for a resolved path below /proc, /sys or /dev: environments of processes, and devices."""
    if _is_system_file(path):
        raise BoundError(
            f"is in /{path.parts[1]}, where sweeper reads nothing; copy its content into a file of your own"
        )


def _is_system_file(path: Path) -> bool:
    is_below = any(path.is_relative_to(folder) for folder in _SYSTEM_FOLDERS)
    return is_below and not path.is_relative_to(_MEMORY_DISK)


def read_text_bytes(path: Path) -> bytes:
    """Read a text file at a resolved path. Raises OSError, BoundError."""
    with _open(path) as file:
        return _read_text(file)


def read_named_bytes(path: Path) -> bytes:
    """Read a text file that a person named on the command line, which may be a pipe. Raises OSError, BoundError."""
    if stat.S_ISFIFO(path.stat().st_mode) and not _is_system_file(Path(os.path.realpath(path))):
        raise BoundError("is a pipe in a folder, which may never answer; give a file")
    with path.open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            check_is_no_system_file(Path(os.path.realpath(path)))
        return _read_text(file)


def _read_text(file: BinaryIO) -> bytes:
    content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise BoundError(f"has more than {MAX_TEXT_BYTES:,} bytes")
    return content


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file at a resolved path as 64 hex digits. Raises OSError, BoundError."""
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_INPUT_BYTES:
            raise BoundError(f"has more than {MAX_INPUT_BYTES:,} bytes")
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    """Open a regular file at a resolved path. Raises BoundError for a device, a pipe or a socket."""
    file = os.fdopen(_open_without_links(path), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise BoundError("is not a regular file; copy its content into one")


def _open_without_links(path: Path) -> int:
    """Open a resolved path. Raises OSError if a part of it is a link by now, where the system can tell."""
    flags = os.O_RDONLY | _NON_BLOCKING
    if os.open not in os.supports_dir_fd:  # Windows, where making a link needs a right of its own
        return os.open(path, flags)
    folder = os.open(path.anchor, _OPEN_FOLDER)
    try:
        for part in path.parts[1:-1]:
            folder, above = os.open(part, _OPEN_FOLDER, dir_fd=folder), folder
            os.close(above)
        return os.open(path.name or ".", flags | getattr(os, "O_NOFOLLOW", 0), dir_fd=folder)
    finally:
        os.close(folder)


def find_matching_files(folder: Path, pattern: str, check: Callable[[Path], object]) -> set[Path]:
    """Return the files below `folder` that match a pattern of `pathlib`: `**` is any depth of folders, without links.

    `check` is called before it looks into a folder or follows a link, and may raise. Raises ValueError for a pattern
    that is not valid, and BoundError if it looks at too many files.
    """
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"has more than {_MAX_PATTERN:,} characters")
    parts = Path(pattern).parts
    if parts.count("**") > _MAX_DEPTHS:
        raise ValueError(f"has more than {_MAX_DEPTHS} **, which each look at all folders below; one is enough")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must stand alone between two /")
    found: set[Path] = set()
    for path in _Search(check).iter_matches(folder, parts):
        if path.is_symlink():
            check(path)
        if path.is_file():
            found.add(path)
    return found


class _Search:
    """One search, which counts the entries that it looks at."""

    def __init__(self, check: Callable[[Path], object]) -> None:
        self.entries = 0
        self.check = check

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
        else:
            self.check(folder)
            if not os.path.lexists(folder / parts[0]):
                return
            yield from self.iter_matches(folder / parts[0], parts[1:])

    def list_entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """List a folder; a folder that cannot be read has no entries."""
        self.check(folder)
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


def cut_pattern(pattern: Path) -> Path:
    """Return the folder of a pattern that certainly contains every match: the parts before the first wildcard."""
    parts = pattern.parts
    end = next((index for index, part in enumerate(parts) if set("*?[") & set(part)), len(parts))
    # `..` after a wildcard can lead out again.
    return Path(*parts[:end], *(part for part in parts[end:] if part == ".."))
