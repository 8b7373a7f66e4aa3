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
from sweeper.cli.exit_codes import INVALID_INPUT, OK
from sweeper.cli.options import format_examples
from sweeper.errors import Problem, UsageError

if TYPE_CHECKING:
    from sweeper.model.target_spec import NamedTargets
    from sweeper.planning.plan import Plan


@click.command(
    epilog=format_examples(
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
    from sweeper.cli.target_check import diagnose_target  # noqa: PLC0415 - each command imports what it uses

    named, unread = _try_load_named_targets()
    listed = options.to_target_list(targets)
    plan = _load_plan(experiment, named if listed is None and not unread else None) if experiment is not None else None
    found: dict[str, Any] = {
        "sweeper": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _find_version(name) for name in _list_packages()},
        "free_bytes": shutil.disk_usage(".").free,
        "targets": [],
    }
    if unread:
        found["targets_file"] = "\n".join(map(str, unread))
    code = INVALID_INPUT if unread else OK
    for spec in listed or (plan.experiment.targets if plan is not None else _list_default_targets(named)):
        told, failed = asyncio.run(
            diagnose_target(spec, plan, named if not unread else _make_broken_entry(spec, unread))
        )
        found["targets"].append(told)
        code = max(code, failed)
    _add_broken_warnings(found, named, plan)
    if as_json:
        console.print_json(found)
    else:
        _show(found)
    return code


def _load_plan(file: Path, named: NamedTargets | None) -> Plan:
    from sweeper.loading.load import load  # noqa: PLC0415
    from sweeper.planning.plan import plan  # noqa: PLC0415

    return plan(load(file, named=named))


def _try_load_named_targets() -> tuple[NamedTargets, tuple[Problem, ...]]:
    """The user's targets, and why their file cannot be read, which is no fault of a target that needs none."""
    from sweeper.cli.targets_file import load_named_targets  # noqa: PLC0415

    try:
        return load_named_targets(), ()
    except UsageError as error:
        return {}, error.problems


def _make_broken_entry(spec: Any, problems: tuple[Problem, ...]) -> NamedTargets:
    """The user's names where their file cannot be read: what can only be one of them cannot be used for that reason."""
    from sweeper.model.target_spec import CLOUD, EMBEDDED, InvalidEntry  # noqa: PLC0415

    named = isinstance(spec, str) and "://" not in spec and spec.strip() not in (EMBEDDED, CLOUD)
    return {spec.strip(): InvalidEntry(problems)} if named else {}


def _add_broken_warnings(report: dict[str, Any], named: NamedTargets, plan: Plan | None) -> None:
    """Tell of entries of the targets file that cannot be used and that were not examined."""
    from sweeper.model.target_spec import InvalidEntry  # noqa: PLC0415

    examined = {told["target"] for told in report["targets"]} | set(plan.experiment.named_targets if plan else ())
    broken = [one for name, one in named.items() if isinstance(one, InvalidEntry) and name not in examined]
    if broken:
        report["warnings"] = [str(problem) for one in broken for problem in one.problems]


def _list_default_targets(named: NamedTargets) -> list[str]:
    """The targets that this user has: sweeper's own, those of the targets file, and Cloud where its key is there."""
    from sweeper.model.target_spec import CLOUD, CLOUD_KEY, EMBEDDED  # noqa: PLC0415

    cloud = [CLOUD] if os.environ.get(CLOUD_KEY) and CLOUD not in named else []
    return [EMBEDDED, *cloud, *named]


def _list_packages() -> list[str]:
    """What sweeper asks for, its extras for users too."""
    try:
        wanted = requires("sweeper") or []
    except PackageNotFoundError:
        return []
    plain = [text for text in wanted if "extra ==" not in text or "'test'" not in text.replace('"', "'")]
    names = ["".join(char if char.isalnum() or char in "-_." else " " for char in text).split()[0] for text in plain]
    return list(dict.fromkeys(names))


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show(report: dict[str, Any]) -> None:
    console.print_line(f"sweeper {report['sweeper']}, Python {report['python']}, {report['platform']}")
    console.print_line(f"{report['free_bytes'] / 2**30:.1f} GiB free here; stdout is {sys.stdout.encoding}")
    if report["packages"]:
        console.print_line()
        console.print_table(
            ("package", "version"), [(name, has or "missing") for name, has in report["packages"].items()]
        )
    console.print_line()
    for line in report.get("targets_file", "").splitlines():
        console.print_error(line)
    for warning in report.get("warnings", ()):
        console.warn(warning)
    for told in report["targets"]:
        _show_target(told)


def _show_target(target_report: dict[str, Any]) -> None:
    facts = [
        f"{name} {target_report[name]}" for name in ("url", "dialect", "version", "cache") if target_report.get(name)
    ]
    if target_report.get("upload_limit"):
        facts.append(f"uploads up to {target_report['upload_limit'] / 2**20:.0f} MiB")
    if target_report.get("dialect") and target_report["key"]:
        # A ComfyUI asks for no key; whether a proxy before it does, nobody tells.
        facts.append(f"key {'accepted' if target_report['dialect'] == 'cloud' else 'sent'} ({target_report['key']})")
    usable = "" if target_report["ok"] else "not usable" + (": " if facts else "")
    console.print_line(f"{target_report['target']}: {usable}{', '.join(facts)}")
    if target_report.get("warning"):
        console.warn(f"{target_report['target']}: {target_report['warning']}")
    needs = target_report.get("experiment")
    if needs is not None and not needs["lacks"]:
        console.print_line(f"  has what the {needs['trials']} trials of {needs['file']} need")
    for note in needs["notes"] if needs is not None else ():
        console.warn(note)
    for line in target_report.get("problem", "").splitlines():
        named = line.startswith((target_report["target"], f"target {target_report['target']}"))
        console.print_error(line if named else f"{target_report['target']}: {line}")
    if target_report.get("next"):
        console.print_status(f"next: {console.sanitize(target_report['next'])}")
