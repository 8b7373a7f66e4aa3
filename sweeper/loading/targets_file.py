"""Load the user's named targets from `targets.yaml` in the configuration folder, or from the file $SWEEPER_TARGETS.

Validating the entries, which never contain keys, belongs to `sweeper.model.target_spec`.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_config_path

from sweeper.errors import Problem, UsageError
from sweeper.loading.parse import parse_yaml
from sweeper.model.launch_spec import anchor_launches
from sweeper.model.source import Source, SourceError
from sweeper.model.target_spec import InvalidEntry, TargetGroup, TargetSpec, find_entry_problems, find_group_problems
from sweeper.schemas.values import KeyPath

TARGETS_VARIABLE = "SWEEPER_TARGETS"


def get_user_file(variable: str, name: str) -> Path:
    """The path of a user's own file: from a variable of `os.environ`, or in the system's folder for user settings."""
    given = os.environ.get(variable)
    config = user_config_path("sweeper", appauthor=False, roaming=True)
    return config / name if given is None else Path(given).expanduser()


def load_named_targets() -> dict[str, TargetSpec | TargetGroup | InvalidEntry]:
    """Return what each name stands for: a URL, a mapping, or a list of these and of other names. Without a file: {}.

    An entry with mistakes becomes an InvalidEntry, whose problems are raised only if a command uses that name. Raises
    UsageError if the file is not a mapping of targets, or if $SWEEPER_TARGETS names a file that does not exist.
    """
    path = get_user_file(TARGETS_VARIABLE, "targets.yaml")
    try:
        source = parse_yaml(path.read_text("utf-8-sig"), str(path))
    except FileNotFoundError:
        if TARGETS_VARIABLE in os.environ:
            message = f"there is no such file; ${TARGETS_VARIABLE} names it"
            raise UsageError(Problem(str(path), 0, "", message)) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error}")) from error
    except SourceError as error:
        raise UsageError(error.problem) from error
    value = {} if source.value is None else source.value
    if not isinstance(value, dict):
        raise UsageError(source.make_problem((), "not a targets file: write a mapping of names to URLs or mappings"))
    return {
        name: anchor_launches(_check_entry(source, name, entry), path.parent.absolute())
        for name, entry in value.items()
    }


def _check_entry(source: Source, name: str, entry: object) -> TargetSpec | TargetGroup | InvalidEntry:
    mistakes: list[tuple[KeyPath, str]] = [
        ((name,), "a target is a URL or a mapping with `url` or `launch`, or a list of targets")
    ]
    if isinstance(entry, list | tuple):
        mistakes = find_group_problems({name: entry}, source.value, knows_all=True)
        if not mistakes:
            return entry
    elif isinstance(entry, (str, dict)):
        mistakes = find_entry_problems({name: entry})
        if not mistakes:
            return entry
    return InvalidEntry(tuple(sorted(source.make_problem(path, message) for path, message in mistakes)))
