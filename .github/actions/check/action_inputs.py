"""Read what action.yml puts into the environment of a step."""

from __future__ import annotations

import glob
import os


def read_lines(name: str) -> list[str]:
    """The lines of an input that are not empty, without space around them."""
    return [line.strip() for line in os.environ.get(name, "").splitlines() if line.strip()]


def list_experiments() -> list[str]:
    """The paths of the experiments. A pattern without a match stays as it is, so that sweeper reports it."""
    paths = [path for line in read_lines("EXPERIMENTS") for path in (sorted(glob.glob(line, recursive=True)) or [line])]
    return list(dict.fromkeys(paths))
