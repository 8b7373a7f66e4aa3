"""The assets of API v2: files by id and by the BLAKE3 hash of their content, and the endpoints below /api/v2/assets.

An `AssetStore` keeps the records in SQLite, in a file if jobs are stored too. The content is in the server's folders;
an upload is named by its hash. Outputs of jobs become assets when a client asks for them (`import_outputs`), so that
running a job costs nothing more.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
import sqlite3
import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.folders import ServerFolders, is_file, write_atomically
from sweeper.embedded.http_helpers import (
    RouteRow,
    format_time,
    json_response,
    read_form,
    read_object,
    refuse_as,
)
from sweeper.embedded.jobs import ENDED, Location, ServerJob, now_ms
from sweeper.embedded.media_routes import URL_SECONDS, UrlSigner
from sweeper.embedded.service import Service
from sweeper.errors import UsageError

_HASH = re.compile(r"blake3:[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Asset:
    """The record of one asset. Times are milliseconds since the epoch."""

    id: str
    name: str
    location: Location  # of the content
    hash: str  # blake3:HEX
    size: int
    mime_type: str
    created: int
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
            rows = self._db.execute("SELECT record FROM asset ORDER BY rowid").fetchall()
        except sqlite3.Error as problem:
            raise UsageError(f"{path}: cannot keep assets here ({problem})") from problem
        records = [json.loads(row[0]) for row in rows]
        self._assets = {one["id"]: Asset(**{**one, "location": tuple(one["location"])}) for one in records}

    def close(self) -> None:
        """Close the SQLite file."""
        with self._lock:
            self._db.close()

    def list_assets(self) -> list[Asset]:
        """All assets, oldest first."""
        with self._lock:
            return list(self._assets.values())

    def get(self, asset_id: str) -> Asset | None:
        """The asset with this id, or None."""
        with self._lock:
            return self._assets.get(asset_id)

    def find_by_hash(self, text: str) -> Asset | None:
        """The oldest asset whose content has this hash, or None."""
        matches = (asset for asset in self.list_assets() if asset.hash == text)
        return next((asset for asset in matches if is_file(self.folders.resolve(*asset.location))), None)

    def store(self, data: bytes, name: str, mime_type: str) -> tuple[Asset, bool]:
        """Store content as an asset. Returns (asset, whether it is new); for known content, the existing asset."""
        digest = blake3(data).hexdigest()
        with self._lock:
            existing = self.find_by_hash(f"blake3:{digest}")
            if existing is not None:
                return existing, False
            location = ("input", "", f"{digest}{_choose_suffix(name, mime_type)}")
            write_atomically(self.folders.resolve(*location), data)
            return self._add(data, name, location, mime_type, created=now_ms()), True

    def _add(self, data: bytes, name: str, location: Location, mime_type: str, **fields: Any) -> Asset:
        digest = f"blake3:{blake3(data).hexdigest()}"
        asset = Asset(str(uuid.uuid4()), name, location, digest, len(data), mime_type, **fields)
        self._assets[asset.id] = asset
        self._db.execute("INSERT INTO asset VALUES (?, ?)", (asset.id, json.dumps(asdict(asset))))
        return asset

    def delete(self, asset_id: str) -> None:
        """Delete an asset and its content."""
        with self._lock:
            asset = self._assets.pop(asset_id)
            self._db.execute("DELETE FROM asset WHERE id = ?", (asset_id,))
            self.folders.resolve(*asset.location).unlink(missing_ok=True)

    def import_outputs(self, jobs: Iterable[ServerJob]) -> None:
        """Add the output files of ended jobs, if they still exist."""
        with self._lock:
            locations = {asset.location for asset in self._assets.values()}
            for job in jobs:
                if job.id in self._imported_jobs or job.state not in ENDED:
                    continue
                self._imported_jobs.add(job.id)
                for location, _ in job.output_files:
                    path = self.folders.resolve(*location)
                    if location not in locations and is_file(path):
                        locations.add(location)
                        kind = mimetypes.guess_type(location[2])[0] or "application/octet-stream"
                        times = {"created": job.ended or now_ms(), "prompt_id": job.id}
                        self._add(path.read_bytes(), location[2], location, kind, **times)


def _choose_suffix(name: str, mime_type: str) -> str:
    """The file suffix for an asset: that of its name, else the usual one of its MIME type."""
    _, dot, ending = name.rpartition(".")
    if dot and ending.isalnum() and len(ending) <= 16:
        return f".{ending.lower()}"
    return mimetypes.guess_extension(mime_type) or ""


class AssetRoutes:
    """Endpoints below /api/v2/assets. `sign_url` makes the URLs of the contents."""

    def __init__(self, service: Service, asset_store: AssetStore, sign_url: UrlSigner) -> None:
        self.faults, self.seen, self.queue = service.faults, service.seen, service.queue
        self.asset_store = asset_store
        self.sign_url = sign_url

    def list_routes(self) -> list[RouteRow]:
        """All routes."""
        return [
            ("/v2/assets", self.upload_asset, "POST"),
            ("/v2/assets/from-hash", self.find_content, "POST"),
            ("/v2/assets/by-hash/{hash}", self.check_hash, "HEAD"),
            ("/v2/assets/{id}", self.get_asset, "GET"),
            ("/v2/assets/{id}", self.delete_asset, "DELETE"),
            ("/v2/assets/{id}/content", self.get_content, "GET"),
        ]

    async def upload_asset(self, request: Request) -> Response:
        """POST /api/v2/assets: 201, or 200 if the content is stored already; 409 if it has not the expected hash."""
        form = await read_form(request, "file")
        path, expected = form.get("file_path") or form.filename, form.get("expected_hash")
        if not path:
            raise refuse_as(422, "invalid_request", "'file_path' is missing.")
        kind = form.get("content_type") or form.content_type or "application/octet-stream"
        if expected and expected != f"blake3:{blake3(form.data).hexdigest()}":
            raise refuse_as(409, "hash_mismatch", "The content has another hash.")
        stored, new = await asyncio.to_thread(self.asset_store.store, form.data, path, kind)
        self.seen.uploads.append(stored.location[2])
        self.seen.count(written=int(new))
        return json_response({**self.to_json(stored), "created_new": new}, 201 if new else 200)

    async def find_content(self, request: Request) -> Response:
        """POST /api/v2/assets/from-hash: the stored asset with this content."""
        asset = self._find_by_hash((await read_object(request)).get("hash"))
        if asset is None:
            raise refuse_as(404, "blob_not_found", "No asset has this hash.")
        return json_response({**self.to_json(asset), "created_new": False})

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/v2/assets/by-hash/{hash}: 200 if an asset has this content, else 404."""
        return Response(status_code=404 if self._find_by_hash(request.path_params["hash"]) is None else 200)

    def _find_by_hash(self, text: Any) -> Asset | None:
        return self.asset_store.find_by_hash(text) if isinstance(text, str) and _HASH.fullmatch(text) else None

    async def get_asset(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}: the record of an asset."""
        return json_response(self.to_json(await self._find_asset(request)))

    async def get_content(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}/content: 302 to the file on the storage host."""
        if self.faults.take("missing_download_times"):
            raise refuse_as(404, "not_found", "Asset not found")
        location = (await self._find_asset(request)).location
        self.seen.count(redirects=1)
        return Response(status_code=302, headers={"location": self.sign_url(*location)})

    async def delete_asset(self, request: Request) -> Response:
        """DELETE /api/v2/assets/{id}: 204."""
        self.asset_store.delete((await self._find_asset(request)).id)
        return Response(status_code=204)

    async def _find_asset(self, request: Request) -> Asset:
        await asyncio.to_thread(self.asset_store.import_outputs, self.queue.list_jobs())
        asset = self.asset_store.get(request.path_params["id"].lower())
        if asset is None:
            raise refuse_as(404, "not_found", "Asset not found")
        return asset

    def to_json(self, asset: Asset) -> dict[str, Any]:
        """The record of an asset."""
        return {
            "id": asset.id,
            "hash": asset.hash,
            "size_bytes": asset.size,
            "content_type": asset.mime_type,
            "file_path": asset.name,
            "created_at": format_time(asset.created),
            "url": self.sign_url(*asset.location),
            "url_expires_at": format_time(now_ms() + URL_SECONDS * 1000),
            "expires_at": None,
            "job_id": asset.prompt_id,
        }
