"""`/api/assets` and `/api/tags` of the Cloud dialect, and `/api/v2/assets`, over one `AssetStore`.

They follow Comfy Cloud's published specification of August 2026.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sweeper.embedded.assets import Asset, AssetStore, make_id
from sweeper.embedded.http_helpers import (
    FieldParser,
    RouteRow,
    cut_page,
    format_time,
    json_response,
    make_cursor,
    parse_cursor,
    parse_id,
    parse_json,
    parse_object,
    parse_some_tags,
    parse_tags,
    parse_text,
    read_bounded,
    read_choice,
    read_fields,
    read_flag,
    read_form,
    read_form_tags,
    read_words,
    refuse,
    refuse_as,
)
from sweeper.embedded.jobs import now_ms
from sweeper.embedded.media_routes import URL_SECONDS, UrlSigner
from sweeper.embedded.service import Service

HASH = re.compile(r"(blake3|sha256):[a-f0-9]{64}")


class AssetRoutes:
    """Endpoints for assets, which include the outputs of jobs. `sign_url` makes the URLs of the contents."""

    def __init__(self, service: Service, asset_store: AssetStore, sign_url: UrlSigner) -> None:
        self.faults, self.seen, self.queue = service.faults, service.seen, service.queue
        self.asset_store = asset_store
        self.sign_url = sign_url

    def list_routes(self) -> list[RouteRow]:
        """All routes."""
        return [
            ("/files/mask-layers", self.get_mask_layers, "GET"),
            ("/assets", self.list_assets, "GET"),
            ("/assets", self.upload_asset, "POST"),
            ("/assets/from-hash", self.create_from_hash, "POST"),
            ("/assets/tags/refine", self.count_tags, "GET"),
            ("/assets/hash/{hash}", self.check_hash, "HEAD"),
            ("/assets/{id}", self.get_asset, "GET"),
            ("/assets/{id}", self.update_asset, "PUT"),
            ("/assets/{id}", self.delete_asset, "DELETE"),
            ("/assets/{id}/content", self.get_content, "GET"),
            ("/assets/{id}/tags", self.change_tags, "POST"),
            ("/assets/{id}/tags", self.change_tags, "DELETE"),
            ("/tags", self.list_tags, "GET"),
        ]

    async def list_assets(self, request: Request) -> Response:
        """GET /api/assets: the assets that match the query."""
        sort = read_choice(request, "sort", tuple(_SORT_KEYS), "created_at")
        order = read_choice(request, "order", ("asc", "desc"), "desc")
        limit, offset = read_bounded(request, "limit", 20, 1, 500), read_bounded(request, "offset", 0, 0)
        assets = await self._select_assets(request)
        key = _SORT_KEYS[sort]
        assets.sort(key=lambda asset: (key(asset), asset.id), reverse=order == "desc")
        after = request.query_params.get("after")
        if after:
            offset = _find_start(after, sort, assets)
        page, pagination = cut_page(assets, offset, limit)
        more, rows = pagination["has_more"], [self.to_json(asset) for asset in page]
        cursor = {"next_cursor": make_cursor({"s": sort, "id": page[-1].id})} if more and sort in _CURSOR_SORTS else {}
        return json_response({"assets": rows, "total": len(assets), "has_more": more, **cursor})

    async def _select_assets(self, request: Request) -> list[Asset]:
        read_flag(request, "include_public", default=True)  # nothing here is public
        included = _read_tag_filter(request, "tags_all", "include_tags")
        excluded = _read_tag_filter(request, "tags_none", "exclude_tags")
        chosen = _read_tag_filter(request, "tags_any", "tags_any")
        if included & excluded:
            raise refuse_as(400, "INVALID_TAG_FILTER", "A tag cannot be both in 'tags_all' and in 'tags_none'.")
        digest = request.query_params.get("hash")
        part = request.query_params.get("name_contains", "").casefold()
        metadata = _parse_object(request.query_params.get("metadata_filter", "{}"), "metadata_filter")
        return [
            asset
            for asset in await self._load_assets()
            if included <= set(asset.tags) and not excluded & set(asset.tags) and part in asset.name.casefold()
            if (not chosen or chosen & set(asset.tags)) and digest in {None, f"blake3:{asset.blake3}"}
            if all(asset.user_metadata.get(key) == value for key, value in metadata.items())
        ]

    async def _load_assets(self) -> list[Asset]:
        await asyncio.to_thread(self.asset_store.import_outputs, self.queue.list_jobs())
        return self.asset_store.list_assets()

    async def upload_asset(self, request: Request) -> Response:
        """POST /api/assets: upload a file; 201, or 200 with the asset that has this content or this id already."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise refuse_as(415, "unsupported_media_type", "Send multipart/form-data with a 'file'.")
        form = await read_form(request, "file")
        asset_id = parse_id("id", form.get("id") or None)
        existing = None if asset_id is None else self.asset_store.get(asset_id)
        if existing is not None:
            return self._respond_with_asset(existing, new=False)
        name = form.get("name") or form.filename or "asset"
        asset = Asset(
            asset_id or make_id(), name, ("input", "", ""), "", "", 0,
            form.get("mime_type") or form.content_type or "application/octet-stream",
            now_ms(), now_ms(), read_form_tags(form), _parse_object(form.get("user_metadata") or "{}", "user_metadata"),
            parse_id("preview_id", form.get("preview_id") or None),
        )  # fmt: skip
        stored, new = await asyncio.to_thread(self.asset_store.store, form.data, asset)
        return self._respond_with_asset(stored, new=new)

    async def create_from_hash(self, request: Request) -> Response:
        """POST /api/assets/from-hash: a new name and tags for stored content; 200 if it has this name already."""
        parsers = {"hash": parse_text, "tags": parse_some_tags} | _COMMON_PARSERS
        fields = await read_fields(request, parsers, ("hash", "tags"))
        digest = fields.pop("hash")
        if not HASH.fullmatch(digest):
            raise refuse("'hash' must be blake3: or sha256: and 64 hex digits.")
        await self._load_assets()
        source = self.asset_store.find_by_hash(digest)
        if source is None:
            raise refuse_as(404, "not_found", "No asset has this hash.")
        name = fields.get("name", source.name)
        assets = self.asset_store.list_assets()
        same = [asset for asset in assets if asset.blake3 == source.blake3 and asset.name == name]
        if same:
            return self._respond_with_asset(same[-1], new=False)
        times = {"created": now_ms(), "updated": now_ms()}
        copy = self.asset_store.add(replace(source, **{"user_metadata": {}, **fields, "id": make_id(), **times}))
        return self._respond_with_asset(copy, new=True)

    async def check_hash(self, request: Request) -> Response:
        """HEAD /api/assets/hash/{hash}: 200 if an asset has this content, else 404."""
        digest = request.path_params["hash"]
        if not HASH.fullmatch(digest) or not digest.startswith("blake3:"):
            raise refuse("The hash must be blake3: and 64 hex digits.")
        await self._load_assets()
        return Response(status_code=404 if self.asset_store.find_by_hash(digest) is None else 200)

    async def get_asset(self, request: Request) -> Response:
        """GET /api/assets/{id}: the record of an asset."""
        return json_response(self.to_json(await self._find_asset(request)))

    async def get_content(self, request: Request) -> Response:
        """GET /api/assets/{id}/content: 302 to the file on the storage host."""
        if self.faults.take("missing_download_times"):
            raise refuse_as(404, "not_found", "Asset not found")
        location = (await self._find_asset(request)).location
        self.seen.count(redirects=1)
        return Response(status_code=302, headers={"location": self.sign_url(*location)})

    async def update_asset(self, request: Request) -> Response:
        """PUT /api/assets/{id}: change at least one of name, mime type, preview and metadata."""
        asset = await self._find_asset(request)
        changes = await read_fields(request, {"preview_id": parse_id} | _COMMON_PARSERS, ())
        if not changes:
            raise refuse("Give at least one of name, mime_type, preview_id, user_metadata.")
        preview = changes.get("preview_id")
        if preview is not None and self.asset_store.get(preview) is None:
            raise refuse_as(404, "not_found", "There is no such preview.")
        changed = self.to_json(self.asset_store.add(replace(asset, **changes, updated=now_ms())))
        names = ("id", "name", "hash", "tags", "mime_type", "user_metadata", "job_id", "updated_at")
        return json_response({name: changed[name] for name in names})

    async def delete_asset(self, request: Request) -> Response:
        """DELETE /api/assets/{id}: 204. Deletes the content too, unless another asset has it."""
        self.asset_store.delete((await self._find_asset(request)).id)
        return Response(status_code=204)

    async def change_tags(self, request: Request) -> Response:
        """POST and DELETE /api/assets/{id}/tags: add or remove the tags in the body."""
        asset = await self._find_asset(request)
        tags = (await read_fields(request, {"tags": parse_some_tags}, ("tags",)))["tags"]
        present, absent = ([tag for tag in tags if (tag in asset.tags) is wanted] for wanted in (True, False))
        if request.method == "POST":
            total, changes = [*asset.tags, *absent], {"added": absent, "already_present": present}
        else:
            total = [tag for tag in asset.tags if tag not in tags]
            changes = {"removed": present, "not_present": absent}
        self.asset_store.add(replace(asset, tags=tuple(total), updated=now_ms()))
        return json_response(changes | {"total_tags": total})

    async def list_tags(self, request: Request) -> Response:
        """GET /api/tags: the tags, each with its number of assets."""
        limit, offset = read_bounded(request, "limit", 100, 1, 1000), read_bounded(request, "offset", 0, 0)
        order = read_choice(request, "order", ("count_desc", "name_asc"), "count_desc")
        for name in ("include_zero", "include_public"):  # neither a tag without assets nor a public asset exists here
            read_flag(request, name, default=False)
        prefix = request.query_params.get("prefix", "")
        counts = Counter(tag for asset in await self._load_assets() for tag in asset.tags if tag.startswith(prefix))
        tags = sorted(counts.items(), key=lambda item: (-item[1] if order == "count_desc" else 0, item[0]))
        page, pagination = cut_page(tags, offset, limit)
        rows = [{"name": name, "count": count} for name, count in page]
        return json_response({"tags": rows, "total": len(tags), "has_more": pagination["has_more"]})

    async def count_tags(self, request: Request) -> Response:
        """GET /api/assets/tags/refine: count the tags of the assets that match the query."""
        limit = read_bounded(request, "limit", 100, 1, 1000)
        counts = Counter(tag for asset in await self._select_assets(request) for tag in asset.tags)
        return json_response({"tag_counts": dict(counts.most_common(limit))})

    async def get_mask_layers(self, request: Request) -> Response:
        """GET /api/files/mask-layers?filename=: the files of the mask to which this file belongs."""
        layers = self.asset_store.find_mask_layers(request.query_params.get("filename", ""))
        if layers is None:
            raise refuse_as(404, "not_found", "Not a file of a mask.")
        return json_response(layers)

    async def _find_asset(self, request: Request) -> Asset:
        await self._load_assets()
        asset = self.asset_store.get(request.path_params["id"].lower())
        if asset is None:
            raise refuse_as(404, "not_found", "Asset not found")
        return asset

    def _respond_with_asset(self, asset: Asset, *, new: bool) -> Response:
        return json_response({**self.to_json(asset), "created_new": new}, 201 if new else 200)

    def to_json(self, asset: Asset) -> dict[str, Any]:
        """The record of an asset as the API shows it."""
        is_picture = asset.mime_type.startswith("image/")
        return {
            "id": asset.id,
            "name": asset.name,
            "hash": f"blake3:{asset.blake3}",
            "size": asset.size,
            "mime_type": asset.mime_type,
            "tags": list(asset.tags),
            "user_metadata": asset.user_metadata,
            **({"preview_url": self.sign_url(*asset.location)} if is_picture else {}),
            "preview_id": asset.preview_id or (asset.id if is_picture else None),
            "job_id": asset.prompt_id,
            "created_at": format_time(asset.created),
            "updated_at": format_time(asset.updated),
            "last_access_time": format_time(asset.updated),
            "is_immutable": False,
        }


_SORT_KEYS: dict[str, Any] = {
    "name": lambda asset: asset.name.casefold(),
    "created_at": lambda asset: asset.created,
    "updated_at": lambda asset: asset.updated,
    "size": lambda asset: asset.size,
    "last_access_time": lambda asset: asset.updated,
}


_CURSOR_SORTS = frozenset({"name", "created_at", "updated_at", "size"})
_COMMON_PARSERS: dict[str, FieldParser] = {"name": parse_text, "mime_type": parse_text, "user_metadata": parse_object}
MAX_TAGS = 100  # in one filter


def _find_start(after: str, sort: str, assets: list[Asset]) -> int:
    """The index after the asset of a cursor. Raises RequestRefusedError with 400 for a cursor of another list."""
    cursor = parse_cursor(after)
    ids = [asset.id for asset in assets]
    if sort not in _CURSOR_SORTS or cursor.get("s") != sort or cursor.get("id") not in ids:
        raise refuse("'after' is not a cursor of this list.")
    return ids.index(cursor["id"]) + 1


def _read_tag_filter(request: Request, name: str, alias: str) -> set[str]:
    if name != alias and name in request.query_params and alias in request.query_params:
        raise refuse_as(400, "INVALID_TAG_FILTER", f"Send {name!r} or its older name {alias!r}, not both.")
    tags = {*read_words(request, name), *read_words(request, alias)}
    if len(tags) > MAX_TAGS:
        raise refuse_as(400, "INVALID_TAG_FILTER", f"{name!r} takes at most {MAX_TAGS} tags.")
    return tags


def _parse_object(text: str, name: str) -> dict[str, Any]:
    try:
        return parse_object(name, parse_json(text))
    except ValueError:
        return parse_object(name, None)


class V2AssetRoutes(AssetRoutes):
    """Endpoints below /api/v2/assets: files by id and by the BLAKE3 hash of their content."""

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
