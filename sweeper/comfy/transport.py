"""What carries httpx's requests: aiohttp's connections, under httpx's API and with httpx's errors.

httpx's own transport searches its pool anew at every request and parses HTTP in Python: a request costs it two to four
times the processor time (measured, tests/benchmarks/runner.py), which beside a local GPU is time in which no job is
queued. The transport that is published for this (httpx-aiohttp 0.2.0) is not used because it reports a connection that
broke after the request as `ConnectTimeout`: we would take the job for not sent, and pay for it twice. Which error means
what is therefore written down here; retrying and everything above one exchange is the client's.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
import httpx
from yarl import URL

# Every error of aiohttp that certainly came before the request left; whatever is not here may have come after it.
_ERRORS_BEFORE_SENT: Final = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),  # no connection, or none free, in time
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # names, TCP, TLS
)
_AUTO_HEADERS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # headers are httpx's affair


class AiohttpTransport(httpx.AsyncBaseTransport):
    """For requests that need no proxy: see `proxies`. To be used within one event loop."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._limits.max_connections or 0,
                keepalive_timeout=self._limits.keepalive_expiry,
                ssl=httpx.create_ssl_context(),  # the certificates that httpx trusts, from the environment too
            )
            # Cookies are httpx's affair as well; the session's own jar would send them a second time.
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_AUTO_HEADERS,
                auto_decompress=False,
            )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, the body of the answer unread. Raises httpx.TransportError."""
        content = await request.aread()
        # Not `multi_items()`, which guesses an encoding anew at every request.
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        limits: dict[str, float | None] = request.extensions.get("timeout", {})
        response = await self.send(request.method, str(request.url), headers, content, limits)
        return httpx.Response(
            response.status, headers=list(response.raw_headers), stream=ResponseBody(response), request=request
        )

    async def send(
        self, method: str, url: str, headers: Any, content: bytes | None, timeouts: Mapping[str, float | None]
    ) -> aiohttp.ClientResponse:
        """The answer, its body unread: see `Body`. `url` is sent as it is written; `limits` as httpx's `Timeout` has
        them. Raises httpx.TransportError, and httpx.InvalidURL for what is no URL.
        """
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=timeouts.get("pool"),
            sock_connect=timeouts.get("connect"),
            sock_read=timeouts.get("read"),
        )
        try:
            with _TRANSLATE_ERRORS:
                return await self._get_session().request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=content or None,
                    allow_redirects=False,
                    timeout=timeout,
                )
        except ValueError as error:  # a port or a name that cannot be, which a server's redirect may have
            raise httpx.InvalidURL(str(error)) from None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class ResponseBody(httpx.AsyncByteStream):
    """What is still to come of an answer, as it goes over the wire."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _TRANSLATE_ERRORS:
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        """Nothing more is read of it."""
        if self._response.content.at_eof():
            self._response.release()
        else:  # what is still to come belongs to nobody: the connection cannot be used again
            self._response.close()


def is_connection_refused(error: httpx.HTTPError) -> bool:
    """Whether the machine itself answered that nothing listens at that port; what a proxy says of it is no proof."""
    reason = getattr(error.__cause__, "os_error", None)
    return isinstance(reason, ConnectionRefusedError)


class _TranslateErrors:  # a class, which costs a third of a generator made into a context manager
    """Says in httpx's words what aiohttp raises."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, aiohttp.SocketTimeoutError):
            raise httpx.ReadTimeout(str(error)) from error
        if isinstance(error, aiohttp.ClientError | OSError):
            kind: Any = next(
                (ours for theirs, ours in _ERRORS_BEFORE_SENT if isinstance(error, theirs)), httpx.ReadError
            )
            raise kind(_describe_error(error)) from error


def _describe_error(error: aiohttp.ClientError | OSError) -> str:
    """What aiohttp says, but for a connection that was not made: "ssl:default" and a tuple say nothing to people."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error)
    reason = error.os_error
    own = isinstance(reason, socket.gaierror | ssl.SSLError)  # numbers of their own; the others are the system's
    said = reason.strerror if own or not reason.errno else os.strerror(reason.errno)
    return f"{error.host}:{error.port}: {said or reason}"


_TRANSLATE_ERRORS: Final = _TranslateErrors()
