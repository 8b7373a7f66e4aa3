"""URLs of servers: normalise them, strip their secrets, and find out whether two are the same server.

Nothing is looked up, so two host names of one machine count as two servers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from sweeper.errors import UsageError
from sweeper.schemas.values import format_value
from sweeper.wording import suggest

_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")  # one server; other addresses of 127/8 may be others
MESSAGE_FORMATS: Final = ("json", "ntfy", "slack", "discord")
_FORMAT_OF_HOST: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"ntfy\..+"), "ntfy"),
    (re.compile(r"hooks\.slack(-gov)?\.com"), "slack"),
    (re.compile(r"(.+\.)?discord(app)?\.com"), "discord"),
)


def normalise_url(url: str) -> str:
    """Normalise a URL: scheme and host in lower case, no default port, no trailing slash.

    Raises UsageError if it is not http(s) with a host, or if it contains credentials, a query or a fragment.
    """
    shown = strip_secrets(url.strip())
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{format_value(shown)} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        advice = "put the key into an environment variable and use {url: ..., api_key_env: NAME}"
        raise UsageError(f"{format_value(shown)} was given with a key or password inside the URL; {advice}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{format_value(shown)} is not a URL of a server (http://host:port or https://host)")
    if parts.query or parts.fragment:
        raise UsageError(f"the URL of {parts.hostname} must end with its path; remove everything from the ? or # on")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def strip_secrets(url: str) -> str:
    """Return a URL as a message may show it: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def is_loopback(url: str) -> bool:
    """Whether the URL is of this machine, where proxies and TLS are not used."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def identify_server(url: str) -> str:
    """Return a key that is equal for normalised URLs of the same server; the names of this machine count as one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host_key = _LOCAL_HOSTS[0] if host in _LOCAL_HOSTS else host
    return f"{parts.scheme}://{host_key}:{parts.port}{parts.path}"


@dataclass(frozen=True, slots=True)
class NotifyAddress:
    """Where a message about the end of a run goes. The URL may hold a secret, so only `host` may be shown."""

    url: str = field(repr=False)
    host: str
    format: str  # one of MESSAGE_FORMATS

    @property
    def digest(self) -> str:
        """A text that stands for the URL without showing it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def parse_notify_url(text: str) -> NotifyAddress:
    """Parse the URL of `notify`: its parameter `format`, or else its host, decides the format of the message.

    Raises UsageError, without the URL, if it is not http(s) with a host, or has credentials or an unknown format.
    """
    try:
        parts = urlsplit(text)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server or not re.fullmatch("[!-~]+", text):  # urlsplit removes line breaks and tabs
        raise UsageError("is not the URL of a server (http://host/path or https://host/path), in ASCII without spaces")
    if "@" in parts.netloc:
        raise UsageError("has a user or password inside the URL; use an address that needs none, such as a webhook's")
    pairs = [(unquote_plus(pair.partition("=")[0]), pair) for pair in parts.query.split("&")]
    shape = next((shape for host, shape in _FORMAT_OF_HOST if host.fullmatch(parts.hostname or "")), "json")
    for shape in (unquote_plus(pair.partition("=")[2]) for key, pair in pairs if key == "format"):
        if shape not in MESSAGE_FORMATS:
            raise UsageError(f"has the unknown format {format_value(shape)}{suggest(shape, MESSAGE_FORMATS)}")
    query = "&".join(pair for key, pair in pairs if key != "format")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return NotifyAddress(url, parts.netloc, shape)
