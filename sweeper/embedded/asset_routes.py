"""`/api/assets` and `/api/tags` of the Cloud dialect, over an `AssetShelf`.

Nothing here fetches from the network: a URL to upload from is answered as one that cannot be reached (422).
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.responses import Response

from sweeper.embedded.asset_fields import (
    id_field,
    metadata_field,
    read_fields,
    tags_field,
    tags_of_form,
    text_field,
)
from sweeper.embedded.assets import Asset, AssetShelf
from sweeper.embedded.http_helpers import RefusedError, bad_request, iso, json_answer, parse_json, refusal
from sweeper.embedded.jobs import now_ms
from sweeper.embedded.request_parsing import choice, flag, read_form, within, words

if TYPE_CHECKING:
    from starlette.requests import Request

    from sweeper.embedded.jobs import JobQueue
    from sweeper.embedded.media_routes import Sign

SORTS = ("name", "created_at", "updated_at", "size", "last_access_time")
HASH = re.compile(r"(blake3|sha256):[a-f0-9]{64}")


class AssetRoutes:
    """Endpoint functions over one shelf; what the queue's jobs have made is on it too. `sign` makes preview URLs."""

    def __init__(self, shelf: AssetShelf, queue: JobQueue, sign: Sign) -> None:
        self.shelf = shelf
        self.queue = queue
        self.sign = sign

    async def listing(self, request: Request) -> Response:
        """GET /api/assets."""
        sort, order = choice(request, "sort", SORTS, "created_at"), choice(request, "order", ("asc", "desc"), "desc")
        limit, offset = within(request, "limit", 20, 1, 500), within(request, "offset", 0, 0)
        found = await self._matching(request)
        found.sort(key=_SORT_KEYS[sort], reverse=order == "desc")
        page = found[offset : offset + limit]
        more = offset + len(page) < len(found)
        return json_answer({"assets": [self._json(asset) for asset in page], "total": len(found), "has_more": more})

    async def _matching(self, request: Request) -> list[Asset]:
        flag(request, "include_public", default=True)  # nothing here is public
        wanted, unwanted = set(words(request, "include_tags")), set(words(request, "exclude_tags"))
        part = request.query_params.get("name_contains", "").casefold()
        metadata = _metadata_filter(request.query_params.get("metadata_filter"))
        return [
            asset
            for asset in await self._all()
            if wanted <= set(asset.tags) and not unwanted & set(asset.tags) and part in asset.name.casefold()
            if all(asset.user_metadata.get(key) == value for key, value in metadata.items())
        ]

    async def _all(self) -> list[Asset]:
        await asyncio.to_thread(self.shelf.absorb, self.queue.all(), new_id)
        return self.shelf.all()

    async def upload(self, request: Request) -> Response:
        """POST /api/assets: a file; 201, or 200 with the asset that has this content (or the given id) already."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            fields = await read_fields(request, ("url", "name", "tags", "user_metadata", "preview_id"), ("url", "name"))
            text_field(fields, "name")
            raise RefusedError(unreachable(text_field(fields, "url")))
        if kind != "multipart/form-data":
            message = "Send multipart/form-data with a 'file', or application/json with a 'url'."
            raise RefusedError(refusal(415, "unsupported_media_type", message))
        form = await read_form(request, "file")
        given: dict[str, Any] = {"id": form.get("id"), "preview_id": form.get("preview_id")}
        given = {name: value for name, value in given.items() if value}
        asset_id = id_field(given, "id")
        known = None if asset_id is None else self.shelf.get(asset_id)
        if known is not None:
            return self._created(known, new=False)
        name = form.get("name") or form.filename or "asset"
        asset = Asset(
            asset_id or new_id(), name, ("input", "", ""), "", "", 0,
            form.get("mime_type") or form.content_type or "application/octet-stream",
            now_ms(), now_ms(), tags_of_form(form), _metadata_text(form.get("user_metadata")),
            id_field(given, "preview_id"),
        )  # fmt: skip
        stored, new = await asyncio.to_thread(self.shelf.store, form.data, asset)
        return self._created(stored, new=new)

    async def from_hash(self, request: Request) -> Response:
        """POST /api/assets/from-hash: another name and other tags for content that is here; 200 if that name is too."""
        names = ("hash", "name", "tags", "mime_type", "user_metadata")
        fields = await read_fields(request, names, ("hash", "tags"))
        digest = text_field(fields, "hash")
        if not HASH.fullmatch(digest):
            raise RefusedError(bad_request("'hash' must be blake3: or sha256: and 64 hex digits."))
        tags, metadata = tags_field(fields, least=1), metadata_field(fields)
        await self._all()
        source = self.shelf.by_hash(digest)
        if source is None:
            raise RefusedError(refusal(404, "not_found", "No asset has this hash."))
        name = text_field(fields, "name") if "name" in fields else source.name
        mime = text_field(fields, "mime_type") if "mime_type" in fields else source.mime_type
        same = [asset for asset in self.shelf.all() if asset.blake3 == source.blake3 and asset.name == name]
        if same:
            return self._created(same[-1], new=False)
        copy = replace(source, id=new_id(), name=name, tags=tags, user_metadata=metadata, mime_type=mime)
        return self._created(self.shelf.add(replace(copy, created=now_ms(), updated=now_ms())), new=True)

    async def exists(self, request: Request) -> Response:
        """HEAD /api/assets/hash/{hash}: 200 or 404, without a body."""
        digest = request.path_params["hash"]
        if not HASH.fullmatch(digest) or not digest.startswith("blake3:"):
            raise RefusedError(bad_request("The hash must be blake3: and 64 hex digits."))
        await self._all()
        return Response(status_code=404 if self.shelf.by_hash(digest) is None else 200)

    async def get(self, request: Request) -> Response:
        """GET /api/assets/{id}."""
        return json_answer(self._json(await self._known(request)))

    async def update(self, request: Request) -> Response:
        """PUT /api/assets/{id}: name, tags, mime type, preview, metadata; at least one."""
        asset = await self._known(request)
        fields = await read_fields(request, ("name", "tags", "mime_type", "preview_id", "user_metadata"), ())
        if not fields:
            raise RefusedError(bad_request("Give at least one of name, tags, mime_type, preview_id, user_metadata."))
        changes: dict[str, Any] = {name: text_field(fields, name) for name in ("name", "mime_type") if name in fields}
        if "tags" in fields:
            changes["tags"] = tags_field(fields)
        if "preview_id" in fields:
            changes["preview_id"] = id_field(fields, "preview_id")
        if "user_metadata" in fields:
            changes["user_metadata"] = metadata_field(fields)
        changed = self._json(self.shelf.add(replace(asset, **changes, updated=now_ms())))
        names = ("id", "name", "asset_hash", "tags", "mime_type", "user_metadata", "updated_at")
        return json_answer({name: changed[name] for name in names})

    async def delete(self, request: Request) -> Response:
        """DELETE /api/assets/{id}: 204; the content goes too, unless another asset has it."""
        self.shelf.delete((await self._known(request)).id)
        return Response(status_code=204)

    async def add_tags(self, request: Request) -> Response:
        """POST /api/assets/{id}/tags."""
        asset, given = await self._known(request), tags_field(await read_fields(request, ("tags",), ("tags",)), least=1)
        added = [tag for tag in given if tag not in asset.tags]
        total = (*asset.tags, *added)
        self.shelf.add(replace(asset, tags=total, updated=now_ms()))
        present = [tag for tag in given if tag in asset.tags]
        return json_answer({"added": added, "already_present": present, "total_tags": list(total)})

    async def remove_tags(self, request: Request) -> Response:
        """DELETE /api/assets/{id}/tags, with a body."""
        asset, given = await self._known(request), tags_field(await read_fields(request, ("tags",), ("tags",)), least=1)
        total = tuple(tag for tag in asset.tags if tag not in given)
        self.shelf.add(replace(asset, tags=total, updated=now_ms()))
        removed = [tag for tag in given if tag in asset.tags]
        absent = [tag for tag in given if tag not in asset.tags]
        return json_answer({"removed": removed, "not_present": absent, "total_tags": list(total)})

    async def tags(self, request: Request) -> Response:
        """GET /api/tags: each tag with the number of its assets."""
        limit, offset = within(request, "limit", 100, 1, 1000), within(request, "offset", 0, 0)
        order = choice(request, "order", ("count_desc", "name_asc"), "count_desc")
        for name in ("include_zero", "include_public"):  # no tag outlives its assets here, and nothing is public
            flag(request, name, default=False)
        prefix = request.query_params.get("prefix", "")
        counts = Counter(tag for asset in await self._all() for tag in asset.tags if tag.startswith(prefix))
        found = sorted(counts.items(), key=lambda item: (-item[1] if order == "count_desc" else 0, item[0]))
        page = [{"name": name, "count": count} for name, count in found[offset : offset + limit]]
        return json_answer({"tags": page, "total": len(found), "has_more": offset + len(page) < len(found)})

    async def refine(self, request: Request) -> Response:
        """GET /api/assets/tags/refine: the tags of the assets that a filter leaves."""
        limit = within(request, "limit", 100, 1, 1000)
        counts = Counter(tag for asset in await self._matching(request) for tag in asset.tags)
        return json_answer({"tag_counts": dict(counts.most_common(limit))})

    async def remote_metadata(self, request: Request) -> Response:
        """GET /api/assets/remote-metadata?url=."""
        raise RefusedError(unreachable(request.query_params.get("url", "")))

    async def download(self, request: Request) -> Response:
        """POST /api/assets/download: only from the two hosts that Cloud knows."""
        names = ("source_url", "tags", "user_metadata", "preview_id")
        url = text_field(await read_fields(request, names, ("source_url",)), "source_url")
        answer = unreachable(url)
        host = urlsplit(url).hostname or ""
        if not any(host == known or host.endswith(f".{known}") for known in ("huggingface.co", "civitai.com")):
            raise RefusedError(bad_request("'source_url' must lead to huggingface.co or civitai.com."))
        raise RefusedError(answer)

    async def mask_layers(self, request: Request) -> Response:
        """GET /api/files/mask-layers?filename=: the files that belong to one mask."""
        layers = self.shelf.layers(request.query_params.get("filename", ""))
        if layers is None:
            raise RefusedError(refusal(404, "not_found", "Not a file of a mask."))
        return json_answer(layers)

    async def _known(self, request: Request) -> Asset:
        await self._all()
        asset = self.shelf.get(request.path_params["id"].lower())
        if asset is None:
            raise RefusedError(refusal(404, "not_found", "Asset not found"))
        return asset

    def _created(self, asset: Asset, *, new: bool) -> Response:
        return json_answer({**self._json(asset), "created_new": new}, 201 if new else 200)

    def _json(self, asset: Asset) -> dict[str, Any]:
        picture = asset.mime_type.startswith("image/")
        return {
            "id": asset.id,
            "name": asset.name,
            "asset_hash": f"blake3:{asset.blake3}",
            "size": asset.size,
            "mime_type": asset.mime_type,
            "tags": list(asset.tags),
            "user_metadata": asset.user_metadata,
            **({"preview_url": self.sign(*asset.place)} if picture else {}),
            "preview_id": asset.preview_id or (asset.id if picture else None),
            "prompt_id": asset.prompt_id,
            "created_at": iso(asset.created),
            "updated_at": iso(asset.updated),
            "last_access_time": iso(asset.updated),
            "is_immutable": False,
        }


_SORT_KEYS: dict[str, Any] = {
    "name": lambda asset: asset.name.casefold(),
    "size": lambda asset: asset.size,
    "created_at": lambda asset: asset.created,
    "updated_at": lambda asset: asset.updated,
    "last_access_time": lambda asset: asset.updated,
}


def new_id() -> str:
    """An id as the server gives it."""
    return str(uuid.uuid4())


def unreachable(url: str) -> Response:
    """What a URL is answered with: 400 if it is none, 422 as one that cannot be reached."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return bad_request("The URL cannot be read.")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return bad_request("A URL of http or https is needed.")
    return refusal(422, "download_failed", "The embedded server fetches nothing from the network; upload the file.")


def _metadata_filter(text: str | None) -> dict[str, Any]:
    return {} if text is None else _object(text, "metadata_filter")


def _metadata_text(text: str | None) -> dict[str, Any]:
    return _object(text, "user_metadata") if text else {}


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedError(bad_request(f"{name!r} must be a JSON object."))
    return value
