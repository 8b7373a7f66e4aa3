"""Write a run's pictures and its table as a dataset of another tool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sweeper.errors import ResultsError, UsageError
from sweeper.store import Store
from sweeper.tables.datasets import fiftyone_samples, hf_dataset, wandb_table
from sweeper.tables.datasets.export_folder import write_export
from sweeper.tables.datasets.picture_rows import Media, PictureRows, build_picture_rows
from sweeper.wording import suggest


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A format: the media that it holds, the folder of its pictures, its largest integer, and how to build its texts.

    `build_files` gets the rows and the file name that the user gave, and returns texts by file name. `suffix`: of the
    file that the user names; None if a folder is named. `keep`: files that people edit.
    """

    media: tuple[Media, ...]
    folder: str
    largest: int
    build_files: Callable[[PictureRows, str], Mapping[str, str]]
    suffix: str | None = None
    keep: frozenset[str] = frozenset()


FORMATS: Final = {
    "hf-dataset": DatasetFormat(
        hf_dataset.MEDIA, hf_dataset.FOLDER, hf_dataset.MAX_INTEGER, hf_dataset.build_files,
        keep=frozenset((hf_dataset.CARD,)),
    ),
    "fiftyone": DatasetFormat(
        fiftyone_samples.MEDIA, fiftyone_samples.FOLDER, fiftyone_samples.MAX_INTEGER, fiftyone_samples.build_files
    ),
    "wandb-table": DatasetFormat(
        wandb_table.MEDIA, wandb_table.FOLDER, wandb_table.MAX_INTEGER, wandb_table.build_files, wandb_table.SUFFIX
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """What was written. `notes` has a sentence for each kind of thing that is left out or changed."""

    row_count: int
    renamed: Mapping[str, str]
    notes: tuple[str, ...]


def check_destination(kind: str, path: str | None) -> None:
    """Check the name of a format, and that `path` is one that it writes. Raises UsageError with an example."""
    if kind not in FORMATS:
        raise UsageError(f"--to {kind}: unknown format{suggest(kind, FORMATS)}")
    suffix = FORMATS[kind].suffix
    if not path or path == "-":
        example = f"my-{kind}" if suffix is None else f"my-{kind}/table{suffix}"
        raise UsageError(
            f"--to {kind}: name the {'folder' if suffix is None else 'file'} to write, such as -o {example}"
        )
    if suffix is not None and not path.endswith(suffix):
        raise UsageError(
            f"-o {path}: a {kind} is a file whose name ends in {suffix}; write -o {Path(path) / f'table{suffix}'}"
        )


def write_dataset(
    results: Path, kind: str, path: Path, *, run: str | None = None, trials: Collection[int] | None = None
) -> WrittenDataset:
    """Write the rows of these trials (None: all) that have pictures, in the format `kind`, to a folder or file.

    Raises ResultsError if there are no pictures to write or the folder cannot be written, and UsageError if `path` does
    not fit the format or the folder holds other files.
    """
    check_destination(kind, str(path))
    chosen = FORMATS[kind]
    with Store.open(results, readonly=True) as store:
        layout = store.layout(run)
        results_rows = [row for row in store.results(run) if trials is None or row.trial in trials]
    rows = build_picture_rows(results, results_rows, layout, chosen.media, chosen.largest)
    held = " or ".join(media.name for media in chosen.media)
    notes = _describe_changes(rows, kind)
    if not rows.pictures:
        raise ResultsError("; ".join((f"{results}: {kind} holds {held}, and no selected trial has any", *notes)))
    out = path if chosen.suffix is None else path.parent
    sources = {source: name for name, source in rows.sources.items()}
    texts = chosen.build_files(rows, path.name)
    write_export(out, kind, chosen.folder, sources=sources, texts=texts, keep=chosen.keep)
    return WrittenDataset(len(rows.pictures), rows.renamed, notes)


def _describe_changes(rows: PictureRows, kind: str) -> tuple[str, ...]:
    notes = []
    if rows.other_files:
        counts = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in rows.other_files.items())
        notes.append(f"left out other files: {counts}")
    if rows.without:
        trials = "1 trial that has" if rows.without == 1 else f"{rows.without} trials that have"
        notes.append(f"left out {trials} no such file")
    if rows.renamed:
        names = ", ".join(f"{name} is {new}" for name, new in rows.renamed.items())
        notes.append(f"renamed columns that {kind} would not take as they are: {names}")
    if rows.as_text:
        names = ", ".join(rows.as_text)
        notes.append(f"wrote numbers as texts, because they are too large for {kind} or beside texts: {names}")
    return tuple(notes)
