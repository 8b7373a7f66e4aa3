"""Refuse redirects that lead from a server to addresses that only we can reach.

A public server could make us request our own machine, our private network, or a cloud's metadata service, which hands
out credentials. So a redirect may lead to public addresses, and to addresses of the target's own kind: a server on
this machine may redirect to this machine. What counts is the address of the connection, checked before anything is
sent, because a host name can resolve to any address. A proxy does not say to which address it connects. Then the name
counts, and what our own resolver says of it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from sweeper.errors import TransientError

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
