"""`sweeper doctor`: check this installation and each target. Keys are never shown."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

import click

from sweeper.answers.cells import sanitize
from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import INVALID_INPUT, OK
from sweeper.cli.options import format_examples
from sweeper.cli.target_check import diagnose_target
from sweeper.cluster import describe_open_address
from sweeper.errors import DISTRIBUTION, ExperimentError, Problem, UsageError
from sweeper.loading.targets_file import load_named_targets
from sweeper.model.money import CURRENCY
from sweeper.model.target_spec import CLOUD, CLOUD_KEYS, EMBEDDED, InvalidEntry, NamedTargets
from sweeper.planning.plan import Plan
from sweeper.running.prepare import list_planners

DASK_VARIABLE: Final = "DASK_SCHEDULER_ADDRESS"


@click.command(
    epilog=format_examples(
        "sweeper doctor",
        "sweeper doctor experiments/quickstart.yaml",
        "sweeper doctor --target cloud --target http://127.0.0.1:8188",
    )
)
@click.argument("experiment", type=click.Path(path_type=Path), required=False, metavar="[EXPERIMENT]")
@options.targets
@click.option("--dask", metavar="CLUSTER",
              help=f"Check the address of this Dask cluster too. [default: ${DASK_VARIABLE}]")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Also list the installed packages.")
@trust_check.option
@options.as_json
def command(
    experiment: Path | None,
    targets: tuple[str, ...],
    *,
    dask: str | None,
    verbose: bool,
    trust: bool,
    as_json: bool,
) -> int:
    """Check this installation and the targets: reachable, key accepted, version, cache mode, upload limit,
    balance of the account.

    With EXPERIMENT, checks its targets, and whether they have the nodes, models and values that it needs. Otherwise
    checks the embedded server, every target of the targets file, and Comfy Cloud if its key is set. Submits nothing.
    """
    named, file_problems = _try_load_named_targets()
    requested = options.to_target_list(targets)
    plans: list[Plan] = []
    if experiment is not None:
        partial, missing_trust = trust_check.load_trusted(
            experiment, named, trust=trust, targets=requested, checks_names=not file_problems
        )
        if partial.problems or missing_trust:
            raise ExperimentError([*partial.problems, *missing_trust])
        plans = [make_plan() for make_plan in list_planners(partial.experiment, needs_sweep=False)]
    report: dict[str, Any] = {
        "sweeper": version(DISTRIBUTION),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _find_version(name) for name in _list_packages()},
        "free_bytes": shutil.disk_usage(".").free,
        "targets": [],
    }
    if file_problems:
        report["targets_file"] = "\n".join(map(str, file_problems))
    exit_code = INVALID_INPUT if file_problems else OK
    for spec in requested or (plans[0].experiment.targets if plans else _list_default_targets(named)):
        names = named if not file_problems else _make_broken_entry(spec, file_problems)
        target_report, code = asyncio.run(diagnose_target(spec, plans, names))
        report["targets"].append(target_report)
        exit_code = max(exit_code, code)
    warnings = [
        *_list_missing_packages(),
        *_list_foreign_packages(),
        *_list_broken_entries(report, named, plans),
        *_list_cluster_problems(dask),
    ]
    if warnings:
        report["warnings"] = warnings
    if as_json:
        console.print_json(report)
    else:
        _show(report, verbose=verbose)
    return exit_code


def _try_load_named_targets() -> tuple[NamedTargets, tuple[Problem, ...]]:
    """The user's named targets, or the problems of their file, which must not stop targets that do not need it."""
    try:
        return load_named_targets(), ()
    except UsageError as error:
        return {}, error.problems


def _make_broken_entry(spec: Any, problems: tuple[Problem, ...]) -> NamedTargets:
    """Return `spec` as an invalid entry of the targets file, which has `problems`; empty if it is not a name."""
    is_name = isinstance(spec, str) and "://" not in spec and spec.strip() not in (EMBEDDED, CLOUD)
    return {spec.strip(): InvalidEntry(problems)} if is_name else {}


def _list_foreign_packages() -> list[str]:
    """A warning if another distribution has installed a package `sweeper` over ours or beside it."""
    found = _find_version("sweeper")
    if found is None:
        return []
    warning = (
        f"the distribution 'sweeper' {found} is installed, and so is ours, '{DISTRIBUTION}'; "
        f"both have a package `sweeper`. Run `python -m pip uninstall sweeper {DISTRIBUTION}`, "
        f"then install '{DISTRIBUTION}' again"
    )
    return [warning]


def _list_cluster_problems(dask: str | None) -> list[str]:
    """A warning if others may take over the Dask cluster that `--dask` or the environment names."""
    if dask is None and not os.environ.get(DASK_VARIABLE):
        return []
    warning = describe_open_address("auto" if dask is None else dask, os.environ)
    return [] if warning is None else [warning]


def _list_broken_entries(report: dict[str, Any], named: NamedTargets, plans: Sequence[Plan]) -> list[str]:
    """A warning for each invalid entry of the targets file that was not checked as a target."""
    checked = {one["target"] for one in report["targets"]} | set(plans[0].experiment.named_targets if plans else ())
    invalid = [entry for name, entry in named.items() if isinstance(entry, InvalidEntry) and name not in checked]
    return [str(problem) for entry in invalid for problem in entry.problems]


def _list_default_targets(named: NamedTargets) -> list[str]:
    """The embedded server, the targets of the targets file, and Comfy Cloud if its key is set."""
    cloud = [CLOUD] if any(map(os.environ.get, CLOUD_KEYS)) and CLOUD not in named else []
    return [EMBEDDED, *cloud, *named]


def _list_packages(*, with_extras: bool = True) -> list[str]:
    """The packages that sweeper requires, and those of the extras for users."""
    requirements = requires(DISTRIBUTION) or []
    users = [
        text
        for text in requirements
        if _is_for_this_system(text)
        and ("extra ==" not in text or (with_extras and "'test'" not in text.replace('"', "'")))
    ]
    names = ["".join(char if char.isalnum() or char in "-_." else " " for char in text).split()[0] for text in users]
    return list(dict.fromkeys(names))


def _is_for_this_system(requirement: str) -> bool:
    """Whether a requirement holds here; those of ours name a system only by `sys_platform == '...'` or with `!=`."""
    found = re.search(r"""sys_platform ([!=]=) ['"](\w+)['"]""", requirement)
    return found is None or (found[1] == "==") == (found[2] == sys.platform)


def _list_missing_packages() -> list[str]:
    """A warning for each required package that is not installed."""
    return [
        f"the package '{name}', which sweeper requires, is not installed; run `python -m pip install {name}`"
        for name in _list_packages(with_extras=False)
        if _find_version(name) is None
    ]


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show(report: dict[str, Any], *, verbose: bool) -> None:
    """Print the problems first, then what is in order."""
    for line in report.get("targets_file", "").splitlines():
        console.print_error(line)
    for warning in report.get("warnings", ()):
        console.warn(warning)
    for target_report in sorted(report["targets"], key=lambda target_report: target_report["ok"]):
        _show_target(target_report)
    console.print_line(f"sweeper {report['sweeper']}, Python {report['python']}, {report['platform']}")
    console.print_line(f"{report['free_bytes'] / 2**30:.1f} GiB free here; stdout is {sys.stdout.encoding}")
    if verbose:
        console.print_line()
        console.print_table(
            ("package", "version"), [(name, found or "missing") for name, found in report["packages"].items()]
        )


def _show_target(target_report: dict[str, Any]) -> None:
    facts = [
        f"{name} {target_report[name]}" for name in ("url", "dialect", "version", "cache") if target_report.get(name)
    ]
    if target_report.get("upload_limit"):
        facts.append(f"uploads up to {target_report['upload_limit'] / 2**20:.0f} MiB")
    if target_report.get("dialect") and target_report["key"]:
        # A ComfyUI checks no key, and a proxy in front of it does not say whether it does.
        facts.append(f"key {'sent' if target_report['dialect'] == 'comfyui' else 'accepted'} ({target_report['key']})")
    if target_report.get("balance_usd") is not None:
        facts.append(f"{target_report['balance_usd']:.2f} {CURRENCY} left on the account")
    usable = "" if target_report["ok"] else "not usable" + (": " if facts else "")
    console.print_line(f"{target_report['target']}: {usable}{', '.join(facts)}")
    if target_report.get("warning"):
        console.warn(f"{target_report['target']}: {target_report['warning']}")
    needs = target_report.get("experiment")
    if needs is not None and not needs["lacks"]:
        parts = [] if needs["trials"] is None else [f"the {needs['trials']} trials"]
        parts += ["the search"] if needs.get("search") else []
        verb = "needs" if parts == ["the search"] else "need"
        console.print_line(f"  has what {' and '.join(parts)} of {needs['file']} {verb}")
    for note in needs["notes"] if needs is not None else ():
        console.warn(note)
    for line in target_report.get("problem", "").splitlines():
        named = line.startswith((target_report["target"], f"target {target_report['target']}"))
        console.print_error(line if named else f"{target_report['target']}: {line}")
    if target_report.get("next"):
        console.print_status(f"next: {sanitize(target_report['next'])}")
