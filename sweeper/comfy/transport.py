"""The connections of httpx to a server: which proxy they use, and what an error says about the failed request.

httpx sends a request once, because its own retries are off and because httpcore replaces an idle connection that the
server has closed. Retries belong to `client`, which knows what a request sent twice may cost.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from sweeper.errors import UsageError
from sweeper.model.urls import is_loopback, strip_secrets

# The errors that httpx raises before it writes the first byte of a request. After any other error, the server may have
# received the request.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def make_transport(url: str, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    """Make the connections for requests to `url`, directly or through the proxy that is configured for it.

    Certificates are checked as httpx does by default: by certifi, or by SSL_CERT_FILE or SSL_CERT_DIR.
    Raises UsageError, without the proxy's password, if that proxy cannot be used.
    """
    proxy = find_proxy(url)
    try:
        if proxy is None or (urlsplit(proxy).hostname and urlsplit(proxy).port != 0):
            return httpx.AsyncHTTPTransport(proxy=proxy, limits=limits)
        reason = "it has no host or port"
    except ImportError:
        reason = 'it needs one more package: pip install "httpx[socks]"'
    except (ValueError, httpx.InvalidURL):
        reason = "it is not a valid http://, https://, socks5:// or socks5h:// address"
    host, variable = urlsplit(url).hostname, _find_proxy_variable(url)
    source = f" ({variable})" if variable else ""
    unset = f", or unset {variable}" if variable else ""
    raise UsageError(
        f"the environment sends requests to {host} through the proxy {strip_secrets(proxy or '')}{source}, "
        f"which cannot be used: {reason}; correct it, add {host} to NO_PROXY{unset}"
    )


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


def _find_proxy_variable(url: str) -> str | None:
    """Find the environment variable that names the proxy for `url`; None if the system's settings name it."""
    names = [f"{scheme}_proxy" for scheme in (urlsplit(url).scheme, "all")]
    return next((name for lower in names for name in (lower, lower.upper()) if os.environ.get(name)), None)


def was_sent(error: httpx.HTTPError) -> bool:
    """Return whether the server may have received the request that failed with `error`."""
    return not isinstance(error, _NOT_SENT)


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
