"""The server's folders on disk, safe paths for file names that clients send, and picture files.

A name that leads out of its folder (by `..`, an absolute path or a symbolic link) is refused. Pillow loads late.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.files import atomic_write
from sweeper.model.picture_size import PICTURE_FORMATS

if TYPE_CHECKING:
    from PIL import Image

KINDS = ("input", "output", "temp")


class PathEscapeError(Exception):
    """A file name leads out of its folder."""


@dataclass(frozen=True, slots=True)
class ServerFolders:
    """input, output and temp below one base folder."""

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
        """Create the folders, and empty temp."""
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        for folder in (self.input_dir, self.output_dir, self.temp_dir):
            folder.mkdir(parents=True, exist_ok=True)

    def folder_for(self, kind: str) -> Path:
        """The folder of a `type`: input, output or temp. Raises KeyError otherwise."""
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}[kind]

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

    def resolve(self, kind: str, subfolder: str, name: str = "") -> Path:
        """The path of `name` in a subfolder of a `type`; it need not exist. Raises PathEscapeError, KeyError."""
        return resolve_inside(self.folder_for(kind), subfolder, name)


def resolve_inside(folder: Path, *parts: str) -> Path:
    """The path of `parts` below a folder; it need not exist. Raises PathEscapeError if it is not below the folder."""
    root = folder.resolve()
    try:
        path = root.joinpath(*parts).resolve()
    except (ValueError, OSError, RuntimeError) as problem:  # NUL characters, endless links
        raise PathEscapeError(str(problem)) from problem
    if not path.is_relative_to(root):
        raise PathEscapeError(f"{'/'.join(parts)} is outside of {folder.name}")
    return path


def split_annotation(name: str) -> tuple[str, str | None]:
    """Split `x.png [output]` into ("x.png", "output"), with exactly one space, as ComfyUI's annotated_filepath."""
    for kind in KINDS:
        ending = f" [{kind}]"
        if name.endswith(ending):
            return name[: -len(ending)], kind
    return name, None


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False also for a name that the operating system does not accept."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody can read half of it."""
    with atomic_write(path) as file:
        file.write(data)


# The largest image to decode. A PNG of a few bytes may declare any size, and would take too much memory.
MAX_PIXELS = 67_108_864


class ImageFileError(Exception):
    """The data is not an image, or it cannot be processed as requested."""


@contextmanager
def open_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image file. Raises ImageFileError for any error of Pillow inside the block."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURE_FORMATS) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise ImageFileError(str(problem)) from problem


def replace_alpha(original: Path, mask: bytes) -> bytes:
    """The original as PNG, with the alpha channel of the mask. Keeps the text chunks of the original.

    Raises ImageFileError if one of them cannot be read, or if the sizes differ.
    """
    from PIL.PngImagePlugin import PngInfo

    with open_image(original) as image, open_image(mask) as mask_image:
        _check_pixels(image.size)
        _check_pixels(mask_image.size)
        texts = PngInfo()
        for key, text in getattr(image, "text", {}).items():
            texts.add_text(key, text)
        result = image.convert("RGBA")
        result.putalpha(mask_image.convert("RGBA").getchannel("A"))
        buffer = io.BytesIO()
        result.save(buffer, format="PNG", compress_level=4, pnginfo=texts)
    return buffer.getvalue()


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS}")
