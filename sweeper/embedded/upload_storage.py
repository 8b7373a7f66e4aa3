"""Stores uploads: under the client's name as ComfyUI does, or under a hash of the content as Cloud does."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from blake3 import blake3

from sweeper.embedded.folders import PathEscapeError, ServerFolders, is_file
from sweeper.embedded.image_files import MAX_PIXELS, ImageFileError, open_image

# Cloud's published limits for an uploaded picture, besides MAX_PIXELS.
CLOUD_MAX_BYTES = 50 * 1024 * 1024
CLOUD_MAX_EDGE = 16_384


class UploadError(Exception):
    """The upload is refused with 400."""


def store_by_name(
    folders: ServerFolders, data: bytes, *, filename: str, subfolder: str, kind: str, overwrite: bool
) -> tuple[str, bool]:
    """Store an upload under its own name, as ComfyUI does.

    Returns (the name, whether a file was written). If another file has this name, the name becomes `a (1).png`. If the
    file has the same content, it is not written again. Raises UploadError for a name or folder that leads out of its
    folder, and for an unknown `kind`.
    """
    if not filename or "/" in filename or "\\" in filename:
        raise UploadError(f"The file needs a plain name, not {filename!r}.")
    try:
        folder = folders.resolve(kind, subfolder)
        folders.resolve(kind, subfolder, filename)
    except (PathEscapeError, KeyError) as problem:
        raise UploadError(f"Uploads cannot be stored in {kind} {subfolder!r}.") from problem
    stem, suffix = os.path.splitext(filename)  # noqa: PTH122 - ".png" alone has no suffix, as in ComfyUI
    name, number = filename, 1
    try:
        while not overwrite and is_file(folder / name):
            if (folder / name).read_bytes() == data:
                return name, False
            name = f"{stem} ({number}){suffix}"
            number += 1
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, data)
    except (OSError, ValueError) as problem:  # name too long, NUL character, a file instead of a folder
        raise UploadError(f"{filename!r} cannot be written: {problem}") from problem
    return name, True


def store_by_content(folders: ServerFolders, data: bytes) -> tuple[str, bool]:
    """Store an upload under a hash of its content, as Cloud does. Returns (the name, whether a file was written).

    Raises UploadError if it is not a picture, or exceeds the published limits.
    """
    name = f"{blake3(data).hexdigest()}{detect_suffix(data)}"
    path = folders.input_dir / name
    new = not path.exists()
    if new:
        write_atomically(path, data)
    return name, new


def detect_suffix(data: bytes) -> str:
    """The suffix of a picture by its content, such as `.png`. Raises UploadError (see `store_by_content`)."""
    if len(data) > CLOUD_MAX_BYTES:
        raise UploadError(f"The file has {len(data)} bytes; at most {CLOUD_MAX_BYTES} are allowed.")
    try:
        with open_image(data) as picture:
            kind, (width, height) = picture.format or "", picture.size
    except ImageFileError as problem:
        raise UploadError("The file is not a picture that can be read.") from problem
    if max(width, height) > CLOUD_MAX_EDGE or width * height > MAX_PIXELS:
        limits = f"{CLOUD_MAX_EDGE} an edge and {MAX_PIXELS} in all"
        raise UploadError(f"The picture has {width} x {height} pixels; at most {limits} are allowed.")
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody can read half of it: to a temporary file, which is then renamed."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
