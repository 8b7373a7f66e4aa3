"""GET /view and the uploads, for all dialects, and the storage host of all but comfyui.

/view answers with the same statuses as ComfyUI (`server.py`, view_image). Outside the comfyui dialect it redirects to a
signed URL of the storage host, which expires. Images are decoded in a thread, so that the event loop stays free.

The storage host has a port of its own, needs no key and checks only the signature. A client that sends a credential
there leaks it to a third party: the request is served, as a real object store would do, and `RequestLog.foreign_keys`
counts it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import mimetypes
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from blake3 import blake3
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from sweeper.embedded.faults import LoggedRequest
from sweeper.embedded.folders import (
    KINDS,
    PathEscapeError,
    ServerFolders,
    is_file,
    measure_picture,
    replace_alpha,
    split_annotation,
    write_atomically,
)
from sweeper.embedded.http_helpers import (
    DropError,
    Form,
    RequestRefusedError,
    file_response,
    json_response,
    parse_json,
    read_form,
    refuse,
)
from sweeper.embedded.service import Service
from sweeper.errors import ImageError

_HASH = re.compile(r"blake3:([a-f0-9]{64})")
_UPLOAD = re.compile(r"[a-f0-9]{64}(\.\w{1,20})?", re.ASCII)
UrlSigner = Callable[[str, str, str], str]  # (type, subfolder, name) -> URL
# Cloud's published limits for an uploaded picture.
CLOUD_MAX_BYTES = 50 * 1024 * 1024
CLOUD_MAX_PIXELS = 67_108_864
CLOUD_MAX_EDGE = 16_384


class MediaRoutes:
    """`sign_url`, of all dialects but comfyui, makes the URLs to which /view redirects."""

    def __init__(self, service: Service, sign_url: UrlSigner | None = None) -> None:
        self.service = service
        self.sign_url = sign_url
        self.queue, self.folders = service.queue, service.folders
        self.faults, self.seen = service.faults, service.seen

    # --- view --------------------------------------------------------------------------------------------------------

    async def view(self, request: Request) -> Response:
        """GET /view: a file as it is."""
        if self.faults.take("missing_download_times"):
            return Response(status_code=404)
        kind, subfolder, path = self._locate(request)
        if self.sign_url is not None:
            self.seen.count(redirects=1)
            return Response(status_code=302, headers={"location": self.sign_url(kind, subfolder, path.name)})
        return send_file(self.service, path)

    def _locate(self, request: Request) -> tuple[str, str, Path]:
        """Find the requested file: (type, subfolder, path). Raises RequestRefusedError with ComfyUI's statuses."""
        query = request.query_params
        if "filename" not in query:
            raise RequestRefusedError(Response(status_code=404))
        name, annotation = split_annotation(query["filename"])
        kind = annotation or query.get("type", "output")
        if not name or name.startswith("/") or ".." in name or kind not in KINDS:
            raise RequestRefusedError(Response(status_code=400))
        subfolder = query.get("subfolder", "")
        basename = name.rsplit("/", 1)[-1]
        try:
            path = self.folders.resolve(kind, subfolder, basename)
        except PathEscapeError as problem:
            raise RequestRefusedError(Response(status_code=403)) from problem
        if not basename or not is_file(path):
            raise RequestRefusedError(Response(status_code=404))
        return kind, subfolder, path

    # --- uploads -----------------------------------------------------------------------------------------------------

    async def upload_image(self, request: Request) -> Response:
        form = await read_form(request, "image")
        return json_response(await self._store(form, form.data))

    async def upload_mask(self, request: Request) -> Response:
        """POST /upload/mask: store the picture named by `original_ref` with the alpha channel of the upload."""
        form = await read_form(request, "image")
        original = self._find_original(form.texts.get("original_ref"))
        try:
            masked = await asyncio.to_thread(replace_alpha, original, form.data)
        except ImageError as problem:
            raise refuse(f"The mask does not fit: {problem}") from problem
        return json_response(await self._store(form, masked))

    def _find_original(self, text: str | None) -> Path:
        try:
            ref: Any = parse_json(text or "")
            name, annotation = split_annotation(ref["filename"])
            kind = annotation or ref.get("type", "output")
            path = self.folders.resolve(kind, ref.get("subfolder", ""), name)
        except (ValueError, TypeError, KeyError, AttributeError, PathEscapeError) as problem:
            message = 'original_ref must be JSON such as {"filename": "a.png", "subfolder": "", "type": "input"}.'
            raise refuse(message) from problem
        if not is_file(path):
            raise refuse(f"original_ref: there is no {kind} file {name!r}.")
        return path

    async def _store(self, form: Form, data: bytes) -> dict[str, str]:
        """Store an upload. Returns the answer to the client, which in Cloud repeats a subfolder that has no effect."""
        subfolder, kind = form.texts.get("subfolder") or "", form.texts.get("type") or "input"
        if self.sign_url is not None:
            _check_cloud_limits(data)
            upload = self.folders, data, form.filename, form.content_type
            name, new = await asyncio.to_thread(store_by_content, *upload)
        else:
            name, new = _store_by_name(self.folders, form, data, kind, subfolder)
        self.seen.uploads.append(name)
        self.seen.count(written=int(new))
        return {"name": name, "subfolder": subfolder, "type": kind}


def send_file(service: Service, path: Path) -> Response:
    """The file, or if `Faults` say so, a response that stops in the middle of its body."""
    if not service.faults.take("truncate_download_times"):
        return file_response(path)
    headers = {"content-length": str(path.stat().st_size)}
    return StreamingResponse(_send_half(path), headers=headers, media_type="application/octet-stream")


async def _send_half(path: Path) -> AsyncGenerator[bytes, None]:
    """Send half of a file; `RequestGuard` then closes the socket."""
    data = await asyncio.to_thread(path.read_bytes)
    yield data[: len(data) // 2]
    raise DropError


def _store_by_name(folders: ServerFolders, form: Form, data: bytes, kind: str, subfolder: str) -> tuple[str, bool]:
    """Store an upload under its own name, as ComfyUI does.

    Returns (the name, whether a file was written). If another file has this name, the name becomes `a (1).png`. If the
    file has the same content, it is not written again. Raises RequestRefusedError for a name or folder that leads out
    of its folder, and for an unknown `kind`.
    """
    filename, overwrite = form.filename, form.texts.get("overwrite") in {"true", "1"}
    if not filename or "/" in filename or "\\" in filename:
        raise refuse(f"The file needs a plain name, not {filename!r}.")
    try:
        folder = folders.resolve(kind, subfolder)
        folders.resolve(kind, subfolder, filename)
    except (PathEscapeError, KeyError) as problem:
        raise refuse(f"Uploads cannot be stored in {kind} {subfolder!r}.") from problem
    stem, suffix = os.path.splitext(filename)  # noqa: PTH122 - ".png" alone has no suffix, as in ComfyUI
    name, number = filename, 1
    try:
        while not overwrite and is_file(folder / name):
            if (folder / name).read_bytes() == data:
                return name, False
            name = f"{stem} ({number}){suffix}"
            number += 1
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, data)
    except (OSError, ValueError) as problem:  # name too long, NUL character, a file instead of a folder
        raise refuse(f"{filename!r} cannot be written: {problem}") from problem
    return name, True


def _check_cloud_limits(data: bytes) -> None:
    """Raise RequestRefusedError for an upload, or a picture, that is larger than Cloud takes."""
    try:
        width, height = measure_picture(data)
    except ImageError as problem:
        raise refuse(f"The picture cannot be read: {problem}") from problem
    if len(data) > CLOUD_MAX_BYTES or max(width, height) > CLOUD_MAX_EDGE or width * height > CLOUD_MAX_PIXELS:
        limits = f"{CLOUD_MAX_BYTES} bytes, {CLOUD_MAX_EDGE} pixels an edge and {CLOUD_MAX_PIXELS} in all"
        raise refuse(f"The file has {len(data)} bytes and {width} x {height} pixels; at most {limits} are allowed.")


def store_by_content(folders: ServerFolders, data: bytes, name: str, content_type: str) -> tuple[str, bool]:
    """Store an upload under a hash of its content, as Cloud does, with the suffix of its name or else of its type.

    Returns (the name, whether a file was written: content that is stored already keeps its name).
    """
    digest = blake3(data).hexdigest()
    stored = find_upload(folders, f"blake3:{digest}")
    if stored is not None:
        return stored, False
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix and _UPLOAD.fullmatch(digest + suffix) else mimetypes.guess_extension(content_type) or ""
    write_atomically(folders.input_dir / (digest + suffix), data)
    return digest + suffix, True


def find_upload(folders: ServerFolders, text: Any) -> str | None:
    """The name of the upload with this hash, such as `blake3:0f...`; None if there is none."""
    match = _HASH.fullmatch(text) if isinstance(text, str) else None
    paths = () if match is None else folders.input_dir.glob(f"{match[1]}*")
    return next((path.name for path in paths if is_upload(path)), None)


URL_SECONDS = 300  # lifetime of a signed URL

_CREDENTIALS = frozenset({"x-api-key", "authorization", "cookie"})


@dataclass(eq=False)
class StorageHost:
    """Signs URLs and serves the files."""

    service: Service  # the server whose files it serves
    base_url: str  # of this host, without a slash at the end
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def make_app(self) -> Router:
        return Router([Route("/{kind}/{path:path}", self.serve_file, methods=["GET"])], redirect_slashes=False)

    def sign_url(self, kind: str, subfolder: str, name: str) -> str:
        """Make a URL that gives access to a file for `URL_SECONDS`."""
        path = "/" + quote("/".join(part for part in (kind, subfolder, name) if part), errors="surrogateescape")
        expires = int(time.time()) + URL_SECONDS
        query = urlencode({"X-Expires": expires, "X-Signature": self._compute_signature(path, expires)})
        return f"{self.base_url}{path}?{query}"

    def _compute_signature(self, path: str, expires: int) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()

    async def serve_file(self, request: Request) -> Response:
        """GET of a signed URL: 403 if it is forged or expired, 404 if the file no longer exists."""
        seen = self.service.seen
        names = frozenset(request.headers.keys())
        seen.storage_requests.append(LoggedRequest(request.method, request.url.path, names))
        if names & _CREDENTIALS or "token" in request.query_params:
            seen.count(foreign_keys=1)
        if self.service.faults.take("expire_download_times") or not self._is_valid(request):
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        try:
            path = self.service.folders.resolve(request.path_params["kind"], "", request.path_params["path"])
        except (PathEscapeError, KeyError):
            return Response(status_code=403)
        if not is_file(path):
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        return send_file(self.service, path)

    def _is_valid(self, request: Request) -> bool:
        expires, signature = request.query_params.get("X-Expires", ""), request.query_params.get("X-Signature", "")
        if not expires.isdecimal() or int(expires) < time.time():
            return False
        expected = self._compute_signature(request.scope["raw_path"].decode("latin-1"), int(expires))
        return hmac.compare_digest(signature.encode(), expected.encode())


def is_upload(path: Path) -> bool:
    return _UPLOAD.fullmatch(path.name) is not None and is_file(path)
