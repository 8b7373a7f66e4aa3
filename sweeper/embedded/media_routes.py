"""GET /view and the two uploads, in both dialects.

The rules of /view are ComfyUI's (`server.py`, view_image), status by status; in the Cloud dialect the file itself comes
from the storage host, to which a signed URL leads. Pillow works in a thread, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from sweeper.embedded.folders import KINDS, PathEscapeError, is_file, split_annotation
from sweeper.embedded.http_helpers import RequestRefusedError, bad_request, file_response, json_response, parse_json
from sweeper.embedded.request_guard import DropError
from sweeper.embedded.request_parsing import Form, read_form
from sweeper.embedded.upload_storage import (
    StoredUpload,
    UploadError,
    apply_mask_alpha,
    check_pixels,
    store_by_content,
    store_by_name,
)

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from sweeper.embedded.assets import AssetStore
    from sweeper.embedded.service import Service

UrlSigner = Callable[[str, str, str], str]  # (type, subfolder, name) -> URL


class MediaRoutes:
    """Endpoint functions over one service. Cloud only: `sign` makes the URL that /view redirects to, `shelf` keeps
    uploads as assets.
    """

    def __init__(
        self, service: Service, sign_url: UrlSigner | None = None, asset_store: AssetStore | None = None
    ) -> None:
        self.service = service
        self.sign_url = sign_url
        self.asset_store = asset_store

    # --- view --------------------------------------------------------------------------------------------------------

    async def view(self, request: Request) -> Response:
        """GET /view."""
        if self.service.faults.take("missing_download_times"):
            return _empty_response(404)
        query = request.query_params
        kind, subfolder, path = self._locate(request)
        preview, channel = query.get("preview"), query.get("channel", "rgba")
        if preview is not None or channel in {"rgb", "a"} or (self.sign_url is not None and channel == "alpha"):
            grey = self.sign_url is not None
            data, media = await asyncio.to_thread(_reencode, path, preview, channel, grey)
            self.service.seen.count(downloads=1)
            return Response(data, 200, {"content-disposition": "inline"}, media_type=media)
        if self.sign_url is not None:
            self.service.seen.count(redirects=1)
            return Response(status_code=302, headers={"location": self.sign_url(kind, subfolder, path.name)})
        self.service.seen.count(downloads=1)
        return truncate_if_faulty(self.service, file_response(request, path))

    def _locate(self, request: Request) -> tuple[str, str, Path]:
        """(type, subfolder, path) of an existing file. Raises RefusedError with ComfyUI's statuses."""
        query = request.query_params
        if "filename" not in query:
            raise RequestRefusedError(_empty_response(404))
        name, annotated = split_annotation(query["filename"])
        kind = annotated or query.get("type", "output")
        if not name or name.startswith("/") or ".." in name or kind not in KINDS:
            raise RequestRefusedError(_empty_response(400))
        subfolder = query.get("subfolder", "")
        basename = name.rsplit("/", 1)[-1]
        try:
            path = self.service.folders.resolve(kind, subfolder, basename)
        except PathEscapeError as problem:
            raise RequestRefusedError(_empty_response(403)) from problem
        if not basename or not is_file(path):
            raise RequestRefusedError(_empty_response(404))
        return kind, subfolder, path

    # --- uploads -----------------------------------------------------------------------------------------------------

    async def upload_image(self, request: Request) -> Response:
        """POST /upload/image."""
        form = await read_form(request, "image")
        return json_response((await self._store(form, form.data)).to_json())

    async def upload_mask(self, request: Request) -> Response:
        """POST /upload/mask: the original that `original_ref` names, with the alpha of the upload."""
        form = await read_form(request, "image")
        original = self._find_original(form.get("original_ref"))
        try:
            merged = await asyncio.to_thread(apply_mask_alpha, original, form.data)
        except UploadError as problem:
            raise RequestRefusedError(bad_request(str(problem))) from problem
        stored = await self._store(form, merged)
        if self.asset_store is None:
            return json_response(stored.to_json())
        mask = (await self._store(form, form.data)).name
        self.asset_store.save_mask_layers({"mask": mask, "paint": None, "painted": None, "painted_masked": stored.name})
        facts = {"is_mask": True, "original_hash": original.name, "mask_type": "painted_masked"}
        return json_response({**stored.to_json(), "metadata": {**facts, "related_files": {"mask": mask}}})

    def _find_original(self, text: str | None) -> Path:
        try:
            ref: Any = parse_json((text or "").encode("utf-8", "surrogatepass"))
            name, annotated = split_annotation(ref["filename"])
            kind = annotated or ref.get("type", "output")
            path = self.service.folders.resolve(kind, ref.get("subfolder", ""), name)
        except (ValueError, TypeError, KeyError, AttributeError, PathEscapeError) as problem:
            message = 'original_ref must be JSON such as {"filename": "a.png", "subfolder": "", "type": "input"}.'
            raise RequestRefusedError(bad_request(message)) from problem
        if not is_file(path):
            raise RequestRefusedError(bad_request(f"original_ref: there is no {kind} file {name!r}."))
        return path

    async def _store(self, form: Form, data: bytes) -> StoredUpload:
        folders, subfolder, kind = self.service.folders, form.get("subfolder") or "", form.get("type") or "input"
        try:
            if self.asset_store is not None:
                stored = await asyncio.to_thread(store_by_content, folders, data, subfolder=subfolder, kind=kind)
                place = ("input", "", stored.name)
                await asyncio.to_thread(
                    self.asset_store.add_upload, str(uuid.uuid4()), form.filename, place, ("input",)
                )
            else:
                overwrite = form.get("overwrite") in {"true", "1"}
                stored = store_by_name(
                    folders, data, filename=form.filename, subfolder=subfolder, kind=kind, overwrite=overwrite
                )
        except UploadError as problem:
            raise RequestRefusedError(bad_request(str(problem))) from problem
        self.service.seen.uploads.append(stored.name)
        self.service.seen.count(written=int(stored.new))
        return stored


def truncate_if_faulty(service: Service, response: Response) -> Response:
    """The response, or one that promises its whole length, sends half and closes, when `Faults` ask for it."""
    if response.status_code == 200 and service.faults.take("truncate_download_times"):
        return HalfResponse(response)
    return response


class HalfResponse(Response):
    """Another response's headers with half of its body; the gate then closes the socket."""

    def __init__(self, whole: Response) -> None:
        super().__init__(b"", whole.status_code)
        self.raw_headers = whole.raw_headers
        self.body = bytes(whole.body)[: len(whole.body) // 2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the half, then ask for the end of the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        raise DropError


def _reencode(path: Path, preview: str | None, channel: str, grey: bool) -> tuple[bytes, str]:
    """(bytes, media type): `preview=webp;50` or `jpeg;10` re-encodes, `channel=rgb|a` takes channels as PNG.

    `grey`: the alpha channel comes as a grey picture (Cloud), not as the alpha of a black one (ComfyUI).
    """
    from PIL import Image  # noqa: PLC0415 - loaded with the first picture

    buffer = io.BytesIO()
    try:
        with Image.open(path) as opened:
            check_pixels(opened.size)
            if preview is not None:
                kind, *_, quality = [*preview.split(";"), "90"][:2]
                kind = kind if kind in {"webp", "jpeg"} and "a" not in channel.replace("rgba", "") else "webp"
                picture = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened
                picture.save(buffer, format=kind, quality=int(quality) if quality.isdecimal() else 90)
                return buffer.getvalue(), f"image/{kind}"
            if channel == "rgb":
                opened.convert("RGB").save(buffer, format="PNG")
            else:
                _extract_alpha(opened, grey).save(buffer, format="PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise RequestRefusedError(bad_request(f"{path.name} cannot be shown so: {problem}")) from problem
    return buffer.getvalue(), "image/png"


def _extract_alpha(picture: Image.Image, grey: bool) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
    if grey:
        return alpha
    black = Image.new("RGBA", picture.size)
    black.putalpha(alpha)
    return black


def _empty_response(status: int) -> Response:
    return Response(status_code=status)
