"""Write a run's pictures and its table as a dataset: a folder that Hugging Face's `datasets.load_dataset` reads.

https://huggingface.co/docs/datasets/image_dataset describes the layout; folders of films and sounds are alike. The
reader takes the type of a column from the first 10 MB of the lines in `metadata.jsonl`, one for each file, and the path
of a file from `file_name`, relative to `metadata.jsonl`. A list in the folder names the files of sweeper, and a later
export replaces only these.

Readers of datasets are stricter than a table. Every column has one type here, and a name that no reader takes for
something of its own. What only means something in the results folder (paths, the ids of jobs, errors) is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from sweeper.answers.cells import to_json_text
from sweeper.errors import ResultsError, UsageError
from sweeper.files import atomic_write, describe_write_error
from sweeper.model.result import Result
from sweeper.model.urls import strip_secrets
from sweeper.store import Store
from sweeper.store.artifacts import link_files
from sweeper.store.containment import is_plain_path, refuse_links
from sweeper.store.records import TableLayout
from sweeper.store.remote_artifacts import download_artifacts, local_path
from sweeper.store.row_queries import batch_results
from sweeper.tables.export import collect_cells
from sweeper.wording import count_things, encode_text, replace_surrogates

FORMAT: Final = "hf-dataset"
LIST_NAME: Final = ".sweeper-export.json"
_FOLDER: Final = "train"
_CARD: Final = "README.md"  # people edit it, so a later export keeps it
_ALWAYS_READ: Final = 2**20  # characters, in any script less than the 10 MB
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
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_FILE_SUFFIX: Final = re.compile(r"\.[A-Za-z]\w*")
# Of the suffixes that sweeper knows, those that the folder builders of `datasets` 5.2 open. A dataset holds one kind.
_MEDIA: Final = {
    "pictures": frozenset((".png", ".apng", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")),
    "films": frozenset((".mp4", ".mkv", ".mov", ".avi")),
    "sounds": frozenset((".wav", ".flac", ".mp3", ".opus", ".ogg")),
}

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

    Downloads files that are stored at a URL. Raises ResultsError if that storage cannot be reached, there are no
    pictures to write or the folder cannot be written, and UsageError if the folder holds other files.
    """
    with Store.open(results, readonly=True) as store:
        layout = store.layout(run)
        rows = [row for row in store.results(run) if trials is None or row.trial in trials]
    files = list(dict.fromkeys(pair for row in rows for pair in zip(row.outputs, row.sha256, strict=True)))
    suffixes = Counter(_get_suffix(path) for path, _ in files)
    chosen = next((kind for kind in _MEDIA.values() if kind & suffixes.keys()), _MEDIA["pictures"])
    sources = _find_sources(results, [(path, sha) for path, sha in files if _get_suffix(path) in chosen])
    shown = [[pair for pair in zip(row.outputs, row.sha256, strict=True) if pair in sources] for row in rows]
    cells = _collect_cells(rows, layout, shown)
    new_names = rename_columns(cells)
    columns = {new_names[name]: column for name, values in cells.items() if (column := build_column(values))}
    renamed = {name: new for name, new in new_names.items() if name != new and new in columns}
    notes = (
        *_describe_left_out({suffix: count for suffix, count in suffixes.items() if suffix not in chosen}, shown),
        *_describe_changes(cells, columns, new_names, renamed),
    )
    names = [sources[pair][0] for pairs in shown for pair in pairs]
    if not names:
        held = " or ".join(_MEDIA)
        raise ResultsError("; ".join((f"{results}: {FORMAT} holds {held}, and no selected trial has any", *notes)))
    _write_folder(out, {path: name for name, path in sources.values()}, build_texts(layout.experiment, names, columns))
    return WrittenDataset(len(names), renamed, notes)


def _get_suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _find_sources(results: Path, files: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, Path]]:
    """The name in the dataset, which is unique, and the file of each (recorded path, SHA-256) that exists."""
    download_artifacts(results, files)
    sources: dict[tuple[str, str], tuple[str, Path]] = {}
    taken: set[str] = set()
    for path, sha in files:
        source = local_path(results.resolve(), path, sha)
        if source.is_file():
            name = source.name if source.name.casefold() not in taken else f"{sha[:12]}-{source.name}"
            taken.add(name.casefold())
            sources[path, sha] = name, source
    return sources


def _collect_cells(
    rows: Sequence[Result], layout: TableLayout, shown: Sequence[Sequence[tuple[str, str]]]
) -> dict[str, list[Any]]:
    """The columns of the dataset, with the cells of a trial once for each of its `shown` files."""
    cells = {
        name: [cell for cell, pairs in zip(column, shown, strict=True) for _ in pairs]
        for name, column in collect_cells(batch_results(rows), layout).items()
        if name not in _LEFT_OUT
    }
    if any(len(pairs) > 1 for pairs in shown):
        numbers = [number for pairs in shown for number in range(len(pairs))]
        cells = {"trial": cells.pop("trial"), "output": numbers, **cells}
    return cells | {"sha256": [sha for pairs in shown for _, sha in pairs]}


def build_texts(experiment: str, files: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """The text files of the dataset, by their name in its folder. Each column has a value for each of the `files`."""
    lines = []
    for index, name in enumerate(files):
        cells = {"file_name": name} | {column: values[index] for column, values in columns.items()}
        lines.append(json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n")
    if sum(map(len, lines)) > _ALWAYS_READ:
        known = ([value is not None for value in values].index(True) for values in columns.values())
        first = sorted(set(known))
        lines = [*(lines[index] for index in first), *(line for index, line in enumerate(lines) if index not in first)]
    title = " ".join(experiment.split())
    return {f"{_FOLDER}/metadata.jsonl": "".join(lines), _CARD: _CARD_TEXT.format(title=title)}


def _describe_left_out(other_files: Mapping[str, int], shown: Sequence[Sequence[Any]]) -> Iterable[str]:
    if other_files:
        counts = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in other_files.items())
        yield f"left out other files: {counts}"
    if without := sum(not pairs for pairs in shown):
        yield f"left out {count_things(without, 'trial')} that {'has' if without == 1 else 'have'} no such file"


def _describe_changes(
    cells: Mapping[str, Sequence[Any]],
    columns: Mapping[str, Sequence[Any]],
    new_names: Mapping[str, str],
    renamed: Mapping[str, str],
) -> Iterable[str]:
    if renamed:
        names = ", ".join(f"{name} is {new}" for name, new in renamed.items())
        yield f"renamed columns that {FORMAT} would not take as they are: {names}"
    numeric = [new_names[name] for name in cells if any(isinstance(cell, int | float) for cell in cells[name])]
    as_text = [name for name in numeric if any(isinstance(cell, str) for cell in columns.get(name, ()))]
    if as_text:
        names = ", ".join(as_text)
        yield f"wrote numbers as texts, because they are too large for {FORMAT} or beside texts: {names}"


def rename_columns(names: Iterable[str]) -> dict[str, str]:
    """Give each column a name that no reader of datasets changes or takes for its own.

    So it has no `.`, and no `_` at its start. Returns the new name of every column.
    """
    new_names: dict[str, str] = {}
    plain = {name: name.replace(".", "_").lstrip("_") or "column" for name in names}
    # The others keep their names.
    for name in sorted(plain, key=lambda name: plain[name] != name or _is_reserved(name)):
        new = plain[name]
        while _is_reserved(new) or new in new_names.values():
            new += "_"
        new_names[name] = new
    return new_names


def _is_reserved(name: str) -> bool:
    return name in _RESERVED or _FILE_COLUMN.fullmatch(name) is not None


def build_column(cells: Sequence[Any]) -> list[Any]:
    """The cells in the narrowest type that holds each; empty if no cell has a value.

    A column with an integer that is too large, or with values of several types, becomes text: texts as they are, others
    as JSON. NaN and infinity have no JSON, so they become None.
    """
    cells = [_to_plain_value(cell) for cell in cells]
    present = [cell for cell in cells if cell is not None]
    types = set(map(type, present))
    if not types:
        return []
    largest = _MAX_EXACT_INT if float in types else _MAX_INTEGER
    if types <= {int, float} and all(abs(cell) <= largest for cell in present if type(cell) is int):
        return [float(cell) if cell is not None and float in types else cell for cell in cells]
    if types == {bool}:
        return cells
    return [cell if cell is None or isinstance(cell, str) else to_json_text(cell) for cell in cells]


def _to_plain_value(cell: Any) -> Any:
    """A cell without what belongs to this machine: the folder of an absolute path, the secrets of a URL."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, str):
        text = replace_surrogates(cell)
        text = strip_secrets(text) if _URL.fullmatch(text) else text
        for path in (PurePosixPath(text), PureWindowsPath(text)):
            if path.is_absolute() and len(path.parts) > 2 and "\n" not in text and _FILE_SUFFIX.fullmatch(path.suffix):
                return path.name
        return text
    if isinstance(cell, Mapping):
        return {key: _to_plain_value(value) for key, value in cell.items()}
    if isinstance(cell, Collection):
        return [_to_plain_value(value) for value in cell]
    return cell


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
        link_files(sources.items(), out / _FOLDER)
        for name, text in texts.items():
            if name != _CARD or not (out / name).exists():
                with atomic_write(out / name) as file:
                    file.write(encode_text(text))
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
        are_plain = all(isinstance(name, str) and is_plain_path(name) for name in names)
        valid = are_plain and {name.rpartition("/")[0] for name in names} <= {"", _FOLDER}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{out}: contains files that are not of an earlier export; {other}") from None
    if not valid:
        raise UsageError(f"{out / LIST_NAME}: names files outside of the folder, so it is not of sweeper; {other}")
    return list(names)


def _write_list(out: Path, names: Iterable[str]) -> None:
    with atomic_write(out / LIST_NAME) as file:
        file.write(json.dumps({"files": sorted(names)}, indent=1).encode() + b"\n")
