"""What an earlier report left in the folder and this one does not show: removed, so that who gets the folder gets no
picture that was taken out of the sweep.

A report may be written into a folder that holds other things. So only what is on record as a report's own is removed:
in the data of the report that is there, in its index of thumbnails, and among the artifacts of the store; and sprite
sheets, which are named as nothing else is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sweeper.reporting.check_findings import ACCEPTED_FOLDER
from sweeper.reporting.contents import FILES_FOLDER
from sweeper.reporting.sprites import is_sprite_sheet
from sweeper.reporting.thumbnails import THUMBS_FOLDER as THUMBS
from sweeper.reporting.thumbnails import iter_file_names

_FOLDERS: Final = (FILES_FOLDER, ACCEPTED_FOLDER, THUMBS)


def remove_stale_files(
    out: Path, data: Mapping[str, Any], artifacts: Iterable[tuple[str, str]], dropped_thumbs: Iterable[str]
) -> None:
    """Remove the files of earlier reports in `out` that are not among those of `shown`, this report's data; to be done
    before its data replaces that of the one before. `known`: name and SHA-256 of every artifact of the store, `thumbs`:
    the SHA-256 that the index of thumbnails had. Raises OSError.
    """
    own = {*_iter_report_files(_read_previous_data(out))}
    for name, sha in artifacts:
        own |= {f"{FILES_FOLDER}/{name}", *_iter_thumb_paths(sha)}
    for sha in dropped_thumbs:
        own.update(_iter_thumb_paths(sha))
    kept = {
        place.casefold() for place in _iter_report_files(data)
    }  # where a file system takes both for one name, both stay
    others = {place for place in own if place.casefold() not in kept}
    for folder in _FOLDERS:
        for name in _list_files(out, folder):
            place = f"{folder}/{name}"
            if place in others or (folder == THUMBS and is_sprite_sheet(name) and place not in kept):
                (out / folder / name).unlink(missing_ok=True)


def _list_files(out: Path, folder: str) -> list[str]:
    """What is in a folder of the report; nothing where it is a link: what is behind one is somebody's, and no copy."""
    path = out / folder
    if not path.is_dir() or path.resolve() != out.resolve() / folder:
        return []
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _read_previous_data(out: Path) -> Any:
    try:
        return json.loads((out / "data.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None  # there is none, or it is not a report's


def _iter_report_files(data: Any) -> Iterator[str]:
    """The files of a report by its data, relative to its folder; whatever else a file of that name may hold."""
    if not isinstance(data, Mapping):
        return
    files, sprites = data.get("files"), data.get("sprites")
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, Mapping):
            yield from (place for place in (entry.get("path"),) if isinstance(place, str))
            if isinstance(thumb := entry.get("thumb"), str):
                yield from _iter_thumb_paths(PurePosixPath(thumb).stem)
    sheets = sprites.get("sheets") if isinstance(sprites, Mapping) else None
    yield from (sheet for sheet in (sheets if isinstance(sheets, list) else ()) if isinstance(sheet, str))


def _iter_thumb_paths(sha: str) -> Iterator[str]:
    return (f"{THUMBS}/{name}" for name in iter_file_names(sha))
