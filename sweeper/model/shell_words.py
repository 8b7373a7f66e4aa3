"""Join words to a command that the user can paste into a shell: of POSIX, or cmd and PowerShell on Windows."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from typing import Final

_PLAIN: Final = re.compile(r"[\w./:\\=+-]+")  # what neither cmd nor PowerShell interprets


def join_command(words: Sequence[str], platform: str = sys.platform) -> str:
    """Return the command of these words, each quoted if a shell of the platform (as `sys.platform`) needs that.

    On Windows only double quotes serve both shells. Within them, programs read a backslash before a quote as its
    escape (https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments).
    """
    if platform != "win32":
        return shlex.join(words)
    return " ".join(word if _PLAIN.fullmatch(word) else _quote_for_windows(word) for word in words)


def _quote_for_windows(word: str) -> str:
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'
