"""The assets of a Cloud account: files by id and by hash of content, with names, tags and metadata of the user's.

A shelf keeps records, in memory and in an SQLite file where jobs are durable too; the bytes lie in the server's
folders, an upload under its hash. What jobs have made comes onto the shelf when somebody looks (`absorb`), so that a
run pays nothing for it. HTTP is `asset_routes.py`'s business.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import sqlite3
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from sweeper.embedded.folders import ServerFolders, is_file
from sweeper.embedded.jobs import ENDED, now_ms
from sweeper.embedded.upload_storage import write_atomically
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sweeper.embedded.jobs import ServerJob


@dataclass(frozen=True, slots=True)
class Asset:
    """One record. Times are milliseconds since the epoch; hashes are hex digits of the content."""

    id: str
    name: str
    location: tuple[str, str, str]  # type, subfolder, file name: where the bytes are
    blake3: str
    sha256: str
    size: int
    mime_type: str
    created: int
    updated: int
    tags: tuple[str, ...] = ()
    user_metadata: dict[str, Any] = field(default_factory=dict)
    preview_id: str | None = None
    prompt_id: str | None = None  # the job that made it


class AssetStore:
    """Every asset of the one account. All methods may be called from any thread.

    Args:
        folders: where the bytes lie.
        path: the SQLite file; None: nothing survives the server.

    Raises:
        UsageError: the file cannot be used.

    """

    def __init__(self, folders: ServerFolders, path: Path | None = None) -> None:
        self.folders = folders
        self._lock = threading.RLock()
        self._imported_jobs: set[str] = set()
        try:
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("CREATE TABLE IF NOT EXISTS asset (id TEXT PRIMARY KEY, record TEXT)")
            self._db.execute("CREATE TABLE IF NOT EXISTS layers (name TEXT PRIMARY KEY, record TEXT)")
            rows = self._db.execute("SELECT record FROM asset ORDER BY rowid").fetchall()
        except sqlite3.Error as problem:
            raise UsageError(f"{path}: cannot keep assets here ({problem})") from problem
        self._assets = {asset.id: asset for asset in (_from_json(row[0]) for row in rows)}

    def close(self) -> None:
        """Give the file free."""
        with self._lock:
            self._db.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    def list_assets(self) -> list[Asset]:
        """Every asset, oldest first."""
        with self._lock:
            return list(self._assets.values())

    def get(self, asset_id: str) -> Asset | None:
        """The asset of this id."""
        with self._lock:
            return self._assets.get(asset_id)

    def find_by_hash(self, text: str) -> Asset | None:
        """The oldest asset with this content: `blake3:HEX` or `sha256:HEX`."""
        kind, _, digits = text.partition(":")
        with self._lock:
            found = (asset for asset in self._assets.values() if getattr(asset, kind) == digits)
            return next((asset for asset in found if is_file(self.get_path(asset))), None)

    @staticmethod
    def hash_content(data: bytes) -> str:
        """The hex digits that name this content."""
        return str(blake3(data).hexdigest())

    def get_path(self, asset: Asset) -> Path:
        """Where the bytes are, if nobody removed them."""
        return self.folders.resolve(*asset.location)

    # --- changing ----------------------------------------------------------------------------------------------------

    def store(self, data: bytes, asset: Asset) -> tuple[Asset, bool]:
        """Put content onto the shelf; (the asset, whether it is new). Known content gives the asset that has it."""
        digest = self.hash_content(data)
        with self._lock:
            known = self.find_by_hash(f"blake3:{digest}")
            if known is not None:
                return known, False
            name = f"{digest}{choose_suffix(asset)}"
            write_atomically(self.folders.input_dir / name, data)
            return self.add(replace(asset, **_content_fields(data, digest), location=("input", "", name))), True

    def add(self, asset: Asset) -> Asset:
        """Write a record down, in place of the one with its id."""
        with self._lock:
            self._assets[asset.id] = asset
            self._db.execute("INSERT OR REPLACE INTO asset VALUES (?, ?)", (asset.id, _to_json(asset)))
            return asset

    def add_upload(self, asset_id: str, name: str, location: tuple[str, str, str], tags: tuple[str, ...]) -> None:
        """A file that came by another door (/upload/image) is an asset too, once."""
        with self._lock:
            if any(asset.location == location for asset in self._assets.values()):
                return
            data, now = self.folders.resolve(*location).read_bytes(), now_ms()
            facts = _content_fields(data, self.hash_content(data))
            self.add(
                Asset(
                    asset_id,
                    name,
                    location,
                    created=now,
                    updated=now,
                    tags=tags,
                    mime_type=_guess_mime_type(name),
                    **facts,
                )
            )

    def delete(self, asset_id: str) -> bool:
        """Forget an asset, and remove its bytes unless another asset has them too. False: there is none."""
        with self._lock:
            asset = self._assets.pop(asset_id, None)
            if asset is None:
                return False
            self._db.execute("DELETE FROM asset WHERE id = ?", (asset_id,))
            if not any(other.location == asset.location for other in self._assets.values()):
                self.get_path(asset).unlink(missing_ok=True)
            return True

    def import_outputs(self, jobs: Iterable[ServerJob], make_id: Any) -> None:
        """Take in the files that ended jobs have made and that are still there; `new_id()` gives an id."""
        with self._lock:
            places = {asset.location for asset in self._assets.values()}
            for job in jobs:
                if job.id in self._imported_jobs or job.state not in ENDED:
                    continue
                self._imported_jobs.add(job.id)
                for place in _output_locations(job):
                    if place not in places and is_file(self.folders.resolve(*place)):
                        places.add(place)
                        self._import_file(job, place, make_id())

    def _import_file(self, job: ServerJob, location: tuple[str, str, str], asset_id: str) -> None:
        media = _guess_mime_type(location[2])
        family = media.partition("/")[0]  # a tag too: the documents ask for output, image
        data, ended = self.folders.resolve(*location).read_bytes(), job.ended or now_ms()
        facts = _content_fields(data, self.hash_content(data))
        made = Asset(
            asset_id, location[2], location, created=ended, updated=ended, mime_type=media, **facts,
            tags=(location[0], family), prompt_id=job.id,
        )  # fmt: skip
        self.add(made)

    # --- masks -------------------------------------------------------------------------------------------------------

    def save_mask_layers(self, layers: dict[str, str | None]) -> None:
        """These files are the layers of one mask: layer -> file name."""
        with self._lock:
            for name in filter(None, layers.values()):
                self._db.execute("INSERT OR REPLACE INTO layers VALUES (?, ?)", (name, json.dumps(layers)))

    def find_mask_layers(self, name: str) -> dict[str, str | None] | None:
        """The layers of the mask that this file is one of."""
        with self._lock:
            row = self._db.execute("SELECT record FROM layers WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])


def choose_suffix(asset: Asset) -> str:
    """The ending of a file name: the one it came with, else the usual one of its type."""
    _, dot, ending = asset.name.rpartition(".")
    if dot and ending.isalnum() and len(ending) <= 16:
        return f".{ending.lower()}"
    return mimetypes.guess_extension(asset.mime_type) or ""


def _content_fields(data: bytes, digest: str) -> dict[str, Any]:
    return {"blake3": digest, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _guess_mime_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _output_locations(job: ServerJob) -> list[tuple[str, str, str]]:
    files = [file for ui in job.results.values() for kind in ui.values() for file in kind if isinstance(file, dict)]
    return [(file["type"], file["subfolder"], file["filename"]) for file in files if "filename" in file]


def _to_json(asset: Asset) -> str:
    record = asdict(asset)
    record["place"] = record.pop("location")  # the key in files written by earlier versions
    return json.dumps(record)


def _from_json(text: str) -> Asset:
    record = json.loads(text)
    location = tuple(record.pop("place"))
    return Asset(**{**record, "tags": tuple(record["tags"]), "location": location})
