"""Which Host headers name a server of ours: a defence against DNS rebinding.

A page of another site can point its own name at 127.0.0.1, and then send requests to a server there as if they were of
its own origin. The browser still sends the site's name as `Host`, so a server must refuse names that are not its own.
"""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(name: str) -> bool:
    """Whether a host name or IP address can only be reached from this machine."""
    address = _parse_address(name)
    return name == "localhost" if address is None else address.is_loopback


class OwnNames:
    """The host names of a server that listens on `address`.

    On loopback these are the names of loopback. Elsewhere they are also the address itself, this machine's name, and
    any IP address, because another site can rebind a name but not an address.
    """

    def __init__(self, address: str) -> None:
        self._is_local = is_loopback(address)
        names = () if self._is_local else (address, socket.gethostname(), socket.getfqdn())
        self._names = frozenset(name.lower() for name in names if name)

    def __contains__(self, host_header: str) -> bool:
        name = host_header if host_header.endswith("]") else host_header.rpartition(":")[0] or host_header
        name = name.strip("[]").lower().rstrip(".")
        if is_loopback(name) or name in self._names:
            return True
        return not self._is_local and _parse_address(name) is not None


def _parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
