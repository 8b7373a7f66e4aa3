"""Output files at a URL, in object storage or anything else that fsspec supports. The URL is the artifact's path.

As on a disk, a file appears complete or not at all, and never replaces another. To read one, sweeper downloads it once
to `fetched/` in the results folder and verifies its hash. Keys and endpoints come from wherever the storage's fsspec
package looks for them.

A results folder names the URLs of its pictures, so its author would choose the hosts to which its reader sends
requests. So sweeper opens only storages where a run of this user wrote, and those that the user lists in `storages.txt`
in the configuration folder, one URL a line, or in the file $SWEEPER_STORAGES_FILE. A storage allows all below it.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from platformdirs import user_config_path

from sweeper.errors import ResultsError, SweeperError, UsageError
from sweeper.files import atomic_write
from sweeper.store.artifacts import ArtifactFolder, IncomingFile, UnfinishedJob
from sweeper.store.file_names import candidate_names, find_job_prefix
from sweeper.wording import format_install

FETCHED: Final = "fetched"
_MAX_CONCURRENT: Final = 16  # downloads
# In these a file appears only when it is complete. In the others we upload to a temporary name and rename.
_ATOMIC_SCHEMES: Final = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"))


# fsspec cannot write files with these protocols, or they lead to other URLs. So no run has put a picture there, and a
# results folder that names one makes us send requests for its author. `reference` also renders templates that it
# downloads.
_NO_STORAGE: Final = frozenset((
    "http", "https", "data", "git", "github", "jupyter", "jlab", "reference", "kerchunk", "dask", "generic", "zip",
    "tar", "libarchive", "dir", "cached", "blockcache", "filecache", "simplecache",
))  # fmt: skip


def is_url(path: str) -> bool:
    """Whether an artifact's path is a URL (otherwise it is relative to the results folder)."""
    return "://" in path


def is_storage(url: str) -> bool:
    """Whether pictures can be at this URL: a single storage to which fsspec can write, without a user or password."""
    parts = urlsplit(url)
    return "::" not in url and parts.scheme.lower() not in _NO_STORAGE and parts.password is None


def check_url(url: str) -> None:
    """Check, without sending anything, that we can use this URL. Raises UsageError with what to install or to write."""
    parts = urlsplit(url)
    if parts.password is not None or "?" in url or "#" in url:
        raise UsageError(
            f"{parts.scheme}://...: the URL of a pictures folder must not contain a password, a query or a fragment, "
            "because the results table shows it; give the keys to the storage's own tools (for S3: AWS_ACCESS_KEY_ID, "
            "or a profile)"
        )
    if not is_storage(url):
        raise UsageError(f"{url}: pictures cannot be written there; write a URL such as s3://bucket/folder")
    _find_filesystem(url)


def _open_filesystem(url: str, *, is_folder: bool = False) -> tuple[Any, str]:
    """The fsspec file system for the URL of a file, or of a folder, and the path in it.

    Raises ResultsError unless sweeper may open its storage.
    """
    if _is_in(url, _allowed) or _is_in(url, _load_storages()):
        return _find_filesystem(url)
    storage = url if is_folder else url.rpartition("/")[0]
    raise ResultsError(
        f"{storage}: no run of yours wrote there from this machine, so sweeper does not open it: whoever made this "
        "results folder would choose where you send requests, with your keys; if you trust them, add the line "
        f"`{storage}` to {get_storages_path()}"
    )


def _find_filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{url} needs the package `fsspec`: {format_install('fsspec', 's3fs')}") from None
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # no cache: other processes write there too
    except ImportError as error:
        raise UsageError(f"{url}: {error}") from None
    except ValueError as error:  # no such protocol
        raise UsageError(f"{url}: {error}; write a URL such as s3://bucket/folder") from None
    return fs, str(path)


class RemoteFolder(ArtifactFolder):
    """A folder of artifacts at `url`. Incoming files are received below `out`.

    With `keep_local`, a copy of each saved file stays at `local_path(path)`, for the caller to delete.
    """

    def __init__(self, out: Path, url: str, *, keep_local: bool = False) -> None:
        super().__init__(out)
        self.path = out / FETCHED
        self.url = url.rstrip("/")
        self._keep_local = keep_local

    @property
    def is_outside(self) -> bool:
        return True

    def local_path(self, path: str) -> Path:
        return self.path / PurePosixPath(path).name

    def save(self, file: IncomingFile, name: str) -> str:
        """As on a disk. The name contains the job id, so an identical file is of the same job."""
        with _translate_errors(self.url):
            source = file.finalize()
            for candidate in candidate_names(name):
                url = f"{self.url}/{candidate}"
                if _upload_if_free(source, url):
                    file.is_new = True
                    if self._keep_local:
                        source.replace(self.local_path(url))
                        file.moved = True
                    return url
        raise ResultsError(f"{self.url}: there are 10,000 files named {name} already")

    def remove_leftovers(self, unfinished: Collection[UnfinishedJob] = (), recorded: Collection[str] = ()) -> None:
        prefixes = {job.id[:8] for job in unfinished}
        super().remove_leftovers(unfinished, recorded)
        names = list_names(self.url) if prefixes else ()  # the list is long, so ask only if there may be leftovers
        self.delete(f"{self.url}/{name}" for name in names if find_job_prefix(name) in prefixes)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(Exception):  # a file that cannot be deleted is only untidy
                fs, remote_path = _open_filesystem(path)
                fs.rm_file(remote_path)


def _upload_if_free(source: Path, url: str) -> bool:
    """Upload a file. Returns True also if the same file is there already, and False if another one is."""
    fs, path = _open_filesystem(url)
    size = source.stat().st_size
    if fs.exists(path):
        return fs.info(path)["size"] == size and _is_same(fs, source, path)
    schemes = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if _ATOMIC_SCHEMES & schemes:
        fs.put_file(str(source), path)
    else:
        parent, _, name = path.rpartition("/")
        part = f"{parent}/.{name}.part"
        fs.makedirs(parent, exist_ok=True)
        fs.put_file(str(source), part)
        fs.mv(part, path)
    arrived = fs.info(path)["size"]
    if arrived != size:
        raise OSError(f"{arrived} bytes arrived of {size}")
    return True


def _is_same(fs: Any, source: Path, path: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        fs.get_file(path, str(copy))
        return filecmp.cmp(source, copy, shallow=False)


def folder_for(out: Path, path: str) -> ArtifactFolder:
    """The folder of an artifact with this path, whether or not the file exists."""
    return RemoteFolder(out, path.rpartition("/")[0]) if is_url(path) else ArtifactFolder(out)


def make_missing_finder(folder: Path, *, asks_storages: bool = False) -> Callable[[Iterable[str]], list[str]]:
    """Return a function that finds those of some recorded paths whose file is not in the results folder any more.

    Files at a URL count as present, unless it `asks_storages`, and so do those in a folder that cannot be listed. A
    folder is listed once for all of its files.
    """

    @cache
    def list_folder(path: str) -> frozenset[str] | None:
        if is_url(path):
            return list_names(path)
        try:
            with os.scandir(folder / path) as entries:
                return frozenset(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError:
            return None

    def find(paths: Iterable[str]) -> list[str]:
        parts = [(path, *path.rpartition("/")[::2]) for path in paths if asks_storages or not is_url(path)]
        return [p for p, parent, name in parts if (names := list_folder(parent)) is not None and name not in names]

    return find


def list_names(url: str) -> frozenset[str]:
    """The names of the files at a URL, empty if there is nothing. Raises ResultsError if the storage fails."""
    with _translate_errors(url):
        fs, folder = _open_filesystem(url, is_folder=True)
        try:
            return frozenset(PurePosixPath(path).name for path in fs.ls(folder, detail=False))
        except FileNotFoundError:
            return frozenset()


# --- reading


def local_path(out: Path, path: str, sha256: str) -> Path:
    """Where an artifact can be read, after `download_artifact` if its path is a URL."""
    if not is_url(path):
        return out / path
    return out / FETCHED / f"{sha256[:12]}-{PurePosixPath(path).name}"


def download_artifact(out: Path, path: str, sha256: str) -> Path | None:
    """The local file of an artifact, downloaded if necessary; None if the artifact is gone.

    Raises ResultsError if its storage does not respond, or if the file there is not the one on record.
    """
    destination = local_path(out, path, sha256)
    if not is_url(path) or destination.is_file():
        return destination if destination.is_file() else None
    with _translate_errors(path):
        fs, source = _open_filesystem(path)
        try:
            with atomic_write(destination) as file:
                fs.get_file(source, file.name)
                _check_hash(Path(file.name), path, sha256)
        except FileNotFoundError:
            return None
    return destination


def download_artifacts(out: Path, files: Iterable[tuple[str, str]]) -> None:
    """Download these artifacts, given as (path, sha256), concurrently. Raises ResultsError as `download_artifact`."""
    absent = [pair for pair in dict.fromkeys(files) if is_url(pair[0]) and not local_path(out, *pair).is_file()]
    if absent:
        with ThreadPoolExecutor(_MAX_CONCURRENT, thread_name_prefix="sweeper-fetch") as pool:
            list(pool.map(lambda pair: download_artifact(out, *pair), absent))


def _check_hash(file: Path, url: str, sha256: str) -> None:
    with file.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    if actual != sha256:
        raise ResultsError(f"{url}: the content is not the one on record (SHA-256 {actual}, not {sha256})")


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Turn any exception of a storage's package into a ResultsError that names the URL."""
    try:
        yield
    except SweeperError:
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise ResultsError(f"{url}: {message}; everything stored so far is safe") from error


STORAGES_VARIABLE: Final = "SWEEPER_STORAGES_FILE"
_allowed: Final[set[str]] = set()  # in this process


def get_storages_path() -> Path:
    if STORAGES_VARIABLE in os.environ:
        return Path(os.environ[STORAGES_VARIABLE]).expanduser()
    return user_config_path("sweeper", appauthor=False, roaming=True) / "storages.txt"


def allow_storage(url: str, *, remember: bool = False) -> None:
    """Allow a storage in this process, and if `remember` from now on, where the list can be written."""
    url = url.rstrip("/")
    _allowed.add(url)
    if remember and url.isprintable() and url not in _load_storages():
        path = get_storages_path()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                    file.write(b"\n")  # the user may have edited it
                file.write(f"{url}\n".encode())


def _load_storages() -> frozenset[str]:
    try:
        lines = get_storages_path().read_text("utf-8").splitlines()
    except (OSError, ValueError):  # there is none, or it is not a text
        return frozenset()
    return frozenset(line.strip().rstrip("/") for line in lines if "://" in line)


def _is_in(url: str, storages: Iterable[str]) -> bool:
    return any(
        url == storage or (url.startswith(f"{storage}/") and _goes_down(url[len(storage) + 1 :]))
        for storage in storages
    )


def _goes_down(path: str) -> bool:
    return not any(part in ("", ".", "..") for part in unquote(path).replace("\\", "/").split("/"))
