"""Removes files of earlier reports, so that a shared folder does not contain pictures that left the sweep.

The folder may hold other files too. Therefore only files that are known to be a report's are removed: those in the
previous report's data or in its index of thumbnails, artifacts of the store, and sprite sheets by their unique names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.files import PART_NAME
from sweeper.reporting.check_findings import ACCEPTED_FOLDER
from sweeper.reporting.contents import FILES_FOLDER
from sweeper.reporting.sprites import is_sprite_sheet
from sweeper.reporting.thumbnails import THUMBS_FOLDER, iter_file_names

_FOLDERS: Final = (FILES_FOLDER, ACCEPTED_FOLDER, THUMBS_FOLDER)


def remove_stale_files(
    out: Path, data: Mapping[str, Any], artifacts: Iterable[tuple[str, str]], dropped_thumbs: Iterable[str]
) -> None:
    """Remove the files of earlier reports that this report does not show. Call it before `data.json` is replaced.

    `data` is this report's. `artifacts`: name and SHA-256 of every artifact of the store; `dropped_thumbs`: SHA-256 of
    the thumbnails that left the index. Raises OSError.
    """
    own = {*_iter_report_files(_read_previous_data(out))}
    for name, sha in artifacts:
        own |= {f"{FILES_FOLDER}/{name}", *_iter_thumb_paths(sha)}
    for sha in dropped_thumbs:
        own.update(_iter_thumb_paths(sha))
    # Compare without case, because some file systems take both spellings for one file.
    shown = {path.casefold() for path in _iter_report_files(data)}
    stale = {path for path in own if path.casefold() not in shown}
    for folder in _FOLDERS:
        for name in _list_files(out, folder):
            path = f"{folder}/{name}"
            is_own = PART_NAME.fullmatch(name) or (folder == THUMBS_FOLDER and is_sprite_sheet(name))
            if path in stale or (is_own and path not in shown):
                (out / folder / name).unlink(missing_ok=True)


def _list_files(out: Path, folder: str) -> list[str]:
    """The files in a folder of the report; none if the folder is a link, because its target is not the report's."""
    path = out / folder
    if not path.is_dir() or path.resolve() != out.resolve() / folder:
        return []
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _read_previous_data(out: Path) -> Any:
    try:
        return json.loads((out / "data.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None  # there is none, or another program wrote it


def _iter_report_files(data: Any) -> Iterator[str]:
    """The files that a report's data names, relative to its folder. Accepts any JSON value."""
    if not isinstance(data, Mapping):
        return
    files, sprites = data.get("files"), data.get("sprites")
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, Mapping):
            if isinstance(path := entry.get("path"), str):
                yield path
            if isinstance(thumb := entry.get("thumb"), str):
                yield from _iter_thumb_paths(PurePosixPath(thumb).stem)
    sheets = sprites.get("sheets") if isinstance(sprites, Mapping) else None
    yield from (sheet for sheet in (sheets if isinstance(sheets, list) else ()) if isinstance(sheet, str))


def _iter_thumb_paths(sha: str) -> Iterator[str]:
    return (f"{THUMBS_FOLDER}/{name}" for name in iter_file_names(sha))
