"""The files a table is exported to: csv, tsv, JSON lines, Parquet, Markdown.

Everything here takes a DataFrame or plain columns of Python values; what stands in them is `table`'s business.

Decisions a reader may miss:

- CSV lines end in CRLF as RFC 4180 has them (Excel, pandas, R, SQLite, DuckDB and Python's csv read both); TSV, which
  no standard binds and which people feed to `cut` and `awk`, ends its lines in LF.
- csv and tsv are formatted column by column, because a column holds one type; that makes them faster than row-wise
  writers, pandas' own included, and lets the empty text be told from a missing value, which pandas cannot.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sweeper.did_you_mean import suggest
from sweeper.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES: Final = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".md": "markdown", ".markdown": "markdown",
}  # fmt: skip
FORMATS: Final = tuple(dict.fromkeys(SUFFIXES.values()))

# Leading characters that make Excel, LibreOffice and Google Sheets take a text for a formula (OWASP, "CSV Injection").
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")

CHUNK: Final = 8192  # rows formatted at once: enough to amortise, little to hold

_JSON: Final = json.JSONEncoder(ensure_ascii=False)  # made once: json.dumps makes one for each call with options
_LIST_COLUMNS: Final = frozenset({"outputs", "sha256"})


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How csv and tsv differ: what stands between fields, and what ends a line."""

    delimiter: str
    line_end: str


CSV_DIALECTS: Final = {"csv": CsvDialect(",", "\r\n"), "tsv": CsvDialect("\t", "\n")}


def encode_line(line: str) -> bytes:
    """UTF-8. Half a surrogate pair has no such form: it becomes U+FFFD."""
    try:
        return line.encode("utf-8")
    except UnicodeEncodeError:
        return replace_surrogates(line).encode("utf-8")


def replace_surrogates(text: str) -> str:
    """`text` with every half surrogate pair (a server cut its message there) replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def format_number(value: float) -> str:
    """A float for people: every digit it takes to tell it from its neighbours and no more; 7.0 as 7."""
    return repr(value).removesuffix(".0")


def format_rounded(value: float) -> str:
    """A float that was measured, to six digits, or as many as its whole part has: what follows is chance."""
    return format_number(float(f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"))


def to_json_text(value: Any) -> str:
    """A list or mapping as the text that stands in a cell."""
    return _JSON.encode(value)


def choose_format(path: str | os.PathLike[str], name: str | None = None) -> str:
    """The export format: as `given`, else by the suffix of `path`. An unknown one is a UsageError with the list."""
    if name is not None:
        if name not in FORMATS:
            raise UsageError(f"unknown format '{name}'{suggest(name, FORMATS)}")
        return name
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"the suffix '{suffix}' names no format" if suffix else "without a suffix the format is unknown"
        remedy = f"use one of {', '.join(SUFFIXES)}, or give the format: {', '.join(FORMATS)}"
        raise UsageError(f"{os.fspath(path)}: {found}; {remedy}")
    return SUFFIXES[suffix]


def export(
    table: pd.DataFrame,
    file: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,  # noqa: A002 - the word users know from pandas and from the command line
    *,
    safe: bool = False,
) -> None:
    """Write `table` to a path (through a temporary file, so never half) or to an open binary file.

    `safe` defuses formulas in csv and tsv: a text cell that a spreadsheet would run gets a leading `'`.
    Raises UsageError for an unknown format, for `safe` where it means nothing, and for parquet without pyarrow.
    """
    name = choose_format("" if hasattr(file, "write") else file, format)
    if safe and name not in ("csv", "tsv"):
        raise UsageError(f"formulas can be defused in csv and tsv only, not in {name}")
    if name == "parquet":
        write: Callable[[BinaryIO], None] = _make_parquet_writer(table)
    elif name == "jsonl":
        write = _make_lines_writer(_iter_json_lines(table))
    elif name == "markdown":
        write = _make_lines_writer(_iter_markdown_lines(table))
    else:
        chunks = _iter_columns(table)
        write = _make_lines_writer(
            format_delimited(tuple(map(str, table.columns)), chunks, CSV_DIALECTS[name], safe=safe)
        )
    if hasattr(file, "write"):
        write(file)  # type: ignore[arg-type]
    else:
        with atomic_write(Path(file)) as handle:
            write(handle)


def describe_write_error(path: Path, error: OSError) -> str:
    """Why nothing can be written at `path`: what is in its way, else what the system says of it."""
    for folder in reversed(path.parents):
        if folder.exists() and not folder.is_dir():
            return f"{folder} is a file, and a folder is needed there"
    return error.strerror or str(error)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path` when the block ends well, and vanishes when it does not. The folder
    is made where there is none.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    except OSError as error:
        raise type(error)(
            error.errno, describe_write_error(path, error), str(path)
        ) from None  # nobody knows `temporary`
    try:
        with file as handle:
            yield handle
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_lines_writer(lines: Iterable[str]) -> Callable[[BinaryIO], None]:
    def write(handle: BinaryIO) -> None:
        handle.writelines(map(encode_line, lines))

    return write


def _iter_columns(table: pd.DataFrame) -> Iterator[list[Sequence[Any]]]:
    """The frame's cells as Python values, None for every kind of missing, a chunk of rows at a time."""
    for start in range(0, len(table), CHUNK):
        part = table.iloc[start : start + CHUNK]
        yield [_to_python_values(part.iloc[:, place]) for place in range(part.shape[1])]


def _to_python_values(series: pd.Series[Any]) -> list[Any]:
    values: list[Any] = series.tolist()
    missing = series.isna()
    if not missing.any():
        return values
    return [None if absent else value for value, absent in zip(values, missing.tolist(), strict=True)]


# --- csv and tsv: RFC 4180's quoting, with the empty text quoted so that it is not a missing value


def format_delimited(
    names: Sequence[str], chunks: Iterable[list[Sequence[Any]]], dialect: CsvDialect, *, safe: bool = False
) -> Iterator[str]:
    between, end = dialect.delimiter, dialect.line_end
    yield between.join(_quote_fields(list(names), between, safe=safe)) + end
    for columns in chunks:
        fields = [_format_fields(values, between, safe=safe) for values in columns]
        yield end.join(map(between.join, zip(*fields, strict=True))) + end


def _format_fields(values: Sequence[Any], delimiter: str, *, safe: bool) -> Sequence[str]:
    """The cells of one column as fields. Columns mostly hold one type, and each type has its fast way."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {float}:
        return list(map(repr, values))  # Python's repr is the shortest text that reads back as the same float
    if kinds == {type(None)}:
        return [""] * len(values)
    if kinds == {str}:
        return _quote_fields(values, delimiter, safe=safe)
    texts = [index for index, value in enumerate(values) if value is not None and not _is_scalar(value)]
    fields = [_format_scalar(value) for value in values]
    cells = [values[index] if isinstance(values[index], str) else _format_cell(values[index]) for index in texts]
    for index, field in zip(texts, _quote_fields(cells, delimiter, safe=safe), strict=True):
        fields[index] = field
    return fields


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if _is_scalar(value) else ""


def _format_cell(value: Any) -> str:
    return to_json_text(value) if isinstance(value, (list, dict, tuple)) else str(value)


def _quote_fields(texts: Sequence[str], delimiter: str, *, safe: bool) -> Sequence[str]:
    if safe:
        texts = ["'" + text if text.startswith(FORMULA_STARTS) else text for text in texts]
    # One look at all texts together spares a look at each: most columns need no quotes at all.
    together = "".join(texts)
    if not _needs_quotes(together, delimiter) and "" not in texts:
        return texts
    return [
        '"' + text.replace('"', '""') + '"' if not text or _needs_quotes(text, delimiter) else text for text in texts
    ]


def _needs_quotes(text: str, delimiter: str) -> bool:
    return '"' in text or delimiter in text or "\n" in text or "\r" in text


# --- the other formats


def _iter_json_lines(table: pd.DataFrame) -> Iterator[str]:
    names = [str(name) for name in table.columns]
    for columns in _iter_columns(table):
        for cells in zip(*columns, strict=True):
            row = {name: _to_json_value(name, cell) for name, cell in zip(names, cells, strict=True)}
            yield json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _to_json_value(name: str, cell: Any) -> Any:
    if name in _LIST_COLUMNS and isinstance(cell, str):
        return json.loads(cell)
    if isinstance(cell, float) and cell in (float("inf"), float("-inf")):
        return repr(cell)  # JSON has no infinity
    return cell


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON-ready mappings, as the JSON lines have them: lists as lists, missing as None."""
    return [json.loads(line) for line in _iter_json_lines(table)]


def _iter_markdown_lines(table: pd.DataFrame) -> Iterator[str]:
    names = [_format_markdown_cell(str(name)) for name in table.columns]
    yield "| " + " | ".join(names) + " |\n"
    yield "|" + " --- |" * len(names) + "\n"
    for columns in _iter_columns(table):
        for cells in zip(*columns, strict=True):
            yield "| " + " | ".join(map(_format_markdown_cell, cells)) + " |\n"


def _format_markdown_cell(value: Any) -> str:
    """A cell of a GitHub table: one line, no bar, and no mark-up that a prompt happens to spell."""
    if value is None:
        return ""
    text = _format_scalar(value) if _is_scalar(value) else _format_cell(value)
    for mark in "\\`*_{}[]<>|~":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "<br>")


def _make_parquet_writer(table: pd.DataFrame) -> Callable[[BinaryIO], None]:
    try:
        importlib.import_module("pyarrow")
    except ImportError:
        raise UsageError("parquet needs pyarrow; install it with: pip install 'sweeper[parquet]'") from None
    mixed = [name for name in table.columns if table[name].dtype == object and _is_mixed(table[name])]
    plain = table.copy(deep=False)
    for name in mixed:
        plain[name] = [_to_json_or_none(value) for value in _to_python_values(table[name])]

    def write(handle: BinaryIO) -> None:
        plain.to_parquet(handle, engine="pyarrow", index=False)

    return write


def _is_mixed(series: pd.Series[Any]) -> bool:
    """A Parquet column has one type: what has none (1 beside "one", or integers out of 64 bits) goes as JSON text."""
    return {type(value) for value in _to_python_values(series)} - {type(None)} not in (set(), {str})


def _to_json_or_none(value: Any) -> str | None:
    return None if value is None else to_json_text(value)
