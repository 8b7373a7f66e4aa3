"""Targets: where work can go, resolved from what users write (CONTRACT.md 15). Pure: the environment is an argument.

Nothing here talks to a server; that a URL without a `dialect` is probed is the client's affair. Keys come from the
environment only, and stand in one field that no repr shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from sweeper.errors import UsageError
from sweeper.nearest import hint

EMBEDDED: Final = "embedded"
CLOUD: Final = "cloud"
DIALECTS: Final = ("cloud", "comfyui")

# COMFY_API.md: the published host, and the customary variable of its key.
CLOUD_URL: Final = "https://cloud.comfy.org"
CLOUD_KEY: Final = "COMFY_CLOUD_API_KEY"

_FIELDS: Final = ("url", "dialect", "api_key_env", "concurrency", "name")

Spec = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A server to run on. `name` is its identity for done work: a given name, `embedded`, `cloud`, or the URL.

    `dialect` is None until the server was asked. `concurrency` is None where nobody set one. `url` is empty for the
    embedded server until it runs.
    """

    name: str
    url: str
    dialect: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    key: str | None = field(default=None, repr=False, compare=False)

    @property
    def embedded(self) -> bool:
        return self.name == EMBEDDED


def resolve_targets(
    specs: Spec | Sequence[Spec], *, named: Mapping[str, Spec] | None = None, environ: Mapping[str, str]
) -> tuple[Target, ...]:
    """The targets that `specs` mean, in order; `named` is the user's targets file, `environ` holds the keys.

    Raises UsageError with every mistake's allowed words or nearest name: an unknown name or key, a bad URL, a key
    written where it does not belong, a key missing in the environment, one target twice, none at all.
    """
    listed = [specs] if isinstance(specs, str | Mapping) else list(specs)
    if not listed:
        raise UsageError("target: an empty list; give `embedded`, `cloud`, a URL, a name or a mapping")
    targets = tuple(_resolve(spec, named or {}, environ) for spec in listed)
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"target: {name} is given twice")
    return targets


def normalised(url: str) -> str:
    """One spelling per server: lower-case scheme and host, no default port, no trailing slash.

    Raises UsageError for anything but http(s) with a host, and for credentials, a query or a fragment inside it.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise UsageError(f"target: {_without_userinfo(url)!r} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"target: {_without_userinfo(url)!r} was given with a key or password inside the URL; "
            "keys live in the environment: use {url: ..., api_key_env: NAME}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"target: {url!r} is not a URL of a server (http://host:port or https://host)")
    if parts.query or parts.fragment:
        raise UsageError(f"target: the URL of {parts.hostname} must end with its path; take out what follows ? or #")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def loopback(url: str) -> bool:
    """Whether that URL is this machine's own: proxies and TLS have no business there."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")  # noqa: PLR1714 (reads as three cases)


def _resolve(spec: Spec, named: Mapping[str, Spec], environ: Mapping[str, str]) -> Target:
    if isinstance(spec, str):
        word = spec.strip()
        if word in named and word not in (EMBEDDED, CLOUD):
            entry = named[word]
            mapping: dict[str, Any] = {"url": entry} if isinstance(entry, str) else dict(entry)
            return _from_mapping({**mapping, "name": word}, environ)
        if word == EMBEDDED:
            return Target(EMBEDDED, "", dialect="cloud")
        if word == CLOUD:
            return _from_mapping({"url": CLOUD_URL, "name": CLOUD}, environ)
        if "://" in word:
            return _from_mapping({"url": word}, environ)
        raise UsageError(f"target: unknown name {word!r}{hint(word, (EMBEDDED, CLOUD, *named))} (a URL has ://)")
    if isinstance(spec, Mapping):
        return _from_mapping(spec, environ)
    raise UsageError(f"target: {spec!r} is neither a name, nor a URL, nor a mapping")


def _from_mapping(spec: Mapping[str, Any], environ: Mapping[str, str]) -> Target:
    if "worker" in spec:
        raise UsageError("target.worker: the server beside each worker of a Dask cluster: use it with --dask, or `url`")
    for word in spec:
        if word not in _FIELDS:
            if "key" in str(word).casefold() or "token" in str(word).casefold():
                raise UsageError(
                    f"target.{word}: a key may not stand in a file; put it into the environment and its name "
                    "into `api_key_env`"
                )
            raise UsageError(f"target.{word}: unknown key{hint(word, _FIELDS)}")
    if not isinstance(spec.get("url"), str):
        raise UsageError("target.url: a mapping needs the `url` of the server")
    url = normalised(spec["url"])
    dialect: Any = spec.get("dialect")
    if dialect is not None and dialect not in DIALECTS:
        raise UsageError(f"target.dialect: {dialect!r}{hint(dialect, DIALECTS)}")
    name: Any = spec.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise UsageError(f"target.name: {name!r} is not a name")
    variable: Any = spec.get("api_key_env")
    if variable is not None and not isinstance(variable, str):
        raise UsageError("target.api_key_env: give the name of an environment variable")
    if url == CLOUD_URL:
        name, dialect, variable = name or CLOUD, dialect or "cloud", variable or CLOUD_KEY
    return Target(
        name=name or url,
        url=url,
        dialect=dialect,
        api_key_env=variable,
        concurrency=_concurrency(spec.get("concurrency")),
        key=_key(variable, name or url, environ),
    )


def _concurrency(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise UsageError(f"target.concurrency: {value!r} is not a whole number of at least 1")


def _key(variable: str | None, name: str, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    key = environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"target {name}: its key is expected in the environment variable {variable}, which is not set")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"target {name}: the value of {variable} cannot be a key: it holds unprintable characters")
    return key


def _without_userinfo(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
