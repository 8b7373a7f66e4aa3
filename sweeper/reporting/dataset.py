"""The page's data about the trials of a run, as one JSON value.

Pure functions: rows in, a mapping out. A column stores each distinct value once, and for each trial the index of its
value; ten thousand trials then take a few megabytes. `contents` adds the files and the run. The page decodes all of it
in `page/js/dataset.js`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sweeper.model.result import OUTCOME_COLUMNS, STATUSES, Result
from sweeper.model.search_columns import SearchColumns
from sweeper.reporting.thumbnails import SMALLER_SIDES
from sweeper.store.records import ArtifactRef, TableLayout
from sweeper.tables.export import replace_surrogates

FORMAT: Final = 1  # of the data; the page refuses any other
# The columns of the outcome that the page shows beside the status.
_TEXT_COLUMNS: Final = ("error_type", "error", "target", "cost_kind", "models")
_NUMBER_COLUMNS: Final = tuple(name for name, kind in OUTCOME_COLUMNS.items() if kind in (int, float))
_MAX_EXACT_INT: Final = 2**53  # JavaScript's numbers hold integers exactly up to here


def build_dataset(
    results: Sequence[Result], layout: TableLayout, file_origins: Iterable[Sequence[Sequence[Any]]] = ()
) -> dict[str, Any]:
    """Build the data of these rows, without files, workflows and the run.

    `columns` are `{name, role, values, of}` with role `axis`, `label` or `slot`. `of[i]` is the index of the value of
    trial i in `values`, or -1 if it has none. If "no value" does not come last in the axis, `none` is the index of the
    value after it. `together` has the pairs of axes that vary together. Metrics and `job_numbers` are plain lists of
    numbers or null; a metric of texts is a column of `outcome`. `search` is there only for a search: its objectives,
    with their columns, and the axes of its space. `places` encodes the `file_origins` of the rows, each as
    `list_file_origins` returns it, like a column.
    """
    origins, of = encode_values(file_origins)
    texts = [name for name in layout.metrics if any(isinstance(row.metrics.get(name), str) for row in results)]
    axes = tuple(layout.axis_columns)
    columns = [_build_axis_column(name, _find_role(name, axes), results, layout) for name in axes]
    columns += [
        build_column(name, "slot", [row.params.get(name) for row in results])
        for name in layout.slot_names
        if name not in axes
    ]
    return {
        "format": FORMAT,
        "sides": sorted(SMALLER_SIDES),
        "experiment": layout.experiment,
        "trials": [row.trial for row in results],
        "columns": columns,
        "slots": list(layout.slot_names),
        "together": [list(pair) for pair in layout.together],
        "metrics": [
            {"name": name, "of": [row.metrics.get(name) for row in results]}
            for name in layout.metrics
            if name not in texts
        ],
        "status": [STATUSES.index(row.status) for row in results],
        "statuses": list(STATUSES),
        "outcome": [
            *(build_column(name, "outcome", [getattr(row, name) for row in results]) for name in _TEXT_COLUMNS),
            *(build_column(name, "metric", [row.metrics.get(name) for row in results]) for name in texts),
        ],
        "job_numbers": {name: [getattr(row, name) for row in results] for name in _NUMBER_COLUMNS},
        "digest": [row.digest for row in results],
        "places": {"values": origins, "of": of},
        **({} if layout.search is None else {"search": _build_search(layout.search)}),
    }


def _build_search(search: SearchColumns) -> dict[str, Any]:
    objectives = zip(search.objectives, search.objective_columns, strict=True)
    return {
        "objectives": [{"metric": goal.metric, "column": name, "maximize": goal.maximize} for goal, name in objectives],
        "space": list(search.space),
    }


def list_file_origins(files: Iterable[ArtifactRef]) -> list[list[Any]]:
    """The [node, position] of each of a row's files, which identifies the same output in every trial."""
    return [[file.node, file.position] for file in files]


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


def _find_role(name: str, axes: Sequence[str]) -> str:
    """Return "label" for `style.label` beside `style`, otherwise "axis"."""
    return "label" if name.endswith(".label") and name.removesuffix(".label") in axes else "axis"


def build_column(name: str, role: str, cells: Iterable[Any]) -> dict[str, Any]:
    """Build a column, with each distinct value once; see `encode_values`."""
    values, of = encode_values(cells)
    return {"name": name, "role": role, "values": values, "of": of}


def _build_axis_column(name: str, role: str, rows: Sequence[Result], layout: TableLayout) -> dict[str, Any]:
    values, of, none = encode_axis(name, rows, layout)
    column = {"name": name, "role": role, "values": values, "of": of}
    return column if none is None or none == len(values) else {**column, "none": none}


def encode_axis(name: str, rows: Sequence[Result], layout: TableLayout) -> tuple[list[Any], list[int], int | None]:
    """Encode an axis for all rows of a run, with its values in the order in which the experiment writes them.

    Returns the values, the index of each row's value (-1: none), and the index of the value that "no value" comes
    before: `len(values)` if it comes last, None if every row has a value.
    """
    cells = [row.columns.get(name) for row in rows]
    leading = layout.values_in_order(name, cells)
    values, of = encode_values(leading + cells)
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
        key = cell if type(cell) in (str, int) else (json.dumps(cell, sort_keys=True),)
        if key not in indices:
            indices[key] = len(values)
            values.append(_to_exact(cell))
        of.append(indices[key])
    return values, of


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


def as_json(data: Mapping[str, Any]) -> str:
    """The data as JSON text, in ASCII so that its encoding does not matter."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def as_script(data: Mapping[str, Any]) -> str:
    """The data as a classic script, because a page that is opened from a disk can load only scripts.

    The script parses a JSON string: browsers read that faster than an object literal, and `__proto__` stays an ordinary
    key. Files are stored in columns to save memory: a browser keeps the text of a script, and files are most of it.
    """
    text = as_json({**data, "files": transpose_files(data["files"])})
    return f"globalThis.sweeper ??= {{}};\nsweeper.raw = JSON.parse({json.dumps(text)});\n"


def transpose_files(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Store files as `{count, columns}`.

    A column is a list of values (null: the file has none), `{each: value}` if all files have the same, or
    `{made: "thumbs/*.webp"}` if each value is the same text around the file's SHA-256.
    """
    names = dict.fromkeys(name for file in files for name in file)
    return {"count": len(files), "columns": {name: _compress_column(name, files) for name in names}}


def _compress_column(name: str, files: Sequence[Mapping[str, Any]]) -> Any:
    values = [file.get(name) for file in files]
    first, sha = values[0], files[0].get("sha256", "")
    if all(type(value) is type(first) and value == first for value in values):
        return {"each": first}
    if name != "sha256" and sha and isinstance(first, str) and sha in first and "*" not in first:
        pattern = first.replace(sha, "*")
        if values == [pattern.replace("*", file.get("sha256", "")) for file in files]:
            return {"made": pattern}
    return values
