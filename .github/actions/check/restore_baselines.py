"""Fetch the files of the baselines that are Git LFS pointers, and no other file of the repository.

actions/checkout leaves pointers unless `lfs: true` is set, and then it fetches every file of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from action_inputs import find_outside, list_experiments
from job_log import print_command, run_program

from sweeper.errors import SweeperError
from sweeper.loading.load import read_name

POINTER = b"version https://git-lfs.github.com/spec/"  # how a pointer begins, by the specification of Git LFS


def find_baseline(experiment: str) -> Path | None:
    """The folder of the baseline. None: there is none, or a mistake that the next step reports."""
    if find_outside(experiment):
        return None
    try:
        name, _ = read_name(experiment)
    except SweeperError:
        return None
    folder = Path(os.environ.get("BASELINE") or Path(experiment).parent / "baselines" / name)
    return folder if folder.is_dir() and not find_outside(folder) else None


def is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def read_setting(top: Path, name: str) -> str:
    """A setting of Git, from files that no pull request can change; empty if it is not set."""
    return subprocess.run(["git", "config", name], capture_output=True, text=True, check=False, cwd=top).stdout.strip()


def find_server(top: Path) -> str:
    """The LFS server that the job has configured, or else that of the remote `origin`.

    The file `.lfsconfig` of the checkout could name another one, and a stranger may have written it.
    """
    remote = read_setting(top, "remote.origin.url")
    if remote.startswith(("https://", "http://")):
        remote = remote.rstrip("/").removesuffix(".git") + ".git/info/lfs"
    return read_setting(top, "lfs.url") or remote


def restore(folder: Path) -> int:
    """Fetch the pointers of a folder; returns the exit code of Git."""
    pointers = [file for file in folder.rglob("*") if file.is_file() and is_pointer(file)]
    if not pointers:
        return 0
    if shutil.which("git-lfs") is None:
        print_command(
            "error", f"{len(pointers)} files in {folder} are Git LFS pointers; install git-lfs on this runner"
        )
        return 1
    folder = folder.resolve()
    # Not by `git rev-parse`, which takes a folder of the checkout with files such as `config` for a repository.
    top = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if top is None:
        print_command("error", f"{folder} has Git LFS pointers, but is in no repository; use actions/checkout")
        return 1
    print_command("group", f"fetching {len(pointers)} files of {folder} from Git LFS")
    # Git LFS reads paths from the top of the repository, with / on every system.
    include = folder.relative_to(top).as_posix()
    settings = {
        "lfs.url": find_server(top),
        "filter.lfs.clean": "git-lfs clean -- %f",  # without a filter, Git LFS leaves the pointers as they are
    }
    git = ["git", *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]
    # `--exclude=` overrides lfs.fetchexclude of the repository.
    code = run_program([*git, "lfs", "pull", f"--include={include}", "--exclude="], cwd=top)
    print_command("endgroup", "")
    return code


if __name__ == "__main__":
    folders = [folder for folder in map(find_baseline, list_experiments()) if folder is not None]
    if os.environ.get("PACK"):
        baselines = Path(os.environ.get("BASELINE") or "baselines")
        folders = [baselines] if baselines.is_dir() and not find_outside(baselines) else []
    sys.exit(max(map(restore, folders), default=0))
