"""Which proxy the environment means for a URL, and so what carries a request: aiohttp directly, httpx through a proxy.

The rules are those of httpx (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, the system's settings), but asked for one
URL at a time: httpx makes every proxy of the environment ready at once, and fails on one that no request would take.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from sweeper.comfy.transport import AiohttpTransport
from sweeper.did_you_mean import suggest
from sweeper.errors import UsageError
from sweeper.model.urls import is_loopback, strip_secrets

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


def transport_for(limits: httpx.Limits, url: str | None) -> httpx.AsyncBaseTransport:
    """For requests to `url` and its origin; None: to anybody, as where redirects are followed.

    Raises UsageError where the environment sends that URL through a proxy that cannot be used, without its password.
    """
    proxies = getproxies()
    if not any(proxies.get(scheme) for scheme in ("http", "https", "all")):
        return AiohttpTransport(limits)
    if url is None:
        return _PerRequestTransport(limits)
    proxy = _find_proxy(url, proxies)
    return AiohttpTransport(limits) if proxy is None else _make_proxy_transport(proxy, url, limits)


class _PerRequestTransport(httpx.AsyncBaseTransport):
    """Carries each request as its own URL asks for."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._transports: dict[str | None, httpx.AsyncBaseTransport] = {}  # by proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange. Raises httpx.TransportError, also for a proxy that cannot be used."""
        url = str(request.url)
        proxy = _find_proxy(url, getproxies())
        if proxy not in self._transports:
            try:
                self._transports[proxy] = (
                    AiohttpTransport(self._limits) if proxy is None else _make_proxy_transport(proxy, url, self._limits)
                )
            except UsageError as error:
                raise httpx.ProxyError(str(error), request=request) from None
        return await self._transports[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for one in self._transports.values():
            await one.aclose()
        self._transports.clear()


def _find_proxy(url: str, proxies: Mapping[str, str]) -> str | None:
    """The URL of the proxy that is meant for requests to `url`, None where they go there directly."""
    parts = urlsplit(url)
    if is_loopback(url) or _is_exempt(parts, proxies):  # a proxy cannot know what listens on this machine
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _is_exempt(parts: SplitResult, proxies: Mapping[str, str]) -> bool:
    """Whether NO_PROXY, or the system, names that host, its domain, or one of them with that port."""
    host = (parts.hostname or "").lower()
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    names = (f".{host}", f".{host}:{port}", f".[{host}]", f".[{host}]:{port}")
    for entry in proxies.get("no", "").lower().split(","):
        # As httpx has it, an entry may begin with a scheme.
        bare = entry.strip().removeprefix("all://").removeprefix(f"{parts.scheme}://")
        if bare == "*":
            return True
        domain = bare.lstrip("*.")
        if domain and any(name.endswith(f".{domain}") for name in names):
            return True
    return bool(proxy_bypass(parts.netloc))


def _make_proxy_transport(proxy: str, url: str, limits: httpx.Limits) -> httpx.AsyncBaseTransport:
    shown, host = strip_secrets(proxy), urlsplit(url).hostname
    variable = _find_variable(proxy, urlsplit(url).scheme)
    found = f"the environment sends requests to {host} through the proxy {shown} ({variable or 'of the system'})"
    instead = f"or name {host} in NO_PROXY" + (f", or unset {variable}" if variable else "")
    scheme = proxy.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        near = suggest(scheme, _SCHEMES).replace("; ", ", ", 1)
        raise UsageError(f"{found}; {scheme}:// is no proxy that can be used{near}; correct that, {instead}")
    try:
        if urlsplit(proxy).hostname and urlsplit(proxy).port != 0:
            return httpx.AsyncHTTPTransport(proxy=httpx.Proxy(proxy), limits=limits)
    except ImportError:
        raise UsageError(f"{found}, which needs one more package: pip install 'httpx[socks]', {instead}") from None
    except (ValueError, httpx.InvalidURL):
        pass
    raise UsageError(f"{found}; that is no address (http://host:port); correct it, {instead}")


def _find_variable(proxy: str, scheme: str) -> str | None:
    """The environment variable that says so, None where the system's settings do."""
    names = [f"{one}_proxy" for one in (scheme, "all")]
    given = [spelt for name in names for spelt in (name, name.upper()) if os.environ.get(spelt)]
    return next((name for name in given if os.environ[name] in (proxy, proxy.removeprefix("http://"))), None)
