"""The folder of output files: each has a safe name (see `file_names`), and appears complete or not at all.

A file name that a server sends only selects an extension from a list. It never becomes part of a path.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import os
import re
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from sweeper.errors import ResultsError
from sweeper.store.file_names import candidate_names, find_job_prefix, is_file_of

FOLDER: Final = "artifacts"
_PART_SUFFIX: Final = ".part"
_MEMORY_LIMIT: Final = 4 * 2**20  # bytes; a larger incoming file goes to the disk
_CLOCK_RESOLUTION: Final = 2.0  # seconds, of a FAT file system

# Types of files that ComfyUI's nodes write. Any other becomes `.bin`, which no program opens by itself.
_EXTENSIONS: Final = frozenset((
    "png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "jxl", "exr", "hdr", "apng", "svg", "psd",
    "mp4", "webm", "mkv", "mov", "avi", "m4v", "wav", "mp3", "flac", "ogg", "opus", "m4a", "aac",
    "txt", "json", "csv", "md", "yaml", "srt", "vtt",
    "glb", "gltf", "obj", "ply", "stl", "fbx", "usdz", "splat", "ksplat", "latent", "safetensors", "npy", "npz",
))  # fmt: skip
_CONTENT_TYPES: Final = {
    "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/avif": "avif",
    "image/tiff": "tif", "image/bmp": "bmp", "image/svg+xml": "svg", "video/mp4": "mp4", "video/webm": "webm",
    "video/quicktime": "mov", "video/x-matroska": "mkv", "audio/wav": "wav", "audio/x-wav": "wav",
    "audio/mpeg": "mp3", "audio/flac": "flac", "audio/x-flac": "flac", "audio/ogg": "ogg", "text/plain": "txt",
    "application/json": "json", "model/gltf-binary": "glb",
}  # fmt: skip
_MAGIC: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "wav"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"....ftyp", re.DOTALL), "mp4"),
    (re.compile(rb"\x1aE\xdf\xa3"), "webm"),
    (re.compile(rb"fLaC"), "flac"),
    (re.compile(rb"OggS"), "ogg"),
    (re.compile(rb"glTF"), "glb"),
)


def guess_extension(label: str, content_type: str, head: bytes) -> str:
    """The extension for a file: by the server's name, its content type, or its first bytes; else `bin`."""
    suffix = PurePosixPath(label.replace("\\", "/")).suffix[1:].lower()
    if suffix in _EXTENSIONS:
        return "jpg" if suffix == "jpeg" else suffix
    known = _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())
    if known:
        return known
    return next((name for magic, name in _MAGIC if magic.match(head)), "bin")


@dataclass(frozen=True, slots=True)
class UnfinishedJob:
    """A job without a recorded end: its id, its intent's time in seconds since 1970, and the stem of its files."""

    id: str
    intended: float
    stem: str


class IncomingFile:
    """A file that is being received, made by `ArtifactFolder.open_incoming`.

    It stays in memory while it is small, then goes to the temporary `path`. Most pictures are small, and creating a
    file on the event loop would delay every other job while the disk is busy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moved = False  # from `path` to its final name
        self.is_new = False  # saved, and no other job has this file
        self._file: BinaryIO = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        """Add to the file. Raises ResultsError."""
        if isinstance(self._file, io.BytesIO) and self._file.tell() + len(chunk) > _MEMORY_LIMIT:
            self._spill_to_disk()
        with _translate_errors(self.path.parent):
            self._file.write(chunk)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def read_head(self, length: int) -> bytes:
        """Read the first bytes. Only for a complete file, because the next `write` would overwrite what follows."""
        self._file.seek(0)
        return self._file.read(length)

    def finalize(self) -> Path:
        """Write the whole file to the disk and close it (Windows cannot move an open file). Returns its path."""
        if self._file.closed:
            return self.path
        if isinstance(self._file, io.BytesIO):
            self._spill_to_disk()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self.path

    def discard(self) -> None:
        """Close the file and delete it, unless it was moved."""
        in_memory = isinstance(self._file, io.BytesIO)
        self._file.close()
        if not in_memory and not self.moved:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _spill_to_disk(self) -> None:
        assert isinstance(self._file, io.BytesIO)
        with _translate_errors(self.path.parent):
            if os.path.lexists(self.path):  # it could be a link to another file
                self.path.unlink()
            file = self.path.open("x+b")
            received, self._file = self._file, file
            file.write(received.getbuffer())


class ArtifactFolder:
    """`<out>/artifacts`. Files enter it complete, by rename, and never replace another file."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out / FOLDER

    @property
    def is_outside(self) -> bool:
        """Whether the files are outside of the results folder. Their names then contain the job's id.

        Other folders may use that place too, and `containment` recognizes a file of ours by its name.
        """
        return not self.path.resolve().is_relative_to(self.out.resolve())

    @contextmanager
    def open_incoming(self, job: str, index: int) -> Iterator[IncomingFile]:
        """Open a file to receive the job's output number `index`. It is deleted at the end unless `save` took it.

        Raises ResultsError if the folder cannot be written to, here or at any write.
        """
        with _translate_errors(self.path):
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
        file = IncomingFile(self.path / f".{job}-{index}{_PART_SUFFIX}")
        try:
            yield file
        finally:
            file.discard()

    def save(self, file: IncomingFile, name: str) -> str:
        """Make an incoming file durable under `name`, with a number if another file has that name.

        If an identical file has that name, it counts as saved: on a cluster, a process that died may have saved it.
        Returns the file's path relative to the results folder, with `/`. Waits for the disk, so call it in a thread.
        Raises ResultsError if the file cannot be written.
        """
        with _translate_errors(self.path):
            source = file.finalize()
            for candidate in candidate_names(name):
                path = self.path / candidate
                if _move_if_free(source, path):
                    file.moved = file.is_new = True
                    _sync_folder(self.path)
                    return f"{FOLDER}/{candidate}"
                if path.is_file() and filecmp.cmp(source, path, shallow=False):
                    return f"{FOLDER}/{candidate}"
        raise ResultsError(f"{self.path}: there are 10,000 files named {name} already")

    def remove_leftovers(self, unfinished: Collection[UnfinishedJob] = (), recorded: Collection[str] = ()) -> None:
        """Delete what a killed run left: partial files, and files of unfinished jobs that are not `recorded` (paths).

        Only for the process that has locked the folder. Deletes nothing where a link leads: what lies there may be
        somebody's, and a stranger's store says which files the run left.
        """
        if self.path.is_symlink() or not self.path.is_dir():
            return
        for name in os.listdir(self.path):  # noqa: PTH208 - a Path for each of 100,000 files takes half a second
            is_partial = name.startswith(".") and name.endswith(_PART_SUFFIX)
            is_known = not unfinished or f"{FOLDER}/{name}" in recorded
            if is_partial or (not is_known and _is_leftover(self.path / name, unfinished)):
                (self.path / name).unlink(missing_ok=True)

    def local_path(self, path: str) -> Path:
        """Where this process can read a saved file."""
        return self.out / path

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files that were saved but not recorded."""
        for path in paths:
            with contextlib.suppress(OSError):
                (self.out / path).unlink()


def _is_leftover(path: Path, unfinished: Iterable[UnfinishedJob]) -> bool:
    """Whether a file was saved for one of these jobs. The user may have put an older file of that name there."""
    prefix = find_job_prefix(path.name)
    return any(
        prefix == job.id[:8]
        or (is_file_of(job.stem, path.name) and path.stat().st_mtime > job.intended - _CLOCK_RESOLUTION)
        for job in unfinished
    )


def _move_if_free(source: Path, destination: Path) -> bool:
    try:
        os.link(source, destination)  # fails if the destination exists, which a rename would overwrite
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links; the folder is locked, so nobody creates the file in between
        if destination.exists():
            return False
        source.replace(destination)
        return True
    with contextlib.suppress(PermissionError):  # on Windows, if a virus scanner has it open; the next run removes it
        source.unlink()
    return True


def _sync_folder(path: Path) -> None:
    if sys.platform != "win32":  # Windows cannot open folders, and its journal keeps renames in order
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsError(f"{folder}: {error.strerror or error}; everything stored so far is safe") from error


def link_files(sources: Iterable[tuple[str | Path, str]], folder: Path) -> None:
    """Link or copy files, given as (file, name), into a folder under these names.

    A file of the same size is kept, because neither artifacts nor files named by their content ever change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in sources:
        path = f"{folder}{os.sep}{name}"
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISLNK(found.st_mode):  # a link is not ours; a copy would go through it
                original = os.stat(source)  # noqa: PTH116 - a Path for each of many files takes as long as the call
                if os.path.samestat(found, original) or found.st_size == original.st_size:
                    continue
            os.unlink(path)  # noqa: PTH108 - as above
        try:
            os.link(source, path)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, path)
