"""The page's data about the trials of a run, as one JSON value.

Pure functions: the rows of a run as columns in, a mapping out. A column stores each distinct value once, and for each
trial the index of its value; ten thousand trials then take a few megabytes. `contents` adds the files and the run. The
page decodes all of it in `page/js/dataset.js`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from sweeper.answers.cells import format_cell, label_values
from sweeper.model.result import OUTCOME_COLUMNS, STATUSES, Result
from sweeper.reporting.thumbnails import SMALLER_SIDES
from sweeper.store.records import ArtifactRef, TableLayout
from sweeper.store.row_queries import Batch
from sweeper.tables.export import share_texts
from sweeper.wording import replace_surrogates

FORMAT: Final = 1  # of the data; the page refuses any other
# The columns of the outcome that the page shows beside the status.
_TEXT_COLUMNS: Final = ("error_type", "error", "target", "cost_kind", "models")
_NUMBER_COLUMNS: Final = tuple(name for name, kind in OUTCOME_COLUMNS.items() if kind in (int, float))
_FACTS: Final = ("trial", "digest", "status", "outputs", "sha256", *_TEXT_COLUMNS, *_NUMBER_COLUMNS)
_MAX_EXACT_INT: Final = 2**53  # JavaScript's numbers hold integers exactly up to here
_HASH: Final = re.compile("[0-9a-f]{64}")  # SHA-256
_LITERAL: Final = 100_000  # letters of a string in the script
_BATCH: Final = 2000  # rows or items that are converted at once
# The parts of a file's entry, in the order of the page's data.
_FILE_FIELDS: Final = (
    "kind", "sha256", "was", "path", "bytes", "thumb", "width", "height", "colour", "frames", "workflow", "look",
    "sprite", "accepted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrialTable:
    """The rows of a run as columns, because the objects of a hundred thousand rows take 230 MB.

    `axes`, `slots` and `metrics` have the cells of each column of the layout, `facts` those of `_FACTS`. `origins` has
    the [node, position] of each of a row's files, which identifies the same output in every trial.
    """

    layout: TableLayout
    axes: Mapping[str, list[Any]]
    slots: Mapping[str, list[Any]]
    metrics: Mapping[str, list[Any]]
    facts: Mapping[str, list[Any]]
    origins: list[tuple[tuple[str, int], ...]]

    def __len__(self) -> int:
        return len(self.origins)

    def iter_rows(self) -> Iterator[Result]:
        """The rows with their cells, digest, status and hashes, and nothing else."""
        facts = zip(*(self.facts[name] for name in ("trial", "digest", "status", "sha256")), strict=True)
        for index, (trial, digest, status, sha256) in enumerate(facts):
            columns, params = ({name: cells[index] for name, cells in part.items()} for part in (self.axes, self.slots))
            yield Result(trial, columns, params, digest, status, sha256=sha256)


def tabulate(batches: Iterable[Batch], layout: TableLayout) -> TrialTable:
    """Read rows with their files into columns, without holding the rows in memory."""
    names = {"columns": layout.axis_columns, "params": layout.slot_names, "metrics": layout.metrics}
    cells: dict[str, dict[str, list[Any]]] = {field: {name: [] for name in names[field]} for field in names}
    facts: dict[str, list[Any]] = {name: [] for name in _FACTS}
    origins: dict[Any, Any] = {}
    shared: dict[str, str] = {}
    table = TrialTable(layout, cells["columns"], cells["params"], cells["metrics"], facts, [])
    for batch in batches:
        for field in ("columns", "params"):
            for name, column in cells[field].items():
                column.extend(share_texts([row.get(name) for row in batch[field]], shared))
        for name, column in cells["metrics"].items():
            column.extend(batch["metrics"].get(name) or [None] * len(batch["trial"]))
        for name, column in facts.items():
            column.extend(batch[name])
        table.origins.extend(origins.setdefault(origin, origin) for origin in map(list_file_origins, batch["files"]))
    return table


def build_dataset(table: TrialTable) -> dict[str, Any]:
    """Build the data of these rows, without files, workflows and the run.

    `columns` are `{name, role, values, of}` with role `axis`, `label` or `slot`. `of[i]` is the index of the value of
    trial i in `values`, or -1 if it has none. If "no value" does not come last in the axis, `none` is the index of the
    value after it. `names` of an axis are the short labels of its values, null where the value is its own label.
    `together` has the pairs of axes that vary together. Metrics and `job_numbers` are plain lists of numbers or null; a
    metric of texts is a column of `outcome`. `search` is there only for a search: its objectives, with their columns,
    and the axes of its space. `places` encodes the origins of the rows' files like a column.
    """
    layout, facts = table.layout, table.facts
    origins: dict[Any, int] = {}
    places = [origins.setdefault(origin, len(origins)) for origin in table.origins]
    texts = [name for name, cells in table.metrics.items() if str in map(type, cells)]
    columns = [_build_axis_column(name, table, cells) for name, cells in table.axes.items()]
    slots = [build_column(name, "slot", cells) for name, cells in table.slots.items() if name not in table.axes]
    columns += [_add_names(slot, ()) for slot in slots]
    search = layout.search
    objectives = [] if search is None else [
        {"metric": goal.metric, "column": name, "maximize": goal.maximize}
        for goal, name in zip(search.objectives, search.objective_columns, strict=True)
    ]  # fmt: skip
    return {
        "format": FORMAT,
        "sides": sorted(SMALLER_SIDES),
        "experiment": layout.experiment,
        "trials": facts["trial"],
        "columns": columns,
        "slots": list(layout.slot_names),
        "together": [list(pair) for pair in layout.together],
        "metrics": [{"name": name, "of": cells} for name, cells in table.metrics.items() if name not in texts],
        "status": [STATUSES.index(status) for status in facts["status"]],
        "statuses": list(STATUSES),
        "outcome": [
            *(build_column(name, "outcome", facts[name]) for name in _TEXT_COLUMNS),
            *(build_column(name, "metric", table.metrics[name]) for name in texts),
        ],
        "job_numbers": {name: facts[name] for name in _NUMBER_COLUMNS},
        "digest": facts["digest"],
        "places": {"values": list(origins), "of": places},
        **({} if search is None else {"search": {"objectives": objectives, "space": list(search.space)}}),
    }


def list_file_origins(files: Iterable[ArtifactRef]) -> tuple[tuple[str, int], ...]:
    """The [node, position] of each of a row's files, which identifies the same output in every trial."""
    return tuple([(file.node, file.position) for file in files])


def build_row_outcome(row: Result, layout: TableLayout) -> dict[str, Any]:
    """Build the values of a row that a run can still change, to update a page that is already open."""
    return {
        "status": STATUSES.index(row.status),
        **{name: text and replace_surrogates(text) for name in _TEXT_COLUMNS for text in (getattr(row, name),)},
        **{name: getattr(row, name) for name in _NUMBER_COLUMNS},
        "metrics": [row.metrics.get(name) for name in layout.metrics],
    }


def select_axes(names: Sequence[str]) -> list[str]:
    """The axes among these columns, without the columns that only label an axis."""
    return [name for name in names if _find_role(name, names) == "axis"]


def _find_role(name: str, axes: Collection[str]) -> str:
    """Return "label" for `style.label` beside `style`, otherwise "axis"."""
    return "label" if name.endswith(".label") and name.removesuffix(".label") in axes else "axis"


def build_column(name: str, role: str, cells: Iterable[Any]) -> dict[str, Any]:
    """Build a column, with each distinct value once; see `encode_values`."""
    values, of = encode_values(cells)
    return {"name": name, "role": role, "values": values, "of": of}


def _build_axis_column(name: str, table: TrialTable, cells: Sequence[Any]) -> dict[str, Any]:
    values, of, none = encode_axis(name, cells, table.layout)
    column: dict[str, Any] = {"name": name, "role": _find_role(name, table.axes), "values": values, "of": of}
    if none is not None and none != len(values):
        column["none"] = none
    return _add_names(column, table.axes.get(f"{name}.label", ())) if column["role"] == "axis" else column


def _add_names(column: dict[str, Any], words: Sequence[Any]) -> dict[str, Any]:
    """Add short names of values whose texts are long; see `label_axis`."""
    texts, labels = label_axis(column["values"], column["of"], words)
    names = [label if label != text and label.strip() else None for text, label in zip(texts, labels, strict=True)]
    return column | ({"names": names} if any(names) else {})


def label_axis(values: Sequence[Any], of: Sequence[int], words: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Return the texts and the distinct short labels of the values of an encoded axis.

    `words` are the cells of its `.label` column, if there is one; a label of the user is the text of its value.
    """
    given = {code: str(word) for code, word in zip(of, words, strict=False) if code >= 0 and word is not None}
    shown = [value["$int"] if isinstance(value, dict) and "$int" in value else value for value in values]
    texts = [
        given.get(code, value if isinstance(value, str) else format_cell(value)) for code, value in enumerate(shown)
    ]
    return texts, label_values(shown, given)


def encode_axis(name: str, cells: Sequence[Any], layout: TableLayout) -> tuple[list[Any], list[int], int | None]:
    """Encode the cells of an axis in all rows of a run, with its values in the order in which the experiment writes
    them.

    Returns the values, the index of each row's value (-1: none), and the index of the value that "no value" comes
    before: `len(values)` if it comes last, None if every row has a value.
    """
    leading = layout.values_in_order(name, cells)
    values, of = encode_values(chain(leading, cells))
    none = max(of[: of.index(-1)], default=-1) + 1 if -1 in of else None
    return values, of[len(leading) :], none


def encode_values(cells: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in the order of their first appearance, and the index of each cell's value (None: -1).

    Values are equal if their JSON texts are: 7 and 7.0 are two values, and so are true and 1.
    """
    indices: dict[Any, int] = {}
    values: list[Any] = []
    of: list[int] = []
    for cell in cells:
        if cell is None:
            of.append(-1)
            continue
        # Two texts or integers are equal if their JSON is; that of anything else is a key apart from theirs.
        key = cell if type(cell) in (str, int) else (_to_key(cell),)
        if key not in indices:
            indices[key] = len(values)
            values.append(_to_exact(cell))
        of.append(indices[key])
    return values, of


def _to_key(cell: Any) -> str:
    return float.__repr__(cell) if type(cell) is float else json.dumps(cell, sort_keys=True)


def _to_exact(value: Any) -> Any:
    """Convert a JSON value so that JavaScript reads it without loss.

    A large integer becomes `{"$int": "18446744073709551615"}`, and a mapping with such a key `{"$map": ...}`.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_EXACT_INT:
        return {"$int": str(value)}
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list | tuple):
        return [_to_exact(item) for item in value]
    if isinstance(value, Mapping):
        inner = {replace_surrogates(str(key)): _to_exact(item) for key, item in value.items()}
        return {"$map": inner} if inner.keys() & {"$int", "$map"} else inner
    return value


def iter_json(data: Mapping[str, Any]) -> Iterator[str]:
    """The data as JSON text in parts, because the whole takes more memory than the data. Files are a list of entries.

    It is in ASCII, so that its encoding does not matter.
    """
    files = data["files"]
    rows = zip(*files.values(), strict=True)
    entries = ({name: cell for name, cell in zip(files, row, strict=True) if cell is not None} for row in rows)
    return _iter_mapping({**data, "files": _iter_list(entries)})


def iter_script(data: Mapping[str, Any]) -> Iterator[str]:
    """The data as a classic script in parts, because a page that is opened from a disk can load only scripts.

    The script parses a JSON string: browsers read that faster than an object literal, and `__proto__` stays an ordinary
    key. The string is made of many, because Chromium's time for one grows with the square of its length. Files are
    stored in columns to save memory: a browser keeps the text of a script, and files are most of it.
    """
    files = data["files"]
    columns = _iter_mapping({name: _compress_column(name, files) for name in files})
    count = len(next(iter(files.values()), ()))
    short: dict[str, Any] = {name: _shorten(data[name]) for name in ("trials", "status")}
    for name in ("columns", "outcome", "metrics"):
        short[name] = [{**column, "of": _shorten(column["of"])} for column in data[name]]
    short["places"] = {**data["places"], "of": _shorten(data["places"]["of"])}
    short["job_numbers"] = {name: _shorten(numbers) for name, numbers in data["job_numbers"].items()}
    short["digest"] = _join_hashes(data["digest"])
    shown = {**data, **short, "files": _iter_mapping({"count": count, "columns": columns})}
    yield "globalThis.sweeper ??= {};\nsweeper.raw = JSON.parse(["
    for text in _iter_chunks(_iter_mapping(shown)):
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        yield f"'{escaped}',\n"
    yield "].join(''));\n"


def _iter_chunks(parts: Iterable[str]) -> Iterator[str]:
    left = ""
    for part in parts:
        left += part
        if len(left) >= _LITERAL:
            yield from (left[start : start + _LITERAL] for start in range(0, len(left), _LITERAL))
            left = ""
    yield left


def _iter_mapping(items: Mapping[str, Any]) -> Iterator[str]:
    """The JSON text of a mapping in parts. A value may be an iterator of the parts of its text."""
    yield "{"
    for number, (name, value) in enumerate(items.items()):
        yield f"{',' if number else ''}{to_json(name)}:"
        yield from (
            value if isinstance(value, Iterator) else _iter_list(value) if type(value) is list else [to_json(value)]
        )
    yield "}"


def _iter_list(items: Iterable[Any]) -> Iterator[str]:
    iterator, before = iter(items), "["
    while part := list(islice(iterator, _BATCH)):
        yield before + to_json(part)[1:-1]
        before = ","
    yield "[]" if before == "[" else "]"


def to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def transpose_files(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Store the entries of files as columns; a cell is None if the file has no such value."""
    columns: list[list[Any]] = [[] for _ in _FILE_FIELDS]
    rows = (map(entry.get, _FILE_FIELDS) for entry in entries)
    while batch := list(islice(rows, _BATCH)):  # so that the entries need not be in memory at once
        for column, cells in zip(columns, zip(*batch, strict=True), strict=True):
            column.extend(cells)
    named = zip(_FILE_FIELDS, columns, strict=True)
    return {name: cells for name, cells in named if any(cell is not None for cell in cells)}


def _compress_column(name: str, files: Mapping[str, Sequence[Any]]) -> Any:
    """A column of files as the page reads it. `PageFiles` of `js/dataset.js` knows its forms.

    It is a list of values (null: the file has none), or shorter: as `_shorten` or `_join_hashes` returns them,
    `{made: "thumbs/*.webp"}` if each value is the same text around the file's SHA-256, `{below: "files/"}` if each is
    the name of the recorded path in that folder.
    """
    values, hashes = files[name], files.get("sha256", ("",))
    first, sha = values[0], hashes[0]
    if (short := _shorten(values)) is not values:
        return short
    if name == "sha256":
        return _join_hashes(values)
    if sha and isinstance(first, str) and sha in first and "*" not in first:
        pattern = first.replace(sha, "*")
        if all(value == pattern.replace("*", sha or "") for value, sha in zip(values, hashes, strict=True)):
            return {"made": pattern}
    if name == "path" and isinstance(first, str) and None not in files.get("was", (None,)):
        folder = first.rpartition("/")[0] + "/"
        if all(value == folder + was.rpartition("/")[2] for value, was in zip(values, files["was"], strict=True)):
            return {"below": folder}
    return values


def _shorten(values: Sequence[Any]) -> Any:
    """`{each, count}` for equal values, `{from, count}` for consecutive integers, or else the values."""
    if len({*map(type, values)}) != 1:
        return values
    first, count = values[0], len(values)
    if values.count(first) == count:
        return {"each": first, "count": count}
    is_range = type(first) is int and values[-1] == first + count - 1 and values == [*range(first, first + count)]
    return {"from": first, "count": count} if is_range else values


def _join_hashes(values: Sequence[str | None]) -> Any:
    """The JSON of `{joined: text}` with the 64 digits of each hash, one string to a browser; or else the values."""
    hashes = [value for value in values if value is not None and _HASH.fullmatch(value)]
    if len(hashes) < len(values):
        return values
    batches = ("".join(hashes[start : start + _BATCH]) for start in range(0, len(hashes), _BATCH))
    return _iter_mapping({"joined": chain('"', batches, '"')})
