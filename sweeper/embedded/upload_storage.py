"""Where an upload is put and what it is called: by ComfyUI's naming, or by content as Cloud stores it.

Files are written whole or not at all (temporary file, then a rename).
"""

from __future__ import annotations

import io
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from sweeper.embedded.folders import PathEscapeError, ServerFolders, is_file

if TYPE_CHECKING:
    from pathlib import Path

# Cloud's published limits for an uploaded picture.
CLOUD_MAX_BYTES = 50 * 1024 * 1024
CLOUD_MAX_EDGE = 16_384
MAX_PIXELS = 67_108_864  # also what either dialect decodes for /view and masks


class UploadError(Exception):
    """The upload is refused, with 400."""


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """Where the upload is: the answer's three fields, and whether a file was written for it."""

    name: str
    subfolder: str
    type: str
    new: bool

    def to_json(self) -> dict[str, str]:
        """The JSON that the client gets."""
        return {"name": self.name, "subfolder": self.subfolder, "type": self.type}


def store_by_name(
    folders: ServerFolders, data: bytes, *, filename: str, subfolder: str, kind: str, overwrite: bool
) -> StoredUpload:
    """ComfyUI's way: the name is kept; other content under it becomes `a (1).png`, equal content is not written again.

    Raises UploadError for a name or folder that climbs, and for an unknown kind.
    """
    if not filename or "/" in filename or "\\" in filename:
        raise UploadError(f"The file needs a plain name, not {filename!r}.")
    try:
        folder = folders.resolve(kind, subfolder)
        folders.resolve(kind, subfolder, filename)
    except (PathEscapeError, KeyError) as problem:
        raise UploadError(f"Not a place for uploads: {kind} {subfolder!r}.") from problem
    stem, suffix = os.path.splitext(filename)  # noqa: PTH122 - ".png" alone has no suffix, as in ComfyUI
    name, place = filename, 1
    try:
        while not overwrite and is_file(folder / name):
            if (folder / name).read_bytes() == data:
                return StoredUpload(name, subfolder, kind, new=False)
            name = f"{stem} ({place}){suffix}"
            place += 1
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, data)
    except (OSError, ValueError) as problem:  # too long, NUL, a file where a folder should be
        raise UploadError(f"{filename!r} cannot be written: {problem}") from problem
    return StoredUpload(name, subfolder, kind, new=True)


def store_by_content(folders: ServerFolders, data: bytes, *, subfolder: str, kind: str) -> StoredUpload:
    """Cloud's way: the name is a hash of the content, whatever it was called; `subfolder` is only told back.

    Raises UploadError for what is no picture and for what is beyond the published limits.
    """
    name = f"{blake3(data).hexdigest()}{detect_suffix(data)}"
    path = folders.input_dir / name
    new = not path.exists()
    if new:
        write_atomically(path, data)
    return StoredUpload(name, subfolder, kind, new)


def detect_suffix(data: bytes) -> str:
    """`.png`, `.jpg`, ... by the content. Raises UploadError (see `store_by_content`)."""
    from PIL import Image  # noqa: PLC0415 - loaded with the first picture

    if len(data) > CLOUD_MAX_BYTES:
        raise UploadError(f"The file has {len(data)} bytes; at most {CLOUD_MAX_BYTES} are allowed.")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind, (width, height) = picture.format or "", picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise UploadError("The file is no picture that can be read.") from problem
    if max(width, height) > CLOUD_MAX_EDGE or width * height > MAX_PIXELS:
        limits = f"{CLOUD_MAX_EDGE} an edge and {MAX_PIXELS} in all"
        raise UploadError(f"The picture has {width} x {height} pixels; at most {limits} are allowed.")
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")


def apply_mask_alpha(original: Path, mask: bytes) -> bytes:
    """The original as PNG, its text chunks kept, with the alpha channel of the mask (POST /upload/mask).

    Raises UploadError when the mask cannot be read or has another size.
    """
    from PIL import Image  # noqa: PLC0415 - loaded with the first picture
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    try:
        with Image.open(original) as picture, Image.open(io.BytesIO(mask)) as painted:
            check_pixels(picture.size)
            check_pixels(painted.size)
            texts = PngInfo()
            for key, text in getattr(picture, "text", {}).items():
                texts.add_text(key, text)
            merged = picture.convert("RGBA")
            merged.putalpha(painted.convert("RGBA").getchannel("A"))
            buffer = io.BytesIO()
            merged.save(buffer, format="PNG", compress_level=4, pnginfo=texts)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise UploadError(f"The mask does not fit: {problem}") from problem
    return buffer.getvalue()


def check_pixels(size: tuple[int, int]) -> None:
    """Raise ValueError for a picture that would take too much memory: a few bytes of PNG may say any size."""
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
