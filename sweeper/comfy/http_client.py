"""httpx's client, cut short: exchanges and downloads that pass by what nobody uses of it.

Most requests of a run are the same four calls, job after job, and httpx's own request and response objects are half of
what one costs. They are left out where nobody looks at them; where somebody may (a transport of a test, a proxy, a
listener to httpx's log, a cookie to be sent, a redirect to be followed) everything goes the whole way. What an
exchange means, and what to do when it fails, is `client`'s; connections are `transport`'s.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from sweeper.comfy.transport import AiohttpTransport, ResponseBody

RawResponse = tuple[int, dict[str, str], bytes]  # status, headers as `plain` has them, body

_REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)
_LOG: Final = logging.getLogger("httpx")


class Cookies(httpx.Cookies):
    """Looks for cookies, as a load balancer sets them, only in an answer that has one: it is a tenth of a request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep the cookies of an answer."""
        if "set-cookie" in response.headers:
            super().extract_cookies(response)


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """An answer whose body is still to come. `headers` as `plain` has them; `url` is where it came from."""

    status: int
    headers: dict[str, str]
    url: str
    _body: httpx.AsyncByteStream

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """The body as it goes over the wire. Raises httpx.HTTPError."""
        return self._body.__aiter__()

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body without its Content-Encoding. Raises httpx.HTTPError."""
        return httpx.Response(self.status, headers=self.headers, stream=self._body).aiter_bytes()

    async def read(self) -> bytes:
        """The whole body, without its Content-Encoding. Raises httpx.HTTPError."""
        pieces = self.aiter_bytes() if "content-encoding" in self.headers else self.aiter_raw()
        return b"".join([piece async for piece in pieces])

    async def close(self) -> None:
        """Nothing more is read of it."""
        await self._body.aclose()


class HttpClient(httpx.AsyncClient):
    """httpx's client with `ask` and `open`; with an `AiohttpTransport` these go there at once, past authentication,
    hooks and proxies too. Whoever listens to httpx's log gets it, at httpx's pace.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, **settings: Any) -> None:
        self._cookie_jar = Cookies()
        self._aiohttp = transport if isinstance(transport, AiohttpTransport) else None
        super().__init__(transport=transport, **settings)
        self._timeouts = self.timeout.as_dict()

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> RawResponse:
        """One exchange, no redirect followed. `url` as it goes over the wire; `headers` are all there are.

        Raises httpx.HTTPError and httpx.InvalidURL.
        """
        stream = await self._send_direct(method, url, headers, content)
        if stream is None:
            response = await self.send(self._make_request(method, url, headers, content), follow_redirects=False)
            return response.status_code, to_header_dict(response.headers.raw), response.content
        try:
            return stream.status, stream.headers, await stream.read()
        finally:
            await stream.close()

    async def open_stream(self, method: str, url: str, headers: Mapping[str, str]) -> ResponseStream:
        """The same with the body unread, and redirects followed where this client follows them."""
        stream = await self._send_direct(method, url, headers)
        if stream is not None and self.follow_redirects and stream.status in _REDIRECT_STATUSES:
            await stream.close()  # following them is httpx's: it asks once more
            stream = None
        if stream is None:
            response = await self.send(self._make_request(method, url, headers), stream=True)
            stream = ResponseStream(
                response.status_code, to_header_dict(response.headers.raw), str(response.url), _HttpxBody(response)
            )
        return stream

    async def _send_direct(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> ResponseStream | None:
        """An exchange past httpx; None, and nothing sent, where it must go the whole way."""
        if (
            self._aiohttp is None
            or self._cookie_jar
            or _LOG.isEnabledFor(logging.INFO)
            or not _is_sendable_as_written(url)
        ):
            return None
        response = await self._aiohttp.send(method, url, headers, content, self._timeouts)
        found = to_header_dict(response.raw_headers)
        if "set-cookie" in found:
            asked = httpx.Request(method, url)
            told = httpx.Response(response.status, headers=list(response.raw_headers), request=asked)
            self._cookie_jar.extract_cookies(told)
        return ResponseStream(response.status, found, url, ResponseBody(response))

    def _make_request(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Request:
        cookies, extensions = self._cookie_jar or None, {"timeout": self._timeouts}
        return httpx.Request(
            method, url, headers=dict(headers), content=content, cookies=cookies, extensions=extensions
        )

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of this client."""
        return self._cookie_jar

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._cookie_jar = Cookies(cookies)


class _HttpxBody(httpx.AsyncByteStream):
    """What is still to come of httpx's response."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._response.is_stream_consumed:  # a transport that had the whole body at hand, as a test's has
            yield self._response.content
            return
        async for chunk in self._response.aiter_raw():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def to_header_dict(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; of one that came twice the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _is_sendable_as_written(url: str) -> bool:
    """Whether a URL can go over the wire as it is written."""
    return url.isascii() and url.isprintable() and " " not in url
