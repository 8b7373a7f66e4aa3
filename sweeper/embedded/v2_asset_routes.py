"""`/api/v2/assets`: files by id and by BLAKE3 hash of their content, over the same `AssetStore` as `/api/assets`."""

from __future__ import annotations

import asyncio
import mimetypes
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.asset_routes import HASH, AssetRoutes
from sweeper.embedded.assets import Asset, make_id
from sweeper.embedded.http_helpers import RouteRow, format_time, refuse_as
from sweeper.embedded.jobs import now_ms
from sweeper.embedded.request_parsing import parse_tags, parse_text, read_fields, read_form, read_form_tags
from sweeper.embedded.storage import URL_SECONDS


class V2AssetRoutes(AssetRoutes):
    """Endpoints below /api/v2/assets; `sign_url` makes the URLs of the contents."""

    def list_routes(self) -> list[RouteRow]:
        """All routes."""
        return [
            ("/v2/assets", self.upload_asset, "POST"),
            ("/v2/assets/from-hash", self.create_from_hash, "POST"),
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
        asset = Asset(make_id(), path, ("input", "", ""), "", "", 0, kind, now_ms(), now_ms(), read_form_tags(form))
        if expected and expected != f"blake3:{self.asset_store.hash_content(form.data)}":
            raise refuse_as(409, "hash_mismatch", "The content has another hash.")
        stored, new = await asyncio.to_thread(self.asset_store.store, form.data, asset)
        self.seen.uploads.append(stored.location[2])
        self.seen.count(written=int(new))
        return self._respond_with_asset(stored, new=new)

    async def create_from_hash(self, request: Request) -> Response:
        """POST /api/v2/assets/from-hash: the stored asset with this content."""
        fields = await read_fields(request, {"hash": parse_text, "tags": parse_tags}, ("hash",))
        asset = self._find_by_hash(fields["hash"])
        if asset is None:
            raise refuse_as(404, "blob_not_found", "No asset has this hash.")
        return self._respond_with_asset(asset, new=False)

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/v2/assets/by-hash/{hash}: 200 if an asset has this content, else 404."""
        return Response(status_code=404 if self._find_by_hash(request.path_params["hash"]) is None else 200)

    def _find_by_hash(self, text: str) -> Asset | None:
        return self.asset_store.find_by_hash(text) if HASH.fullmatch(text) else None

    def to_json(self, asset: Asset) -> dict[str, Any]:
        """The record of an asset as API v2 shows it."""
        return {
            "id": asset.id,
            "hash": f"blake3:{asset.blake3}",
            "size_bytes": asset.size,
            "content_type": asset.mime_type or mimetypes.guess_type(asset.name)[0],
            "file_path": asset.name,
            "created_at": format_time(asset.created),
            "url": self.sign_url(*asset.location),
            "url_expires_at": format_time(now_ms() + URL_SECONDS * 1000),
            "expires_at": None,
            "job_id": asset.prompt_id,
        }
