"""The results folder of an experiment: its default location, its owner, the one that a user means, and its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from sweeper.answers.parts import Part, Table
from sweeper.answers.render import AS_JSON
from sweeper.errors import ResultsError, UsageError
from sweeper.loading.load import read_name
from sweeper.loading.trust import check_default_folder
from sweeper.model.picture_size import PICTURE_SUFFIXES
from sweeper.store import FILE_NAME, Store
from sweeper.store.remote_artifacts import is_url
from sweeper.wording import find_nearest, join_command, join_names

REHEARSAL: Final = "rehearsal"  # in a results folder: the results folder of `sweeper run --rehearse`


def default_results_folder(experiment_file: Path, name: str, purpose: str = "") -> Path:
    """`results/<name>/` beside the experiment file, or `results/<name>-<purpose>/` with a purpose."""
    return experiment_file.parent / "results" / (f"{name}-{purpose}" if purpose else name)


def is_check_folder(folder: Path, name: str) -> bool:
    """Whether a folder has the name of the results of `sweeper check` for the experiment of this name."""
    return folder.absolute().name == default_results_folder(folder, name, "check").name


def check_owner(store: Store, experiment_file: Path, name: str) -> None:
    """Check that the last run in a store was of this experiment file, or of one that is gone.

    Two experiments in one folder would replace each other's table. Raises UsageError.
    """
    runs = store.runs()
    if runs and not is_owner(runs[-1].file, experiment_file):
        raise UsageError(
            f"{store.path.parent}: contains the results of {runs[-1].file}, and {experiment_file} would replace their "
            f"table; give {experiment_file} another `name` than '{name}', or name another folder with --out"
        )


def is_owner(recorded: str, experiment_file: Path) -> bool:
    """Whether an experiment file is the one that a run recorded, or may be because the recorded one is gone."""
    owner = Path(recorded)
    try:
        return not owner.is_file() or owner.samefile(experiment_file)
    except OSError:
        return False


def find_results_folder(source: str | os.PathLike[str]) -> Path:
    """The results folder `source`, or the default results folder of the experiment file `source`.

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
    name, command = read_name(path)
    folder = default_results_folder(path, name)
    check_default_folder(folder, path)
    if not _is_store(folder) and _is_store(folder / REHEARSAL):
        raise ResultsError(f"{path}: has only been rehearsed; the results are in {folder / REHEARSAL}")
    if not folder.is_dir():
        create = join_command(["sweeper", command, str(path)])
        raise ResultsError(f"{path}: there are no results in {folder} yet; create them with `{create}`")
    return folder


def find_picture(folder: Path, outputs: Sequence[str]) -> str | None:
    """The first picture among the outputs of a row: its path, or its URL; None if there is none."""
    picture = next((path for path in outputs if PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES), None)
    return picture if picture is None or is_url(picture) else str(folder / picture)


def _find_stores(folder: Path) -> list[Path]:
    """The results folders in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if _is_store(path))
    except OSError:
        return []


def _is_store(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()


# --- its runs


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run. `started` and `ended`: ISO 8601, UTC. `search`: whether an optimiser chose its trials."""

    run: int
    experiment: str
    file: str
    targets: tuple[str, ...]
    started: str
    ended: str | None
    stopped_by: str | None
    trials: int
    succeeded: int
    failed: int
    cancelled: int
    pending: int
    search: bool


@dataclass(frozen=True, slots=True)
class RunList:
    """The runs of a folder, oldest first."""

    runs: tuple[ListedRun, ...] = field(metadata=AS_JSON)

    def parts(self) -> Iterator[Part]:
        counts = ("trials", "succeeded", "failed", "cancelled", "pending")
        kind = ("search",) if any(run.search for run in self.runs) else ()
        names = ("run", "started", "ended", "targets", *counts, "stopped_by", *kind)
        records = [
            asdict(run)
            | {
                "ended": run.ended or "(not ended)",
                "targets": " ".join(run.targets),
                "search": "yes" if run.search else "",
            }
            for run in self.runs
        ]
        yield Table(names, [[record[name] for name in names] for record in records])


def list_runs(results: str | Path) -> RunList:
    """List the runs of a results folder, or of an experiment's default one. Raises ResultsError if there are none."""
    with Store.open(find_results_folder(results), readonly=True) as store:
        return RunList(
            tuple(
                ListedRun(
                    record.id,
                    record.experiment,
                    record.file,
                    tuple(record.targets),
                    _format_time(record.started),
                    None if record.ended is None else _format_time(record.ended),
                    record.stopped_by,
                    record.trials,
                    **store.count_by_status(record.id),
                    search=store.layout(record.id).search is not None,
                )
                for record in store.runs()
            )
        )


def _format_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
