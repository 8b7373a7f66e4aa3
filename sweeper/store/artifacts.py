"""Artifacts: files of ours, under safe names of ours, whole or not there at all.

Whatever file name a server sends is a label: it chooses an extension from a list, and never a path. Where bytes come
from is the caller's affair.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from sweeper.errors import ResultsError

FOLDER: Final = "artifacts"
_MAX_STEM: Final = 80  # characters of the speaking part; with the rest a name stays far below every system's 255
_PART_SUFFIX: Final = ".part"
_MEMORY_LIMIT: Final = 4 * 2**20  # bytes of a file on its way in
_JOB_PREFIX: Final = re.compile(r"-([0-9a-f]{8})\.[^.]+(?:-\d+)?\.[a-z0-9]+$")  # the job in a `file_name`

# Kinds of files that ComfyUI's nodes write; a name that ends otherwise becomes `.bin`, which nothing opens by itself.
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
# Device names that Windows finds in any folder, whatever follows their first dot.
_RESERVED_NAMES: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def build_stem(columns: Mapping[str, Any], job: str) -> str:
    """`<slug of the axis cells>-<first 8 of the job id>`: ASCII, and no name that Windows keeps for itself.

    A cell that is empty, as of an axis that only another block has, has no word in it.
    """
    words = [_to_slug(_cell_text(value)) for value in columns.values() if value is not None]
    speaking = "-".join(word for word in words if word)[:_MAX_STEM].strip("-.")
    if not speaking or _RESERVED_NAMES.fullmatch(speaking.partition(".")[0]):
        speaking = f"trial-{speaking}".strip("-")
    return f"{speaking}-{job[:8]}"


def build_file_name(stem: str, node: str, position: int, extension: str) -> str:
    """`<stem>.<node>-<position>.<extension>`; `position` counts a node's files from 0."""
    return f"{stem}.{_to_slug(node)[:40] or 'node'}-{position}.{extension}"


def guess_extension(label: str, content_type: str, head: bytes) -> str:
    """Which kind of file this is: by the server's name for it, its content type, or its first bytes; else `bin`."""
    suffix = PurePosixPath(label.replace("\\", "/")).suffix[1:].lower()
    if suffix in _EXTENSIONS:
        return "jpg" if suffix == "jpeg" else suffix
    known = _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())
    if known:
        return known
    return next((name for magic, name in _MAGIC if magic.match(head)), "bin")


def candidate_names(name: str) -> Iterator[str]:
    """The names under which a file may be kept: its own, and those with a number where that is taken."""
    base, dot, ending = name.rpartition(".")
    yield name
    yield from (f"{base}-{number}{dot}{ending}" for number in range(2, 10_000))


def find_job_prefix(name: str) -> str | None:
    """The first 8 characters of the id of the job whose file that is; None for a name that is not ours."""
    found = _JOB_PREFIX.search(name)
    return found and found[1]


class IncomingFile:
    """A file on its way in: in memory while it is small, then at `path`, beside its later place. Made by
    `ArtifactFolder.incoming`.

    Most pictures are small, and a file made on the event loop would hold up every other job while the disk is busy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moved = False  # moved from `path` to its place
        self._file: BinaryIO = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        """Add to the file. Raises ResultsError."""
        if isinstance(self._file, io.BytesIO) and self._file.tell() + len(chunk) > _MEMORY_LIMIT:
            self._spill_to_disk()
        with _translate_errors(self.path.parent):
            self._file.write(chunk)

    def restart(self) -> None:
        """Forget what came so far."""
        self._file.seek(0)
        self._file.truncate()

    def read_head(self, length: int) -> bytes:
        """The first bytes; what is written next goes after them, so only for a file that is all there."""
        self._file.seek(0)
        return self._file.read(length)

    def finalize(self) -> Path:
        """Bring it to the disk whole, and let go of it, to be moved from `path`: Windows moves no open file."""
        if self._file.closed:
            return self.path
        if isinstance(self._file, io.BytesIO):
            self._spill_to_disk()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self.path

    def discard(self) -> None:
        """Remove what is still at `path`."""
        in_memory = isinstance(self._file, io.BytesIO)
        self._file.close()
        if not in_memory and not self.moved:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _spill_to_disk(self) -> None:
        assert isinstance(self._file, io.BytesIO)
        with _translate_errors(self.path.parent):
            file = self.path.open("w+b")
            received, self._file = self._file, file
            file.write(received.getbuffer())


class ArtifactFolder:
    """`<out>/artifacts`: files enter it whole, by rename, and never replace another."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out / FOLDER

    @contextmanager
    def open_incoming(self, job: str, index: int) -> Iterator[IncomingFile]:
        """A file to receive into; gone afterwards unless `keep` took it.

        Raises ResultsError when the folder cannot be written, here or at any write.
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
        """Make an incoming file durable under `name`, or under `name` with a number where that is taken; may be called
        in a thread, since it waits for the disk.

        Returns its path relative to the results folder, with `/`. Raises ResultsError when the disk will not have it.
        """
        with _translate_errors(self.path):
            source = file.finalize()
            for candidate in candidate_names(name):
                place = self.path / candidate
                if _move_if_free(source, place):
                    file.moved = True
                    _sync_folder(self.path)
                    return f"{FOLDER}/{place.name}"
        raise ResultsError(f"{self.path}: there are 10,000 files named {name} already")

    def remove_leftovers(self, unfinished: Iterable[str] = ()) -> None:
        """Remove what a killed run left: half received files, and whole ones of jobs that never came to be recorded
        (`unfinished`: their ids). Only for the holder of the folder.
        """
        if not self.path.is_dir():
            return
        marks = {job[:8] for job in unfinished}
        for path in self.path.iterdir():
            if (path.name.startswith(".") and path.name.endswith(_PART_SUFFIX)) or find_job_prefix(path.name) in marks:
                path.unlink(missing_ok=True)

    def local_path(self, path: str) -> Path:
        """Where a file that `keep` took can be read in this process."""
        return self.out / path

    def drop_local_copies(self, paths: Iterable[str]) -> None:
        """These need not be readable here any more, as far as this is not their place."""

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files that `keep` took, but that are not recorded."""
        for path in paths:
            with contextlib.suppress(OSError):
                (self.out / path).unlink()


def _move_if_free(source: Path, destination: Path) -> bool:
    """Move `source` to `place` unless something is there; False then."""
    try:
        os.link(source, destination)  # fails where the place is taken, which a rename would overwrite
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: we hold the folder, so nobody comes between these two
        if destination.exists():
            return False
        source.replace(destination)
        return True
    source.unlink()
    return True


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and its journal keeps renames in order
        return
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
        raise ResultsError(f"{folder}: {error.strerror or error}; nothing that was stored is lost") from error


def _cell_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _to_slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.]+|\.{2,}", "-", plain).strip("-.")[:_MAX_STEM]
