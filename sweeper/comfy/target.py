"""Targets: where work can go, resolved from what users write (CONTRACT.md 15). The environment is an argument.

Nothing here talks to a server; that a URL without a `dialect` is probed is the client's affair. Keys never stand in a
file: they come from the environment or from a command (`keys`), and stand in fields that no repr shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from sweeper.comfy import keys
from sweeper.errors import Problem, UsageError
from sweeper.nearest import hint

EMBEDDED: Final = "embedded"
CLOUD: Final = "cloud"
DIALECTS: Final = ("cloud", "comfyui")

# COMFY_API.md: the published host, and the customary variable of its key.
CLOUD_URL: Final = "https://cloud.comfy.org"
CLOUD_KEY: Final = "COMFY_CLOUD_API_KEY"

_FIELDS: Final = (
    "url", "worker", "dialect", "api_key_env", "api_key_command", "partner_key_env", "concurrency", "name",
)  # fmt: skip
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Spec = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A server to run on. `name` is its identity for done work: a given name, `embedded`, `cloud`, or the URL.

    `dialect` is None until the server was asked. `concurrency` is None where nobody set one. `url` is empty for the
    embedded server until it runs. `key` opens the server; `partner_key` pays for nodes that call third parties, and
    goes into the submissions that have such nodes only.
    """

    name: str
    url: str
    dialect: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    api_key_command: tuple[str, ...] = ()
    partner_key_env: str | None = None
    key: str | None = field(default=None, repr=False, compare=False)
    partner_key: str | None = field(default=None, repr=False, compare=False)

    @property
    def embedded(self) -> bool:
        return self.name == EMBEDDED

    @property
    def key_source(self) -> str | None:
        """Where the key comes from, for people; None for a server that is asked without one."""
        if self.api_key_command:
            return "api_key_command"
        return self.api_key_env

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be taken out of anything that this server says: its keys, as they are, in a URL and in JSON."""
        keys = [key for key in (self.key, self.partner_key) if key]
        forms = {form for key in keys for form in (key, quote(key, safe=""), quote(key), json.dumps(key)[1:-1])}
        return tuple(sorted(forms, key=len, reverse=True))


def resolve_targets(
    specs: Spec | Sequence[Spec],
    *,
    named: Mapping[str, Spec] | None = None,
    environ: Mapping[str, str],
    with_keys: bool = True,
    command: Callable[[Sequence[str]], str] = keys.key_of_command,
) -> tuple[Target, ...]:
    """The targets that `specs` mean, in order; `named` are the user's and the experiment's, `environ` holds the keys.

    `with_keys` false: for who sends nothing; then no key is looked for. Raises UsageError with every mistake, each with
    what is allowed: an unknown name or setting, a bad URL, a key written where it does not belong, a key that cannot be
    had, one target twice, none at all.
    """
    listed = [specs] if isinstance(specs, str | Mapping) else list(specs)
    if not listed:
        raise UsageError("target: an empty list; give `embedded`, `cloud`, a URL, a name or a mapping")
    resolver = _Resolver(named or {}, environ, command if with_keys else None)
    targets: list[Target] = []
    problems: list[Problem] = []
    for spec in listed:
        try:
            targets.append(resolver.target(spec))
        except UsageError as error:
            problems += error.problems
    names = [target.name for target in targets]
    problems += [Problem("", 0, "target", f"{name} is given twice") for name in names if names.count(name) > 1]
    if problems:
        raise UsageError(problems)
    return tuple(targets)


def normalised(url: str) -> str:
    """One spelling per server: lower-case scheme and host, no default port, no trailing slash.

    Raises UsageError for anything but http(s) with a host, and for credentials, a query or a fragment inside it.
    """
    told = without_userinfo(url.strip())
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


def without_userinfo(url: str) -> str:
    """A URL, or what was meant as one, as a message may show it: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def loopback(url: str) -> bool:
    """Whether that URL is this machine's own: proxies and TLS have no business there."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")  # noqa: PLR1714 (reads as three cases)


def named_problems(named: Mapping[str, Spec]) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong with a mapping of names to targets, as (path, message) pairs; no key is looked for."""
    found: list[tuple[tuple[str, ...], str]] = []
    for name, entry in named.items():
        if name == EMBEDDED:
            found.append(((name,), f"the name {name} is kept for sweeper's own server; give yours another"))
            continue
        settings, problems = _settings(_entry(name, entry))
        found += [((name, word) if word else (name,), message) for word, message in problems]
        if name == CLOUD and settings.get("url", CLOUD_URL) != CLOUD_URL:
            found.append(((name, "url"), f"the name {name} is kept for {CLOUD_URL}; give yours another"))
        if isinstance(entry, Mapping) and entry.get("name", name) != name:
            found.append(((name, "name"), f"its name is {name} already; take out `name`"))
    return found


def _entry(name: str, entry: Spec) -> dict[str, Any]:
    """A named target as a mapping; `cloud` needs no URL."""
    mapping = {"url": entry} if isinstance(entry, str) else dict(entry)
    return {"url": CLOUD_URL, **mapping} if name == CLOUD else mapping


@dataclass(frozen=True, slots=True)
class _Resolver:
    """What is known beside the spec itself. `command` None: nobody needs keys now."""

    named: Mapping[str, Spec]
    environ: Mapping[str, str]
    command: Callable[[Sequence[str]], str] | None

    def target(self, spec: Any) -> Target:
        if isinstance(spec, Mapping):
            return self.read(spec, "target")
        if not isinstance(spec, str):
            raise UsageError(f"target: {spec!r} is neither a name, nor a URL, nor a mapping")
        word = spec.strip()
        if word in self.named:
            wrong = named_problems({word: self.named[word]})
            if wrong:
                raise UsageError(Problem("", 0, ".".join((f"target {word}", *path[1:])), said) for path, said in wrong)
            return self.read({**_entry(word, self.named[word]), "name": word}, f"target {word}")
        if word == EMBEDDED:
            return Target(EMBEDDED, "", dialect="cloud")
        if word == CLOUD:
            return self.read({"url": CLOUD_URL}, "target")
        if "://" in word:
            return self.read({"url": word}, "target")
        raise UsageError(f"target: unknown name {word!r}{hint(word, (EMBEDDED, CLOUD, *self.named))} (a URL has ://)")

    def read(self, spec: Mapping[str, Any], where: str) -> Target:
        """The target of a mapping. Raises UsageError with every mistake in it."""
        settings, wrong = _settings(spec)
        if wrong:
            raise UsageError(Problem("", 0, f"{where}.{word}" if word else where, said) for word, said in wrong)
        if "worker" in settings:
            said = "the server beside each worker of a Dask cluster: use it with --dask, or `url`"
            raise UsageError(Problem("", 0, f"{where}.worker", said))
        url: str = settings["url"]
        if url == CLOUD_URL:
            settings = self.cloud(settings)
        name = settings.get("name") or url
        variable, words = settings.get("api_key_env"), tuple(settings.get("api_key_command") or ())
        partner = settings.get("partner_key_env")
        key = self.key(variable, words, name)
        return Target(
            name=name,
            url=url,
            dialect=settings.get("dialect"),
            api_key_env=variable,
            concurrency=settings.get("concurrency"),
            api_key_command=words,
            partner_key_env=partner,
            key=key,
            # Comfy Cloud takes one key for both (COMFY_API.md, "partner nodes").
            partner_key=key if url == CLOUD_URL and partner is None else self.partner(partner, name),
        )

    def cloud(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of Comfy Cloud: what is given, then the entry `cloud` of the names, then the customary ones.

        That entry says whence the key comes wherever Cloud is meant, because it can lead to that host only.
        """
        kept, wrong = _settings(_entry(CLOUD, self.named.get(CLOUD, {})))
        if wrong or kept["url"] != CLOUD_URL:
            kept = {}  # told where that entry itself is meant, and by whoever reads the file
        if given.get("api_key_env") or given.get("api_key_command"):
            kept = {key: value for key, value in kept.items() if not key.startswith("api_key")}
        found = {"name": CLOUD, "dialect": "cloud", **kept, **given}
        if not found.get("api_key_command"):
            found.setdefault("api_key_env", CLOUD_KEY)
        return found

    def key(self, variable: str | None, words: tuple[str, ...], name: str) -> str | None:
        where = f"target {name}"
        if self.command is None or not (variable or words):
            return None
        try:
            if words:
                return keys.usable(self.command(words), "`api_key_command`")
            key = keys.key_of_variable(str(variable), self.environ)
            if key is None:
                raise UsageError(  # noqa: TRY301 - told of its place below, as the others
                    f"its key is expected in the environment variable {_shown(str(variable))}, which is not set"
                )
            return keys.usable(key, f"the environment variable {_shown(str(variable))}")
        except UsageError as error:
            raise keys.at(where, error) from None

    def partner(self, variable: str | None, name: str) -> str | None:
        """A partner key that is not there is told only where a workflow needs it."""
        key = keys.key_of_variable(variable, self.environ) if variable and self.command is not None else None
        try:
            return keys.usable(key, f"the environment variable {_shown(str(variable))}") if key else None
        except UsageError as error:
            raise keys.at(f"target {name}", error) from None


def _settings(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The sound settings of a mapping, its URL normalised, and (setting, message) for each mistake."""
    problems: list[tuple[str, str]] = []
    found: dict[str, Any] = {}
    if "url" not in spec and "worker" not in spec:
        problems.append(("url", "a mapping needs the `url` of the server"))
    if spec.get("api_key_env") and spec.get("api_key_command"):
        problems.append(("", "`api_key_env` and `api_key_command` both say whence the key comes; give one"))
    for word, value in spec.items():
        if word not in _FIELDS:
            problems.append((str(word), _unknown(str(word))))
        elif value is not None or word == "url":
            try:
                found[word] = _CHECKS[word](value)
            except UsageError as error:
                problems += [(word, one.message) for one in error.problems]
    return found, problems


def _unknown(word: str) -> str:
    if "key" in word.casefold() or "token" in word.casefold():
        return (
            "a key may not stand in a file; put it into the environment and its name into `api_key_env`, or the "
            "command that prints it into `api_key_command`"
        )
    return f"unknown key{hint(word, _FIELDS)}"


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError("`url` must be the URL of a server (http://host:port or https://host)")
    return normalised(value)


def _worker(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError("give the URL of the server as each worker sees it, in place of `url`")
    return value.strip()


def _dialect(value: Any) -> str:
    if value not in DIALECTS:
        raise UsageError(f"{value!r}{hint(value, DIALECTS)}")
    return str(value)


def _variable(value: Any) -> str:
    # Not repeated: whoever puts the key itself here must not find it in a log.
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise UsageError("give the name of an environment variable (letters, digits and _), not the key itself")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(word, str) and word for word in value):
        raise UsageError("give the program and its arguments as a list, such as [secret-tool, lookup, service, comfy]")
    return tuple(value)


def _concurrency(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{value!r} is not a whole number of at least 1")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{value!r} is not a name")
    return value


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "url": _url,
    "worker": _worker,
    "dialect": _dialect,
    "api_key_env": _variable,
    "api_key_command": _words,
    "partner_key_env": _variable,
    "concurrency": _concurrency,
    "name": _name,
}


def _shown(variable: str) -> str:
    """The name of a variable; one that does not look like one (a key of plain letters?) is not repeated."""
    return variable if variable.isupper() and len(variable) <= 64 else "that `api_key_env` names"
