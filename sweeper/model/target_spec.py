"""Targets as users write them (CONTRACT.md 15): what one may hold, which server it means, and all that is wrong.

Pure, and without keys: where those come from is written here, but only `sweeper.comfy.target` looks there. Names that
mean a server of their own (`embedded`, `cloud`) lead nowhere else, whoever gives them: done work is known by the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import Problem, UsageError
from sweeper.model.urls import identify_server, normalise_url
from sweeper.schemas.values import KeyPath

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
_NO_URL: Final = ("url", "a mapping needs the `url` of the server")


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """A named entry that cannot be used. Its mistakes are told where the name is meant, and nowhere else."""

    problems: tuple[Problem, ...]


TargetSpec = str | Mapping[str, Any]
NamedTargets = Mapping[str, TargetSpec | InvalidEntry]


@dataclass(frozen=True, slots=True)
class ParsedTarget:
    """What a target means, if `sound`: its settings, with a `name`, and a `url` that is empty for the embedded server.

    `entry` is the name under which it stands, None where the target itself says all. `wrong` holds (setting, message)
    for each mistake; `problems` those of a file of the user's own.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    entry: str | None = None
    errors: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def is_valid(self) -> bool:
        return "name" in self.settings and not self.errors and not self.problems


def parse_target(spec: Any, named: NamedTargets) -> ParsedTarget:
    """What a target as users write it means; `named` are the user's and the experiment's names."""
    if isinstance(spec, Mapping):
        return _parse_mapping(spec, named)
    if not isinstance(spec, str):
        return ParsedTarget(errors=(("", f"{spec!r} is neither a name, nor a URL, nor a mapping"),))
    word = spec.strip()
    if word in named:
        return _parse_name(word, named)
    if word == EMBEDDED:
        return ParsedTarget({"name": EMBEDDED, "url": "", "dialect": "cloud"})
    if word == CLOUD or "://" in word:
        found = _parse_mapping({"url": CLOUD_URL if word == CLOUD else word}, named)
        return ParsedTarget(
            found.settings, errors=tuple(("", said) for _, said in found.errors), problems=found.problems
        )
    told = word.rpartition("@")[2]  # what stands before it may be a password
    return ParsedTarget(
        errors=(
            ("", f"unknown name {told!r}{suggest(told, dict.fromkeys((EMBEDDED, CLOUD, *named)))} (a URL has ://)"),
        )
    )


def _parse_name(word: str, named: NamedTargets) -> ParsedTarget:
    entry = named[word]
    if isinstance(entry, InvalidEntry):
        return ParsedTarget(entry=word, problems=entry.problems)
    wrong = tuple((".".join(map(str, path[1:])), said) for path, said in find_entry_problems({word: entry}))
    if wrong:
        return ParsedTarget(entry=word, errors=wrong)
    found = _parse_mapping({**_to_mapping(word, entry), "name": word}, named)
    return ParsedTarget(found.settings, word, found.errors, found.problems)


def _parse_mapping(spec: Mapping[str, Any], named: NamedTargets) -> ParsedTarget:
    settings, wrong = _parse_settings(spec)
    if wrong:
        return ParsedTarget(settings, errors=tuple(wrong))
    if settings.get("url") == CLOUD_URL:
        entry = named.get(CLOUD, {})
        if isinstance(entry, InvalidEntry):
            return ParsedTarget(settings, problems=entry.problems)
        settings = _merge_cloud_settings(settings, entry)
    settings.setdefault("name", settings.get("url") or f"worker {settings['worker']}")
    return ParsedTarget(settings)


def _merge_cloud_settings(given: Mapping[str, Any], entry: TargetSpec) -> dict[str, Any]:
    """Settings of Comfy Cloud: what is given, then the entry `cloud` of the names, then the customary ones.

    That entry says whence the key comes wherever Cloud is meant, because it can lead to that host only.
    """
    kept, wrong = _parse_settings(_to_mapping(CLOUD, entry))
    if wrong or kept["url"] != CLOUD_URL:
        kept = {}  # told where that entry itself is meant, and by whoever reads the file
    if given.get("api_key_env") or given.get("api_key_command"):
        kept = {key: value for key, value in kept.items() if not key.startswith("api_key")}
    found = {"name": CLOUD, "dialect": "cloud", **kept, **given}
    if not found.get("api_key_command"):
        found.setdefault("api_key_env", CLOUD_KEY)
    return found


def find_entry_problems(named: Mapping[str, TargetSpec]) -> list[tuple[KeyPath, str]]:
    """What is wrong with a mapping of names to targets, as (path, message) pairs."""
    found: list[tuple[KeyPath, str]] = []
    for name, entry in named.items():
        settings, problems = _parse_settings(_to_mapping(name, entry))
        found += [((name, word) if word else (name,), message) for word, message in problems]
        kept = _explain_reserved_name(name, settings)
        if kept is not None:
            found.append(((name,) if _is_reserved(name, EMBEDDED) else (name, "url"), kept))
        if isinstance(entry, Mapping) and entry.get("name", name) != name:
            found.append(((name, "name"), f"its name is {name} already; take out `name`"))
    return found


def find_target_problems(experiment: Any, named: NamedTargets | None) -> list[tuple[KeyPath, str]]:
    """What is wrong with `target` and `targets` of an experiment beyond the shapes that its schema checks, with paths.

    `named` are the user's own names, which yield to the experiment's; None: a name that is not the experiment's may
    be one that is given elsewhere.
    """
    written = experiment if isinstance(experiment, Mapping) else {}
    targets = written.get("targets")
    own = targets if isinstance(targets, Mapping) else {}
    entries = {name: entry for name, entry in own.items() if _is_spec(entry)}
    found: list[tuple[KeyPath, str]] = [(("targets", *path), said) for path, said in find_entry_problems(entries)]
    names = {**(named or {}), **dict.fromkeys(own, InvalidEntry(())), **entries}
    target = written.get("target", EMBEDDED)
    listed = target if isinstance(target, list) else [target]
    understood = [parse_target(spec, names) for spec in listed]
    places: list[KeyPath] = [("target", place) if listed is target else ("target",) for place in range(len(listed))]
    for path, spec, one in zip(places, listed, understood, strict=True):
        elsewhere = named is None and isinstance(spec, str) and "://" not in spec
        if _is_spec(spec) and one.entry is None and not elsewhere:
            found += [((*path, word) if word else path, said) for word, said in one.errors]
    found += [(places[place], said) for place, said in find_duplicate_targets(understood)]
    return [(path, said) for path, said in found if (path[-1], said) != _NO_URL]  # the schema has said that


def find_duplicate_targets(targets: Sequence[ParsedTarget]) -> Iterator[tuple[int, str]]:
    """(place, message) of each target that is the same server as one before it: a plan is shared among servers."""
    names: set[str] = set()
    servers: dict[tuple[Any, ...], str] = {}
    for place, one in enumerate(targets):
        if not one.is_valid:
            continue
        name, url = one.settings["name"], one.settings.get("url")
        if name in names:
            yield place, f"{name} is given twice"
        elif url:
            # Two accounts of Comfy Cloud are two queues; a ComfyUI has one, whatever key its proxy asks for.
            words = one.settings.get("api_key_command") or ()
            account = (one.settings.get("api_key_env"), *words) if url == CLOUD_URL else ()
            first = servers.setdefault((identify_server(url), *account), name)
            if first != name:
                yield (
                    place,
                    (
                        f"{name} and {first} are one server ({url}); take one of them out: "
                        "how many jobs it may have at once is its `concurrency`"
                    ),
                )
        names.add(name)


def _is_spec(value: Any) -> bool:
    return isinstance(value, str | Mapping)


def _to_mapping(name: str, entry: TargetSpec) -> dict[str, Any]:
    """A named target as a mapping; `cloud` needs no URL."""
    mapping = {"url": entry} if isinstance(entry, str) else dict(entry)
    return {"url": CLOUD_URL, **mapping} if name == CLOUD else mapping


def _is_reserved(name: str, reserved: str) -> bool:
    return name.strip().casefold() == reserved


def _explain_reserved_name(name: str, settings: Mapping[str, Any]) -> str | None:
    """Why a target of these settings cannot have that name: its work would stand for work done on another server."""
    if _is_reserved(name, EMBEDDED):
        return f"the name {name} is kept for sweeper's own server; give yours another"
    place = settings.get("url") or settings.get("worker")
    if _is_reserved(name, CLOUD) and place not in (None, CLOUD_URL):
        return f"the name {name} is kept for {CLOUD_URL}; give yours another"
    return None


def _parse_settings(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The sound settings of a mapping, its URL normalised, and (setting, message) for each mistake."""
    problems: list[tuple[str, str]] = []
    found: dict[str, Any] = {}
    if "url" not in spec and "worker" not in spec:
        problems.append(_NO_URL)
    if spec.get("api_key_env") and spec.get("api_key_command"):
        problems.append(("", "`api_key_env` and `api_key_command` both say whence the key comes; give one"))
    for word, value in spec.items():
        if word not in _FIELDS:
            problems.append((str(word), _explain_unknown_key(str(word))))
        elif value is not None or word == "url":
            try:
                found[word] = _CHECKS[word](value)
            except UsageError as error:
                problems += [(word, one.message) for one in error.problems]
    kept = _explain_reserved_name(found["name"], found) if "name" in found else None
    if kept is not None:
        problems.append(("name", kept))
    return found, problems


def _explain_unknown_key(word: str) -> str:
    if "key" in word.casefold() or "token" in word.casefold():
        return (
            "a key may not stand in a file; put it into the environment and its name into `api_key_env`, or the "
            "command that prints it into `api_key_command`"
        )
    return f"unknown key{suggest(word, _FIELDS)}"


def _check_url(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError("`url` must be the URL of a server (http://host:port or https://host)")
    return normalise_url(value)


def _check_worker(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError("give the URL of the server as each worker sees it, in place of `url`")
    return value.strip()


def _check_dialect(value: Any) -> str:
    if value not in DIALECTS:
        raise UsageError(f"{value!r}{suggest(value, DIALECTS)}")
    return str(value)


def _check_variable(value: Any) -> str:
    # Not repeated: whoever puts the key itself here must not find it in a log.
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise UsageError("give the name of an environment variable (letters, digits and _), not the key itself")
    return value


def _check_command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(word, str) and word for word in value):
        raise UsageError("give the program and its arguments as a list, such as [secret-tool, lookup, service, comfy]")
    return tuple(value)


def _check_concurrency(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{value!r} is not a whole number of at least 1")
    return value


def _check_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{value!r} is not a name")
    return value


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "url": _check_url,
    "worker": _check_worker,
    "dialect": _check_dialect,
    "api_key_env": _check_variable,
    "api_key_command": _check_command,
    "partner_key_env": _check_variable,
    "concurrency": _check_concurrency,
    "name": _check_name,
}
