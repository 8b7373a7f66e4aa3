"""URLs of servers: one spelling for each, what of one may be shown, and which two lead to one server.

Pure: nothing is looked up, so two names that DNS or a hosts file gives to one machine are two servers here.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from sweeper.errors import UsageError

_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")  # names of one place; the rest of 127/8 may be others'


def normalise_url(url: str) -> str:
    """One spelling per server: lower-case scheme and host, no default port, no trailing slash.

    Raises UsageError for anything but http(s) with a host, and for credentials, a query or a fragment inside it.
    """
    told = strip_secrets(url.strip())
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{told!r} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{told!r} was given with a key or password inside the URL; "
            "keys live in the environment: use {url: ..., api_key_env: NAME}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{told!r} is not a URL of a server (http://host:port or https://host)")
    if parts.query or parts.fragment:
        raise UsageError(f"the URL of {parts.hostname} must end with its path; take out what follows ? or #")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def strip_secrets(url: str) -> str:
    """A URL, or what was meant as one, as a message may show it: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def is_loopback(url: str) -> bool:
    """Whether that URL is this machine's own: proxies and TLS have no business there."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")  # noqa: PLR1714 (reads as three cases)


def identify_server(url: str) -> str:
    """A text that is the same for two normalised URLs of one server: the names of this machine count as one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    place = _LOCAL_HOSTS[0] if host in _LOCAL_HOSTS else host
    return f"{parts.scheme}://{place}:{parts.port}{parts.path}"
