"""Fetch the files of the baselines that are Git LFS pointers, and no other file of the repository.

actions/checkout leaves pointers unless `lfs: true` is set, and then it fetches every file of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from action_inputs import list_experiments

import sweeper

POINTER = b"version https://git-lfs.github.com/spec/"  # how a pointer begins, by the specification of Git LFS


def find_baseline(experiment: str) -> Path | None:
    """The folder of the baseline. None: the experiment is not valid, which `sweeper check` reports."""
    try:
        name = sweeper.load(experiment).name
    except sweeper.SweeperError:
        return None
    return Path(os.environ.get("BASELINE") or Path(experiment).parent / "baselines" / name)


def is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(POINTER)) == POINTER


def restore(folder: Path) -> int:
    """Fetch the pointers of a folder; returns the exit code of Git."""
    pointers = [file for file in folder.rglob("*") if file.is_file() and is_pointer(file)]
    if not pointers:
        return 0
    if shutil.which("git-lfs") is None:
        print(f"::error::{len(pointers)} files in {folder} are Git LFS pointers; install git-lfs on this runner")
        return 1
    print(f"fetching {len(pointers)} files of {folder} from Git LFS", flush=True)
    # Git LFS reads paths from the top of the repository, with / on every system.
    top = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True, cwd=folder
    )
    include = folder.resolve().relative_to(Path(top.stdout.strip()).resolve()).as_posix()
    # `--exclude=` overrides lfs.fetchexclude of the repository. A filter of Git is not needed to restore files.
    return subprocess.run(
        ["git", "lfs", "pull", f"--include={include}", "--exclude="], check=False, cwd=folder
    ).returncode


if __name__ == "__main__":
    folders = [folder for folder in map(find_baseline, list_experiments()) if folder is not None and folder.is_dir()]
    sys.exit(max(map(restore, folders), default=0))
