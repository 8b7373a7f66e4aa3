"""The folders that the user trusts: `trusted.json` in the configuration folder, or the file $SWEEPER_TRUST_FILE.

What needs trust is known to `sweeper.loading.trust`, and the command line asks for it in `sweeper.cli.trust_check`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from platformdirs import user_config_path

from sweeper.errors import Problem, UsageError
from sweeper.files import atomic_write

TRUST_VARIABLE: Final = "SWEEPER_TRUST_FILE"
_KEY: Final = "folders"


def get_trust_path(environ: Mapping[str, str] | None = None) -> Path:
    """The path of the file: from $SWEEPER_TRUST_FILE, or in the system's folder for user settings."""
    environ = os.environ if environ is None else environ
    if TRUST_VARIABLE in environ:
        return Path(environ[TRUST_VARIABLE]).expanduser()
    return user_config_path("sweeper", appauthor=False, roaming=True) / "trusted.json"


def load_trusted_folders() -> tuple[Path, ...]:
    """The trusted folders, sorted; none if there is no file. Raises UsageError if the file is unusable."""
    path = get_trust_path()
    try:
        value = json.loads(path.read_text("utf-8"))
        folders = sorted(map(Path, value[_KEY]))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        message = "is not a list of trusted folders; delete it, and trust your folders again with `sweeper trust DIR`"
        raise UsageError(Problem(str(path), 0, "", message)) from error
    return tuple(folders)


def add_trusted_folder(folder: Path) -> None:
    """Trust a folder from now on. Raises UsageError if the file cannot be read or written."""
    _save_folders({*load_trusted_folders(), folder.resolve()})


def remove_trusted_folder(folder: Path) -> bool:
    """Trust a folder no longer. Returns whether it was trusted. Raises UsageError as `add_trusted_folder` does."""
    folders, resolved = set(load_trusted_folders()), folder.resolve()
    if resolved not in folders:
        return False
    _save_folders(folders - {resolved})
    return True


def _save_folders(folders: Iterable[Path]) -> None:
    path = get_trust_path()
    text = json.dumps({_KEY: sorted(map(str, folders))}, ensure_ascii=False, indent=1)
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", "surrogatepass") + b"\n")
    except OSError as error:
        raise UsageError(Problem(str(path), 0, "", f"cannot be written: {error.strerror}")) from error
