"""Parse targets as users write them, and find all mistakes in them.

A target is `embedded`, `cloud`, a name from a targets file, a URL, or a mapping such as `{url, dialect, api_key_env,
concurrency, name}`, or `{launch, ...}` for a ComfyUI that sweeper starts. A name may also stand for a list of these,
which is a group. This module handles only the names of variables and commands that provide keys; `sweeper.comfy.target`
reads the keys. The names `embedded` and `cloud` are reserved, because finished work is stored under the name of its
target.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sweeper.errors import Problem, UsageError
from sweeper.model.launch_spec import LAUNCH_CHECKS
from sweeper.model.money import parse_target_price
from sweeper.model.urls import identify_server, normalise_url
from sweeper.model.workflow import find_reachable
from sweeper.schemas.values import KeyPath, format_value, is_integer, is_number
from sweeper.wording import shorten, suggest

EMBEDDED: Final = "embedded"
CLOUD: Final = "cloud"
DIALECTS: Final = ("cloud", "comfyui", "v2", "runpod")

# The public host of Comfy Cloud, and the environment variables for its key: the one that its documentation uses, and
# the one of Comfy's own SDK and command line, which is read if the first is not set.
CLOUD_URL: Final = "https://cloud.comfy.org"
CLOUD_KEY: Final = "COMFY_CLOUD_API_KEY"
CLOUD_KEYS: Final = (CLOUD_KEY, "COMFY_API_KEY")
# A deployment of Comfy's developer platform, which takes the same keys. No port and no path: it is Comfy's own gateway.
_DEPLOYMENT_URL: Final = re.compile(r"https://[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.run\.comfy\.app")
_RUNPOD_URL: Final = "https://api.runpod.ai/"  # of every serverless endpoint

KEY_VARIABLES: Final = ("api_key_env", "partner_key_env")  # the settings that name an environment variable with a key
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_TARGETS: Final = 1_000  # of an experiment; its schema refuses more
_HOST: Final = re.compile(r"localhost|([0-9]{1,3}\.){3}[0-9]{1,3}|[A-Za-z0-9.-]+:[0-9]{1,5}/?")  # without its http://
_MAX_DOWNLOAD_GB: Final = 1_000_000
_NO_URL: Final = ("url", "a mapping needs the `url` of the server, or `launch`, the folder of a ComfyUI")
_SERVERS: Final = ("url", "worker", "launch")  # each says in its way which server a target is
_NOT_LAUNCHED: Final = ("dialect", "api_key_env", "api_key_command")  # of servers that sweeper did not start
TargetSpec = str | Mapping[str, Any]
TargetGroup = list[TargetSpec] | tuple[TargetSpec, ...]
# The message does not quote the value, because a user may have written the key itself.
_NO_VARIABLE: Final = "give the name of an environment variable (letters, digits and _), not the key itself"


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """A named entry with mistakes. They are reported only if a target uses the name."""

    problems: tuple[Problem, ...]


NamedTargets = Mapping[str, TargetSpec | TargetGroup | InvalidEntry]


@dataclass(frozen=True, slots=True)
class ParsedTarget:
    """A parsed target.

    If it is valid, `settings` has a `name`, and a `url`, `worker` or `launch`; that of the embedded server is empty.
    `entry` is the name of the entry that defines the target, None if the target itself has all settings. `errors` has a
    (setting, message) pair for each mistake in the target, `problems` the mistakes in the user's targets file.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    entry: str | None = None
    errors: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def is_valid(self) -> bool:
        return "name" in self.settings and not self.errors and not self.problems


def is_deployment(url: str) -> bool:
    """Whether a normalised URL is that of a deployment on Comfy's platform, `https://NAME.run.comfy.app`."""
    return _DEPLOYMENT_URL.fullmatch(url) is not None


def is_comfy_platform(url: str) -> bool:
    """Whether a normalised URL is that of Comfy Cloud or of a deployment, where any of many machines takes a job."""
    return url == CLOUD_URL or is_deployment(url)


@dataclass(frozen=True, slots=True)
class UsedTarget:
    """A target as written, the group in which it was named, None if in none, and the index of what led to it."""

    spec: Any
    group: str | None
    index: int


def expand_groups(specs: Iterable[Any], named: NamedTargets) -> list[UsedTarget]:
    """Put the targets of a group in the place of its name. The group of a target is the outermost, which is in `specs`.

    Each group, and each name in one, counts once, so a circle ends. A name outside of groups stays as often as it is.
    """
    found: list[UsedTarget] = []
    opened: set[str] = set()
    groups_of: dict[str, str | None] = {}  # by the name of a target
    pending = deque(UsedTarget(spec, None, index) for index, spec in enumerate(specs))
    while pending:
        used = pending.popleft()
        name = used.spec.strip() if isinstance(used.spec, str) else ""
        entry = named.get(name)
        if isinstance(entry, list | tuple):
            if name not in opened:
                opened.add(name)
                members = [replace(used, spec=member, group=used.group or name) for member in entry]
                pending.extendleft(reversed(members))
        elif not name or name not in groups_of or groups_of[name] is used.group is None:
            groups_of[name] = used.group
            found.append(used)
    return found


def find_group_problems(
    groups: Mapping[str, TargetGroup], names: NamedTargets, *, knows_all: bool
) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with groups, as (path, message) pairs.

    `names`: all names, with those of `groups`. `knows_all`: an unknown name is a mistake.
    """
    problems: list[tuple[KeyPath, str]] = []
    for name, members in groups.items():
        if _is_reserved(name, EMBEDDED) or _is_reserved(name, CLOUD):
            problems.append(((name,), f"the name {name} is reserved for one server; choose another name"))
        if not members:
            problems.append(((name,), "an empty list; write at least one target into it"))
        for index, member in enumerate(members):
            path: KeyPath = (name, index)
            word = member.strip() if isinstance(member, str) else ""
            if isinstance(names.get(word), list | tuple):
                if _leads_to(word, name, names):
                    message = f"the list {word} leads back to {name}, and a list cannot contain itself; remove this"
                    problems.append((path, message))
            elif word not in names and (knows_all or not word or "://" in word):
                errors = parse_target(member, names).errors
                problems += [((*path, setting) if setting else path, message) for setting, message in errors]
    return problems


def _leads_to(start: str, end: str, named: NamedTargets) -> bool:
    """Whether the group `start` is `end`, or contains it, also by other groups."""

    def list_members(name: str) -> list[str]:
        entry = named.get(name)
        members = entry if isinstance(entry, list | tuple) else ()
        return [member.strip() for member in members if isinstance(member, str)]

    return end in find_reachable([start], list_members)


def parse_target(spec: Any, named: NamedTargets) -> ParsedTarget:
    if isinstance(spec, Mapping):
        return _parse_mapping(spec, named)
    if not isinstance(spec, str):
        return ParsedTarget(errors=(("", f"{format_value(spec)} is neither a name, nor a URL, nor a mapping"),))
    word = spec.strip()
    if word in named:
        return _parse_name(word, named)
    if word == EMBEDDED:
        return ParsedTarget({"name": EMBEDDED, "url": "", "dialect": "cloud"})
    if word == CLOUD or "://" in word:
        parsed = _parse_mapping({"url": CLOUD_URL if word == CLOUD else word}, named)
        return replace(parsed, errors=tuple(("", message) for _, message in parsed.errors))
    shown = word.rpartition("@")[2]  # the part before the @ may be a password
    if _HOST.fullmatch(shown):
        message = f"unknown name {format_value(shown)}; write the address of a server as http://{shorten(shown)}"
        return ParsedTarget(errors=(("", message),))
    advice = suggest(shown, dict.fromkeys((EMBEDDED, CLOUD, *named)))
    return ParsedTarget(errors=(("", f"unknown name {format_value(shown)}{advice} (a URL has ://)"),))


def _parse_name(word: str, named: NamedTargets) -> ParsedTarget:
    entry = named[word]
    if isinstance(entry, InvalidEntry):
        return ParsedTarget(entry=word, problems=entry.problems)
    if isinstance(entry, list | tuple):
        return ParsedTarget(entry=word, errors=(("", "is a list of targets, and this needs one; name one of them"),))
    errors = tuple((".".join(map(str, path[1:])), message) for path, message in find_entry_problems({word: entry}))
    if errors:
        return ParsedTarget(entry=word, errors=errors)
    parsed = _parse_mapping({**_to_mapping(word, entry), "name": word}, named)
    return ParsedTarget(parsed.settings, word, parsed.errors, parsed.problems)


def _parse_mapping(spec: Mapping[str, Any], named: NamedTargets) -> ParsedTarget:
    settings, errors = _parse_settings(spec)
    if errors:
        return ParsedTarget(settings, errors=tuple(errors))
    url = settings.get("url", "")
    if is_comfy_platform(url):
        entry = named.get(CLOUD, {})
        if isinstance(entry, InvalidEntry):
            return ParsedTarget(settings, problems=entry.problems)
        entry = {} if isinstance(entry, list | tuple) else entry
        settings = _merge_cloud_settings(settings, entry, only_key=url != CLOUD_URL)
    if url.startswith(_RUNPOD_URL):
        settings.setdefault("dialect", "runpod")
    place = f"launch {settings['launch']}" if "launch" in settings else f"worker {settings.get('worker')}"
    settings.setdefault("name", settings.get("url") or place)
    return ParsedTarget(settings)


def _merge_cloud_settings(own_settings: Mapping[str, Any], entry: TargetSpec, *, only_key: bool) -> dict[str, Any]:
    """Return the settings of Comfy Cloud: those given, then those of the entry `cloud`, then the defaults.

    The entry `cloud` provides the key for every target on Comfy Cloud, because it cannot be for another host.
    `only_key`: the target is a deployment, which has only the key in common with Comfy Cloud.
    """
    entry_settings, errors = _parse_settings(_to_mapping(CLOUD, entry))
    if errors or entry_settings.get("url") != CLOUD_URL:
        entry_settings = {}  # its mistakes are reported elsewhere: where a target uses it, and where the file is read
    has_own_key = bool(own_settings.get("api_key_env") or own_settings.get("api_key_command"))
    left_out = [key for key in entry_settings if (has_own_key if key.startswith("api_key") else only_key)]
    entry_settings = {key: value for key, value in entry_settings.items() if key not in left_out}
    defaults = {"dialect": "v2"} if only_key else {"name": CLOUD, "dialect": "cloud"}
    settings = {**defaults, **entry_settings, **own_settings}
    if not settings.get("api_key_command"):
        settings.setdefault("api_key_env", CLOUD_KEY)
    return settings


def find_entry_problems(named: Mapping[str, TargetSpec]) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with a mapping of names to targets, as (path, message) pairs."""
    problems: list[tuple[KeyPath, str]] = []
    for name, entry in named.items():
        settings, entry_problems = _parse_settings(_to_mapping(name, entry))
        problems += [((name, setting) if setting else (name,), message) for setting, message in entry_problems]
        reason = _explain_reserved_name(name, settings)
        if reason is not None:
            problems.append(((name,) if _is_reserved(name, EMBEDDED) else (name, "url"), reason))
        if isinstance(entry, Mapping) and entry.get("name", name) != name:
            problems.append(((name, "name"), f"its name is already {name}; remove `name`"))
    return problems


def find_target_problems(experiment: Any, named: NamedTargets | None) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with `target` and `targets` of an experiment, as (path, message) pairs.

    Mistakes that the schema finds are left out. `named` are the user's entries; those of the experiment have
    precedence. None: unknown names are no mistake, because the user's entries are not known yet.
    """
    mapping = experiment if isinstance(experiment, Mapping) else {}
    targets = mapping.get("targets")
    own_targets = dict(itertools.islice(targets.items(), _MAX_TARGETS)) if isinstance(targets, Mapping) else {}
    entries = {name: entry for name, entry in own_targets.items() if _is_spec(entry)}
    groups = {name: entry[:_MAX_TARGETS] for name, entry in own_targets.items() if isinstance(entry, list)}
    names = {**(named or {}), **dict.fromkeys(own_targets, InvalidEntry(())), **entries, **groups}
    found = (*find_entry_problems(entries), *find_group_problems(groups, names, knows_all=named is not None))
    problems: list[tuple[KeyPath, str]] = [(("targets", *path), text) for path, text in found]
    target = mapping.get("target", EMBEDDED)
    written: list[tuple[KeyPath, Any]] = [(("target",), target)]
    if isinstance(target, list):
        written = [(("target", index), spec) for index, spec in enumerate(target[:_MAX_TARGETS])]
    used_targets = expand_groups([spec for _, spec in written], names)
    parsed_targets = [parse_target(used.spec, names) for used in used_targets]
    for used, parsed in zip(used_targets, parsed_targets, strict=True):
        path, spec = written[used.index][0], used.spec
        may_be_elsewhere = named is None and isinstance(spec, str) and "://" not in spec
        if used.group is None and _is_spec(spec) and parsed.entry is None and not may_be_elsewhere:
            problems += [((*path, setting) if setting else path, message) for setting, message in parsed.errors]
    duplicates = find_duplicate_targets(parsed_targets)
    problems += [(written[used_targets[index].index][0], message) for index, message in duplicates]
    own: list[tuple[KeyPath, Any]] = [(("targets", name), entry) for name, entry in entries.items()]
    members = [(("targets", name, index), spec) for name, group in groups.items() for index, spec in enumerate(group)]
    for path, spec in (*written, *own, *members):
        misuses = _find_cloud_key_misuse(path[-1], spec, named) if isinstance(spec, Mapping) else ()
        problems += [((*path, setting), message) for setting, message in misuses]
    return [(path, message) for path, message in problems if (path[-1], message) != _NO_URL]  # the schema finds it


def _find_cloud_key_misuse(
    name: object, spec: Mapping[str, Any], named: NamedTargets | None
) -> Iterator[tuple[str, str]]:
    """Yield each setting by which an experiment would send the key of Comfy Cloud to another server."""
    settings, _ = _parse_settings(_to_mapping(str(name), spec))
    url = settings.get("url", "")
    known_keys = list_known_keys(named or {})
    cloud_keys = {*CLOUD_KEYS, *(variable for server, variable in known_keys if server == identify_server(CLOUD_URL))}
    for setting in KEY_VARIABLES:
        variable = settings.get(setting)
        # A deployment's gateway may have the key, but not the nodes that its owner installed.
        is_comfy = url == CLOUD_URL or (setting == "api_key_env" and is_deployment(url))
        if variable in cloud_keys and not is_comfy and (identify_server(url), variable) not in known_keys:
            message = f"the key in {variable} belongs to {CLOUD_URL}, and an experiment cannot send it anywhere else"
            yield setting, f"{message}; if you want that, write this target into your own targets file"


def list_known_keys(named: NamedTargets) -> set[tuple[str, str]]:
    """List (server, variable) for each variable that the user's own targets name; see `identify_server`."""
    parsed = [parse_target(used.spec, named).settings for used in expand_groups(named, named)]
    all_settings = [settings for settings in parsed if settings.get("url")]
    pairs = ((settings["url"], settings.get(setting)) for settings in all_settings for setting in KEY_VARIABLES)
    return {(identify_server(url), variable) for url, variable in pairs if variable}


def find_duplicate_targets(targets: Sequence[ParsedTarget]) -> Iterator[tuple[int, str]]:
    """Yield (index, message) for each target that is the same server as an earlier one."""
    names: set[str] = set()
    servers: dict[tuple[Any, ...], str] = {}
    for index, target in enumerate(targets):
        if not target.is_valid:
            continue
        name, url = target.settings["name"], target.settings.get("url")
        if name in names:
            yield index, f"{name} is given twice"
        elif url:
            # Two accounts of Comfy Cloud have two queues. A ComfyUI has one queue, whatever key its proxy demands.
            command = target.settings.get("api_key_command") or ()
            account = (target.settings.get("api_key_env"), *command) if url == CLOUD_URL else ()
            first_name = servers.setdefault((identify_server(url), *account), name)
            if first_name != name:
                remedy = "remove one of them, and set `concurrency` for more jobs at once"
                yield index, f"{name} and {first_name} are the same server ({url}); {remedy}"
        names.add(name)


def _is_spec(value: Any) -> bool:
    return isinstance(value, str | Mapping)


def _to_mapping(name: str, entry: TargetSpec) -> dict[str, Any]:
    """Return a named target as a mapping. The entry `cloud` needs no URL."""
    mapping = {"url": entry} if isinstance(entry, str) else dict(entry)
    return {"url": CLOUD_URL, **mapping} if name == CLOUD else mapping


def _is_reserved(name: str, reserved: str) -> bool:
    return name.strip().casefold() == reserved


def _explain_reserved_name(name: str, settings: Mapping[str, Any]) -> str | None:
    """Return why a target with these settings may not have this name, or None.

    Its work would count as done on another server.
    """
    if _is_reserved(name, EMBEDDED):
        return f"the name {name} is reserved for the embedded server; choose another name"
    server = next(filter(None, map(settings.get, _SERVERS)), None)
    if _is_reserved(name, CLOUD) and server not in (None, CLOUD_URL):
        return f"the name {name} is reserved for {CLOUD_URL}; choose another name"
    return None


def _parse_settings(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the valid settings of a mapping, with a normalised URL, and a (setting, message) pair for each mistake."""
    problems: list[tuple[str, str]] = []
    settings: dict[str, Any] = {}
    given = [setting for setting in _SERVERS if setting in spec]
    if not given:
        problems.append(_NO_URL)
    if "launch" in given:
        wrong = [*given[:-1], *(setting for setting in _NOT_LAUNCHED if setting in spec)]
        problems += [(setting, "is for a server that runs already; remove it, or `launch`") for setting in wrong]
    else:
        wrong = [setting for setting in LAUNCH_CHECKS if setting in spec]
        problems += [
            (setting, "is for a ComfyUI that sweeper starts: give its folder as `launch`") for setting in wrong
        ]
    if spec.get("api_key_env") and spec.get("api_key_command"):
        problems.append(("", "give `api_key_env` or `api_key_command`, not both"))
    for setting, value in spec.items():
        if setting not in _CHECKS:
            problems.append((str(setting), _explain_unknown_key(str(setting))))
        elif value is not None or setting == "url":
            is_valid, convert, message = _CHECKS[setting]
            if not is_valid(value):
                text = message.format(value=format_value(value), advice=suggest(value, DIALECTS))
                problems.append((setting, text))
                continue
            try:
                settings[setting] = convert(value)
            except UsageError as error:
                problems += [(setting, problem.message) for problem in error.problems]
    reason = _explain_reserved_name(settings["name"], settings) if "name" in settings else None
    if reason is not None:
        problems.append(("name", reason))
    return settings, problems


def _explain_unknown_key(word: str) -> str:
    if "key" in word.casefold() or "token" in word.casefold():
        ways = "put it into an environment variable named by `api_key_env`, or give a command that prints it as"
        return f"do not write a key into a file; {ways} `api_key_command`"
    return f"unknown key{suggest(word, _CHECKS)}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_command(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(word, str) and word for word in value)


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


# For each setting: whether a value is valid, what it becomes, and what to say if it is not.
_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any], str]]] = {
    "url": (lambda value: isinstance(value, str), normalise_url,
            "`url` must be the URL of a server (http://host:port or https://host)"),
    "worker": (_is_text, str.strip, "give the URL of the server as each worker sees it, in place of `url`"),
    "dialect": (lambda value: value in DIALECTS, str, "{value}{advice}"),
    "api_key_env": (_is_variable, str, _NO_VARIABLE),
    "api_key_command": (_is_command, tuple,
                        "give the program and its arguments as a list, such as [secret-tool, lookup, service, comfy]"),
    "partner_key_env": (_is_variable, str, _NO_VARIABLE),
    "concurrency": (lambda value: is_integer(value) and value >= 1, int,
                    "{value} is not a whole number of at least 1"),
    "name": (_is_text, str, "{value} is not a name"),
    "max_download_gb": (lambda value: is_number(value) and 0 < value <= _MAX_DOWNLOAD_GB, lambda value: value,
                        f"{{value}} is not a number of gigabytes from above 0 to {_MAX_DOWNLOAD_GB}"),
    "price": (lambda _: True, parse_target_price, ""),
    **LAUNCH_CHECKS,
}  # fmt: skip
