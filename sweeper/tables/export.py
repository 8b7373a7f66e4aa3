"""Write a table to a file: csv, tsv, JSON lines, Parquet, Markdown.

The functions take a DataFrame, or columns of Python values. Only JSON lines hold `outputs` and `sha256` as real lists.

- CSV lines end in CRLF, as RFC 4180 says (Excel, pandas, R, SQLite, DuckDB and Python's csv read both). TSV has no
  standard, and people feed it to `cut` and `awk`, so its lines end in LF.
- csv and tsv distinguish an empty text, which is quoted, from a missing value, as neither pandas nor Python's csv does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from json.encoder import encode_basestring
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sweeper.answers.cells import to_json_text
from sweeper.answers.render import escape_markdown
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.result import OUTCOME_COLUMNS, Result
from sweeper.wording import suggest

if TYPE_CHECKING:
    import pandas as pd

    from sweeper.store.records import TableLayout

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

_CHUNK: Final = 8192  # rows converted at a time: enough to be fast, few enough to need little memory

_LIST_COLUMNS: Final = frozenset({"outputs", "sha256"})


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How csv and tsv differ."""

    delimiter: str
    line_end: str


CSV_DIALECTS: Final = {"csv": CsvDialect(",", "\r\n"), "tsv": CsvDialect("\t", "\n")}


def encode_line(line: str) -> bytes:
    """Encode as UTF-8, with U+FFFD for half a surrogate pair, which UTF-8 cannot hold."""
    try:
        return line.encode("utf-8")
    except UnicodeEncodeError:
        return replace_surrogates(line).encode("utf-8")


def replace_surrogates(text: str) -> str:
    """Replace every half surrogate pair, where a server cut a message, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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


def export(
    table: pd.DataFrame,
    file: str | os.PathLike[str] | BinaryIO,
    format_name: str | None = None,
    *,
    safe: bool = False,
) -> None:
    """Write `table` to a path, atomically, or to an open binary file.

    With `safe`, a text cell in csv or tsv that a spreadsheet would execute as a formula gets a leading `'`. Raises
    UsageError for an unknown format, for `safe` with another format, and for parquet without pyarrow.
    """
    name = choose_format("" if hasattr(file, "write") else file, format_name)
    if safe and name not in ("csv", "tsv"):
        raise UsageError(f"formulas can be escaped only in csv and tsv, not in {name}")
    if name == "parquet":
        write: Callable[[BinaryIO], None] = _make_parquet_writer(table)
    elif name == "jsonl":
        write = _make_lines_writer(_iter_json_lines(table))
    elif name == "markdown":
        write = _make_lines_writer(_iter_markdown_lines(table))
    else:
        names = [str(column) for column in table.columns]
        write = _make_lines_writer(format_delimited(names, _iter_rows(table), CSV_DIALECTS[name], safe=safe))
    if hasattr(file, "write"):
        write(file)  # type: ignore[arg-type]
    else:
        with atomic_write(Path(file)) as handle:
            write(handle)


def _make_lines_writer(lines: Iterable[str]) -> Callable[[BinaryIO], None]:
    def write(handle: BinaryIO) -> None:
        handle.writelines(map(encode_line, lines))

    return write


def _iter_rows(table: pd.DataFrame) -> Iterator[Sequence[Any]]:
    """The rows of the frame as Python values. Every kind of missing value becomes None."""
    for start in range(0, len(table), _CHUNK):
        part = table.iloc[start : start + _CHUNK]
        yield from zip(*(_to_python_values(part.iloc[:, index]) for index in range(part.shape[1])), strict=True)


def _to_python_values(series: pd.Series[Any]) -> list[Any]:
    values: list[Any] = series.tolist()
    missing = series.isna()
    if not missing.any():
        return values
    return [None if absent else value for value, absent in zip(values, missing.tolist(), strict=True)]


# --- csv and tsv


def format_delimited(
    names: Sequence[str], rows: Iterable[Sequence[Any]], dialect: CsvDialect, *, safe: bool = False
) -> Iterator[str]:
    """The header line, then the line of each row."""
    delimiter, end = dialect.delimiter, dialect.line_end

    def format_field(value: Any) -> str:
        """A cell with quotes where RFC 4180 wants them, or where the text is empty."""
        if value is None:
            return ""
        text = _format_cell(value)
        if safe and isinstance(value, str) and _FORMULA.match(text):
            text = f"'{text}"
        if not text or '"' in text or delimiter in text or "\n" in text or "\r" in text:
            text = '"' + text.replace('"', '""') + '"'
        return text

    for cells in chain([names], rows):
        yield delimiter.join(map(format_field, cells)) + end


def _format_cell(value: Any) -> str:
    """A value as text; the shortest text that reads back as the same number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict, tuple)):
        return to_json_text(value)
    return repr(value) if isinstance(value, float) else str(value)


# --- the other formats


def _iter_json_lines(table: pd.DataFrame) -> Iterator[str]:
    names = [str(name) for name in table.columns]
    for cells in _iter_rows(table):
        row = {name: _to_json_value(name, cell) for name, cell in zip(names, cells, strict=True)}
        yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _to_json_value(name: str, cell: Any) -> Any:
    if name in _LIST_COLUMNS and isinstance(cell, str):
        return json.loads(cell)
    if isinstance(cell, float) and cell in (float("inf"), float("-inf")):
        return repr(cell)  # JSON has no infinity
    return cell


def _iter_markdown_lines(table: pd.DataFrame) -> Iterator[str]:
    names = [format_markdown_cell(str(name)) for name in table.columns]
    yield "| " + " | ".join(names) + " |\n"
    yield "|" + " --- |" * len(names) + "\n"
    for cells in _iter_rows(table):
        yield "| " + " | ".join(map(format_markdown_cell, cells)) + " |\n"


def format_markdown_cell(value: Any) -> str:
    """A cell of a GitHub table: one line, with everything escaped that Markdown would interpret."""
    return "" if value is None else "<br>".join(map(escape_markdown, _format_cell(value).splitlines()))


def _make_parquet_writer(table: pd.DataFrame) -> Callable[[BinaryIO], None]:
    mixed = [name for name in table.columns if table[name].dtype == object and _is_mixed(table[name])]
    plain = table.copy(deep=False)
    for name in mixed:
        plain[name] = [_to_json_or_none(value) for value in _to_python_values(table[name])]

    def write(handle: BinaryIO) -> None:
        plain.to_parquet(handle, engine="pyarrow", index=False)

    return write


def _is_mixed(series: pd.Series[Any]) -> bool:
    """Whether a column has no single Parquet type (1 beside "one", or integers over 64 bits) and becomes JSON text."""
    return {type(value) for value in _to_python_values(series)} - {type(None)} not in (set(), {str})


def _to_json_or_none(value: Any) -> str | None:
    return None if value is None else to_json_text(value)


# --- the table of a run, without pandas

_get_outcome: Final = attrgetter(*OUTCOME_COLUMNS)


def column_names(layout: TableLayout) -> tuple[str, ...]:
    """Every column in order: trial, axes, the other slots, the outcome, the metrics."""
    axes = set(layout.axis_columns)
    slots = (name for name in layout.slot_names if name not in axes)
    return ("trial", *layout.axis_columns, *slots, *OUTCOME_COLUMNS, *layout.metrics)


def read_columns(results: Iterable[Result], layout: TableLayout) -> dict[str, list[Any]]:
    """The cells of each column as JSON lines have them: lists as lists, missing values as None.

    Columns and not rows, because most questions need few of the columns of many rows.
    """
    names = column_names(layout)
    columns: list[Sequence[Any]] = list(zip(*iter_rows(results, layout), strict=True)) or [()] * len(names)
    return {name: _make_column(name, cells) for name, cells in zip(names, columns, strict=True)}


def _make_column(name: str, cells: Sequence[Any]) -> list[Any]:
    types = set(map(type, cells))
    if name in _LIST_COLUMNS:
        return list(map(json.loads, cells))
    if types & {list, dict}:
        cells = [to_json_text(cell) if isinstance(cell, (list, dict)) else cell for cell in cells]
    if types <= {str, list, dict, type(None)}:
        cells = [cell if cell is None or cell.isascii() else replace_surrogates(cell) for cell in cells]
    if float in types:
        cells = [_to_json_value(name, cell) if cell == cell else None for cell in cells]  # noqa: PLR0124 - NaN
    return list(cells)


def iter_rows(results: Iterable[Result], layout: TableLayout) -> Iterator[tuple[Any, ...]]:
    """One tuple of cells per result, in the order of `column_names`; None for a missing value.

    Lists of texts (`outputs`, `sha256`) become JSON text.
    """
    axes = tuple(layout.axis_columns)
    slots = tuple(name for name in layout.slot_names if name not in set(axes))
    metrics = tuple(layout.metrics)
    for result in results:
        yield (
            result.trial,
            *map(result.columns.get, axes),
            *map(result.params.get, slots),
            *(_to_json_list(cell) if type(cell) is tuple else cell for cell in _get_outcome(result)),
            *map(result.metrics.get, metrics),
        )


def _to_json_list(texts: Sequence[str]) -> str:
    """`to_json_text` for a list of texts. Five times as fast, which matters because every row has two lists."""
    return f"[{', '.join(map(encode_basestring, texts))}]"


def write_csv(results: Iterable[Result], layout: TableLayout, path: Path) -> None:
    """Write `results` to a CSV file without holding them in memory. A run does this at its end."""
    with atomic_write(path) as handle:
        lines = format_delimited(column_names(layout), iter_rows(results, layout), CSV_DIALECTS["csv"])
        handle.writelines(map(encode_line, lines))
