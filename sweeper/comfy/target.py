"""Targets: where work can go, resolved from what users write, with their keys. The environment is an argument.

What may be written is `sweeper.model.target_spec`' affair; that a URL without a `dialect` is probed is the client's.
Keys never stand in a file: they come from the environment or from a command (`keys`), and stand in fields that no repr
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.comfy import credentials
from sweeper.errors import Problem, UsageError
from sweeper.model.target_spec import (
    CLOUD_URL,
    NamedTargets,
    ParsedTarget,
    TargetSpec,
    find_duplicate_targets,
    parse_target,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A server to run on. `name` is its identity for done work: a given name, `embedded`, `cloud`, or the URL.

    `dialect` is None until the server was asked. `concurrency` is None where nobody set one. `embedded`: sweeper starts
    that server itself, and `url` is empty until it runs. `key` opens the server; `partner_key` pays for nodes that call
    third parties, and goes into the submissions that have such nodes only.
    """

    name: str
    url: str
    dialect: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    api_key_command: tuple[str, ...] = ()
    partner_key_env: str | None = None
    embedded: bool = False
    key: str | None = field(default=None, repr=False, compare=False)
    partner_key: str | None = field(default=None, repr=False, compare=False)

    @property
    def key_source(self) -> str | None:
        """Where the key comes from, for people; None for a server that is asked without one."""
        if self.api_key_command:
            return "api_key_command"
        return self.api_key_env

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that this server gets to see, and that nothing it says may bring to light."""
        return tuple(key for key in (self.key, self.partner_key) if key)


def resolve_targets(
    specs: TargetSpec | Iterable[TargetSpec],
    *,
    named: NamedTargets | None = None,
    environ: Mapping[str, str],
    with_keys: bool = True,
    command: Callable[[Sequence[str]], str] = credentials.read_key_from_command,
) -> tuple[Target, ...]:
    """The targets that `specs` mean, in order; `named` are the user's and the experiment's, `environ` holds the keys.

    `with_keys` false: for who sends nothing; then no key is looked for. Raises UsageError with every mistake, each with
    what is allowed: an unknown name or setting, a bad URL, a key written where it does not belong, a key that cannot be
    had, one server twice, none at all.
    """
    resolver = _Resolver(environ, command if with_keys else None)
    understood = [parse_target(spec, named or {}) for spec in as_target_list(specs)]
    targets: list[Target] = []
    problems = _collect_problems(understood)
    for one in understood:
        if one.is_valid:
            try:
                targets.append(resolver.build_target(one.settings, _location_of(one)))
            except UsageError as error:
                problems += error.problems
    if problems:
        raise UsageError(problems)
    return tuple(targets)


def check_targets(specs: TargetSpec | Iterable[TargetSpec], named: NamedTargets) -> None:
    """Raises what `resolve_targets` does for what is written, for whoever needs no targets and has no keys."""
    problems = _collect_problems([parse_target(spec, named) for spec in as_target_list(specs)])
    if problems:
        raise UsageError(problems)


def _collect_problems(parsed: Sequence[ParsedTarget]) -> list[Problem]:
    problems: list[Problem] = []
    for one in parsed:
        where = _location_of(one)
        problems += one.problems
        problems += [Problem("", 0, f"{where}.{word}" if word else where, said) for word, said in one.errors]
    return problems + [Problem("", 0, "target", said) for _, said in find_duplicate_targets(parsed)]


def _location_of(target: ParsedTarget) -> str:
    return "target" if target.entry is None else f"target {target.entry}"


def as_target_list(specs: Any) -> list[Any]:
    """One target, or several, as a list. Raises UsageError for none, and for what can be no target."""
    if not isinstance(specs, str | Mapping | Iterable) or isinstance(specs, bytes):
        raise UsageError(
            f"target: {specs!r} is no target; give `embedded`, `cloud`, a URL, a name, a mapping, or a list of these"
        )
    listed = [specs] if isinstance(specs, str | Mapping) else list(specs)
    if not listed:
        raise UsageError("target: an empty list; give `embedded`, `cloud`, a URL, a name or a mapping")
    return listed


@dataclass(frozen=True, slots=True)
class _Resolver:
    """What is known beside the settings. `command` None: nobody needs keys now."""

    environ: Mapping[str, str]
    command: Callable[[Sequence[str]], str] | None

    def build_target(self, settings: Mapping[str, Any], location: str) -> Target:
        """The target of sound settings. Raises UsageError for a key that is not there or can be none."""
        if "worker" in settings:
            said = "the server beside each worker of a Dask cluster: use it with --dask, or `url`"
            raise UsageError(Problem("", 0, f"{location}.worker", said))
        name, url = settings["name"], settings["url"]
        variable, words = settings.get("api_key_env"), tuple(settings.get("api_key_command") or ())
        partner = settings.get("partner_key_env")
        key = self.read_key(variable, words, name)
        return Target(
            name=name,
            url=url,
            dialect=settings.get("dialect"),
            api_key_env=variable,
            concurrency=settings.get("concurrency"),
            api_key_command=words,
            partner_key_env=partner,
            embedded=not url,
            key=key,
            # Comfy Cloud takes one key for both (COMFY_API.md, "partner nodes").
            partner_key=key if url == CLOUD_URL and partner is None else self.read_partner_key(partner, name),
        )

    def read_key(self, variable: str | None, words: tuple[str, ...], name: str) -> str | None:
        where = f"target {name}"
        if self.command is None or not (variable or words):
            return None
        try:
            if words:
                return credentials.validate_key(self.command(words), "`api_key_command`")
            key = credentials.read_key_from_variable(str(variable), self.environ)
            if key is None:
                raise UsageError(  # noqa: TRY301 - told of its place below, as the others
                    f"its key is expected in the environment variable {_safe_variable_name(str(variable))}, "
                    "which is not set"
                )
            return credentials.validate_key(key, f"the environment variable {_safe_variable_name(str(variable))}")
        except UsageError as error:
            raise credentials.with_location(where, error) from None

    def read_partner_key(self, variable: str | None, name: str) -> str | None:
        """A partner key that is not there is told only where a workflow needs it."""
        key = (
            credentials.read_key_from_variable(variable, self.environ)
            if variable and self.command is not None
            else None
        )
        try:
            return (
                credentials.validate_key(key, f"the environment variable {_safe_variable_name(str(variable))}")
                if key
                else None
            )
        except UsageError as error:
            raise credentials.with_location(f"target {name}", error) from None


def _safe_variable_name(variable: str) -> str:
    """The name of a variable; one that does not look like one (a key of plain letters?) is not repeated."""
    return variable if variable.isupper() and len(variable) <= 64 else "that `api_key_env` names"
