"""The user's own names for servers: `targets.yaml` in the configuration folder, or the file $SWEEPER_TARGETS names.

Only read here; what an entry may hold, and that keys never stand in it, is `sweeper.comfy.target`'s affair.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import Problem, UsageError
from sweeper.reading.source import SourceError, read_yaml

VARIABLE = "SWEEPER_TARGETS"


def targets_path(environ: Mapping[str, str]) -> Path:
    """Where the file is looked for: XDG's folder, or Windows' own."""
    if VARIABLE in environ:
        return Path(environ[VARIABLE]).expanduser()
    if sys.platform == "win32":
        base = environ.get("APPDATA") or Path.home() / "AppData" / "Roaming"
    else:
        base = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "sweeper" / "targets.yaml"


def named_targets(environ: Mapping[str, str] | None = None) -> dict[str, str | dict[str, Any]]:
    """Name -> URL or mapping; empty where there is no file.

    Raises UsageError when the file that $SWEEPER_TARGETS names is missing, or when it is no mapping of targets.
    """
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
    wrong = [
        source.problem((name,), "a target is a URL or a mapping with `url`")
        for name, entry in value.items()
        if not isinstance(entry, (str, dict))
    ]
    if wrong:
        raise UsageError(wrong)
    return value
