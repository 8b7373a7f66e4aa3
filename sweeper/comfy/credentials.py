"""Read a target's key from an environment variable, or from a command such as `pass` or a keyring.

The command runs without a shell. sweeper never shows or stores what it writes: its output is the key, and its error
messages may quote the key.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from sweeper.errors import Problem, UsageError

_COMMAND_TIMEOUT: Final = 120.0  # seconds; a keyring may ask its owner for a password first


def read_key_from_command(words: Sequence[str]) -> str:
    """The first line of the command's output (password managers put the password there), stripped.

    It runs in the user's home folder, because the current folder may be a stranger's: `python -m`, Git and the shims of
    version managers read files there.

    Raises UsageError that names only the program, because its arguments and output may contain a secret.
    """
    program = PurePath(words[0]).name
    try:
        completed = subprocess.run(  # noqa: S603 (the user's own command, from the user's own file)
            list(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT, check=False,
            cwd=_find_own_folder(),
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError(f"`api_key_command`: there is no program '{program}'") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"`api_key_command`: '{program}' gave no key within {_COMMAND_TIMEOUT:g} seconds") from None
    except (OSError, ValueError):
        raise UsageError(f"`api_key_command`: '{program}' cannot be run") from None
    if completed.returncode != 0:
        problem = f"'{program}' ended with code {completed.returncode}; run it by hand to see why"
        raise UsageError(f"`api_key_command`: {problem}")
    return next(iter(completed.stdout.decode("utf-8", "replace").splitlines()), "").strip()


def _find_own_folder() -> Path:
    """The user's home folder; the folder of this Python if there is none, as in some containers."""
    try:
        return Path.home().resolve(strict=True)
    except (OSError, RuntimeError):
        return Path(sys.prefix)


def read_key_from_variable(variable: str, environ: Mapping[str, str]) -> str | None:
    """The value of an environment variable; None if it is unset or empty."""
    return environ.get(variable, "").strip() or None


def validate_key(key: str, source: str) -> str:
    """Return the key if it can be sent in a header. Raises UsageError, which does not quote it."""
    if not key:
        raise UsageError(f"the key from {source} is empty")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the key from {source} contains unprintable characters")
    return key


def with_location(location: str, error: UsageError) -> UsageError:
    """The same error, reported for `location` (such as `target gpu`)."""
    return UsageError(Problem(problem.file, problem.line, location, problem.message) for problem in error.problems)
