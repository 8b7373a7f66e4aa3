"""The assets of API v2: files by id and by the BLAKE3 hash of their content, and the endpoints below /api/v2/assets.

The folders of the server and the outputs of its jobs are the store. An upload is named by its hash, and the id of an
asset is a hash of its place, so that all assets keep their ids over a restart.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.folders import hash_file, is_file, write_atomically
from sweeper.embedded.http_helpers import RouteRow, format_time, json_response, read_form, read_object, refuse_as
from sweeper.embedded.jobs import ENDED, Location, now_ms
from sweeper.embedded.media_routes import URL_SECONDS, UrlSigner
from sweeper.embedded.service import Service

_HASH = re.compile(r"blake3:([a-f0-9]{64})")
_UPLOAD = re.compile(r"[a-f0-9]{64}(\.\w+)?", re.ASCII)


@lru_cache(maxsize=10_000)
def _make_id(location: Location) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(location)))


class AssetRoutes:
    """Endpoints below /api/v2/assets. `sign_url` makes the URLs of the contents."""

    def __init__(self, service: Service, sign_url: UrlSigner) -> None:
        self.faults, self.seen, self.queue = service.faults, service.seen, service.queue
        self.folders = service.folders
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

    def _iter_assets(self) -> Iterator[tuple[Location, str | None]]:
        """All uploads, and all outputs with the ids of their jobs, whether their files still exist or not."""
        yield from ((("input", "", path.name), None) for path in self.folders.input_dir.iterdir() if _is_upload(path))
        for job in self.queue.list_jobs():
            if job.state in ENDED:
                yield from ((location, job.id) for location, _ in job.output_files)

    def find(self, asset_id: str) -> tuple[Location, str | None] | None:
        """The location of the asset with this id, and the job of which it is an output; None if there is no file."""
        found = next((asset for asset in self._iter_assets() if _make_id(asset[0]) == asset_id.lower()), None)
        return found if found and is_file(self.folders.resolve(*found[0])) else None

    def describe(self, location: Location, prompt_id: str | None) -> dict[str, Any]:
        """The record of an asset. Raises OSError if there is no file."""
        path = self.folders.resolve(*location)
        facts = path.stat()
        digest = path.name[:64] if _is_upload(path) else hash_file(path)
        return {
            "id": _make_id(location),
            "hash": f"blake3:{digest}",
            "size_bytes": facts.st_size,
            "content_type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "file_path": path.name,
            "created_at": format_time(facts.st_mtime_ns // 1_000_000),
            "url": self.sign_url(*location),
            "url_expires_at": format_time(now_ms() + URL_SECONDS * 1000),
            "expires_at": None,
            "job_id": prompt_id,
        }

    async def upload_asset(self, request: Request) -> Response:
        """POST /api/v2/assets: 201, or 200 if the content is stored already; 409 if it has not the expected hash."""
        form = await read_form(request, "file")
        name, expected = form.texts.get("file_path") or form.filename, form.texts.get("expected_hash")
        if not name:
            raise refuse_as(422, "invalid_request", "'file_path' is missing.")
        digest = blake3(form.data).hexdigest()
        if expected and expected != f"blake3:{digest}":
            raise refuse_as(409, "hash_mismatch", "The content has another hash.")
        location = self._find_upload(f"blake3:{digest}")
        new = location is None
        if location is None:
            suffix = Path(name).suffix.lower()
            kind = form.texts.get("content_type") or form.content_type
            suffix = suffix if _UPLOAD.fullmatch(digest + suffix) and suffix else mimetypes.guess_extension(kind) or ""
            location = ("input", "", digest + suffix)
            await asyncio.to_thread(write_atomically, self.folders.resolve(*location), form.data)
        self.seen.uploads.append(location[2])
        self.seen.count(written=int(new))
        body = {**self.describe(location, None), "file_path": name, "created_new": new}
        return json_response(body, 201 if new else 200)

    def _find_upload(self, text: Any) -> Location | None:
        match = _HASH.fullmatch(text) if isinstance(text, str) else None
        paths = () if match is None else self.folders.input_dir.glob(f"{match[1]}*")
        return next((("input", "", path.name) for path in paths if _is_upload(path)), None)

    async def find_content(self, request: Request) -> Response:
        """POST /api/v2/assets/from-hash: the stored asset with this content."""
        location = self._find_upload((await read_object(request)).get("hash"))
        if location is None:
            raise refuse_as(404, "blob_not_found", "No asset has this hash.")
        return json_response({**self.describe(location, None), "created_new": False})

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/v2/assets/by-hash/{hash}: 200 if an asset has this content, else 404."""
        return Response(status_code=404 if self._find_upload(request.path_params["hash"]) is None else 200)

    async def get_asset(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}: the record of an asset."""
        return json_response(await asyncio.to_thread(self.describe, *self._require(request)))

    async def get_content(self, request: Request) -> Response:
        """GET /api/v2/assets/{id}/content: 302 to the file on the storage host."""
        if self.faults.take("missing_download_times"):
            raise refuse_as(404, "not_found", "Asset not found")
        location, _ = self._require(request)
        self.seen.count(redirects=1)
        return Response(status_code=302, headers={"location": self.sign_url(*location)})

    async def delete_asset(self, request: Request) -> Response:
        """DELETE /api/v2/assets/{id}: 204."""
        self.folders.resolve(*self._require(request)[0]).unlink(missing_ok=True)
        return Response(status_code=204)

    def _require(self, request: Request) -> tuple[Location, str | None]:
        asset = self.find(request.path_params["id"])
        if asset is None:
            raise refuse_as(404, "not_found", "Asset not found")
        return asset


def _is_upload(path: Path) -> bool:
    return _UPLOAD.fullmatch(path.name) is not None and is_file(path)
