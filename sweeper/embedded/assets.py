"""The assets of a Cloud account: files by id and by hash of their content, with names, tags and metadata.

An `AssetStore` keeps the records in memory, and also in an SQLite file if jobs are stored too. The content is in the
server's folders; an upload is named by its hash. Outputs of jobs become assets when a client asks for assets
(`import_outputs`), so that running a job costs nothing more. `asset_routes.py` has the endpoints.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import sqlite3
import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from sweeper.embedded.folders import ServerFolders, is_file, write_atomically
from sweeper.embedded.jobs import ENDED, Location, ServerJob, now_ms
from sweeper.errors import UsageError


@dataclass(frozen=True, slots=True)
class Asset:
    """The record of one asset. Times are milliseconds since the epoch; hashes are hex digits."""

    id: str
    name: str
    location: Location  # of the content
    blake3: str
    sha256: str
    size: int
    mime_type: str
    created: int
    updated: int
    tags: tuple[str, ...] = ()
    user_metadata: dict[str, Any] = field(default_factory=dict)
    preview_id: str | None = None
    prompt_id: str | None = None  # the job of which it is an output


class AssetStore:
    """All assets of the one account. Thread-safe.

    Args:
        folders: the folders with the content.
        path: the SQLite file for the records; None: keep them in memory only.

    Raises:
        UsageError: the SQLite file cannot be used.

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
        """Close the SQLite file."""
        with self._lock:
            self._db.close()

    # --- queries -----------------------------------------------------------------------------------------------------

    def list_assets(self) -> list[Asset]:
        """All assets, oldest first."""
        with self._lock:
            return list(self._assets.values())

    def get(self, asset_id: str) -> Asset | None:
        """The asset with this id, or None."""
        with self._lock:
            return self._assets.get(asset_id)

    def find_by_hash(self, text: str) -> Asset | None:
        """The oldest asset whose content has this hash, `blake3:HEX` or `sha256:HEX`, or None."""
        algorithm, _, digits = text.partition(":")
        with self._lock:
            matches = (asset for asset in self._assets.values() if getattr(asset, algorithm) == digits)
            return next((asset for asset in matches if is_file(self.get_path(asset))), None)

    @staticmethod
    def hash_content(data: bytes) -> str:
        """The BLAKE3 hash of content, in hex digits."""
        return str(blake3(data).hexdigest())

    def get_path(self, asset: Asset) -> Path:
        """The path of the content, which may have been deleted."""
        return self.folders.resolve(*asset.location)

    # --- changes -----------------------------------------------------------------------------------------------------

    def store(self, data: bytes, asset: Asset) -> tuple[Asset, bool]:
        """Store content as an asset. Returns (asset, whether it is new); for known content, the existing asset."""
        digest = self.hash_content(data)
        with self._lock:
            existing = self.find_by_hash(f"blake3:{digest}")
            if existing is not None:
                return existing, False
            name = f"{digest}{choose_suffix(asset)}"
            write_atomically(self.folders.input_dir / name, data)
            return self.add(replace(asset, **_content_fields(data, digest), location=("input", "", name))), True

    def add(self, asset: Asset) -> Asset:
        """Store a record. It replaces the record with the same id."""
        with self._lock:
            self._assets[asset.id] = asset
            self._db.execute("INSERT OR REPLACE INTO asset VALUES (?, ?)", (asset.id, _to_json(asset)))
            return asset

    def add_upload(self, name: str, location: Location) -> None:
        """Add a file that was uploaded by /upload/image, unless it is an asset already."""
        with self._lock:
            if all(asset.location != location for asset in self._assets.values()):
                self._add_file(name, location, now_ms(), tags=("input",))

    def _add_file(self, name: str, location: Location, created: int, **fields: Any) -> None:
        data = self.folders.resolve(*location).read_bytes()
        fields |= {"mime_type": _guess_mime_type(name), **_content_fields(data, self.hash_content(data))}
        self.add(Asset(make_id(), name, location, created=created, updated=created, **fields))

    def delete(self, asset_id: str) -> bool:
        """Delete an asset, and its content unless another asset has it too. Returns False for an unknown id."""
        with self._lock:
            asset = self._assets.pop(asset_id, None)
            if asset is None:
                return False
            self._db.execute("DELETE FROM asset WHERE id = ?", (asset_id,))
            if not any(other.location == asset.location for other in self._assets.values()):
                self.get_path(asset).unlink(missing_ok=True)
            return True

    def import_outputs(self, jobs: Iterable[ServerJob]) -> None:
        """Add the output files of ended jobs, if they still exist."""
        with self._lock:
            locations = {asset.location for asset in self._assets.values()}
            for job in jobs:
                if job.id in self._imported_jobs or job.state not in ENDED:
                    continue
                self._imported_jobs.add(job.id)
                for location, _ in job.output_files:
                    if location not in locations and is_file(self.folders.resolve(*location)):
                        locations.add(location)
                        kind, _, name = location
                        # Cloud tags an output picture with "output" and "image".
                        tags = (kind, _guess_mime_type(name).partition("/")[0])
                        self._add_file(name, location, job.ended or now_ms(), tags=tags, prompt_id=job.id)

    # --- masks -------------------------------------------------------------------------------------------------------

    def save_mask_layers(self, layers: dict[str, str | None]) -> None:
        """Store which files are the layers of one mask: layer -> file name."""
        with self._lock:
            for name in filter(None, layers.values()):
                self._db.execute("INSERT OR REPLACE INTO layers VALUES (?, ?)", (name, json.dumps(layers)))

    def find_mask_layers(self, name: str) -> dict[str, str | None] | None:
        """The layers of the mask to which this file belongs, or None."""
        with self._lock:
            row = self._db.execute("SELECT record FROM layers WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])


def make_id() -> str:
    """A new asset id."""
    return str(uuid.uuid4())


def choose_suffix(asset: Asset) -> str:
    """The file suffix for an asset: that of its name, else the usual one of its MIME type."""
    _, dot, ending = asset.name.rpartition(".")
    if dot and ending.isalnum() and len(ending) <= 16:
        return f".{ending.lower()}"
    return mimetypes.guess_extension(asset.mime_type) or ""


def _content_fields(data: bytes, digest: str) -> dict[str, Any]:
    return {"blake3": digest, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _guess_mime_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _to_json(asset: Asset) -> str:
    record = asdict(asset)
    record["place"] = record.pop("location")  # the key in files written by earlier versions
    return json.dumps(record)


def _from_json(text: str) -> Asset:
    record = json.loads(text)
    location = tuple(record.pop("place"))
    return Asset(**{**record, "tags": tuple(record["tags"]), "location": location})
