"""Keep the paths that a store or a manifest names inside their folder, because a stranger may have written them."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

from sweeper.errors import ResultsError
from sweeper.model.urls import strip_secrets
from sweeper.schemas.values import format_value
from sweeper.store.artifacts import find_job_prefix
from sweeper.store.remote_artifacts import is_storage, is_url

_FORBIDDEN: Final = ("\\", ":", "\0")  # Windows reads the first two as a path too


def contain(folder: str | Path, name: str) -> str:
    """The path of a file that a store or a manifest in `folder` names, if it is inside the folder, links resolved.

    A folder inside may be a link elsewhere, as of a user who keeps the pictures on a larger disk; then the file must
    have a name that sweeper gives. Raises ResultsError for every other path. `check_artifact` also takes a URL.
    """
    path = os.path.join(folder, name)  # noqa: PTH118 - a tenth of the time of a Path, for every file of a run
    if not is_plain_path(name) or not _is_inside(str(folder), path, name):
        raise ResultsError(
            f"{format_value(name)} is not a file name in {folder}: it leads outside, so somebody may have made this "
            "folder to reach your files; delete the folder, or, if it is yours, copy the file into it"
        )
    return path


def is_plain_path(name: str) -> bool:
    """Whether a path is relative and goes down only, whatever links there are on its way."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and not any(mark in name for mark in _FORBIDDEN)


def refuse_links(*paths: Path, inside: Path | None = None) -> None:
    """Raise ResultsError if a file or folder of sweeper's own is a link, a device or a pipe.

    Otherwise sweeper would write to wherever the link leads. A link that stays `inside` a folder is allowed.
    """
    for path in paths:
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):  # nothing is there, or nothing can be
            continue
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            if inside is not None and path.exists() and _is_below(str(inside), str(path)):
                continue
            kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
            raise ResultsError(
                f"{path}: is {kind}, so somebody may have made this folder to reach your files; remove it, and run the "
                "same command again"
            )


def check_artifact(folder: str | Path, path: object, sha256: object) -> None:
    """Check the path of an artifact that a store in `folder` names. Raises ResultsError as `contain` does."""
    if not isinstance(path, str) or not isinstance(sha256, str):  # SQLite keeps any type in any column
        raise ResultsError(f"{folder}: names an artifact whose path or SHA-256 is not a text; the store is damaged")
    if not is_url(path):
        contain(folder, path)
    elif not is_storage(path):
        raise ResultsError(
            f"{folder}: names an artifact at {format_value(strip_secrets(path))}, where no run can have put it, so "
            "somebody may have made this folder to have you open that URL; delete the folder"
        )
    elif not sha256.isalnum():  # it becomes a part of the name of the downloaded file
        raise ResultsError(
            f"{folder}: names the artifact {format_value(path)} with {format_value(sha256)} as its SHA-256"
        )


def _is_inside(folder: str, path: str, name: str) -> bool:
    if os.path.islink(path):  # noqa: PTH114 - as above
        return _is_below(folder, path)
    return _is_folder_below(folder, os.path.dirname(path)) or find_job_prefix(name.rpartition("/")[2]) is not None  # noqa: PTH120


@lru_cache(maxsize=256)  # the files of a run are in one folder
def _is_folder_below(folder: str, path: str) -> bool:
    return _is_below(folder, path)


def _is_below(folder: str, path: str) -> bool:
    resolved = os.path.realpath(folder)
    return f"{os.path.realpath(path)}{os.sep}".startswith(f"{resolved.rstrip(os.sep)}{os.sep}")
