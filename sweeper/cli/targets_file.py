"""The user's own names for servers: `targets.yaml` in the configuration folder, or the file $SWEEPER_TARGETS names.

Only read here; what an entry may hold, and that keys never stand in it, is `sweeper.model.target_spec`' affair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import Problem, UsageError
from sweeper.loading.parse import parse_yaml
from sweeper.model.source import SourceError

if TYPE_CHECKING:
    from sweeper.model.target_spec import InvalidEntry, TargetSpec

TARGETS_VARIABLE = "SWEEPER_TARGETS"


def get_targets_path(environ: Mapping[str, str]) -> Path:
    """Where the file is looked for: the place that the system has for a user's settings, unless the variable says."""
    if TARGETS_VARIABLE in environ:
        return Path(environ[TARGETS_VARIABLE]).expanduser()
    from platformdirs import user_config_path  # noqa: PLC0415 - only where a target may be named

    return user_config_path("sweeper", appauthor=False, roaming=True) / "targets.yaml"


def load_named_targets(environ: Mapping[str, str] | None = None) -> dict[str, TargetSpec | InvalidEntry]:
    """Name -> URL or mapping; empty where there is no file. An entry with a mistake is a `Broken`, which tells it where
    that name is meant: it stops nothing else.

    Raises UsageError for a file that is no mapping of targets, and when the one that $SWEEPER_TARGETS names is missing.
    """
    from sweeper.model.target_spec import InvalidEntry, find_entry_problems  # noqa: PLC0415 - only where a target may be named

    environ = os.environ if environ is None else environ
    path = get_targets_path(environ)
    try:
        source = parse_yaml(path.read_text("utf-8-sig"), str(path))
    except FileNotFoundError:
        if TARGETS_VARIABLE in environ:
            raise UsageError(
                Problem(str(path), 0, "", f"there is no such file; ${TARGETS_VARIABLE} names it")
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error}")) from error
    except SourceError as error:
        raise UsageError(error.problem) from error
    value = {} if source.value is None else source.value
    if not isinstance(value, dict):
        raise UsageError(
            source.make_problem((), "is no targets file: a mapping of names to URLs or mappings is needed")
        )
    found: dict[str, TargetSpec | InvalidEntry] = {}
    for name, entry in value.items():
        sound = isinstance(entry, (str, dict))
        wrong = (
            find_entry_problems({name: entry}) if sound else [((name,), "a target is a URL or a mapping with `url`")]
        )
        found[name] = (
            InvalidEntry(tuple(sorted(source.make_problem(place, said) for place, said in wrong))) if wrong else entry
        )
    return found


def load_names_unless_given(targets: Sequence[str] | None) -> dict[str, TargetSpec | InvalidEntry] | None:
    """The user's names, for loading an experiment whose own target is meant; None where the command line has others.

    Raises what `named_targets` does.
    """
    return load_named_targets() if targets is None else None
