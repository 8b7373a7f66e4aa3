"""Artifacts at a URL: object storage, or whatever else fsspec reaches; the store keeps the URL as an artifact's path.

They are written as on a disk: whole or not there, and never over another. To be read, one is brought to `fetched/` in
the results folder, once, and held against its hash. fsspec, and what it needs for a kind of URL, is imported where such
a URL is used; keys and endpoints are where its packages look for them.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from sweeper.errors import ResultsError, SweeperError, UsageError
from sweeper.store.artifacts import ArtifactFolder, IncomingFile, candidate_names, find_job_prefix

FETCHED: Final = "fetched"
_MAX_CONCURRENT: Final = 16  # files on their way from one place
_PIECE: Final = 2**20  # bytes
# Where a file appears whole when all of it has come; elsewhere it gets its name only then.
_ATOMIC_SCHEMES: Final = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"))


def is_url(path: str) -> bool:
    """Whether an artifact's path is a URL, and not relative to the results folder."""
    return "://" in path


def check_url(url: str) -> None:
    """Have what is needed for this kind of URL; nothing is sent. Raises UsageError with what to install or to write."""
    parts = urlsplit(url)
    if parts.password is not None or "?" in url or "#" in url:
        raise UsageError(
            f"{parts.scheme}://...: a place for pictures takes neither a password nor a query or fragment: the table "
            "shows it; give keys where the storage's own tools look for them (for S3: AWS_ACCESS_KEY_ID, or a profile)"
        )
    _open_filesystem(url)


def _open_filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{url} needs the package `fsspec`: pip install 'sweeper[s3]'") from None
    try:
        found = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write there too
    except ImportError as error:
        raise UsageError(f"{url}: {error}") from None
    except ValueError as error:  # no such protocol
        raise UsageError(f"{url}: {error}; write a URL such as s3://bucket/folder") from None
    return found[0], str(found[1])


class RemoteFolder(ArtifactFolder):
    """A place for artifacts at `url`; files come in below `out`. `reading`: what was kept stays readable here too, at
    `at(path)`, until `release`.
    """

    def __init__(self, out: Path, url: str, *, keep_local: bool = False) -> None:
        super().__init__(out)
        self.path = out / FETCHED
        self.url = url.rstrip("/")
        self._keep_local = keep_local

    def local_path(self, path: str) -> Path:
        return self.path / PurePosixPath(path).name

    def save(self, file: IncomingFile, name: str) -> str:
        """As on a disk; but where this very file is under that name, which bears its job's id, it is the one."""
        with _translate_errors(self.url):
            source = file.finalize()
            fs, _ = _open_filesystem(self.url)
            for candidate in candidate_names(name):
                url = f"{self.url}/{candidate}"
                if _upload_if_free(fs, source, url):
                    if self._keep_local:
                        source.replace(self.local_path(url))
                        file.moved = True
                    return url
        raise ResultsError(f"{self.url}: there are 10,000 files named {name} already")

    def drop_local_copies(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.local_path(path).unlink(missing_ok=True)

    def remove_leftovers(self, unfinished: Iterable[str] = ()) -> None:
        marks = {job[:8] for job in unfinished}
        super().remove_leftovers(marks)
        there = list_names(self.url) if marks else ()  # as long a list as there are pictures: only where one may be
        self.delete(f"{self.url}/{name}" for name in there if find_job_prefix(name) in marks)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(Exception):  # whatever the storage says: it is only not tidy then
                fs, place = _open_filesystem(path)
                fs.rm_file(place)


def _upload_if_free(fs: Any, source: Path, url: str) -> bool:
    """Bring a file to its place, unless another is there; False then."""
    place = fs._strip_protocol(url)  # noqa: SLF001 (fsspec's own way to a path of that file system)
    size = source.stat().st_size
    if fs.exists(place):
        return fs.info(place)["size"] == size and _is_same(fs, source, place)
    whole = bool(_ATOMIC_SCHEMES & set([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol))
    parent, _, name = place.rpartition("/")
    way = place if whole else f"{parent}/.{name}.part"
    if not whole:
        fs.makedirs(parent, exist_ok=True)
    fs.put_file(str(source), way)
    if not whole:
        fs.mv(way, place)
    found = fs.info(place)["size"]
    if found != size:
        raise OSError(f"{found} bytes arrived of {size}")
    return True


def _is_same(fs: Any, source: Path, path: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there"
        fs.get_file(path, str(there))
        return filecmp.cmp(source, there, shallow=False)


def folder_for(out: Path, path: str) -> ArtifactFolder:
    """The folder in which an artifact of that path lies, or lay."""
    return RemoteFolder(out, path.rpartition("/")[0]) if is_url(path) else ArtifactFolder(out)


def list_names(url: str) -> frozenset[str]:
    """The names of the files at a URL; none where nothing is. Raises ResultsError when it cannot be asked."""
    with _translate_errors(url):
        fs, place = _open_filesystem(url)
        try:
            return frozenset(PurePosixPath(found).name for found in fs.ls(place, detail=False))
        except FileNotFoundError:
            return frozenset()


# --- to be read


def local_path(out: Path, path: str, sha256: str) -> Path:
    """Where an artifact can be read, once it is here (`bring`)."""
    if not is_url(path):
        return out / path
    return out / FETCHED / f"{sha256[:12]}-{PurePosixPath(path).name}"


def download_artifact(out: Path, path: str, sha256: str) -> Path | None:
    """An artifact as a file here, fetched where it was not yet; None where it is gone.

    Raises ResultsError when its storage cannot be asked, or has another file there than the one on record.
    """
    place = local_path(out, path, sha256)
    if not is_url(path) or place.is_file():
        return place if place.is_file() else None
    with _translate_errors(path):
        fs, source = _open_filesystem(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=place.parent)
        os.close(handle)
        part = Path(name)
        try:
            fs.get_file(source, name)
            _check_hash(part, path, sha256)
            part.replace(place)
        except FileNotFoundError:
            return None
        finally:
            part.unlink(missing_ok=True)
    return place


def download_artifacts(out: Path, files: Iterable[tuple[str, str]]) -> None:
    """Have these artifacts, as (path, sha256), here, several at a time. Raises ResultsError as `bring`."""
    wanted = [pair for pair in dict.fromkeys(files) if is_url(pair[0]) and not local_path(out, *pair).is_file()]
    if wanted:
        with ThreadPoolExecutor(_MAX_CONCURRENT, thread_name_prefix="sweeper-fetch") as pool:
            list(pool.map(lambda pair: download_artifact(out, *pair), wanted))


def _check_hash(file: Path, url: str, sha256: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        raise ResultsError(f"{url}: has another content than the one on record (SHA-256 {found}, not {sha256})")


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Turn what a storage's package raises, which may be anything, into a sentence about the place."""
    try:
        yield
    except SweeperError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ResultsError(f"{url}: {said}; nothing that was stored is lost") from error
