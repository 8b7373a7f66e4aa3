"""GET /view and the two uploads, in both dialects.

The rules of /view are ComfyUI's (`server.py`, view_image), status by status; in the Cloud dialect the file itself comes
from the storage host, to which a signed URL leads. Pillow works in a thread, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from sweeper.embedded.exchange import MAX_BODY, RefusedError, bad_request, file_answer, json_answer
from sweeper.embedded.folders import KINDS, ClimbingError, is_file, split_annotation
from sweeper.embedded.gate import DropError
from sweeper.embedded.uploads import Stored, UploadError, store_by_content, store_by_name, with_alpha_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from sweeper.embedded.service import Service

Sign = Callable[[str, str, str], str]  # (type, subfolder, name) -> URL


class PictureRoutes:
    """Endpoint functions over one service; `sign` makes the URL that /view redirects to (Cloud)."""

    def __init__(self, service: Service, sign: Sign | None = None) -> None:
        self.service = service
        self.sign = sign

    # --- view --------------------------------------------------------------------------------------------------------

    async def view(self, request: Request) -> Response:
        """GET /view."""
        if self.service.faults.take("missing_download_times"):
            return _empty(404)
        query = request.query_params
        kind, subfolder, path = self._locate(request)
        preview, channel = query.get("preview"), query.get("channel", "rgba")
        if preview is not None or channel in {"rgb", "a"}:
            data, media = await asyncio.to_thread(_reencoded, path, preview, channel)
            self.service.seen.count(downloads=1)
            return Response(data, 200, {"content-disposition": "inline"}, media_type=media)
        if self.sign is not None:
            self.service.seen.count(redirects=1)
            return Response(status_code=302, headers={"location": self.sign(kind, subfolder, path.name)})
        self.service.seen.count(downloads=1)
        return truncated(self.service, file_answer(request, path))

    def _locate(self, request: Request) -> tuple[str, str, Path]:
        """(type, subfolder, path) of an existing file. Raises RefusedError with ComfyUI's statuses."""
        query = request.query_params
        if "filename" not in query:
            raise RefusedError(_empty(404))
        name, annotated = split_annotation(query["filename"])
        kind = annotated or query.get("type", "output")
        if not name or name.startswith("/") or ".." in name or kind not in KINDS:
            raise RefusedError(_empty(400))
        subfolder = query.get("subfolder", "")
        basename = name.rsplit("/", 1)[-1]
        try:
            path = self.service.folders.inside(kind, subfolder, basename)
        except ClimbingError as problem:
            raise RefusedError(_empty(403)) from problem
        if not basename or not is_file(path):
            raise RefusedError(_empty(404))
        return kind, subfolder, path

    # --- uploads -----------------------------------------------------------------------------------------------------

    async def upload_image(self, request: Request) -> Response:
        """POST /upload/image."""
        fields, filename, data = await _multipart(request)
        return await self._store(fields, filename, data)

    async def upload_mask(self, request: Request) -> Response:
        """POST /upload/mask: the original that `original_ref` names, with the alpha of the upload."""
        fields, filename, data = await _multipart(request)
        original = self._original(fields.get("original_ref"))
        try:
            merged = await asyncio.to_thread(with_alpha_of, original, data)
        except UploadError as problem:
            raise RefusedError(bad_request(str(problem))) from problem
        return await self._store(fields, filename, merged)

    def _original(self, text: str | None) -> Path:
        try:
            ref: Any = json.loads(text or "")
            name, annotated = split_annotation(ref["filename"])
            kind = annotated or ref.get("type", "output")
            path = self.service.folders.inside(kind, ref.get("subfolder", ""), name)
        except (ValueError, TypeError, KeyError, AttributeError, ClimbingError) as problem:
            message = 'original_ref must be JSON such as {"filename": "a.png", "subfolder": "", "type": "input"}.'
            raise RefusedError(bad_request(message)) from problem
        if not is_file(path):
            raise RefusedError(bad_request(f"original_ref: there is no {kind} file {name!r}."))
        return path

    async def _store(self, fields: dict[str, str], filename: str, data: bytes) -> Response:
        folders, subfolder, kind = self.service.folders, fields.get("subfolder", ""), fields.get("type", "input")
        try:
            if self.service.settings.cloud:
                stored: Stored = await asyncio.to_thread(
                    store_by_content, folders, data, subfolder=subfolder, kind=kind
                )
            else:
                overwrite = fields.get("overwrite") in {"true", "1"}
                stored = store_by_name(
                    folders, data, filename=filename, subfolder=subfolder, kind=kind, overwrite=overwrite
                )
        except UploadError as problem:
            raise RefusedError(bad_request(str(problem))) from problem
        self.service.seen.uploads.append(stored.name)
        self.service.seen.count(written=int(stored.new))
        return json_answer(stored.answer())


async def _multipart(request: Request) -> tuple[dict[str, str], str, bytes]:
    """(text fields, file name, content) of a form whose file is called `image`. Raises RefusedError."""
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal() or int(declared) > MAX_BODY:
        text = f"Maximum request body size {MAX_BODY} exceeded."
        raise RefusedError(Response(text, 413, {"connection": "close"}, media_type="text/plain"))
    try:
        async with request.form(max_files=8, max_fields=32) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise RefusedError(bad_request("The form needs a file field called 'image'."))
            texts = {name: value for name, value in form.items() if isinstance(value, str)}
            return texts, image.filename or "", await image.read()
    except (MultiPartException, ValueError, KeyError) as problem:
        raise RefusedError(bad_request(f"Not a multipart form: {problem}")) from problem


def truncated(service: Service, response: Response) -> Response:
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


def _reencoded(path: Path, preview: str | None, channel: str) -> tuple[bytes, str]:
    """(bytes, media type): `preview=webp;50` or `jpeg;10` re-encodes, `channel=rgb|a` takes channels as PNG."""
    from PIL import Image  # noqa: PLC0415 - loaded with the first picture

    buffer = io.BytesIO()
    try:
        with Image.open(path) as opened:
            if preview is not None:
                kind, *_, quality = [*preview.split(";"), "90"][:2]
                kind = kind if kind in {"webp", "jpeg"} and "a" not in channel.replace("rgba", "") else "webp"
                picture = opened.convert("RGB") if kind == "jpeg" or channel == "rgb" else opened
                picture.save(buffer, format=kind, quality=int(quality) if quality.isdecimal() else 90)
                return buffer.getvalue(), f"image/{kind}"
            if channel == "rgb":
                opened.convert("RGB").save(buffer, format="PNG")
            else:
                alpha = Image.new("RGBA", opened.size)
                solid = Image.new("L", opened.size, 255)
                alpha.putalpha(opened.getchannel("A") if opened.mode == "RGBA" else solid)
                alpha.save(buffer, format="PNG")
    except (OSError, ValueError, SyntaxError) as problem:
        raise RefusedError(bad_request(f"{path.name} is no picture: {problem}")) from problem
    return buffer.getvalue(), "image/png"


def _empty(status: int) -> Response:
    return Response(status_code=status)
