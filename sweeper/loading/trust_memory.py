"""What the user allowed the experiments of each folder: `trusted.json` in the configuration folder.

`$SWEEPER_TRUST_FILE` names another file. `sweeper.loading.trust` finds what an experiment needs, and the command line
asks for it in `sweeper.cli.trust_check`. A grant belongs to one folder and not to those below it, because a clone in a
trusted folder is a stranger's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from platformdirs import user_config_path

from sweeper.errors import Problem, UsageError
from sweeper.files import atomic_write

TRUST_VARIABLE: Final = "SWEEPER_TRUST_FILE"
_KEY: Final = "folders"

Grants = Mapping[Path, frozenset[str]]  # by the resolved folder of the experiments


def get_trust_path(environ: Mapping[str, str] | None = None) -> Path:
    """The path of the file: from $SWEEPER_TRUST_FILE, or in the system's folder for user settings."""
    environ = os.environ if environ is None else environ
    if TRUST_VARIABLE in environ:
        return Path(environ[TRUST_VARIABLE]).expanduser()
    return user_config_path("sweeper", appauthor=False, roaming=True) / "trusted.json"


def load_grants() -> Grants:
    """The grants of each folder; none if there is no file. Raises UsageError if the file is unusable."""
    path = get_trust_path()
    try:
        folders = json.loads(path.read_text("utf-8"))[_KEY]
        grants = {Path(folder): frozenset(_check_texts(texts)) for folder, texts in folders.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = "is not a list of trusted folders; delete it, and trust your folders again with `sweeper trust DIR`"
        raise UsageError(Problem(str(path), 0, "", message)) from error
    return grants


def _check_texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError
    return value


def add_grants(folder: Path, grants: Collection[str]) -> None:
    """Allow the experiments in a folder more from now on. Raises UsageError if the file cannot be read or written."""
    known, resolved = load_grants(), folder.resolve()
    _save({**known, resolved: known.get(resolved, frozenset()) | frozenset(grants)})


def remove_grants(folder: Path) -> bool:
    """Forget what a folder and those below it were allowed. Returns whether there was something to forget.

    Raises UsageError as `add_grants` does.
    """
    known, resolved = load_grants(), folder.resolve()
    kept = {home: grants for home, grants in known.items() if not home.is_relative_to(resolved)}
    if len(kept) == len(known):
        return False
    _save(kept)
    return True


def _save(folders: Grants) -> None:
    path = get_trust_path()
    value = {_KEY: {str(folder): sorted(grants) for folder, grants in sorted(folders.items())}}
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", "surrogatepass") + b"\n")
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be written: {error.strerror}")) from error
