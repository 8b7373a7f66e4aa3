"""The files in the folder `inputs/` of an experiment: list them, and add what the page uploads."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Final

from sweeper.errors import UsageError
from sweeper.files import write_new
from sweeper.images.file_types import FILM_TYPES, PICTURE_SUFFIXES, SOUND_TYPES
from sweeper.model.portable_names import make_portable
from sweeper.wording import shorten

INPUTS: Final = "inputs"
MAX_UPLOAD: Final = 64 * 2**20  # bytes
_SUFFIXES: Final = PICTURE_SUFFIXES | {f".{name}" for name in FILM_TYPES | SOUND_TYPES}
_MAX_STEM: Final = 60  # characters, of up to 4 bytes


def decode_upload(content: str) -> bytes:
    """The bytes of an upload in base64. Raises UsageError if it is something else, or too large."""
    try:
        data = base64.b64decode(content, validate=True)
    except ValueError:
        raise UsageError("the content of the upload is not base64") from None
    if len(data) > MAX_UPLOAD:
        raise UsageError(f"the file is larger than {MAX_UPLOAD // 2**20} MiB; put it into the folder {INPUTS} yourself")
    return data


def list_input_files(folder: Path) -> dict[str, Path]:
    """The pictures, films and sounds in `inputs/` of a folder, by name, without links and hidden files."""
    inputs = folder / INPUTS
    if inputs.is_symlink() or not inputs.is_dir():
        return {}
    with os.scandir(inputs) as entries:
        return {entry.name: Path(entry.path) for entry in entries if _is_shown(entry)}


def _is_shown(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return entry.is_file(follow_symlinks=False) and not name.startswith(".") and _get_suffix(name) in _SUFFIXES


def add_input_file(folder: Path, name: str, data: bytes) -> str:
    """Write a file into `inputs/` of a folder, and return its path there; another content keeps its name.

    Raises UsageError for another kind of file, and if `inputs/` is a link.
    """
    suffix = _get_suffix(name)
    if suffix not in _SUFFIXES:
        raise UsageError(f"{shorten(name)!r} is neither a picture nor a film nor a sound that sweeper knows")
    inputs = folder / INPUTS
    if inputs.is_symlink():
        raise UsageError(f"{inputs} is a link, so sweeper writes nothing there; put the file into it yourself")
    inputs.mkdir(exist_ok=True)
    known = list_input_files(folder)
    stem = make_portable(re.sub(r"[^\w.-]+", "-", name[: -len(suffix)]).strip("-.")[:_MAX_STEM], "file") or "file"
    for number in range(1, len(known) + 1000):
        chosen = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        if chosen in known and known[chosen].stat().st_size == len(data) and known[chosen].read_bytes() == data:
            return f"{INPUTS}/{chosen}"
        try:
            write_new(inputs / chosen, data)
        except FileExistsError:
            continue
        return f"{INPUTS}/{chosen}"
    raise UsageError(f"{inputs} has too many files of the name {stem}{suffix}")


def _get_suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name of somebody else's system
