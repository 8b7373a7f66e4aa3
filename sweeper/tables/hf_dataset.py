"""Write a run's pictures and its table as a dataset: a folder that Hugging Face's `datasets.load_dataset` reads.

https://huggingface.co/docs/datasets/image_dataset describes the layout; folders of films and sounds are alike. The
reader takes the type of a column from the first 10 MB of the lines in `metadata.jsonl`, one for each file, and the path
of a file from `file_name`, relative to `metadata.jsonl`. A list in the folder names the files of sweeper, and a later
export replaces only these.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sweeper.errors import ResultsError, UsageError
from sweeper.files import atomic_write, describe_write_error
from sweeper.store import Store
from sweeper.store.artifacts import link_files
from sweeper.store.containment import is_plain_path, refuse_links
from sweeper.tables.export import encode_line
from sweeper.tables.picture_rows import MEDIA, PictureRows, build_picture_rows

FORMAT: Final = "hf-dataset"
LIST_NAME: Final = ".sweeper-export.json"
_FOLDER: Final = "train"
_CARD: Final = "README.md"  # people edit it, so a later export keeps it
_ALWAYS_READ: Final = 2**20  # characters, in any script less than the 10 MB

# The files of each split are named, because a word such as `test` in a file's name would else choose the split.
_CARD_TEXT: Final = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
---
# {title}

The pictures of a [ComfyUI](https://github.com/comfyanonymous/ComfyUI) sweep, made with sweeper. Each row has a picture,
the values of its axes and slots, and its metrics.
"""


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """What was written. `notes` has a sentence for each kind of thing that is left out or changed."""

    row_count: int
    renamed: Mapping[str, str]
    notes: tuple[str, ...]


def write_dataset(
    results: Path, out: Path, *, run: str | None = None, trials: Collection[int] | None = None
) -> WrittenDataset:
    """Write the rows of these trials (None: all) that have pictures to the folder `out`.

    Raises ResultsError if there are no pictures to write or the folder cannot be written, and UsageError if the folder
    holds other files.
    """
    with Store.open(results, readonly=True) as store:
        layout = store.layout(run)
        results_rows = [row for row in store.results(run) if trials is None or row.trial in trials]
    rows = build_picture_rows(results, results_rows, layout)
    notes = _describe_changes(rows)
    if not rows.pictures:
        held = " or ".join(media.name for media in MEDIA)
        raise ResultsError("; ".join((f"{results}: {FORMAT} holds {held}, and no selected trial has any", *notes)))
    _write_folder(out, {source: name for name, source in rows.sources.items()}, build_texts(rows))
    return WrittenDataset(len(rows.pictures), rows.renamed, notes)


def build_texts(rows: PictureRows) -> dict[str, str]:
    """The text files of the dataset, by their name in its folder."""
    lines = []
    for index, picture in enumerate(rows.pictures):
        cells = {column.name: column.values[index] for column in rows.columns}
        lines.append(json.dumps({"file_name": picture.name, **cells}, ensure_ascii=False, allow_nan=False) + "\n")
    if sum(map(len, lines)) > _ALWAYS_READ:
        first = sorted({_find_value(column.values) for column in rows.columns})
        lines = [*(lines[index] for index in first), *(line for index, line in enumerate(lines) if index not in first)]
    title = " ".join(rows.experiment.split())
    return {f"{_FOLDER}/metadata.jsonl": "".join(lines), _CARD: _CARD_TEXT.format(title=title)}


def _find_value(values: Sequence[Any]) -> int:
    return next(index for index, value in enumerate(values) if value is not None)


def _describe_changes(rows: PictureRows) -> tuple[str, ...]:
    notes = []
    if rows.other_files:
        counts = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in rows.other_files.items())
        notes.append(f"left out other files: {counts}")
    if rows.without:
        trials = "1 trial that has" if rows.without == 1 else f"{rows.without} trials that have"
        notes.append(f"left out {trials} no such file")
    if rows.renamed:
        names = ", ".join(f"{name} is {new}" for name, new in rows.renamed.items())
        notes.append(f"renamed columns that {FORMAT} would not take as they are: {names}")
    if rows.as_text:
        names = ", ".join(rows.as_text)
        notes.append(f"wrote numbers as texts, because they are too large for {FORMAT} or beside texts: {names}")
    return tuple(notes)


def _write_folder(out: Path, sources: Mapping[Path, str], texts: Mapping[str, str]) -> None:
    """Write `texts` into `out`, by file name, and link the pictures `sources`.

    Files of an earlier export are removed first, except the card. Raises UsageError if `out` holds anything else, and
    ResultsError if the folder cannot be written.
    """
    pictures = {f"{_FOLDER}/{name}" for name in sources.values()}
    earlier = _read_list(out)
    refuse_links(out / _FOLDER, out / LIST_NAME, inside=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The list is written before the files, so that an export that was interrupted can be repeated.
        _write_list(out, {*earlier, *pictures, *texts})
        for name in earlier:
            if name != _CARD:
                (out / name).unlink(missing_ok=True)
        link_files(sources, out / _FOLDER)
        for name, text in texts.items():
            if name != _CARD or not (out / name).exists():
                with atomic_write(out / name) as file:
                    file.write(encode_line(text))
        _write_list(out, {*pictures, *texts})
    except OSError as error:
        raise ResultsError(f"{out}: cannot be written: {describe_write_error(out / LIST_NAME, error)}") from error


def _read_list(out: Path) -> list[str]:
    """The files of an earlier export in `out`; none if it is empty or absent. Raises UsageError for other contents."""
    # A folder beside it, because a dataset in the folder of another one would become a part of that.
    other = f"write to a new folder, such as {out.with_name(f'{out.name}-{FORMAT}') if out.name else FORMAT}"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, and a folder is needed there; {other}")
    if not out.is_dir() or not any(out.iterdir()):
        return []
    try:
        names = json.loads((out / LIST_NAME).read_bytes())["files"]
        valid = all(isinstance(name, str) and _is_in_export(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{out}: contains files that are not of an earlier export; {other}") from None
    if not valid:
        raise UsageError(f"{out / LIST_NAME}: names files outside of the folder, so it is not of sweeper; {other}")
    return list(names)


def _is_in_export(name: str) -> bool:
    return is_plain_path(name) and name.rpartition("/")[0] in ("", _FOLDER)


def _write_list(out: Path, names: Iterable[str]) -> None:
    with atomic_write(out / LIST_NAME) as file:
        file.write(json.dumps({"files": sorted(names)}, indent=1).encode() + b"\n")
