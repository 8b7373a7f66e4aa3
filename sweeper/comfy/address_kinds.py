"""Refuse redirects that lead from a server to addresses that only we can reach.

A public server could make us request our own machine, our private network, or a cloud's metadata service, which hands
out credentials. So a redirect may lead to public addresses, and to addresses of the target's own kind: a server on
this machine may redirect to this machine. What counts is the address of the connection, checked before anything is
sent, because a host name can resolve to any address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from sweeper.errors import TransientError

PUBLIC: Final = "public"
LOOPBACK: Final = "loopback"
_METADATA: Final = "metadata"
# The metadata services of AWS, Azure and Google (also by IPv6), of AWS containers, Alibaba and Oracle.
_METADATA_ADDRESSES: Final = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "100.100.100.200",
         "192.0.0.192"),
    )
)  # fmt: skip
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
        return "special"
    return PUBLIC if address.is_global else "private"


def classify_host(url: str) -> str | None:
    """The kind of a URL's host if it is an IP address or a name of this machine; None for any other name."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return LOOPBACK
    try:
        return classify_address(host)
    except ValueError:
        return None


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
