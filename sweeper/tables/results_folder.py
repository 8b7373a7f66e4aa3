"""Find the results folder that a user means, by its path or by the experiment file."""

from __future__ import annotations

import os
from pathlib import Path

from sweeper.did_you_mean import find_nearest, join_names
from sweeper.errors import ResultsError
from sweeper.loading.load import load
from sweeper.store import FILE_NAME


def find_results_folder(source: str | os.PathLike[str]) -> Path:
    """The results folder `source`, or `results/<experiment name>/` in the current folder for an experiment file.

    Raises ResultsError if there is no such folder, with the nearest name.
    """
    path = Path(source)
    if path.is_dir():
        if not _is_store(path) and (inside := _find_stores(path)):
            raise ResultsError(f"{path}: no results here, but in folders of it: {join_names(inside)}")
        return path
    if not path.exists():
        candidates = [*path.parent.glob("*.y*ml"), *_find_stores(Path("results")), *_find_stores(path.parent)]
        nearest = find_nearest(path.name, by_name := {candidate.name: candidate for candidate in candidates})
        suggestion = f"; did you mean {by_name[nearest]}?" if nearest is not None else ""
        raise ResultsError(f"{path}: no such results folder, and no experiment file of that name{suggestion}")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ResultsError(f"{path}: neither a results folder nor an experiment file (.yaml)")
    folder = Path("results") / load(path).name
    if not folder.is_dir():
        raise ResultsError(f"{path}: there are no results in {folder} yet; create them with `sweeper run {path}`")
    return folder


def _find_stores(folder: Path) -> list[Path]:
    """The results folders in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if _is_store(path))
    except OSError:
        return []


def _is_store(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()
