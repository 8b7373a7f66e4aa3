"""Read what action.yml puts into the environment of a step."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def read_lines(name: str) -> list[str]:
    """The lines of an input that are not empty, without space around them."""
    return [line.strip() for line in os.environ.get(name, "").splitlines() if line.strip()]


def list_experiments() -> list[str]:
    """The paths of the experiments. A pattern without a match stays as it is, so that sweeper reports it."""
    paths = [path for line in read_lines("EXPERIMENTS") for path in (sorted(glob.glob(line, recursive=True)) or [line])]
    return list(dict.fromkeys(paths))


def find_outside(*paths: str | Path) -> str | Path | None:
    """The first path in the checkout from which links lead out of it, or into `.git`, where tokens are.

    A pull request may contain such links. A path that the workflow itself names outside of the checkout is its choice.
    """
    checkout = Path.cwd().resolve()
    for path in paths:
        # Not by `Path.resolve`, which raises for a loop of links on some versions of Python only.
        resolved = Path(os.path.realpath(path))
        if resolved.is_symlink():
            return path
        is_inside = resolved.is_relative_to(checkout) and ".git" not in resolved.relative_to(checkout).parts
        # As it is written: `realpath` would follow the link.
        if not is_inside and Path(os.path.abspath(path)).is_relative_to(checkout):  # noqa: PTH100
            return path
    return None
