"""Print the oldest and the newest Python of this machine on which sweeper must run, a path on each line.

It looks at the path, and at what pyenv and uv installed. Of each minor version the default `python3` comes first, so
that the README's commands run as they stand, and then the newest. A Python without venv or sqlite3 does not count.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_OLDEST = (3, 11)
_NEWEST_MINOR = 30  # of the names to look for on the path
# Prints the version and whether it is a final release; fails where a part of the standard library is missing.
_PROBE = """
import ctypes, ensurepip, json, sqlite3, ssl, sys, venv
print(json.dumps([*sys.version_info[:3], sys.version_info.releaselevel]))
"""
Version = tuple[int, int, int]


def list_candidates() -> Iterator[str]:
    """Yield the paths of everything that may be a Python 3, the default first."""
    names = ["python3", *(f"python3.{minor}" for minor in range(_OLDEST[1], _NEWEST_MINOR))]
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for name in names:
        for folder in folders:
            if path := shutil.which(name, path=folder):
                yield path
    roots = [os.environ.get("PYENV_ROOT", "~/.pyenv"), "~/.local/share/uv/python"]
    for root, pattern in zip(roots, ["versions/*/bin/python3", "*/bin/python3"], strict=True):
        yield from map(str, sorted(Path(root).expanduser().glob(pattern)))


def find_version(path: str) -> Version | None:
    """Return the version of a Python, or None if sweeper's tests cannot run there."""
    try:
        done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    major, minor, patch, level = json.loads(done.stdout)
    is_wanted = (major, minor) >= _OLDEST and level == "final"
    return (major, minor, patch) if is_wanted else None


def choose_pythons(candidates: Iterator[str]) -> list[str]:
    """Return the Pythons of the oldest and the newest minor version, or the only one."""
    by_minor: dict[tuple[int, int], list[tuple[Version, str]]] = {}
    default = None
    for path in candidates:
        version = find_version(path)
        if version is None:
            continue
        default = default or path
        by_minor.setdefault(version[:2], []).append((version, path))
    chosen = []
    for minor in sorted({min(by_minor), max(by_minor)}) if by_minor else []:
        paths = [path for _, path in by_minor[minor]]
        chosen.append(default if default in paths else max(by_minor[minor])[1])
    return chosen


if __name__ == "__main__":
    pythons = choose_pythons(list_candidates())
    if not pythons:
        sys.exit(f"no Python {_OLDEST[0]}.{_OLDEST[1]} or newer with venv and sqlite3 is here")
    print("\n".join(pythons))
