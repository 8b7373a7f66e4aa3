"""Targets: the servers of a run, resolved from what the user writes, with their keys.

`sweeper.model.target_spec` defines what users may write. The client probes the dialect of a URL. Keys come from the
environment (an argument here) or from a command such as `pass` or a keyring, never from a file, and no repr shows them.
A command runs without a shell. sweeper never shows or stores what it writes: its output is the key, and its error
messages may quote the key.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any, Final

from sweeper.errors import Problem, UsageError
from sweeper.model.launch_spec import ALL_GPUS, CPU, LaunchSpec, anchor_launches, make_launch_spec
from sweeper.model.money import TargetPrice
from sweeper.model.target_spec import (
    CLOUD_KEY,
    CLOUD_KEYS,
    CLOUD_URL,
    KEY_VARIABLES,
    NamedTargets,
    ParsedTarget,
    TargetSpec,
    expand_groups,
    find_duplicate_targets,
    is_comfy_platform,
    list_known_keys,
    parse_target,
)
from sweeper.wording import count_things

_COMMAND_TIMEOUT: Final = 120.0  # seconds; a keyring may ask its owner for a password first


def read_key_from_command(words: Sequence[str]) -> str:
    """The first line of the command's output (password managers put the password there), stripped.

    It runs in the user's home folder, because the current folder may be a stranger's: `python -m`, Git and the shims of
    version managers read files there.

    Raises UsageError that names only the program, because its arguments and output may contain a secret.
    """
    program = PurePath(words[0]).name
    try:
        completed = subprocess.run(  # noqa: S603 (the user's own command, from the user's own file)
            list(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT, check=False,
            cwd=_find_own_folder(),
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError(f"`api_key_command`: the program '{program}' does not exist") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"`api_key_command`: '{program}' gave no key within {_COMMAND_TIMEOUT:g} seconds") from None
    except (OSError, ValueError):
        raise UsageError(f"`api_key_command`: '{program}' cannot be run") from None
    if completed.returncode != 0:
        problem = f"'{program}' ended with code {completed.returncode}; run it by hand to see why"
        raise UsageError(f"`api_key_command`: {problem}")
    return next(iter(completed.stdout.decode("utf-8", "replace").splitlines()), "").strip()


def _find_own_folder() -> Path:
    """The user's home folder; the folder of this Python if there is none, as in some containers."""
    try:
        return Path.home().resolve(strict=True)
    except (OSError, RuntimeError):
        return Path(sys.prefix)


def read_key_from_variable(variable: str, environ: Mapping[str, str]) -> str | None:
    return environ.get(variable, "").strip() or None


def validate_key(key: str, source: str) -> str:
    """Return the key if it can be sent in a header. Raises UsageError, which does not quote it."""
    if not key:
        raise UsageError(f"the key from {source} is empty")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the key from {source} contains unprintable characters")
    return key


def with_location(location: str, error: UsageError) -> UsageError:
    """The same error, reported for `location` (such as `target gpu`)."""
    return UsageError(Problem(problem.file, problem.line, location, problem.message) for problem in error.problems)


@dataclass(frozen=True, slots=True)
class Target:
    """A server to run on. `name` identifies it in the store: the user's name for it, `embedded`, `cloud`, or the URL.

    `dialect` is None until the server was probed, `concurrency` unless the user set it. `embedded`: the server is
    sweeper's own, in this process. `launch`: the ComfyUI that sweeper starts. Both have no `url` until they run. `key`
    authenticates every request. `partner_key` pays for nodes that call third parties; only submissions with such nodes
    contain it.
    """

    name: str
    url: str
    dialect: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    api_key_command: tuple[str, ...] = ()
    partner_key_env: str | None = None
    embedded: bool = False
    launch: LaunchSpec | None = None
    group: str | None = field(default=None, compare=False)  # the list of targets by whose name the user chose it
    max_file_bytes: int | None = None  # of one artifact; None: the default of `transport`
    price: TargetPrice | None = None  # None: the target has no price
    key: str | None = field(default=None, repr=False, compare=False)
    partner_key: str | None = field(default=None, repr=False, compare=False)

    @property
    def identity(self) -> str:
        """The name of what is known of the server from one run to the next: its URL, or how sweeper starts it."""
        return self.url if self.launch is None else str(self.launch)

    @property
    def key_source(self) -> str | None:
        """The source of the key, for messages; None for a server without a key."""
        if self.api_key_command:
            return "api_key_command"
        return self.api_key_env

    @property
    def key_advice(self) -> str:
        """What to do if the server refuses the key."""
        if self.key_source is None:
            return "the target has no key: write it as {url: ..., api_key_env: NAME}, and set NAME to the server's key"
        source = self.key_source if self.api_key_command else f"the variable {self.key_source} (`api_key_env`)"
        return f"its key is from {source}: look for a typo, or create a new key on the server"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that this server receives, to be removed from everything it sends."""
        return tuple(key for key in (self.key, self.partner_key) if key)


def resolve_targets(
    specs: TargetSpec | Iterable[TargetSpec],
    *,
    named: NamedTargets | None = None,
    environ: Mapping[str, str] | None = None,
    command: Callable[[Sequence[str]], str] = read_key_from_command,
) -> tuple[Target, ...]:
    """Resolve `specs` to targets, in order. `named` are the user's and the experiment's targets by name.

    A ComfyUI that sweeper starts on several GPUs is one target for each, in a group of its name.
    Keys are read from `environ` and `command`; without `environ`, the targets have none. Raises UsageError with every
    mistake: an unknown name or setting, a bad URL, a key in the wrong place, a key that cannot be read, the same server
    twice, or no target at all.
    """
    used_targets = expand_groups(anchor_launches(as_target_list(specs), Path.cwd()), named or {})
    parsed_targets = [parse_target(used.spec, named or {}) for used in used_targets]
    all_settings = [parsed.settings for parsed in parsed_targets]
    key_variables = {variable for _, variable in list_known_keys(named or {})}
    key_variables |= {str(settings.get(setting)) for settings in all_settings for setting in KEY_VARIABLES}
    targets: list[Target] = []
    problems = _collect_problems(parsed_targets)
    for used, parsed in zip(used_targets, parsed_targets, strict=True):
        if parsed.is_valid:
            try:
                target = replace(_build_target(parsed.settings, _location_of(parsed)), group=used.group)
                target = target if environ is None else add_keys(target, environ, command)
                targets += _expand_gpus(target, key_variables)
            except UsageError as error:
                problems += error.problems
    if problems:
        raise UsageError(problems)
    return tuple(targets)


def _expand_gpus(target: Target, key_variables: Collection[str]) -> list[Target]:
    """The target itself, or one for each GPU on which sweeper starts it. Raises UsageError if nobody knows these."""
    if target.launch is None:
        return [target]
    launch = replace(target.launch, key_variables=frozenset(key_variables))
    if launch.gpus is None:
        return [replace(target, launch=launch)]
    if launch.gpus == CPU:
        return [replace(target, launch=replace(launch, device=CPU))]
    gpus = _list_gpus() if launch.gpus == ALL_GPUS else launch.gpus
    if not gpus:
        text = "`gpus: all`: nvidia-smi lists no GPU here; write `gpus: cpu`, or the numbers of the GPUs"
        raise UsageError(f"target {target.name}: {text}")
    group = target.group or target.name
    return [
        replace(target, name=f"{target.name} gpu {number}", group=group, launch=replace(launch, device=number))
        for number in gpus
    ]


@cache
def _list_gpus() -> list[int]:
    """The numbers of NVIDIA's GPUs of this machine, which does not change them; none without its program."""
    program = "nvidia-smi"
    if sys.platform == "win32":  # which would look in the current folder first
        program = str(Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvidia-smi.exe"))
    try:
        listed = subprocess.run(  # noqa: S603 (the driver's own program)
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [int(number) for number in re.findall(rb"^GPU (\d+):", listed, re.MULTILINE)]


def check_targets(specs: TargetSpec | Iterable[TargetSpec], named: NamedTargets) -> None:
    """Check `specs` without reading keys. Raises UsageError with the mistakes that `resolve_targets` would report."""
    used_targets = expand_groups(as_target_list(specs), named)
    problems = _collect_problems([parse_target(used.spec, named) for used in used_targets])
    if problems:
        raise UsageError(problems)


def _collect_problems(parsed_targets: Sequence[ParsedTarget]) -> list[Problem]:
    problems: list[Problem] = []
    for parsed in parsed_targets:
        location = _location_of(parsed)
        problems += parsed.problems
        problems += [Problem("", 0, f"{location}.{key}" if key else location, text) for key, text in parsed.errors]
    return problems + [Problem("", 0, "target", text) for _, text in find_duplicate_targets(parsed_targets)]


def _location_of(target: ParsedTarget) -> str:
    return "target" if target.entry is None else f"target {target.entry}"


def as_target_list(specs: Any) -> list[Any]:
    """One target or several, as a list. Raises UsageError for an empty list, and for a type that no target has."""
    if not isinstance(specs, str | Mapping | Iterable) or isinstance(specs, bytes):
        raise UsageError(
            f"target: {specs!r} is not a target; give `embedded`, `cloud`, a URL, a name, a mapping, or a list of these"
        )
    target_list = [specs] if isinstance(specs, str | Mapping) else list(specs)
    if not target_list:
        raise UsageError("target: an empty list; give `embedded`, `cloud`, a URL, a name or a mapping")
    return target_list


def _build_target(settings: Mapping[str, Any], location: str) -> Target:
    """Build a target from valid settings, without keys. Raises UsageError for one that only a worker knows."""
    if "worker" in settings:
        text = "the server beside each worker of a Dask cluster: use it with --dask, or give `url`"
        raise UsageError(Problem("", 0, f"{location}.worker", text))
    url, launch = settings.get("url", ""), make_launch_spec(settings) if "launch" in settings else None
    return Target(
        name=settings["name"],
        url=url,
        dialect=settings.get("dialect"),
        api_key_env=settings.get("api_key_env"),
        concurrency=settings.get("concurrency"),
        api_key_command=tuple(settings.get("api_key_command") or ()),
        partner_key_env=settings.get("partner_key_env"),
        embedded=not url and launch is None,
        launch=launch,
        max_file_bytes=int(settings["max_download_gb"] * 2**30) if "max_download_gb" in settings else None,
        price=settings.get("price"),
    )


def add_keys(
    target: Target, environ: Mapping[str, str], command: Callable[[Sequence[str]], str] = read_key_from_command
) -> Target:
    """The target with its keys. Raises UsageError for a missing or invalid one."""
    read_key = partial(_read_key, environ=environ, command=command)
    variable, partner = target.api_key_env, target.partner_key_env
    if variable == CLOUD_KEY and is_comfy_platform(target.url):  # the second of the two, if only that is set
        variable = next((key for key in CLOUD_KEYS if read_key_from_variable(key, environ)), variable)
    try:
        key = read_key(variable, target.api_key_command, is_required=True)
        # Comfy Cloud accepts the account's key for partner nodes too. Elsewhere a missing key is an error only for a
        # workflow that needs it.
        is_shared = target.url == CLOUD_URL and partner is None
        partner_key = key if is_shared else read_key(partner, (), is_required=False)
    except UsageError as error:
        raise with_location(f"target {target.name}", error) from None
    return replace(target, api_key_env=variable, key=key, partner_key=partner_key)


def _read_key(
    variable: str | None,
    words: tuple[str, ...],
    *,
    is_required: bool,
    environ: Mapping[str, str],
    command: Callable[[Sequence[str]], str],
) -> str | None:
    """The key from the command `words`, else from the environment variable; None if the target has neither."""
    if words:
        return validate_key(command(words), "`api_key_command`")
    if not variable:
        return None
    key = read_key_from_variable(variable, environ)
    if key is None and not is_required:
        return None
    is_name = variable.isupper() and len(variable) <= 64  # if not, it may be a key written in the wrong place
    source = f"the environment variable {variable if is_name else 'that `api_key_env` names'}"
    if key is None:
        alternative = f"; {CLOUD_KEYS[1]} has none either" if variable == CLOUD_KEY else ""
        state = "empty" if variable in environ else "not set"
        raise UsageError(f"its key is expected in {source}, which is {state}{alternative}")
    return validate_key(key, source)


def describe_targets(targets: Sequence[Target]) -> str:
    """Name the targets for people, those of a group by its name: `cloud, farm (16 targets)`."""
    counts = Counter(target.group or target.name for target in targets)
    groups = {target.group for target in targets}
    return ", ".join(f"{name} ({count_things(count, 'target')})" if name in groups else name
                     for name, count in counts.items())  # fmt: skip
