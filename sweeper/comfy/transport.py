"""The connections of httpx to a server: their proxies, the limits of answers, redirects, and errors.

httpx sends a request once, because its own retries are off and because httpcore replaces an idle connection that the
server has closed. Retries belong to `client`, which knows what a request sent twice may cost.

A server is not trusted. It may send without end, expand a few bytes into gigabytes, or send one byte every few seconds.
So an answer has limits, each far above what ComfyUI or Comfy Cloud needs. One that makes no progress for
`stall_seconds` counts as no answer: its header has to be complete in that time after the last part of the request left,
and its body must bring `MIN_RATE` on average. An answer beyond a limit is a TransientError, so the caller retries it
and no paid job is given up.

A public server could also make us request our own machine, our private network, or a cloud's metadata service, which
hands out credentials. So a redirect may lead to public addresses, and to addresses of the target's own kind: a server
on this machine may redirect to this machine. What counts is the address of the connection, checked before anything is
sent, because a host name can resolve to any address. A proxy does not say to which address it connects. Then the name
counts, and what our own resolver says of it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from sweeper.errors import TransientError, Trouble, UsageError
from sweeper.model.node_classes.object_info import ClassReader
from sweeper.model.urls import is_loopback, strip_secrets
from sweeper.wording import format_install

# The errors that httpx raises before it writes the first byte of a request. After any other error, the server may have
# received the request.
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class _Transport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            # anyio 4.16 asks uvloop's socket for its peer, and there is none if the server has closed it already.
            if error.name != "getpeername":
                raise
        raise httpx.ConnectError("the server closed the connection at once", request=request)


def make_transport(url: str, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    """Make the connections for requests to `url`, directly or through the proxy that is configured for it.

    Certificates are checked as httpx does by default: by certifi, or by SSL_CERT_FILE or SSL_CERT_DIR.
    Raises UsageError, without the proxy's password, if that proxy cannot be used.
    """
    proxy = find_proxy(url)
    try:
        if proxy is None or (urlsplit(proxy).hostname and urlsplit(proxy).port != 0):
            if proxy is None and urlsplit(url).scheme == "http":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without any certificate: nothing needs them
            else:
                context = _make_ssl_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            return _Transport(verify=context, proxy=proxy, limits=limits)
        reason = "it has no host or port"
    except ImportError:
        reason = f"it needs one more package: {format_install('httpx[socks]')}"
    except (ValueError, httpx.InvalidURL):
        reason = "it is not a valid http://, https://, socks5:// or socks5h:// address"
    host = urlsplit(url).hostname
    raise UsageError(
        f"the environment sends requests to {host} through the proxy {strip_secrets(proxy or '')}, which cannot be "
        f"used: {reason}; correct it or unset it (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY), or add {host} to NO_PROXY"
    )


@functools.cache  # to read all certificates takes 10 ms, and each client would do so
def _make_ssl_context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Make a context as httpx does, which reads these two variables itself."""
    return httpx.create_ssl_context()


def find_proxy(url: str) -> str | None:
    """Find the proxy for `url` in the environment or the system's settings; None means a direct connection.

    httpx would set up every configured proxy, and fail on an unusable one that no request needs. The standard library
    interprets NO_PROXY, as it does for the event stream. A connection to this machine is always direct.
    """
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def is_connection_refused(error: httpx.HTTPError) -> bool:
    """Return whether the server's own machine answered that nothing listens at the port.

    False for a connection through a proxy: what a proxy says proves nothing about the server.
    """
    errors = _find_system_errors(error)
    refused = bool(errors) and all(isinstance(cause, ConnectionRefusedError) for cause in errors)
    return refused and find_proxy(str(error.request.url)) is None


def describe_error(error: httpx.HTTPError) -> str:
    """Describe a failed request; a failed connection by its address and the operating system's reason."""
    errors = _find_system_errors(error)
    if not errors:
        return str(error) or type(error).__name__
    url = error.request.url
    proxy = find_proxy(str(url))
    address = f"{url.host}:{url.port or {'http': 80, 'https': 443}[url.scheme]}"
    where = f"{address}: proxy {strip_secrets(proxy)}" if proxy else address
    return f"{where}: {', '.join(dict.fromkeys(map(_describe_reason, errors)))}"


def _describe_reason(error: OSError) -> str:
    """Return what the operating system, the resolver or OpenSSL says, without what asyncio adds."""
    own_numbers = isinstance(error, socket.gaierror | ssl.SSLError)
    return (error.strerror if own_numbers or not error.errno else os.strerror(error.errno)) or str(error)


def _find_system_errors(error: httpx.HTTPError) -> list[OSError]:
    """Find the errors of the operating system behind a ConnectError, one for each address of the host that was tried.

    httpx raises its error from httpcore's, which is raised while that of anyio is handled.
    """
    if not isinstance(error, httpx.ConnectError) or error.__cause__ is None:
        return []
    wrapped = error.__cause__.__context__
    reason = wrapped and (wrapped.__cause__ or wrapped)
    errors = reason.exceptions if isinstance(reason, ExceptionGroup) else (reason,)
    return [cause for cause in errors if isinstance(cause, OSError)]


# Bytes of an answer that is not a file, and of the description of one node class.
ANSWER_BYTES: Final = 64 * 2**20
ANSWER_SECONDS: Final = 300.0  # for its body
# Bytes and seconds of an answer with all node classes. With 9,000 model files in 170 classes it has 110 MB, which take
# this long at 0.5 Mbit/s. It is never in memory as a whole.
CLASSES_BYTES: Final = 2**30
CLASSES_SECONDS: Final = 1800.0
# Seconds until the header of an answer is complete: the timeouts for a free connection and for connecting (see
# `client.TIMEOUT`), and some more. An upload gets the time that it needs at `UPLOAD_RATE` in addition.
HEADER_SECONDS: Final = 200.0
UPLOAD_RATE: Final = 16 * 1024  # bytes per second
_SENT_PIECE: Final = 16 * 1024  # bytes of a request that the server has to take within `stall_seconds`
# Bytes of one artifact: an hour of film in high quality. `max_download_gb` in your targets file sets another limit.
FILE_BYTES: Final = 16 * 2**30
# Bytes of an artifact that the server compressed although we asked it not to: only text shrinks, and no text is longer.
COMPRESSED_FILE_BYTES: Final = 2**30
# Seconds for one artifact with all retries: 16 GiB take this long at 6 Mbit/s.
FILE_SECONDS: Final = 6 * 3600.0
# Bytes per second that a body must bring, on average over `stall_seconds`. A slow telephone line has ten times as much.
MIN_RATE: Final = 1024
_PIECE_BYTES: Final = 2**20  # how much of a compressed body is expanded at once


async def send(http: httpx.AsyncClient, request: httpx.Request, stall_seconds: float) -> httpx.Response:
    """Send a request, and return when the header of its answer is complete. The caller reads and closes the answer.

    Raises TransientError if that makes no progress or takes too long, and httpx.HTTPError if the connection drops.
    """
    clock, began_at = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
    latest = began_at + HEADER_SECONDS + int(request.headers.get("content-length", 0)) / UPLOAD_RATE
    try:
        async with asyncio.timeout_at(latest) as deadline:
            stalls_at = partial(min, latest)
            assert isinstance(request.stream, httpx.AsyncByteStream)
            request.stream = _SentBody(request.stream, lambda: deadline.reschedule(stalls_at(clock() + stall_seconds)))
            return await http.send(request, stream=True)
    except TimeoutError:
        message = f"no complete answer header after {clock() - began_at:.0f} s"
        raise TransientError(message, trouble=Trouble.TIMEOUT) from None


class _SentBody(httpx.AsyncByteStream):
    """The body of a request. Calls `renew` when the header has left, and whenever the server has taken a piece."""

    def __init__(self, stream: httpx.AsyncByteStream, renew: Callable[[], None]) -> None:
        self._stream = stream
        self._renew = renew

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._renew()
        async for chunk in self._stream:
            for start in range(0, len(chunk), _SENT_PIECE):
                yield chunk[start : start + _SENT_PIECE]
                self._renew()


async def read_answer(response: httpx.Response, stall_seconds: float) -> bytes:
    """Read the body of an answer that is not a file, and close the response.

    Raises TransientError beyond a limit, and httpx.HTTPError if the connection drops.
    """
    content = bytearray()  # a list of pieces would take fifty times the memory if the server sends single bytes
    await _read_body(response, ANSWER_BYTES, ANSWER_SECONDS, stall_seconds, content.extend)
    return bytes(content)


async def read_classes(response: httpx.Response, stall_seconds: float, redact: Callable[[str], str]) -> dict[str, Any]:
    """Read the node classes in the body of an answer as it arrives, and close the response. Raises as `read_answer`."""
    reader = ClassReader(ANSWER_BYTES, redact)
    try:
        await _read_body(response, CLASSES_BYTES, CLASSES_SECONDS, stall_seconds, reader.feed)
        return reader.finish()
    except OverflowError as error:
        message = f"the answer is larger than sweeper accepts: {error}"
        raise TransientError(message, trouble=Trouble.TOO_LARGE) from None
    except ValueError as error:
        raise TransientError(
            f"the server's answer is not a JSON object: {error}", trouble=Trouble.NOT_COMFYUI
        ) from None


async def _read_body(
    response: httpx.Response, max_bytes: int, seconds: float, stall_seconds: float, keep: Callable[[bytes], object]
) -> None:
    try:
        async with asyncio.timeout(seconds), aclosing(iter_body(response, max_bytes, stall_seconds)) as pieces:
            async for piece in pieces:
                keep(piece)
    except TimeoutError:
        message = f"the answer was not complete after {seconds:g} s"
        raise TransientError(message, trouble=Trouble.TIMEOUT) from None
    finally:
        await response.aclose()


async def iter_body(response: httpx.Response, max_bytes: int, stall_seconds: float) -> AsyncGenerator[bytes]:
    """Yield the body, expanded if it is compressed. The caller closes the response.

    Raises TransientError after a piece with which it is longer than `max_bytes`, or if it is too
    slow, cut off or in an unknown encoding. Raises httpx.HTTPError if the connection drops.
    """
    expand, is_complete = _make_decoder(response.headers.get("content-encoding", ""))
    raw_bytes = total_bytes = 0
    async for chunk in _iter_chunks(response, stall_seconds):
        raw_bytes += len(chunk)
        for piece in expand(chunk):
            total_bytes += len(piece)
            yield piece
            if max(raw_bytes, total_bytes) > max_bytes:
                message = f"the answer is larger than {format_bytes(max_bytes)}, which sweeper does not accept"
                raise TransientError(message, trouble=Trouble.TOO_LARGE)
    if not is_complete():
        raise TransientError("the compressed answer is cut off", trouble=Trouble.DROPPED)


async def _iter_chunks(response: httpx.Response, stall_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises TransientError if we wait `stall_seconds` for less than the minimum rate.

    Only the waiting counts, and not what the caller does with a chunk, such as writing it to a slow disk.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)
    clock = asyncio.get_running_loop().time
    chunks = aiter(response.stream)
    waited, received = 0.0, 0
    while True:
        began_at = clock()
        try:
            async with asyncio.timeout(stall_seconds - waited):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"the server sends too slowly: {received} bytes in {stall_seconds:g} s"
            raise TransientError(message, trouble=Trouble.TIMEOUT) from None
        waited, received = waited + clock() - began_at, received + len(chunk)
        if received >= MIN_RATE * stall_seconds:
            waited, received = 0.0, 0
        yield chunk


def format_bytes(count: int) -> str:
    """A size for a message, such as `64 MB`."""
    unit, name = next(
        (unit for unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")) if count >= unit[0]), (1, "bytes")
    )
    return f"{count / unit:g} {name}"


def is_compressed(response: httpx.Response) -> bool:
    """Whether the body has a Content-Encoding, although we ask for none."""
    return response.headers.get("content-encoding", "identity").strip().casefold() not in ("", "identity")


def _make_decoder(encoding: str) -> tuple[Callable[[bytes], Iterator[bytes]], Callable[[], bool]]:
    """A function that expands a chunk in pieces, and one that says whether the body was complete.

    httpx expands a whole chunk at once, several times if the header names several encodings, without any limit.
    """
    encoding = encoding.strip().casefold()
    if encoding in ("", "identity"):
        return lambda chunk: iter((chunk,)), lambda: True
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise TransientError(f"the server compresses its answer ({encoding[:40]!r}), although sweeper asks it not to")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # with the header of gzip or of zlib

    def expand(chunk: bytes) -> Iterator[bytes]:
        while not decoder.eof:
            try:
                piece = decoder.decompress(chunk, _PIECE_BYTES)
            except zlib.error:
                raise TransientError("the compressed answer is damaged", trouble=Trouble.DROPPED) from None
            yield piece
            chunk = decoder.unconsumed_tail
            if not chunk and len(piece) < _PIECE_BYTES:
                return

    return expand, lambda: decoder.eof


PUBLIC: Final = "public"
LOOPBACK: Final = "loopback"
_PRIVATE: Final = "private"
_SPECIAL: Final = "special"
_METADATA: Final = "metadata"
# The metadata services of AWS, Azure and Google (also by IPv6), of AWS containers, Alibaba and Oracle.
_METADATA_ADDRESSES: Final = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "100.100.100.200",
         "192.0.0.192"),
    )
)  # fmt: skip
# Domains that only a local network resolves (RFC 6762, appendix G; RFC 8375; `internal` is ICANN's).
_LOCAL_DOMAINS: Final = ("corp", "home", "home.arpa", "internal", "intranet", "lan", "local", "private")
# A name as the public DNS has it: several labels, of which the last is not a number that a proxy could read as an
# IPv4 address (`127.1`).
_PUBLIC_NAME: Final = re.compile(r"([a-z0-9_-]+\.)+[a-z][a-z0-9-]*")
# The resolvers of some tunnels answer with these addresses for every name.
_TUNNEL_ADDRESSES: Final = ip_network("198.18.0.0/15")
_RESOLVE_SECONDS: Final = 5.0
_NAT64: Final = ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address


def classify_address(text: str) -> str:
    """The kind of an IP address: `public`, `loopback`, `private`, `link-local`, `metadata` or `special`.

    Raises ValueError if it is not an IP address.
    """
    address = _unwrap(ip_address(text.partition("%")[0]))
    if address in _METADATA_ADDRESSES:
        return _METADATA
    if address.is_loopback or address.is_unspecified:  # a connection to 0.0.0.0 reaches this machine
        return LOOPBACK
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address.is_reserved:
        return _SPECIAL
    return PUBLIC if address.is_global else _PRIVATE


def classify_host(url: str) -> str | None:
    """The kind of a URL's host if it is an IP address or a name of this machine; None for any other name."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return LOOPBACK
    try:
        return classify_address(host)
    except ValueError:
        return None


async def resolve_kind(url: str) -> str | None:
    """The kind of a URL's host, for a request through a proxy; None if the name is public and we cannot resolve it.

    If the host has addresses of several kinds, it is one that is not public.
    """
    kind = classify_host(url)
    if kind is not None:
        return kind
    try:
        name = (urlsplit(url).hostname or "").rstrip(".").encode("idna").decode()
    except UnicodeError:
        return _SPECIAL
    if any(f".{name}".endswith(f".{domain}") for domain in _LOCAL_DOMAINS) or re.fullmatch("[a-z][a-z0-9_-]*", name):
        return _PRIVATE
    if not _PUBLIC_NAME.fullmatch(name):
        return _SPECIAL
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return None
    addresses = {ip_address(str(address[0]).partition("%")[0]) for *_, address in found}
    kinds = {classify_address(str(address)) for address in addresses if address not in _TUNNEL_ADDRESSES}
    return min(kinds, key=lambda kind: kind == PUBLIC, default=None)


def check_redirect(kind: str | None, target_kind: str) -> None:
    """Raise TransientError if a target of `target_kind` may not redirect to an address of `kind`."""
    if kind in (None, PUBLIC) or (kind == target_kind and kind != _METADATA):
        return
    raise TransientError(
        f"the server redirects to a {kind} address, but is itself at a {target_kind} one; sweeper does not follow, "
        "because that could reach services that only this machine can see; ask the server's owner"
    )


def make_connection_check(target_kind: str) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """A `trace` extension for httpx that closes a connection to a refused address before anything is sent.

    The check is here and not before the connection, because a name may resolve to another address a second time.
    """

    async def check_connection(event: str, info: Mapping[str, Any]) -> None:
        if event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        try:
            check_redirect(classify_peer(stream), target_kind)
        except TransientError:
            await stream.aclose()
            raise

    return check_connection


def classify_peer(stream: Any) -> str | None:
    """The kind of the address that a connection leads to; None without a connection, as in tests."""
    address = stream.get_extra_info("server_addr") if stream is not None else None
    return classify_address(address[0]) if address else None


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if any."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
