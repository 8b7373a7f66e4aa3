"""The storage host of the Cloud dialect, on its own port: it serves files by signed URLs that expire.

It needs no key and checks only the signature. A client that sends a credential here leaks it to a third party: the
request is served, as a real object store would do, and `RequestLog.foreign_keys` counts it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from sweeper.embedded.folders import PathEscapeError, is_file
from sweeper.embedded.http_helpers import file_response
from sweeper.embedded.media_routes import truncate_if_faulty
from sweeper.embedded.request_log import LoggedRequest
from sweeper.embedded.service import Service

URL_SECONDS = 300  # lifetime of a signed URL

_CREDENTIALS = frozenset({"x-api-key", "authorization", "cookie"})


@dataclass(eq=False)
class StorageHost:
    """Signs URLs and serves the files."""

    service: Service  # the server whose files it serves
    base_url: str  # of this host, without a slash at the end
    now: Callable[[], float] = time.time  # seconds since the epoch
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def make_app(self) -> Router:
        """The ASGI app of the storage host."""
        return Router([Route("/{kind}/{path:path}", self.serve_file, methods=["GET"])], redirect_slashes=False)

    def sign_url(self, kind: str, subfolder: str, name: str) -> str:
        """Make a URL that gives access to a file for `URL_SECONDS`."""
        path = "/" + quote("/".join(part for part in (kind, subfolder, name) if part), errors="surrogateescape")
        expires = int(self.now()) + URL_SECONDS
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
        seen.count(downloads=1)
        return truncate_if_faulty(self.service, file_response(request, path))

    def _is_valid(self, request: Request) -> bool:
        expires, signature = request.query_params.get("X-Expires", ""), request.query_params.get("X-Signature", "")
        if not expires.isdecimal() or int(expires) < self.now():
            return False
        expected = self._compute_signature(request.scope["raw_path"].decode("latin-1"), int(expires))
        return hmac.compare_digest(signature.encode(), expected.encode())
