"""The server's folders on disk, safe paths for file names that clients send, model files, and picture files.

A name that leads out of its folder (by `..`, an absolute path or a symbolic link) is refused. Pillow loads late.
"""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import os
import re
import shutil
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from sweeper.errors import ImageError
from sweeper.files import atomic_write
from sweeper.model.picture_size import PICTURE_FORMATS, check_pixels

KINDS = ("input", "output", "temp")

# ComfyUI's `supported_pt_extensions`.
_MODEL_SUFFIXES: Final = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})
_MAX_HEADER: Final = 2**20  # bytes of a safetensors header that are read, as in ComfyUI
_CONTENT_MARK: Final = "\ue000"  # before the digits of a content in a name: a character that no name has
_NO_FILE_TIME: Final = 1_700_000_000.0  # of models that the server knows without a file


class PathEscapeError(Exception):
    """A file name leads out of its folder."""


@dataclass(frozen=True, slots=True)
class ServerFolders:
    """input, output, temp and, if the owner made it, models below one base folder."""

    base: Path

    @property
    def input_dir(self) -> Path:
        """Uploads."""
        return self.base / "input"

    @property
    def output_dir(self) -> Path:
        """Files that SaveImage writes."""
        return self.base / "output"

    @property
    def temp_dir(self) -> Path:
        """Files that PreviewImage writes; emptied at each start."""
        return self.base / "temp"

    def prepare(self) -> None:
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        for folder in (self.input_dir, self.output_dir, self.temp_dir):
            folder.mkdir(parents=True, exist_ok=True)

    def list_inputs(self, kind: str) -> list[str]:
        """The uploads of a kind (image, audio, video) by their suffix, sorted. A video is audio too."""
        if not self.input_dir.is_dir():
            return []
        kinds = {"audio": ("audio", "video")}.get(kind, (kind,))
        names = sorted(path.name for path in self.input_dir.iterdir() if path.is_file())
        return [name for name in names if (mimetypes.guess_type(name)[0] or "").startswith(kinds)]

    def find_input(self, name: Any) -> Path | None:
        """The file that a loader's value names (`a.png`, `sub/a.png`, `a.png [output]`); None if it is not there."""
        if not isinstance(name, str):
            return None
        plain, kind = split_annotation(name)
        try:
            path = self.resolve(kind or "input", "", plain)
        except PathEscapeError:
            return None
        return path if is_file(path) else None

    def hash_input(self, name: Any) -> str:
        """The SHA-256, in hex, of the file that a loader's value names; nothing if it is not there."""
        path = self.find_input(name)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    def list_model_folders(self) -> list[str]:
        root = self.base / "models"
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    def list_models(self, folder: str) -> list[str]:
        """The model files in a folder below models/ and in its subfolders, sorted, as paths below the folder."""
        root = self.base / "models" / folder
        names = (
            Path(parent, name).relative_to(root).as_posix()
            for parent, _, found in (os.walk(root) if _FOLDER_NAME.fullmatch(folder) else ())
            for name in found
            if Path(name).suffix.lower() in _MODEL_SUFFIXES
        )
        return sorted(names)

    def find_model(self, folder: str, name: Any) -> Path | None:
        """The file in models/ that a loader's value names; None if there is none.

        As in ComfyUI, a name that climbs ends at its folder, and a symbolic link that the owner made is followed.
        """
        if not isinstance(name, str) or not _FOLDER_NAME.fullmatch(folder):
            return None
        root = self.base / "models" / folder
        path = root / os.path.normpath(os.path.join(os.sep, name)).lstrip(os.sep)  # noqa: PTH118 - the plain text
        return path if path.is_relative_to(root) and is_file(path) else None

    def name_content(self, folder: str, name: Any) -> Any:
        """The name of a model with the content of its file in it: other content, other name. Without a file: as it is.

        The content stands as digits before the suffix, so that the words of the name stay; see `drop_content`.
        """
        path = self.find_model(folder, name)
        if path is None:
            return name
        stem, dot, suffix = name.rpartition(".")
        return f"{stem}{_CONTENT_MARK}{int(hash_file(path)[:15], 16)}{dot}{suffix}"

    def describe_model(self, folder: str, name: str) -> dict[str, Any]:
        """The facts of a model as GET /experiment/models/{folder} shows them. One without a file has fixed ones."""
        path = self.find_model(folder, name)
        modified = created = _NO_FILE_TIME
        size = 10**8 + int(hash_name(folder, name)[:8], 16)
        if path is not None:
            facts = path.stat()
            modified, created, size = facts.st_mtime, facts.st_ctime, facts.st_size
        return {"name": name, "pathIndex": 0, "modified": modified, "created": created, "size": size}

    def resolve(self, kind: str, subfolder: str, name: str = "") -> Path:
        """The path of `name` in a subfolder of a `type`; it need not exist. Raises PathEscapeError, KeyError."""
        root = {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}[kind].resolve()
        if "\0" in subfolder + name:
            raise PathEscapeError("a name must not contain a NUL character")
        # Not by `Path.resolve`, which raises for a link to itself on some versions of Python only.
        path = Path(os.path.realpath(root / subfolder / name))
        _check_can_exist(path, f"{subfolder}/{name}")
        if not path.is_relative_to(root):
            raise PathEscapeError(f"{subfolder}/{name} is outside of {kind}")
        return path


_FOLDER_NAME: Final = re.compile(r"[\w.-]*\w")  # of models; never a path


def _check_can_exist(path: Path, name: str) -> None:
    """Raise PathEscapeError for a resolved path that still is a link, and for one that the system cannot have."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise PathEscapeError(f"the system has no such name: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise PathEscapeError(f"{name} is a link that leads to itself")


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What the header of a safetensors file says about it. None: nothing, or it is not such a file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else None
    except (OSError, ValueError, RecursionError):
        return None
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else None


def drop_content(value: Any) -> Any:
    """A value without the content that `name_content` put into it."""
    return re.sub(f"{_CONTENT_MARK}\\d+", "", value) if isinstance(value, str) else value


def hash_name(folder: str, name: str) -> str:
    """The BLAKE3 of a model's name, in hex. A name may have half surrogate pairs, which UTF-8 cannot encode."""
    return blake3(f"{folder}/{name}".encode("utf-8", "surrogatepass")).hexdigest()


def hash_file(path: Path) -> str:
    """The BLAKE3 of a file, in hex; computed once, until the file changes. Raises OSError."""
    facts = path.stat()
    return _hash_file(path, facts.st_ino, facts.st_ctime_ns, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=10_000)
def _hash_file(path: Path, *_version: int) -> str:
    digest = blake3()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def is_unsafe_name(name: Any) -> bool:
    """Whether a file name could lead out of its folder."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return True
    parts = re.split(r"[\\/]", name)
    return parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name) is not None


def split_annotation(name: str) -> tuple[str, str | None]:
    """Split `x.png [output]` into ("x.png", "output"), with exactly one space, as ComfyUI's annotated_filepath."""
    for kind in KINDS:
        ending = f" [{kind}]"
        if name.endswith(ending):
            return name[: -len(ending)], kind
    return name, None


is_file = os.path.isfile  # False also for a name that the operating system does not accept


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody can read half of it."""
    with atomic_write(path) as file:
        file.write(data)


def measure_picture(data: bytes) -> tuple[int, int]:
    """The width and height of a picture; 0 and 0 for a film or a sound. Raises ImageError for a broken picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            return image.size
    except UnidentifiedImageError:
        return 0, 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ImageError(str(problem)) from problem


def replace_alpha(original: Path, mask: bytes) -> bytes:
    """The original as PNG, with the alpha channel of the mask. Keeps the text chunks of the original.

    Raises ImageError if one of them cannot be read or is too large, or if the sizes differ.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, texts = io.BytesIO(), PngInfo()
    try:
        sources = original, io.BytesIO(mask)
        image, mask_image = (Image.open(source, formats=PICTURE_FORMATS) for source in sources)
        with image, mask_image:
            check_pixels(image.size)
            check_pixels(mask_image.size)
            for key, text in getattr(image, "text", {}).items():
                texts.add_text(key, text)
            result = image.convert("RGBA")
            result.putalpha(mask_image.convert("RGBA").getchannel("A"))
            result.save(buffer, format="PNG", compress_level=4, pnginfo=texts)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ImageError(str(problem)) from problem
    return buffer.getvalue()
