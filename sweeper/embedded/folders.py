"""The server's folders on disk, and safe paths for file names that clients send.

A name that leads out of its folder (by `..`, an absolute path or a symbolic link) is refused.
"""

from __future__ import annotations

import hashlib
import mimetypes
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.files import atomic_write

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
