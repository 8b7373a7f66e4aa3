"""The user's own names for servers: `targets.yaml` in the configuration folder, or the file $SWEEPER_TARGETS names.

Only read here; what an entry may hold, and that keys never stand in it, is `sweeper.comfy.target`'s affair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import Problem, UsageError
from sweeper.reading.source import SourceError, read_yaml

VARIABLE = "SWEEPER_TARGETS"


def targets_path(environ: Mapping[str, str]) -> Path:
    """Where the file is looked for: the place that the system has for a user's settings, unless the variable says."""
    if VARIABLE in environ:
        return Path(environ[VARIABLE]).expanduser()
    from platformdirs import user_config_path  # noqa: PLC0415 - only where a target may be named

    return user_config_path("sweeper", appauthor=False, roaming=True) / "targets.yaml"


def named_targets(environ: Mapping[str, str] | None = None) -> dict[str, str | dict[str, Any]]:
    """Name -> URL or mapping; empty where there is no file.

    Raises UsageError with every mistake in it, when it is no mapping of targets, and when the file that
    $SWEEPER_TARGETS names is missing.
    """
    from sweeper.reading.targets import named_problems  # noqa: PLC0415 - only where a target may be named

    environ = os.environ if environ is None else environ
    path = targets_path(environ)
    try:
        source = read_yaml(path.read_text("utf-8-sig"), str(path))
    except FileNotFoundError:
        if VARIABLE in environ:
            raise UsageError(Problem(str(path), 0, "", f"there is no such file; ${VARIABLE} names it")) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error}")) from error
    except SourceError as error:
        raise UsageError(error.problem) from error
    value = {} if source.value is None else source.value
    if not isinstance(value, dict):
        raise UsageError(source.problem((), "is no targets file: a mapping of names to URLs or mappings is needed"))
    sound = {name: entry for name, entry in value.items() if isinstance(entry, (str, dict))}
    wrong = [
        source.problem((name,), "a target is a URL or a mapping with `url`") for name in value if name not in sound
    ]
    wrong += [source.problem(place, message) for place, message in named_problems(sound)]
    if wrong:
        raise UsageError(wrong)
    return value
