"""Keep the paths that a store or a manifest names inside their folder, because a stranger may have written them.

The experiment's path is stored relative to the results folder, so that it still resolves after both are moved.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from sweeper.errors import ResultsError
from sweeper.files import find_name_problem
from sweeper.model.urls import strip_secrets
from sweeper.schemas.values import format_value
from sweeper.store.file_names import find_job_prefix, is_artifact_name
from sweeper.store.remote_artifacts import is_storage, is_url

_FORBIDDEN: Final = ("\\", ":", "\0")  # Windows reads the first two as a path too
_ORDINARY: Final = re.compile(r"[0-9][\w.-]*\w")  # a name as runs make them: no device, and nothing that is forbidden


def contain(folder: str | Path, name: str, sha256: str | None = None) -> str:
    """The path of a file that a store or a manifest in `folder` names, if it is inside the folder, links resolved.

    A folder inside may be a link elsewhere, as of a user who keeps the pictures on a larger disk. Then the file must
    have a name of ours with a job's id, which nobody guesses, or the content of this SHA-256, which its writer knows
    already. Raises ResultsError for every other path. `check_artifact` also takes a URL.
    """
    path = os.path.join(folder, name)  # noqa: PTH118 - a tenth of the time of a Path, for every file of a run
    if not is_plain_path(name) or not _is_inside(str(folder), path, name, sha256):
        raise ResultsError(
            f"{format_value(name)} is not a file name in {folder}: it leads outside, so somebody may have made this "
            "folder to reach your files; delete the folder, or, if it is yours, copy the file into it"
        )
    return path


def is_plain_path(name: str) -> bool:
    """Whether a path is relative and goes down only, whatever links there are on its way."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or find_name_problem(part) is not None for part in parts):
        return False
    return not any(mark in name for mark in _FORBIDDEN)


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
        contain(folder, path, sha256)
    elif not is_storage(path):
        raise ResultsError(
            f"{folder}: names an artifact at {format_value(strip_secrets(path))}, where no run can have put it, so "
            "somebody may have made this folder to have you open that URL; delete the folder"
        )
    elif not sha256.isalnum():  # it becomes a part of the name of the downloaded file
        raise ResultsError(
            f"{folder}: names the artifact {format_value(path)} with {format_value(sha256)} as its SHA-256"
        )


def make_artifact_check(folder: Path) -> Callable[[object, object], None]:
    """Return `check_artifact` of a folder, for many files at once: it reads each subfolder once."""
    plain: dict[str, frozenset[str]] = {}  # by subfolder: its files that are no links; empty if it leads outside

    def check(path: object, sha256: object) -> None:
        if isinstance(path, str) and isinstance(sha256, str):
            subfolder, _, name = path.rpartition("/")
            if subfolder not in plain:
                plain[subfolder] = _list_plain_files(folder, subfolder)
            if name in plain[subfolder] and _ORDINARY.fullmatch(name) is not None:
                return
        check_artifact(folder, path, sha256)

    return check


def _list_plain_files(folder: Path, subfolder: str) -> frozenset[str]:
    if not is_plain_path(subfolder) or not _is_folder_below(str(folder), str(folder / subfolder)):
        return frozenset()
    try:
        with os.scandir(folder / subfolder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return frozenset()


def _is_inside(folder: str, path: str, name: str, sha256: str | None) -> bool:
    if os.path.islink(path):  # noqa: PTH114 - as above
        return _is_below(folder, path)
    if _is_folder_below(folder, os.path.dirname(path)):  # noqa: PTH120
        return True
    file_name = name.rpartition("/")[2]
    if find_job_prefix(file_name) is not None:
        return True
    return sha256 is not None and is_artifact_name(file_name) and _has_content(Path(path), sha256)


def _has_content(path: Path, sha256: str) -> bool:
    """Whether a file has this content. Also True if it is gone, because then there is nothing to reach."""
    try:
        facts = path.stat()
    except OSError:
        return True
    return stat.S_ISREG(facts.st_mode) and _hash_file(path, facts.st_mtime_ns, facts.st_size) == sha256


@lru_cache(maxsize=100_000)  # a command reads the rows several times
def _hash_file(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@lru_cache(maxsize=256)  # the files of a run are in one folder
def _is_folder_below(folder: str, path: str) -> bool:
    return _is_below(folder, path)


def _is_below(folder: str, path: str) -> bool:
    resolved = os.path.realpath(folder)
    return f"{os.path.realpath(path)}{os.sep}".startswith(f"{resolved.rstrip(os.sep)}{os.sep}")


def to_relative(results: Path, file: str) -> str:
    """The path of a file relative to the results folder, with `/`. Unchanged if there is no such file.

    Raises ResultsError for a name with bytes that are not UTF-8, because SQLite stores only Unicode.
    """
    name = os.fsencode(file).decode("utf-8", "backslashreplace")
    if name != file:
        raise ResultsError(
            f"{name}: the system's locale cannot read this file name; rename the file, or use a locale with UTF-8, "
            "such as `export LC_ALL=C.UTF-8`"
        )
    if not Path(file).is_file():
        return file
    try:
        return Path(os.path.relpath(file, results)).as_posix()
    except ValueError:  # another drive, on Windows
        return str(Path(file).absolute())


def from_relative(file: str, results: Path) -> str:
    """Resolve a path written by `to_relative`.

    The result is relative if it is below the current folder, absolute otherwise. Unchanged if there is no such file.
    """
    path = Path(os.path.normpath(results.absolute() / file))
    return display_path(path) if path.is_file() else file


def display_path(path: Path) -> str:
    """A path for people: relative to the current folder if it is below it, absolute otherwise."""
    current, absolute = Path.cwd(), Path(os.path.normpath(path.absolute()))
    return str(absolute.relative_to(current) if absolute.is_relative_to(current) else absolute)
