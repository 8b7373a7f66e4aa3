"""Write a table to a file: csv, tsv, JSON lines, Parquet, Markdown. Only JSON lines have real lists in a cell.

A run writes `results.csv` at its end, unless the file shows the table already. That is so if nothing wrote to the store
or the file since: then it has the time of the store, to the nanosecond, which the run gave it.

- CSV lines end in CRLF, as RFC 4180 says (Excel, pandas, R, SQLite, DuckDB and Python's csv read both). TSV has no
  standard, and people feed it to `cut` and `awk`, so its lines end in LF.
- csv and tsv distinguish an empty text, which is quoted, from a missing value, as neither pandas nor Python's csv does.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sweeper.answers.cells import to_json_text
from sweeper.answers.render import escape_markdown
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.money import CURRENCY
from sweeper.model.result import OUTCOME_COLUMNS, RESERVED_COLUMNS
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.row_queries import Batch
from sweeper.wording import encode_text, replace_surrogates, suggest

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES: Final = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".md": "markdown", ".markdown": "markdown",
}  # fmt: skip
FORMATS: Final = tuple(dict.fromkeys(SUFFIXES.values()))

# Such a text is a formula to Excel, LibreOffice or Google Sheets (OWASP, "CSV Injection"): they leave out what is not
# visible before the sign, and some read the wide and small forms of East Asian texts as the sign.
_SIGN: Final = r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_INVISIBLE: Final = r"[\s\0-\x1f\x7f-\x9f\xad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
_FORMULA: Final = re.compile(rf"[\t\r\n\0]|{_INVISIBLE}*{_SIGN}")

Part = Sequence[Sequence[Any]]  # the columns of some rows of a table
_BATCHES: Final = 16  # of 256 rows: what becomes one part of an Arrow array
_SIGNED_LIMIT: Final = 2**63
_COLUMN_TYPES: Final[Mapping[str, type]] = {"trial": int, **OUTCOME_COLUMNS}  # of columns that are empty in every row

LIST_COLUMNS: Final = ("outputs", "sha256")
_NAME: Final = "results.csv"
CSV_DIALECTS: Final = {"csv": (",", "\r\n"), "tsv": ("\t", "\n")}  # their delimiters and line ends


def choose_format(path: str | os.PathLike[str], name: str | None = None) -> str:
    """The export format: `name` if given, else by the suffix of `path`.

    Raises UsageError for an unknown one, with the list of formats.
    """
    if name is not None:
        if name not in FORMATS:
            raise UsageError(f"unknown format '{name}'{suggest(name, FORMATS)}")
        return name
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        problem = f"unknown format '{suffix}'" if suffix else "the file name has no suffix, so the format is unknown"
        remedy = f"use one of {', '.join(SUFFIXES)}, or give the format: {', '.join(FORMATS)}"
        raise UsageError(f"{os.fspath(path)}: {problem}; {remedy}")
    return SUFFIXES[suffix]


def export_batches(
    batches: Iterable[Batch],
    layout: TableLayout,
    file: str | os.PathLike[str] | BinaryIO,
    format_name: str = "csv",
    *,
    safe: bool = False,
    trials: Collection[int] | None = None,
) -> int:
    """Write the table to a path, atomically, or to an open binary file; return the number of rows.

    With `safe`, a text cell in csv or tsv that a spreadsheet would execute as a formula gets a leading `'`. `trials`:
    those to write to a Parquet file, where other rows count for the type of a column. Only that format needs the whole
    table in memory. Raises UsageError for `safe` with a format that has no formulas.
    """
    if safe and format_name not in CSV_DIALECTS:
        raise UsageError(f"formulas can be escaped only in csv and tsv, not in {format_name}")
    if format_name == "parquet":
        return _export_parquet(build_arrays(batches, layout), file, trials)
    count, names = 0, column_names(layout)

    def iter_parts() -> Iterator[Part]:
        nonlocal count
        for batch in batches:
            count += len(batch["trial"])
            yield [_get_cells(batch, name, layout) for name in names]

    if format_name == "jsonl":
        texts = _iter_json_lines(names, iter_parts())
    elif format_name == "markdown":
        texts = _iter_markdown_lines(names, iter_parts())
    else:
        texts = format_delimited(names, iter_parts(), CSV_DIALECTS[format_name], safe=safe)
    _write(file, lambda handle: handle.writelines(map(encode_text, texts)))
    return count


def _write(file: str | os.PathLike[str] | BinaryIO, write: Callable[[BinaryIO], None]) -> None:
    if hasattr(file, "write"):
        write(file)  # type: ignore[arg-type]
    else:
        with atomic_write(Path(file)) as handle:
            write(handle)


# --- csv and tsv


def format_delimited(
    names: Sequence[str], parts: Iterable[Part], dialect: tuple[str, str], *, safe: bool = False
) -> Iterator[str]:
    """The header line, then the lines of each part as one text."""
    delimiter, end = dialect

    def has_marks(text: str) -> bool:
        return '"' in text or delimiter in text or "\n" in text or "\r" in text

    def format_field(value: Any) -> str:
        """A cell with quotes where RFC 4180 wants them, or where the text is empty."""
        if value is None:
            return ""
        text = _format_cell(value)
        if safe and isinstance(value, str) and _FORMULA.match(text):
            text = f"'{text}"
        return '"' + text.replace('"', '""') + '"' if not text or has_marks(text) else text

    def format_fields(cells: Sequence[Any]) -> Iterable[str]:
        """The cells of a column, in a fraction of the time if they have one type: no number needs quotes."""
        types = set(map(type, cells))
        if types <= {int, float, type(None)}:
            return ["" if cell is None else repr(cell) for cell in cells]
        if types == {str} and not safe and all(cells) and not has_marks("".join(cells)):
            return cells
        is_text = types <= {str, type(None)}
        return map({cell: format_field(cell) for cell in set(cells)}.__getitem__ if is_text else format_field, cells)

    yield delimiter.join(map(format_field, names)) + end
    for part in parts:
        yield end.join([*map(delimiter.join, zip(*map(format_fields, part), strict=True)), ""])


def _format_cell(value: Any) -> str:
    """A value as text; the shortest text that reads back as the same number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return _to_json_list(value)
    if isinstance(value, (list, dict)):
        return to_json_text(value)
    return repr(value) if isinstance(value, float) else str(value)


# --- the other formats


def _iter_json_lines(names: Sequence[str], parts: Iterable[Part]) -> Iterator[str]:
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    for part in parts:
        columns = [list(map(_replace_infinity, cells)) if float in map(type, cells) else cells for cells in part]
        yield from (encode(dict(zip(names, row, strict=True))) + "\n" for row in zip(*columns, strict=True))


def _replace_infinity(cell: Any) -> Any:
    """A cell as JSON holds it."""
    return repr(cell) if isinstance(cell, float) and math.isinf(cell) else cell


def _iter_markdown_lines(names: Sequence[str], parts: Iterable[Part]) -> Iterator[str]:
    yield "| " + " | ".join(map(format_markdown_cell, names)) + " |\n"
    yield "|" + " --- |" * len(names) + "\n"
    for cells in chain.from_iterable(zip(*part, strict=True) for part in parts):
        yield "| " + " | ".join(map(format_markdown_cell, cells)) + " |\n"


def format_markdown_cell(value: Any) -> str:
    """A cell of a GitHub table: one line, with everything escaped that Markdown would interpret."""
    return "" if value is None else "<br>".join(map(escape_markdown, _format_cell(value).splitlines()))


# --- the table of a run, without pandas


def column_names(layout: TableLayout) -> tuple[str, ...]:
    """Every column in order: trial, axes, the other slots, the outcome, the metrics."""
    axes = set(layout.axis_columns)
    slots = (name for name in layout.slot_names if name not in axes)
    return ("trial", *layout.axis_columns, *slots, *OUTCOME_COLUMNS, *layout.metrics)


def read_columns(
    batches: Iterable[Batch], layout: TableLayout, wanted: Collection[str] | None = None
) -> dict[str, list[Any]]:
    """The cells of each column, or of the `wanted` ones, as JSON lines have them; missing values as None.

    Columns and not rows, because most questions need few of the columns of many rows.
    """
    return {name: _make_column(name, cells) for name, cells in collect_cells(batches, layout, wanted).items()}


def collect_cells(
    batches: Iterable[Batch], layout: TableLayout, wanted: Collection[str] | None = None
) -> dict[str, list[Any]]:
    """The cells of each column, or of the `wanted` ones, in the order of `column_names`; None for a missing value.

    Cells of `outputs` and `sha256` are tuples of texts.
    """
    columns: dict[str, list[Any]] = {name: [] for name in column_names(layout) if wanted is None or name in wanted}
    shared: dict[str, str] = {}
    for batch in batches:
        for name, column in columns.items():
            column.extend(share_texts(_get_cells(batch, name, layout), shared))
    return columns


def share_texts(cells: Sequence[Any], shared: dict[str, str]) -> Iterable[Any]:
    """The cells with each text once in memory, because rows repeat their prompts. `shared`: all texts so far."""
    return map(shared.setdefault, cells, cells) if set(map(type, cells)) == {str} else cells


def _get_cells(batch: Batch, name: str, layout: TableLayout) -> Sequence[Any]:
    """One column of the table in a batch."""
    if name == "currency":
        return [None if cost is None else CURRENCY for cost in batch["cost"]]
    if name in RESERVED_COLUMNS:
        cells: Sequence[Any] = batch[name]
        return cells
    if name not in {*layout.axis_columns, *layout.slot_names}:
        return list(batch["metrics"].get(name) or [None] * len(batch["trial"]))
    rows = batch["columns" if name in layout.axis_columns else "params"]
    return [cells.get(name) for cells in rows]


def _make_column(name: str, cells: list[Any]) -> list[Any]:
    if name in LIST_COLUMNS:
        return list(map(list, cells))
    types = set(map(type, cells))
    if types & {list, dict}:
        cells = [to_json_text(cell) if isinstance(cell, (list, dict)) else cell for cell in cells]
    if types <= {str, list, dict, type(None)}:
        texts = {cell: replace_surrogates(cell) for cell in set(cells) if cell and not cell.isascii()}
        return [texts.get(cell, cell) for cell in cells] if texts else cells
    if float in types and not all(math.isfinite(cell) for cell in cells if type(cell) is float):
        return [_replace_infinity(cell) if cell == cell else None for cell in cells]  # noqa: PLR0124 - NaN
    return cells


def _to_json_list(texts: Sequence[str]) -> str:
    """`to_json_text` for a list of texts. Five times as fast, which matters because every row has two lists."""
    return f"[{', '.join(map(encode_basestring, texts))}]"


# --- Arrow and Parquet


def build_arrays(batches: Iterable[Batch], layout: TableLayout) -> dict[str, pa.ChunkedArray | list[Any]]:
    """Each column as an Arrow array whose type holds every value exactly, or as a list if there is no such type.

    Integers are int64, or uint64 if one needs it (seeds reach 2^64-1), never floats. A column of several types is a
    list, with each value unchanged, but lists and mappings as JSON text. Half a surrogate pair becomes U+FFFD in texts.
    """
    parts: dict[str, list[Any]] = {name: [] for name in column_names(layout)}
    iterator = iter(batches)
    while some := list(islice(iterator, _BATCHES)):  # cells need several times the memory of an array
        for name, found in parts.items():
            cells = list(chain.from_iterable(_get_cells(batch, name, layout) for batch in some))
            found.append(_build_array(list(map(_to_json_list, cells)) if name in LIST_COLUMNS else cells))
    return {name: _join(name, found) for name, found in parts.items()}


def _build_array(cells: Sequence[Any]) -> pa.Array | list[Any]:
    """The array of some cells. It is made of its buffers, because `pa.array` would import pandas, which takes 45 MB."""
    import numpy as np
    import pyarrow as pa

    types = set(map(type, cells))
    if types & {list, dict}:
        cells = [to_json_text(cell) if isinstance(cell, (list, dict)) else cell for cell in cells]
        types = set(map(type, cells))
    kinds = types - {type(None)}
    if not kinds:
        return pa.nulls(len(cells))
    if kinds not in ({bool}, {int}, {float}, {str}) or (kinds == {int} and not _fits_64_bits(cells)):
        return list(cells)
    (kind,) = kinds
    has_gaps = kinds != types
    filled = [kind() if cell is None else cell for cell in cells] if has_gaps else cells
    if kind is str:
        dtype, data = pa.large_string(), _encode_texts(filled)
    elif kind is bool:
        dtype, data = pa.bool_(), [np.packbits(np.array(filled), bitorder="little")]
    else:
        name = "float64" if kind is float else "int64" if max(filled) < _SIGNED_LIMIT else "uint64"
        dtype, data = getattr(pa, name)(), [np.array(filled, name)]
    present = pa.py_buffer(np.packbits([cell is not None for cell in cells], bitorder="little")) if has_gaps else None
    return pa.Array.from_buffers(dtype, len(cells), [present, *map(pa.py_buffer, data)])


def _encode_texts(texts: Sequence[str]) -> list[Any]:
    """Where each text ends, from the 0 before the first, and the bytes of all: the buffers of an Arrow array."""
    import numpy as np

    joined = "".join(texts)
    if joined.isascii():
        lengths, content = map(len, texts), joined.encode()
    else:
        encoded = list(map(encode_text, texts))
        lengths, content = map(len, encoded), b"".join(encoded)
    return [np.cumsum(np.fromiter(chain((0,), lengths), "int64", len(texts) + 1)), content]


def _fits_64_bits(cells: Sequence[int | None]) -> bool:
    known = [cell for cell in cells if cell is not None]
    low, high = min(known), max(known)
    return low >= -_SIGNED_LIMIT and high < (_SIGNED_LIMIT if low < 0 else 2 * _SIGNED_LIMIT)


def _join(name: str, parts: Sequence[pa.Array | list[Any]]) -> pa.ChunkedArray | list[Any]:
    """The parts of a column as one; they have different types if one part has, for example, no value at all."""
    import pyarrow as pa

    arrays = [part for part in parts if not isinstance(part, list)]
    kinds = {part.type for part in arrays} - {pa.null()}
    if not kinds and len(arrays) == len(parts):
        empty = {int: pa.int64(), float: pa.float64(), str: pa.large_string(), tuple: pa.large_string()}
        kinds = {empty.get(_COLUMN_TYPES.get(name, object), pa.null())}
    if kinds == {pa.int64(), pa.uint64()}:
        kinds = {pa.uint64()}
    if len(kinds) == 1 and len(arrays) == len(parts):
        (kind,) = kinds
        with suppress(pa.ArrowInvalid):  # of a number below 0 that should become uint64
            return pa.chunked_array([part if part.type == kind else part.cast(kind) for part in arrays], kind)
    return [cell for part in parts for cell in (part if isinstance(part, list) else part.to_pylist())]


def make_table(arrays: Mapping[str, pa.ChunkedArray]) -> pa.Table:
    """An Arrow table that pandas reads with exact types: an integer stays one where others are missing.

    For that it has the metadata of https://pandas.pydata.org/docs/development/developer.html.
    """
    import pyarrow as pa

    kinds = {"double": ("float64", "float64"), "large_string": ("unicode", "str"), "null": ("empty", "object")}
    nullable = {"int64": "Int64", "uint64": "UInt64", "bool": "boolean"}
    columns = []
    for name, array in arrays.items():
        kind, dtype = kinds.get(str(array.type), (str(array.type),) * 2)
        dtype = nullable.get(dtype, dtype) if array.null_count else dtype
        columns.append({"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None})
    facts = {"index_columns": [], "column_indexes": [], "columns": columns}
    table = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
    return table.replace_schema_metadata({"pandas": json.dumps(facts)})


def _export_parquet(
    columns: Mapping[str, pa.ChunkedArray | list[Any]],
    file: str | os.PathLike[str] | BinaryIO,
    trials: Collection[int] | None,
) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    arrays = {
        name: _join(name, [_build_array(list(map(_to_json_or_none, column)))]) if isinstance(column, list) else column
        for name, column in columns.items()
    }
    table = make_table(arrays)
    if trials is not None:
        selected = [index for index, trial in enumerate(table["trial"].to_pylist()) if trial in trials]
        table = table.take(pa.array(selected, pa.int64()))
    _write(file, lambda handle: pyarrow.parquet.write_table(table, handle))
    return int(table.num_rows)


def _to_json_or_none(value: Any) -> str | None:
    return None if value is None else replace_surrogates(to_json_text(value))


# --- the table of a results folder


class TableFile:
    """`results.csv` beside a store. Make one before anything is written to the store.

    `is_same`: whether the run that uses it recorded nothing that changes the table.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._path, self.is_same = store, store.path.with_name(_NAME), False
        self._version = store.data_version()  # first, to notice what another process writes from now on
        is_file = self._path.is_file() and not self._path.is_symlink()
        log = store.path.with_name(f"{store.path.name}-wal")  # may have later writes than the store
        has_log = log.exists() and log.stat().st_size > 0
        self._has_time = is_file and not has_log and _get_time(self._path) == _get_time(store.path)

    def update(self, *, has_changed: bool) -> None:
        """Write the table, unless the file shows it already. `has_changed`: whether metrics or judges changed it."""
        version = self._store.data_version()
        is_current = self.is_same and not has_changed and self._has_time and version == self._version
        if not is_current or not self._has_columns():
            export_batches(self._store.batches(), self._store.layout(), self._path)
        if self._store.checkpoint() and self._store.data_version() == version:
            with suppress(OSError):  # another user's file
                os.utime(self._path, ns=(_get_time(self._store.path),) * 2)

    def _has_columns(self) -> bool:
        """Whether the file has the columns that this version of sweeper writes."""
        (header,) = format_delimited(column_names(self._store.layout()), [], CSV_DIALECTS["csv"])
        expected = encode_text(header)
        with suppress(OSError), self._path.open("rb") as file:
            return file.read(len(expected)) == expected
        return False


def _get_time(path: Path) -> int:
    """When a file was written, in nanoseconds since 1970."""
    return path.stat().st_mtime_ns


def export_results(
    folder: Path, file: str | BinaryIO, format_name: str, *, run: str | None, trials: Collection[int] | None, safe: bool
) -> int:
    """Export the table of a run, or these trials of it, as `export_batches` does. Returns the number of rows."""
    with Store.open(folder, readonly=True) as store:
        batches = store.batches(run, trials=None if format_name == "parquet" else trials)
        return export_batches(batches, store.layout(run), file, format_name, safe=safe, trials=trials)
