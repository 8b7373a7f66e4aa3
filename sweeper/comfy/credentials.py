"""Where a target's key comes from: an environment variable, or a command such as a keyring's.

The command is run without a shell, and nothing that it writes is ever shown or kept: its output is the key, and its
complaints may quote it. What a key is for is `target`'s and `client`'s business.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from sweeper.errors import Problem, UsageError

_COMMAND_TIMEOUT: Final = 120.0  # seconds: a keyring may have to ask its owner for a password first


def read_key_from_command(words: Sequence[str]) -> str:
    """The first line that the command writes (as `pass` and its kind have it), without the space around it.

    Raises UsageError, which names the program only: its arguments and its output may hold a secret.
    """
    program = PurePath(words[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command, from the user's own file
            list(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise UsageError(f"`api_key_command`: there is no program '{program}'") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"`api_key_command`: '{program}' gave no key within {_COMMAND_TIMEOUT:g} seconds") from None
    except (OSError, ValueError):
        raise UsageError(f"`api_key_command`: '{program}' cannot be run") from None
    if done.returncode != 0:
        raise UsageError(f"`api_key_command`: '{program}' ended with code {done.returncode}; run it by hand to see why")
    return next(iter(done.stdout.decode("utf-8", "replace").splitlines()), "").strip()


def read_key_from_variable(variable: str, environ: Mapping[str, str]) -> str | None:
    """The value of an environment variable, None where it is not set or empty."""
    return environ.get(variable, "").strip() or None


def validate_key(key: str, source: str) -> str:
    """The key, if it can be one. Raises UsageError, without it."""
    if not key:
        raise UsageError(f"{source} gives an empty key")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"{source} gives what cannot be a key: it holds unprintable characters")
    return key


def with_location(location: str, error: UsageError) -> UsageError:
    """The same error, said of a place."""
    return UsageError(Problem(problem.file, problem.line, location, problem.message) for problem in error.problems)
