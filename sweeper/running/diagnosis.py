"""Check this installation and its targets: reachable, key accepted, does each have what an experiment needs?

Changes nothing on a server. Each problem comes with a next step. Keys are never shown.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Final

from sweeper import embedded
from sweeper.answers.parts import Fail, Item, Line, Note, Part, Table, Warn
from sweeper.answers.render import IF_GIVEN, NOT_IN_JSON
from sweeper.comfy.client import ComfyClient
from sweeper.comfy.comfyui import LONGEST_RUNS
from sweeper.comfy.target import Target, resolve_targets
from sweeper.errors import (
    DISTRIBUTION,
    InputError,
    Problem,
    SweeperError,
    TransientError,
    Trouble,
    UnreachableError,
)
from sweeper.launching.launch_comfyui import find_python
from sweeper.model.experiment import RunSettings
from sweeper.model.model_facts import Models
from sweeper.model.money import CURRENCY
from sweeper.model.node_classes import NodeInfo
from sweeper.model.target_spec import (
    CLOUD,
    CLOUD_KEYS,
    CLOUD_URL,
    EMBEDDED,
    InvalidEntry,
    NamedTargets,
    TargetSpec,
    expand_groups,
)
from sweeper.model.urls import is_loopback, strip_secrets
from sweeper.planning.model_inputs import list_nodes
from sweeper.planning.order import detect_server_cache
from sweeper.planning.plan import Plan
from sweeper.planning.searching.search_plan import is_space
from sweeper.running.node_class_cache import STARTS_LATER, get_classes
from sweeper.running.preflight import attach_partner_key
from sweeper.running.stop_control import run_sync
from sweeper.running.target_models import describe_differences, read_target_models
from sweeper.wording import count_things, format_install, join_names

# The next step for an UnreachableError or TransientError, by its `trouble`. A redirect's message has its own.
_NEXT_STEPS: Final = {
    Trouble.NOT_COMFYUI: "another server responds there: correct the host, port or path (ComfyUI prints its address "
    "when it starts), or check the proxy in front of it",
    Trouble.BAD_CERTIFICATE: "use the host name in the certificate, or set SSL_CERT_FILE to its issuer's certificate",
    Trouble.NO_TLS: "the server does not use TLS on that port: write http:// instead of https://, or correct the port",
    Trouble.TIMEOUT: "no response in time: check the server's log, that no other program uses the port, and that no "
    "firewall blocks it",
    Trouble.DROPPED: "the server accepts the connection and closes it: write https:// if it uses TLS, or correct the "
    "port",
    Trouble.SERVER_ERROR: "the server is running but cannot respond now: check its log, or try again later",
}

_INSTALL: Final = (
    "install what is missing on that server (a custom node's package, a model file in its folder), or correct the "
    "names in the template or the experiment"
)
_PATIENCE: Final = 20.0  # seconds without progress, of a server that asks to wait for hours, too


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """What a target has of what an experiment needs.

    `trials`: of its sweep; None without one. `checked`: whether the server's node classes are known, without which
    `lacks` has only files that are too large. `lacks`: what the server lacks or would refuse. `notes`: what is unusual
    but runs. `search`: whether it has a search; left out if not.
    """

    file: str
    trials: int | None
    checked: bool
    lacks: list[str]
    notes: list[str]
    search: bool | None = field(metadata=IF_GIVEN)


@dataclass(frozen=True, slots=True)
class TargetReport:
    """What a target says; None: not known.

    `ok`: whether it can be used. `key`: where its key is from. `cache`: the mode of its node cache. `upload_limit`: in
    bytes. `balance_usd`: dollars left on the account. `max_jobs`: how many jobs the account runs at once.
    `longest_run_s`: seconds after which Comfy Cloud cancels a job, as its documentation states for such an account;
    `timeout_s`: those after which a run does. `group`: the list of targets that has it. `warning` has one a line. What
    is below it is left out if there is none, and `next` also if the problem says the next step.
    """

    target: str
    ok: bool = False
    url: str | None = None
    key: str | None = None
    warning: str | None = field(default=None, metadata=IF_GIVEN)
    dialect: str | None = None
    version: str | None = None
    cache: str | None = None
    upload_limit: int | None = None
    balance_usd: float | None = None
    max_jobs: int | None = field(default=None, metadata=IF_GIVEN)
    longest_run_s: float | None = field(default=None, metadata=IF_GIVEN)
    timeout_s: float | None = field(default=None, metadata=IF_GIVEN)
    experiment: ExperimentReport | None = field(default=None, metadata=IF_GIVEN)
    group: str | None = field(default=None, metadata=IF_GIVEN)
    problem: str | None = field(default=None, metadata=IF_GIVEN)
    next: str | None = field(default=None, metadata=IF_GIVEN)
    error: SweeperError | None = field(default=None, metadata=NOT_IN_JSON)
    models: Models = field(default_factory=dict, metadata=NOT_IN_JSON)  # what it tells about the model files of a plan

    def parts(self) -> Iterator[Part]:
        """What is known, what may be wrong, and what is, with the next step."""
        facts = self._list_facts()
        usable = "" if self.ok else "not usable" + (": " if facts else "")
        group = f" (of {self.group})" if self.group else ""
        yield Line(f"{self.target}{group}: {usable}{', '.join(facts)}")
        yield from (Warn(f"{self.target}: {line}") for line in (self.warning or "").splitlines())
        needs = self.experiment
        if needs is not None and needs.checked and not needs.lacks:
            words = [] if needs.trials is None else [f"the {needs.trials} trials"]
            words += ["the search"] if needs.search else []
            verb = "needs" if words == ["the search"] else "need"
            yield Item(f"has what {' and '.join(words)} of {needs.file} {verb}")
        yield from map(Warn, needs.notes if needs is not None else ())
        for line in (self.problem or "").splitlines():
            is_named = line.startswith((self.target, f"target {self.target}"))
            yield Fail(line if is_named else f"{self.target}: {line}")
        if self.next:
            yield Note(f"next: {self.next}")

    def _list_facts(self) -> list[str]:
        named = {"url": self.url, "dialect": self.dialect, "version": self.version, "cache": self.cache}
        facts = [f"{name} {fact}" for name, fact in named.items() if fact]
        if self.upload_limit:
            facts.append(f"uploads up to {self.upload_limit / 2**20:.0f} MiB")
        if self.dialect and self.key:
            # A ComfyUI checks no key, and a proxy in front of it does not say whether it does.
            facts.append(f"key {'sent' if self.dialect == 'comfyui' else 'accepted'} ({self.key})")
        if self.max_jobs is not None:
            facts.append(f"{count_things(self.max_jobs, 'job')} at once")
        if self.longest_run_s is not None:
            timeout = f" (`timeout` is {self.timeout_s:g} s)" if self.timeout_s is not None else ""
            facts.append(f"each for {self.longest_run_s:g} s at most{timeout}")
        if self.balance_usd is not None:
            facts.append(f"{self.balance_usd:.2f} {CURRENCY} left on the account")
        return facts


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer of `sweeper doctor`: the versions here, and what each target says.

    `packages`: the version of each package that sweeper or an extra requires; None: it is not installed. `extras`: by
    name, the requirements that are not installed. `free_bytes`: on the disk of the current folder. `targets_file`: what
    is wrong with the user's targets file, and `warnings`; both are left out if there is nothing to say.
    """

    sweeper: str
    python: str
    platform: str
    packages: Mapping[str, str | None]
    extras: Mapping[str, Sequence[str]]
    free_bytes: int
    targets: tuple[TargetReport, ...]
    targets_file: str | None = field(metadata=IF_GIVEN)
    warnings: tuple[str, ...] | None = field(metadata=IF_GIVEN)

    def parts(self) -> Iterator[Part]:
        """The problems first, then what is in order."""
        yield from map(Fail, (self.targets_file or "").splitlines())
        yield from map(Warn, self.warnings or ())
        for report in sorted(self.targets, key=lambda report: report.ok):
            yield from report.parts()
        yield Line(f"sweeper {self.sweeper}, Python {self.python}, {self.platform}")
        yield Line(f"{self.free_bytes / 2**30:.1f} GiB free here")
        if there := [name for name, lacks in self.extras.items() if not lacks]:
            yield Line(f"extras: {', '.join(there)}")
        for name, lacks in self.extras.items():
            if lacks:
                yield Line(f"without the extra {name}: {format_install(*lacks)}")

    def tabulate_packages(self) -> Table:
        return Table(("package", "version"), [(name, found or "missing") for name, found in self.packages.items()])


def diagnose(
    targets: Sequence[TargetSpec] | None,
    plans: Sequence[Plan],
    named: NamedTargets,
    *,
    file_problems: tuple[Problem, ...] = (),
    warnings: Sequence[str] = (),
) -> Diagnosis:
    """Check this installation and targets; by default, those of the experiment, or all that the user can use.

    The nodes, models, values and files of `plans`, which are of one experiment, are checked against each target.
    `named`: the user's named targets. `file_problems`: the mistakes in the file that has them, which must not stop
    targets that do not need it. `warnings`: more of them.
    """
    cloud = [CLOUD] if any(map(os.environ.get, CLOUD_KEYS)) and CLOUD not in named else []
    specs = targets or (plans[0].experiment.targets if plans else [EMBEDDED, *cloud, *named])
    names = {**named, **(plans[0].experiment.named_targets if plans else {})}
    reports = []
    for used in expand_groups(specs, names):
        spec = used.spec
        is_name = isinstance(spec, str) and "://" not in spec and spec.strip() not in (EMBEDDED, CLOUD)
        broken = {str(spec).strip(): InvalidEntry(file_problems)} if file_problems and is_name else {}
        report = run_sync(partial(_diagnose_target, spec, plans, {**names, **broken}))
        reports.append(replace(report, group=used.group))
    checked = {report.target for report in reports} | set(plans[0].experiment.named_targets if plans else ())
    entries = [entry for name, entry in named.items() if isinstance(entry, InvalidEntry) and name not in checked]
    differences = describe_differences({report.target: report.models for report in reports})
    versions = {name: _find_version(name) for name in ("sweeper", *(name for _, name, _ in _iter_requirements()))}
    found = [
        *_find_package_problems(versions),
        *(str(problem) for entry in entries for problem in entry.problems),
        *warnings,
        *(f"{line}; `run` on both needs --allow-different-models" for line in differences),
    ]
    return Diagnosis(
        version(DISTRIBUTION), platform.python_version(), platform.platform(),
        {name: versions[name] for _, name, _ in _iter_requirements()}, _list_extras(versions),
        shutil.disk_usage(".").free, tuple(reports), "\n".join(map(str, file_problems)) or None, tuple(found) or None,
    )  # fmt: skip


async def _diagnose_target(spec: TargetSpec, plans: Sequence[Plan], named: NamedTargets) -> TargetReport:
    names = [spec.get(key) for key in ("name", "url", "launch")] if isinstance(spec, Mapping) else [spec]
    facts: dict[str, Any] = {"target": strip_secrets(str(next(filter(None, names), None)))}  # until it is resolved
    target: Target | None = None
    try:
        target, *_ = resolve_targets([spec], named=named, environ=os.environ)
        key = f"from {target.key_source}" if target.key_source else None
        facts |= {"target": target.name, "url": target.url or None, "key": key}
        if target.keys and target.url.startswith("http://") and not is_loopback(target.url):
            facts["warning"] = (
                "sweeper sends its key unencrypted, so others on the network can read it; use an https:// URL"
            )
        await _query_server(target, facts, plans)
    except SweeperError as error:
        facts |= {"problem": str(error), "next": _suggest_next_step(error, target), "error": error}
    return TargetReport(**facts)


async def _query_server(target: Target, facts: dict[str, Any], plans: Sequence[Plan]) -> None:
    """Add what the server says to `facts` (started first if it is the embedded one), until something fails.

    A ComfyUI that starts with the run is not started: only its folder is looked at.
    """
    if target.launch is not None:
        facts |= {"ok": True, "warning": f"{STARTS_LATER}, by {find_python(target.launch)}"}
        return
    settings = plans[0].experiment.run if plans and not target.embedded else None
    facts["timeout_s"] = None if settings is None else settings.timeout
    with embedded.EmbeddedServer(dialect="cloud", permissive=True) if target.embedded else nullcontext(target) as place:
        async with ComfyClient(replace(target, url=place.url), patience=_PATIENCE) as client:
            try:
                await _ask_server(client, target, facts, plans)
            finally:  # a server may say that it ended the call that fails
                warnings = [*_compare_limits(facts, settings, target), *_describe_deprecations(client)]
                facts["warning"] = "\n".join(filter(None, (facts.get("warning"), *warnings))) or None


async def _ask_server(client: ComfyClient, target: Target, facts: dict[str, Any], plans: Sequence[Plan]) -> None:
    server = await client.connect()
    facts["max_jobs"] = None if target.embedded else server.max_jobs
    if target.url == CLOUD_URL:
        facts["longest_run_s"] = LONGEST_RUNS.get(server.max_jobs or 0)
    cache = detect_server_cache(server.version, server.arguments, server.memory) if server.arguments else None
    facts |= {"dialect": server.dialect, "version": server.version or None, "cache": cache and str(cache)}
    facts["upload_limit"] = limit = await client.get_upload_limit()
    facts["balance_usd"] = await client.get_balance()
    if not plans:
        facts["ok"] = True
        return
    experiment, plan = plans[0].experiment, None if is_space(plans[0]) else plans[0]
    classes = await get_classes(client, list_nodes(plans[0]), fresh=True)
    lacks, notes = _check_plans(client, plans, limit, classes)
    known = None if isinstance(classes, str) else classes
    models = None if plan is None or target.embedded else await read_target_models(client.models, plan, known)
    if models is not None:
        notes += models.list_limits(target.name)
        facts["models"] = models.facts
    trials, search = None if plan is None else len(plan), None if experiment.search is None else True
    facts["experiment"] = ExperimentReport(str(experiment.file), trials, known is not None, lacks, notes, search)
    facts |= {"problem": "\n".join(lacks), "next": _INSTALL} if lacks else {"ok": True}


def _compare_limits(facts: Mapping[str, Any], settings: RunSettings | None, target: Target) -> Iterator[str]:
    """Say where the run's settings exceed what the account may do."""
    longest, most = facts.get("longest_run_s"), facts.get("max_jobs")
    at_once = "" if most is None else f"{count_things(most, 'job')} at once"
    if settings is not None and longest is not None and settings.timeout > longest:
        yield (
            f"timeout: {settings.timeout:g} s, but Comfy Cloud cancels a job after {longest:g} s (its pages, for "
            f"accounts of {at_once}); write `timeout: {longest:g}` under `run`, and make the jobs shorter"
        )
    concurrency = (None if settings is None else settings.concurrency) or target.concurrency
    if most is not None and concurrency is not None and concurrency > most:
        yield f"concurrency: {concurrency}, but the account runs {at_once}; the other jobs wait in its queue"


def _describe_deprecations(client: ComfyClient) -> Iterator[str]:
    """Say which of the calls of this diagnosis the server will end."""
    paths: dict[str, list[str]] = {}
    for path, announced in client.deprecations.items():
        paths.setdefault(announced, []).append(path)
    who = "Comfy Cloud" if client.target.url == CLOUD_URL else "the server"
    for announced, calls in paths.items():
        yield f"{who} says of {join_names(calls)}: {announced}; look for a newer sweeper, which may not need it"


def _check_plans(
    client: ComfyClient, plans: Sequence[Plan], limit: int | None, classes: NodeInfo | str
) -> tuple[list[str], list[str]]:
    """(what the server lacks or would refuse, notes on what is unusual but runs); `limit`: bytes of an upload."""
    large = [
        f"{fact.path}: {size / 2**20:.0f} MiB; an upload there may have at most {limit / 2**20:.0f} MiB"
        for fact in plans[0].experiment.files.values()
        if limit is not None and (size := fact.path.stat().st_size) > limit
    ]
    if isinstance(classes, str):
        return large, [f"the template was not checked: {classes}"]
    fits = [plan.fit(classes) for plan in plans]
    lacks = [str(problem) for fit in fits for problem in fit.problems]
    try:
        attach_partner_key(client, plans[0].experiment.template, classes, required=True)
    except InputError as error:
        lacks.append(str(error))
    notes = [str(note) for fit in fits for note in fit.notes]
    return list(dict.fromkeys((*lacks, *large))), list(dict.fromkeys(notes))


def _suggest_next_step(error: SweeperError, target: Target | None) -> str | None:
    """The next step after a failure; None if the message already says it."""
    if target is None or not isinstance(error, UnreachableError | TransientError):
        return None
    if error.trouble not in (Trouble.REFUSED, Trouble.NO_CONNECTION):
        return _NEXT_STEPS.get(error.trouble)
    if is_loopback(target.url):
        return "start the server, or correct the port: ComfyUI prints its address when it starts (default port 8188)"
    return "check host and port, that the server runs with --listen, and that no firewall or proxy blocks it"


def _find_package_problems(versions: Mapping[str, str | None]) -> Iterator[str]:
    """A warning for each required package that is not installed, and for one that has a package `sweeper` too."""
    for _, name, extra in _iter_requirements():
        if not extra and versions[name] is None:
            yield f"the package '{name}', which sweeper requires, is not installed; run: {format_install(name)}"
    if (found := versions["sweeper"]) is not None:
        yield (
            f"the distribution 'sweeper' {found} is installed, and so is ours, '{DISTRIBUTION}'; "
            f"both have a package `sweeper`. Run `python -m pip uninstall sweeper {DISTRIBUTION}`, "
            f"then install '{DISTRIBUTION}' again"
        )


def _iter_requirements() -> Iterator[tuple[str, str, str]]:
    """What sweeper and its extras for users require on this system, each with the name of its package and its extra."""
    for text in requires(DISTRIBUTION) or []:
        requirement, _, markers = text.partition(";")
        extra = re.search(r"""extra == ['"](\w+)['"]""", markers)
        # Those of ours name a system only by `sys_platform == '...'` or with `!=`.
        system = re.search(r"""sys_platform ([!=]=) ['"](\w+)['"]""", markers)
        if system is None or (system[1] == "==") == (system[2] == sys.platform):
            name = re.split(r"[^\w.-]", text, maxsplit=1)[0]
            if extra is None or extra[1] != "test":
                yield requirement.strip(), name, extra[1] if extra else ""


def _list_extras(versions: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The requirements of each extra that are not installed, such as `av>=15`, by the extra's name."""
    extras: dict[str, list[str]] = {}
    for requirement, name, extra in _iter_requirements():
        if extra:
            extras.setdefault(extra, []).extend([requirement] if versions[name] is None else [])
    return extras


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
