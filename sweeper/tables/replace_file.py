"""Rename a file over one that another program may have open, which Windows refuses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

# The errors of Windows for an open file: access denied, sharing violation, lock violation
# (https://learn.microsoft.com/windows/win32/debug/system-error-codes--0-499-).
_IN_USE: Final = (5, 32, 33)
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds; a virus scanner or a search index closes a new file within them


def replace_file(source: Path, destination: Path) -> None:
    """Rename a file to `destination`, which may exist. Retries for less than a second if it is open elsewhere.

    Raises OSError; if the file stays open, PermissionError with its name and the next step.
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
