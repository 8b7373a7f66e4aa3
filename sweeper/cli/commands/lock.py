"""`sweeper lock`: write what an experiment needs on a server, or compare servers with such a file."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from sweeper.cli import console, options, trust_check
from sweeper.cli.exit_codes import FAILED, OK
from sweeper.cli.load_prepared import load_plans
from sweeper.cli.options import format_examples
from sweeper.comfy.target import resolve_targets
from sweeper.errors import UsageError
from sweeper.loading.read_scope import EVERYTHING, ReadScope, find_project
from sweeper.loading.targets_file import load_named_targets
from sweeper.running.lock import LOCK_NAME, check_lock, make_lock, read_lock, read_server
from sweeper.running.stop_control import run_sync


@click.command(
    epilog=format_examples(
        "sweeper lock experiments/quickstart.yaml --target http://127.0.0.1:8188",
        "sweeper lock --check experiments/quickstart.yaml --target http://127.0.0.1:8188",
    )
)
@options.experiment
@options.targets
@click.option("--check", "checks", is_flag=True, help="Compare the targets with the file. Writes nothing.")
@click.option("-o", "--out", type=options.FILE, metavar="FILE",
              help=f"The file to write, or to compare with. [default: {LOCK_NAME} beside EXPERIMENT]")  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Overwrite a file that differs without asking.")
@trust_check.option
@options.as_json
def command(
    experiment: Path, *, targets: list[str] | None, checks: bool, out: Path | None, yes: bool, trust: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Write the model files, node packs and version of ComfyUI that EXPERIMENT uses on a target, in the format of
    Comfy's comfy-build.yaml.

    With --check, compares the targets with the file, which Comfy's tools may have written. Exit code 1 if something
    differs. Downloads, installs and submits nothing.
    """
    users = load_named_targets()
    loaded, plans = load_plans(experiment, targets, users, trust=trust)
    named = {**users, **loaded.named_targets}
    found = resolve_targets(targets or list(loaded.targets), named=named, environ=os.environ)
    if any(target.embedded for target in found):
        raise UsageError("the embedded server has no models and packs of its own; name a real server with --target")
    if any(target.launch for target in found):
        raise UsageError("a lock asks a server that runs: start the ComfyUI yourself, and give its URL by --target")
    path = out or experiment.with_name(LOCK_NAME)
    if checks:
        if not os.path.lexists(path):
            raise UsageError(f"{path}: there is no such file; the same command without --check writes it")
        scope = ReadScope(find_project(experiment)) if out is None else EVERYTHING
        answer = check_lock(path, read_lock(path, scope), found, plans)
        console.print_answer(answer, as_json=as_json)
        return OK if answer.ok else FAILED
    if len(found) > 1:
        names = ", ".join(target.name for target in found)
        raise UsageError(f"a lock is of one server, and the experiment has {len(found)} ({names}); give one --target")
    new = make_lock(loaded, path, run_sync(lambda: read_server(found[0], plans)))
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, and a file is needed there")
    is_current = new.is_current
    if os.path.lexists(path) and not is_current and not yes:
        if as_json or not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr)):
            raise UsageError(f"{path}: this file differs and would be overwritten; add --yes to do so")
        click.confirm(f"{path} differs. Overwrite it?", abort=True, err=True)
    if not is_current:
        new.write()
    console.print_answer(replace(new, written=not is_current), as_json=as_json)
    return OK
