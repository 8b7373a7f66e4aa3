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
from sweeper.cli.failure import OK
from sweeper.cli.options import examples
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.planner import Plan


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
    from sweeper.cli.examination import examined  # noqa: PLC0415 - each command imports what it uses

    plan = _planned(experiment) if experiment is not None else None
    found: dict[str, Any] = {
        "sweeper": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _packages()},
        "free_bytes": shutil.disk_usage(".").free,
        "targets": [],
    }
    code = OK
    for spec in targets or (plan.experiment.targets if plan is not None else _known()):
        told, failed = asyncio.run(examined(spec, plan))
        found["targets"].append(told)
        code = max(code, failed)
    if as_json:
        console.out_json(found)
    else:
        _show(found)
    return code


def _planned(file: Path) -> Plan:
    from sweeper.loading import load  # noqa: PLC0415
    from sweeper.planner import plan  # noqa: PLC0415

    return plan(load(file))


def _known() -> list[str]:
    """The targets that this user has: sweeper's own, those of the targets file, and Cloud where its key is there."""
    from sweeper.cli.targets_file import named_targets  # noqa: PLC0415
    from sweeper.reading.targets import CLOUD, CLOUD_KEY, EMBEDDED  # noqa: PLC0415

    try:
        named = named_targets()
    except UsageError:  # told of every target that is examined
        named = {}
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
        console.error(line if line.startswith(told["target"]) else f"{told['target']}: {line}")
    if told.get("next"):
        console.say(f"next: {console.clean(told['next'])}")
