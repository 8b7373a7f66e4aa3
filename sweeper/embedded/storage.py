"""The storage host of the Cloud dialect: another port, signed URLs that expire, no account and no key.

It checks the signature and nothing else. A credential that arrives here has been sent to the wrong party: the request
is served all the same, as a real object store would, and `Seen.foreign_keys` counts it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.routing import Route, Router

from sweeper.embedded.folders import PathEscapeError, is_file
from sweeper.embedded.http_helpers import file_response
from sweeper.embedded.media_routes import truncate_if_faulty
from sweeper.embedded.request_log import LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from sweeper.embedded.service import Service

URL_SECONDS = 300  # how long a signed URL is good

_CREDENTIALS = frozenset({"x-api-key", "authorization", "cookie"})


class StorageHost:
    """Signs URLs, and serves them.

    Args:
        service: whose files they are.
        base_url: of this host, without a slash at the end; known once its socket is bound.
        now: the clock, in seconds since the epoch.

    """

    def __init__(self, service: Service, base_url: str, now: Callable[[], float] = time.time) -> None:
        self.service = service
        self.base_url = base_url
        self.now = now
        self._secret = secrets.token_bytes(32)

    def make_app(self) -> Router:
        """The ASGI app of the storage host."""
        return Router([Route("/{kind}/{path:path}", self.serve_file, methods=["GET"])], redirect_slashes=False)

    def sign_url(self, kind: str, subfolder: str, name: str) -> str:
        """A URL that gives this file to whoever holds it, for `URL_SECONDS`."""
        path = "/" + quote("/".join(part for part in (kind, subfolder, name) if part), errors="surrogateescape")
        expires = int(self.now()) + URL_SECONDS
        query = urlencode({"X-Expires": expires, "X-Signature": self._compute_signature(path, expires)})
        return f"{self.base_url}{path}?{query}"

    def _compute_signature(self, path: str, expires: int) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()

    async def serve_file(self, request: Request) -> Response:
        """GET of a signed URL: 403 when it is forged or expired, 404 when the file is gone."""
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
        text, given = request.query_params.get("X-Expires", ""), request.query_params.get("X-Signature", "")
        if not text.isdecimal() or int(text) < self.now():
            return False
        signature = self._compute_signature(request.scope["raw_path"].decode("latin-1"), int(text))
        return hmac.compare_digest(given.encode(), signature.encode())
