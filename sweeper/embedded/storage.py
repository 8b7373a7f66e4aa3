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

from sweeper.embedded.folders import ClimbingError, is_file
from sweeper.embedded.http_helpers import file_answer
from sweeper.embedded.media_routes import truncated
from sweeper.embedded.request_log import SeenRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from sweeper.embedded.service import Service

URL_SECONDS = 300  # how long a signed URL is good

_CREDENTIALS = frozenset({"x-api-key", "authorization", "cookie"})


class Storage:
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

    def app(self) -> Router:
        """The ASGI app of the storage host."""
        return Router([Route("/{kind}/{path:path}", self.fetch, methods=["GET"])], redirect_slashes=False)

    def sign(self, kind: str, subfolder: str, name: str) -> str:
        """A URL that gives this file to whoever holds it, for `URL_SECONDS`."""
        path = "/" + quote("/".join(part for part in (kind, subfolder, name) if part), errors="surrogateescape")
        expires = int(self.now()) + URL_SECONDS
        query = urlencode({"X-Expires": expires, "X-Signature": self._signature(path, expires)})
        return f"{self.base_url}{path}?{query}"

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()

    async def fetch(self, request: Request) -> Response:
        """GET of a signed URL: 403 when it is forged or expired, 404 when the file is gone."""
        seen = self.service.seen
        names = frozenset(request.headers.keys())
        seen.storage_requests.append(SeenRequest(request.method, request.url.path, names))
        if names & _CREDENTIALS or "token" in request.query_params:
            seen.count(foreign_keys=1)
        if self.service.faults.take("expire_download_times") or not self._valid(request):
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        try:
            path = self.service.folders.inside(request.path_params["kind"], "", request.path_params["path"])
        except (ClimbingError, KeyError):
            return Response(status_code=403)
        if not is_file(path):
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="application/xml")
        seen.count(downloads=1)
        return truncated(self.service, file_answer(request, path))

    def _valid(self, request: Request) -> bool:
        text, given = request.query_params.get("X-Expires", ""), request.query_params.get("X-Signature", "")
        if not text.isdecimal() or int(text) < self.now():
            return False
        signature = self._signature(request.scope["raw_path"].decode("latin-1"), int(text))
        return hmac.compare_digest(given.encode(), signature.encode())
