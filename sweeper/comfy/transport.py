"""What carries httpx's requests: aiohttp's connections, under httpx's API and with httpx's errors.

httpx's own transport searches its pool anew at every request and parses HTTP in Python: a request costs it two to four
times the processor time (measured, tests/benchmarks/runner.py), which beside a local GPU is time in which no job is
queued. The transport that is published for this (httpx-aiohttp 0.2.0) is not used because it reports a connection that
broke after the request as `ConnectTimeout`: we would take the job for not sent, and pay for it twice. Which error means
what is therefore written down here; retrying and everything above one exchange is the client's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.request import getproxies

import aiohttp
import httpx
from yarl import URL

# Every error of aiohttp that certainly came before the request left; whatever is not here may have come after it.
_BEFORE: Final = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),  # no connection, or none free, in time
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # names, TCP, TLS
)
_LOG: Final = logging.getLogger("httpx")
_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # headers are httpx's affair


class Cookies(httpx.Cookies):
    """Looks for cookies, as a load balancer sets them, only in an answer that has one: it is a tenth of a request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep the cookies of an answer."""
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


class Http(httpx.AsyncClient):
    """httpx's client, cut short where nothing on its way is used: with a `transport` of its own an exchange goes there
    at once, past authentication, hooks and proxies, which are a third of what it costs. Whoever listens to httpx's log
    gets it, at httpx's pace.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, **settings: Any) -> None:
        self._jar = Cookies()
        self._direct = transport
        super().__init__(transport=transport, **settings)

    async def send(self, request: httpx.Request, *, stream: bool = False, **rest: Any) -> httpx.Response:
        """One exchange, the body read unless `stream`. Raises httpx.HTTPError."""
        if self._direct is None or _LOG.isEnabledFor(logging.INFO):
            return await super().send(request, stream=stream, **rest)
        response = await self._direct.handle_async_request(request)
        try:
            if self.follow_redirects and response.has_redirect_location:  # following them is httpx's: it asks once more
                await response.aclose()
                return await super().send(request, stream=stream, **rest)
            response.request = request
            self._jar.extract_cookies(response)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of this client."""
        return self._jar

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._jar = Cookies(cookies)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """For requests that need no proxy: see `wanted`. To be used within one event loop."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
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
                skip_auto_headers=_ADDED,
                auto_decompress=False,
            )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, the body of the answer unread. Raises httpx.TransportError."""
        content = await request.aread()
        limits: dict[str, float | None] = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            total=None, connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
        )
        with _told(request):
            response = await self._open().request(
                request.method,
                URL(str(request.url), encoded=True),  # as httpx wrote it
                # Not `multi_items()`, which guesses an encoding anew at every request.
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=content or None,
                allow_redirects=False,
                timeout=timeout,
            )
        return httpx.Response(
            response.status, headers=list(response.raw_headers), stream=_Body(response, request), request=request
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response, self._request = response, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told(self._request):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:  # what is still to come belongs to nobody: the connection cannot be used again
            self._response.close()


@contextlib.contextmanager
def _told(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except aiohttp.SocketTimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        kind: Any = next((ours for theirs, ours in _BEFORE if isinstance(error, theirs)), httpx.ReadError)
        raise kind(str(error), request=request) from error


def wanted(*, local: bool) -> bool:
    """Whether requests go out by aiohttp: not where the environment may send them through a proxy, whose
    rules, SOCKS among them, are httpx's own.
    """
    return local or not getproxies()
