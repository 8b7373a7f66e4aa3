"""What the page knows of a run, as one JSON value: columns by value and place, outcomes, files.

Pure: rows in, a mapping out. A column is stored once per distinct value with one small number per trial, which keeps
ten thousand trials at a few megabytes. Which files exist, and their thumbnails, is told by the caller (`folder`).
How the page shows any of it is the page's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sweeper.model.result import STATUSES, Result
from sweeper.reporting.thumbnails import SMALLER_SIDES
from sweeper.store.records import ArtifactRef, TableLayout
from sweeper.tables.export import replace_surrogates

FORMAT: Final = 3  # of the data; the page refuses one that it does not know
_MAX_EXACT_INT: Final = 2**53  # JavaScript's numbers hold integers exactly up to here


def build_dataset(results: Sequence[Result], layout: TableLayout) -> dict[str, Any]:
    """The page's data for these rows, without `files`, `workflow` and what is known of the run.

    `columns` are `{name, role, values, of}` with role `axis`, `label` or `slot`; `of[i]` is the place of trial i's
    value in `values`, or -1 where it has none (`none`: the place of the value before which that stands, where it is not
    after all of them). Metrics and seconds are plain lists of numbers or null; a metric that
    gives texts is a column of `outcome` instead, as it has no scale.
    """
    texts = [name for name in layout.metrics if any(isinstance(row.metrics.get(name), str) for row in results)]
    axes = tuple(layout.axis_columns)
    columns = [_build_axis_column(name, _find_role(name, axes), results, layout) for name in axes]
    columns += [
        _build_column(name, "slot", [row.params.get(name) for row in results])
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
        "metrics": [
            {"name": name, "of": [row.metrics.get(name) for row in results]}
            for name in layout.metrics
            if name not in texts
        ],
        "status": [STATUSES.index(row.status) for row in results],
        "statuses": list(STATUSES),
        "outcome": [
            _build_column("error_type", "outcome", [row.error_type for row in results]),
            _build_column("error", "outcome", [row.error for row in results]),
            _build_column("target", "outcome", [row.target for row in results]),
            *(_build_column(name, "metric", [row.metrics.get(name) for row in results]) for name in texts),
        ],
        "attempts": [row.attempts for row in results],
        "queued_s": [row.queued_s for row in results],
        "ran_s": [row.ran_s for row in results],
        "digest": [row.digest for row in results],
    }


def encode_file_origins(rows: Iterable[Sequence[Sequence[Any]]]) -> dict[str, Any]:
    """Where the files of each row come from, given for each row as by `places_of`: `values` and `of` as of a column."""
    values, of = encode_values(rows)
    return {"values": values, "of": of}


def list_file_origins(files: Iterable[ArtifactRef]) -> list[list[Any]]:
    """The [node, position] of each of a row's files: the same output in every trial, however many came before it."""
    return [[file.node, file.position] for file in files]


def build_row_outcome(row: Result, layout: TableLayout) -> dict[str, Any]:
    """What a run may change of one row, for a page that has the rest already."""
    return {
        "status": STATUSES.index(row.status),
        "error_type": None if row.error_type is None else replace_surrogates(row.error_type),
        "error": None if row.error is None else replace_surrogates(row.error),
        "target": row.target,
        "attempts": row.attempts,
        "queued_s": row.queued_s,
        "ran_s": row.ran_s,
        "metrics": [row.metrics.get(name) for name in layout.metrics],
    }


def select_axes(names: Sequence[str]) -> list[str]:
    """Those of the table's columns of axes that are axes themselves, and no labels of one."""
    return [name for name in names if _find_role(name, names) == "axis"]


def _find_role(name: str, axes: Sequence[str]) -> str:
    """`style.label` is how `style` is shown, and no axis beside it."""
    return "label" if name.endswith(".label") and name.removesuffix(".label") in axes else "axis"


def _build_column(name: str, role: str, cells: Sequence[Any]) -> dict[str, Any]:
    values, of = encode_values(cells)
    return {"name": name, "role": role, "values": values, "of": of}


def _build_axis_column(name: str, role: str, rows: Sequence[Result], layout: TableLayout) -> dict[str, Any]:
    values, of, none = encode_axis(name, rows, layout)
    column = {"name": name, "role": role, "values": values, "of": of}
    return column if none is None or none == len(values) else {**column, "none": none}


def encode_axis(name: str, rows: Sequence[Result], layout: TableLayout) -> tuple[list[Any], list[int], int | None]:
    """As `coded`, for a column of an axis: its values as they were written, and before which of them None stands (after
    all: their number), where a row has none. `rows` are all of the run.
    """
    cells = [row.columns.get(name) for row in rows]
    leading = layout.values_in_order(name, cells)
    values, of = encode_values(leading + cells)
    none = max(of[: of.index(-1)], default=-1) + 1 if -1 in of else None
    return values, of[len(leading) :], none


def encode_values(cells: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Distinct values in the order of their first appearance, and each cell's place among them (-1: None).

    7 and 7.0 are two values, as true and 1 are: equality is that of the JSON text.
    """
    places: dict[str, int] = {}
    values: list[Any] = []
    of: list[int] = []
    for cell in cells:
        if cell is None:
            of.append(-1)
            continue
        key = json.dumps(cell, sort_keys=True)
        if key not in places:
            places[key] = len(values)
            values.append(_to_exact(cell))
        of.append(places[key])
    return values, of


def _to_exact(value: Any) -> Any:
    """A JSON value that JavaScript reads without loss: a large integer becomes `{"$int": "18446744073709551615"}`.

    A mapping that itself has such a key is told apart by `{"$map": ...}` around it.
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
    """The data as JSON text, ASCII so that nothing depends on how a server or a browser reads the file."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def as_script(data: Mapping[str, Any]) -> str:
    """The data as a classic script: a page opened from a disk may load scripts, and nothing else.

    `JSON.parse` of a string and not an object literal: faster to read, and `__proto__` stays an ordinary key. `files`
    stands in columns: a browser holds the text of a script as long as the page is open, and files are most of it.
    """
    text = as_json({**data, "files": transpose_files(data["files"])})
    return f"globalThis.sweeper ??= {{}};\nsweeper.raw = JSON.parse({json.dumps(text)});\n"


def transpose_files(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Files as `{count, columns}`: by name a list of values, null where a file has none, `{each: value}` where all have
    the same, or `{made: "thumbs/*.webp"}` where all are the file's SHA-256 in the same text.
    """
    names = dict.fromkeys(name for file in files for name in file)
    return {"count": len(files), "columns": {name: _compress_column(name, files) for name in names}}


def _compress_column(name: str, files: Sequence[Mapping[str, Any]]) -> Any:
    values = [file.get(name) for file in files]
    first, sha = values[0], files[0].get("sha256", "")
    if all(type(value) is type(first) and value == first for value in values):
        return {"each": first}
    if name != "sha256" and sha and isinstance(first, str) and sha in first and "*" not in first:
        made = first.replace(sha, "*")
        if values == [made.replace("*", file.get("sha256", "")) for file in files]:
            return {"made": made}
    return values
