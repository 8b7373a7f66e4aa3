"""Replace a file as a whole: readers see the old content or the new one, and a failed write changes nothing.

And which names a file or folder can have on every system that sweeper runs on.
"""

from __future__ import annotations

import errno
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

# The errors of Windows for an open file: access denied, sharing violation, lock violation
# (https://learn.microsoft.com/windows/win32/debug/system-error-codes--0-499-).
_IN_USE: Final = (5, 32, 33)
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds; a virus scanner or a search index closes a new file within them


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` at the end of the block, or is deleted if the block raises.

    Creates the folder if necessary.
    """
    if not path.name:  # an empty text is the current folder
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file", str(path))
    # Nobody can guess this name, so that in a folder from elsewhere it is no link to another file.
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            file = temporary.open("xb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb")
    except OSError as error:
        # The message names `path`, because the user does not know `temporary`.
        raise type(error)(error.errno, describe_write_error(path, error), str(path)) from None
    try:
        with file as handle:
            yield handle
        replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, and leave no part of it if the disk is full. Raises OSError."""
    stream = path.open("xb")  # x: writes into no file and through no link that is there
    try:
        with stream:
            stream.write(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def describe_write_error(path: Path, error: OSError) -> str:
    """Explain why `path` cannot be written: a file in place of a folder, or else the system's message."""
    for folder in reversed(path.parents):
        if folder.exists() and not folder.is_dir():
            return f"{folder} is a file, and a folder is needed there"
    return error.strerror or str(error)


def replace_file(source: Path, destination: Path) -> None:
    """Rename a file to `destination`, which may exist and be open in another program, which Windows refuses.

    Retries for less than a second. Raises OSError; if the file stays open, PermissionError with its name and the next
    step.
    """
    for pause in (*_PAUSES, None):
        try:
            source.replace(destination)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _IN_USE:  # only Windows has these numbers
                raise
            if pause is None:
                text = "another program has this file open; close it there, and run the same command again"
                raise PermissionError(error.errno, text, str(destination)) from None
            time.sleep(pause)
        else:
            return


# Windows takes these for devices in every folder, whatever follows a dot or colon ("Naming Files, Paths, and
# Namespaces" in Microsoft's documentation).
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *([.:].*)?", re.IGNORECASE | re.DOTALL
)


def find_name_problem(name: str) -> str | None:
    """Why no file or folder on Windows can have a name, as the end of a sentence about it; None if one can."""
    if name.endswith((".", " ")):
        return "ends in a dot or a space, which Windows leaves out of names"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows, so no file or folder there can have this name"
    return None


def make_portable(name: str, prefix: str) -> str:
    """The name without dots and spaces at its end, and after a prefix if it is that of a device."""
    name = name.rstrip(". ")
    return name if find_name_problem(name) is None else f"{prefix}-{name}"
