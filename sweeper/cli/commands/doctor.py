"""`sweeper doctor`: this installation, and what each target says of itself. No key is ever shown."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper import __version__
from sweeper.cli import console, options
from sweeper.cli.exit_codes import OK, WRONG
from sweeper.cli.options import examples
from sweeper.errors import Problem, UsageError

if TYPE_CHECKING:
    from sweeper.model.target_spec import Named
    from sweeper.planning.plan import Plan


@click.command(
    epilog=examples(
        "sweeper doctor",
        "sweeper doctor experiments/quickstart.yaml",
        "sweeper doctor --target cloud --target http://127.0.0.1:8188",
    )
)
@click.argument("experiment", type=click.Path(path_type=Path), required=False, metavar="[EXPERIMENT]")
@options.targets
@options.as_json
def command(experiment: Path | None, targets: tuple[str, ...], *, as_json: bool) -> int:
    """Check this installation and the targets: reachable, key accepted, version, cache mode, upload limit.

    With EXPERIMENT its targets, and whether they have the nodes, models and values that it needs. Without it, the
    embedded server, every name of the targets file, and Comfy Cloud where its key is set. Nothing is submitted.
    """
    from sweeper.cli.target_check import examined  # noqa: PLC0415 - each command imports what it uses

    named, unread = _named()
    listed = options.listed_targets(targets)
    plan = _planned(experiment, named if listed is None and not unread else None) if experiment is not None else None
    found: dict[str, Any] = {
        "sweeper": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _packages()},
        "free_bytes": shutil.disk_usage(".").free,
        "targets": [],
    }
    if unread:
        found["targets_file"] = "\n".join(map(str, unread))
    code = WRONG if unread else OK
    for spec in listed or (plan.experiment.targets if plan is not None else _known(named)):
        told, failed = asyncio.run(examined(spec, plan, named if not unread else _unread(spec, unread)))
        found["targets"].append(told)
        code = max(code, failed)
    _note_broken(found, named, plan)
    if as_json:
        console.out_json(found)
    else:
        _show(found)
    return code


def _planned(file: Path, named: Named | None) -> Plan:
    from sweeper.loading.load import load  # noqa: PLC0415
    from sweeper.planning.plan import plan  # noqa: PLC0415

    return plan(load(file, named=named))


def _named() -> tuple[Named, tuple[Problem, ...]]:
    """The user's targets, and why their file cannot be read, which is no fault of a target that needs none."""
    from sweeper.cli.targets_file import named_targets  # noqa: PLC0415

    try:
        return named_targets(), ()
    except UsageError as error:
        return {}, error.problems


def _unread(spec: Any, problems: tuple[Problem, ...]) -> Named:
    """The user's names where their file cannot be read: what can only be one of them cannot be used for that reason."""
    from sweeper.model.target_spec import CLOUD, EMBEDDED, Broken  # noqa: PLC0415

    named = isinstance(spec, str) and "://" not in spec and spec.strip() not in (EMBEDDED, CLOUD)
    return {spec.strip(): Broken(problems)} if named else {}


def _note_broken(found: dict[str, Any], named: Named, plan: Plan | None) -> None:
    """Tell of entries of the targets file that cannot be used and that were not examined."""
    from sweeper.model.target_spec import Broken  # noqa: PLC0415

    examined = {told["target"] for told in found["targets"]} | set(plan.experiment.named_targets if plan else ())
    broken = [one for name, one in named.items() if isinstance(one, Broken) and name not in examined]
    if broken:
        found["warnings"] = [str(problem) for one in broken for problem in one.problems]


def _known(named: Named) -> list[str]:
    """The targets that this user has: sweeper's own, those of the targets file, and Cloud where its key is there."""
    from sweeper.model.target_spec import CLOUD, CLOUD_KEY, EMBEDDED  # noqa: PLC0415

    cloud = [CLOUD] if os.environ.get(CLOUD_KEY) and CLOUD not in named else []
    return [EMBEDDED, *cloud, *named]


def _packages() -> list[str]:
    """What sweeper asks for, its extras for users too."""
    try:
        wanted = requires("sweeper") or []
    except PackageNotFoundError:
        return []
    plain = [text for text in wanted if "extra ==" not in text or "'test'" not in text.replace('"', "'")]
    names = ["".join(char if char.isalnum() or char in "-_." else " " for char in text).split()[0] for text in plain]
    return list(dict.fromkeys(names))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show(found: dict[str, Any]) -> None:
    console.out(f"sweeper {found['sweeper']}, Python {found['python']}, {found['platform']}")
    console.out(f"{found['free_bytes'] / 2**30:.1f} GiB free here; stdout is {sys.stdout.encoding}")
    if found["packages"]:
        console.out()
        console.table(("package", "version"), [(name, has or "missing") for name, has in found["packages"].items()])
    console.out()
    for line in found.get("targets_file", "").splitlines():
        console.error(line)
    for warning in found.get("warnings", ()):
        console.warn(warning)
    for told in found["targets"]:
        _show_target(told)


def _show_target(told: dict[str, Any]) -> None:
    facts = [f"{name} {told[name]}" for name in ("url", "dialect", "version", "cache") if told.get(name)]
    if told.get("upload_limit"):
        facts.append(f"uploads up to {told['upload_limit'] / 2**20:.0f} MiB")
    if told.get("dialect") and told["key"]:
        # A ComfyUI asks for no key; whether a proxy before it does, nobody tells.
        facts.append(f"key {'accepted' if told['dialect'] == 'cloud' else 'sent'} ({told['key']})")
    usable = "" if told["ok"] else "not usable" + (": " if facts else "")
    console.out(f"{told['target']}: {usable}{', '.join(facts)}")
    if told.get("warning"):
        console.warn(f"{told['target']}: {told['warning']}")
    needs = told.get("experiment")
    if needs is not None and not needs["lacks"]:
        console.out(f"  has what the {needs['trials']} trials of {needs['file']} need")
    for note in needs["notes"] if needs is not None else ():
        console.warn(note)
    for line in told.get("problem", "").splitlines():
        named = line.startswith((told["target"], f"target {told['target']}"))
        console.error(line if named else f"{told['target']}: {line}")
    if told.get("next"):
        console.say(f"next: {console.clean(told['next'])}")
