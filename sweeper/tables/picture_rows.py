"""The rows of a dataset: one for each picture, with the cells of its trial.

Readers of datasets are stricter than a table. Every column has one type here, and a name that no reader takes for
something of its own. What only means something in the results folder (paths, the ids of jobs, errors) is left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from sweeper.answers.cells import to_json_text
from sweeper.model.result import Result
from sweeper.model.urls import strip_secrets
from sweeper.store.records import TableLayout
from sweeper.store.remote_artifacts import download_artifacts, local_path
from sweeper.tables.export import replace_surrogates
from sweeper.tables.result_rows import column_names, iter_rows

_MAX_EXACT_INT: Final = 2**53  # a float64 holds integers exactly up to here
_LEFT_OUT: Final = frozenset(("outputs", "sha256", "prompt_id", "error_type", "error"))
_MAX_INTEGER: Final = 2**63 - 1  # Arrow's JSON reader makes a float of a larger one
# What readers use themselves: Hugging Face and W&B for the column of pictures, and FiftyOne for its own fields.
# The last two are methods: FiftyOne cannot read a sample that has a field of that name.
_RESERVED: Final = frozenset((
    "image", "images", "video", "videos", "audio", "audios",
    "id", "pk", "filepath", "tags", "metadata", "media_type", "media_reference", "created_at", "last_modified_at",
    "from_dict", "get_field",
))  # fmt: skip
_FILE_COLUMN: Final = re.compile(r"(.*_)?file_names?")  # Hugging Face opens the files that such columns name
_FILE_SUFFIX: Final = re.compile(r"\.[A-Za-z]\w*")


@dataclass(frozen=True, slots=True)
class Media:
    """A kind of files that a dataset holds: its name for messages, and the suffixes of its files."""

    name: str
    suffixes: frozenset[str]


# Of the suffixes that sweeper knows, those that the folder builders of `datasets` 5.2 open.
MEDIA: Final = (
    Media("pictures", frozenset((".png", ".apng", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))),
    Media("films", frozenset((".mp4", ".mkv", ".mov", ".avi"))),
    Media("sounds", frozenset((".wav", ".flac", ".mp3", ".opus", ".ogg"))),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of a row: its name in the export, which is unique, and its SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DatasetColumn:
    """A column whose values all have one type, or are None; at least one is not None."""

    name: str
    values: Sequence[Any]
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class PictureRows:
    """The rows: row i has `pictures[i]` and the i-th value of each column.

    `sources` maps the name of a picture to its file. `renamed` maps a column of the table to its name here, if they
    differ, and `as_text` lists the columns whose numbers became texts. `without` counts the trials without a row, and
    `other_files` the left out files by suffix.
    """

    experiment: str
    pictures: Sequence[Picture]
    columns: Sequence[DatasetColumn]
    sources: Mapping[str, Path]
    renamed: Mapping[str, str]
    as_text: Sequence[str]
    without: int
    other_files: Mapping[str, int]


class PictureFiles:
    """The files of rows that an export can hold. Downloads those that are stored at a URL.

    Raises ResultsError if that storage cannot be reached.
    """

    def __init__(self, results: Path, rows: Sequence[Result]) -> None:
        files = list(dict.fromkeys(pair for row in rows for pair in zip(row.outputs, row.sha256, strict=True)))
        suffixes = {path: PurePosixPath(path).suffix.lower() for path, _ in files}
        # A dataset holds one kind of media; pictures come first.
        chosen = next((kind for kind in MEDIA if kind.suffixes & set(suffixes.values())), MEDIA[0])
        self.other_files = Counter(suffixes[path] for path, _ in files if suffixes[path] not in chosen.suffixes)
        fitting = [(path, sha) for path, sha in files if suffixes[path] in chosen.suffixes]
        download_artifacts(results, fitting)
        self.sources: dict[str, Path] = {}
        self._pictures: dict[tuple[str, str], Picture] = {}
        taken: set[str] = set()
        for path, sha in fitting:
            source = local_path(results.resolve(), path, sha)
            if source.is_file():
                name = source.name if source.name.casefold() not in taken else f"{sha[:12]}-{source.name}"
                taken.add(name.casefold())
                self.sources[name] = source
                self._pictures[path, sha] = Picture(name, sha)

    def find(self, row: Result) -> list[Picture]:
        """The pictures of a row that exist and that the export holds."""
        pairs = zip(row.outputs, row.sha256, strict=True)
        return [self._pictures[pair] for pair in pairs if pair in self._pictures]


def build_picture_rows(results: Path, rows: Sequence[Result], layout: TableLayout) -> PictureRows:
    """Build the rows of a dataset."""
    files = PictureFiles(results, rows)
    names = [name for name in column_names(layout) if name not in _LEFT_OUT]
    pictures: list[Picture] = []
    numbers: list[int] = []
    cells: dict[str, list[Any]] = {name: [] for name in names}
    without = 0
    for row, values in zip(rows, iter_rows(rows, layout), strict=True):
        found = files.find(row)
        without += not found
        by_name = dict(zip(column_names(layout), values, strict=True))
        for number, picture in enumerate(found):
            pictures.append(picture)
            numbers.append(number)
            for name in names:
                cells[name].append(by_name[name])
    if any(numbers):
        cells = {"trial": cells.pop("trial"), "output": numbers, **cells}
    cells["sha256"] = [picture.sha256 for picture in pictures]
    new_names = rename_columns(cells)
    columns = [column for name, values in cells.items() if (column := build_column(new_names[name], values))]
    used = {column.name for column in columns}
    renamed = {name: new for name, new in new_names.items() if name != new and new in used}
    numeric = {
        new_names[name] for name, values in cells.items() if any(isinstance(cell, int | float) for cell in values)
    }
    return PictureRows(
        layout.experiment, pictures, columns, files.sources, renamed,
        [column.name for column in columns if column.is_text and column.name in numeric],
        without, files.other_files,
    )  # fmt: skip


def rename_columns(names: Iterable[str]) -> dict[str, str]:
    """Give each column a name that no reader of datasets changes or takes for its own.

    So it has no `.`, and no `_` at its start. Returns the new name of every column.
    """
    new_names: dict[str, str] = {}
    plain = {name: name.replace(".", "_").lstrip("_") or "column" for name in names}
    for name in sorted(
        plain, key=lambda name: plain[name] != name or _is_reserved(name)
    ):  # the others keep their names
        new = plain[name]
        while _is_reserved(new) or new in new_names.values():
            new += "_"
        new_names[name] = new
    return new_names


def _is_reserved(name: str) -> bool:
    return name in _RESERVED or _FILE_COLUMN.fullmatch(name) is not None


def build_column(name: str, cells: Sequence[Any]) -> DatasetColumn | None:
    """A column with the narrowest type that holds every cell; None if no cell has a value.

    A column with an integer that is too large, or with values of several types, becomes text: texts as they are, others
    as JSON. NaN and infinity have no JSON, so they become None.
    """
    cells = [_to_plain_value(cell) for cell in cells]
    present = [cell for cell in cells if cell is not None]
    types = set(map(type, present))
    if not types:
        return None
    largest = _MAX_EXACT_INT if float in types else _MAX_INTEGER
    if types <= {int, float} and all(abs(cell) <= largest for cell in present if type(cell) is int):
        return DatasetColumn(name, [float(c) if c is not None and float in types else c for c in cells])
    if types == {bool}:
        return DatasetColumn(name, cells)
    texts = [cell if cell is None or isinstance(cell, str) else to_json_text(cell) for cell in cells]
    return DatasetColumn(name, texts, is_text=True)


def _to_plain_value(cell: Any) -> Any:
    """A cell without what belongs to this machine: the folder of an absolute path, the secrets of a URL."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, str):
        return _strip_folder(strip_secrets(replace_surrogates(cell)) if _is_url(cell) else replace_surrogates(cell))
    if isinstance(cell, Mapping):
        return {key: _to_plain_value(value) for key, value in cell.items()}
    if isinstance(cell, Collection):
        return [_to_plain_value(value) for value in cell]
    return cell


def _is_url(text: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", text) is not None


def _strip_folder(text: str) -> str:
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        if path.is_absolute() and len(path.parts) > 2 and "\n" not in text and _FILE_SUFFIX.fullmatch(path.suffix):
            return path.name
    return text
