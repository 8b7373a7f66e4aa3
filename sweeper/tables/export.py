"""Write a table to a file: csv, tsv, JSON lines, Parquet, Markdown.

The functions take a DataFrame, or columns of Python values. Only JSON lines hold `outputs` and `sha256` as real lists.

- CSV lines end in CRLF, as RFC 4180 says (Excel, pandas, R, SQLite, DuckDB and Python's csv read both). TSV has no
  standard, and people feed it to `cut` and `awk`, so its lines end in LF.
- csv and tsv distinguish an empty text, which is quoted, from a missing value, as neither pandas nor Python's csv does.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sweeper.answers.cells import to_json_text
from sweeper.answers.render import escape_markdown
from sweeper.errors import UsageError
from sweeper.files import atomic_write
from sweeper.model.money import CURRENCY
from sweeper.model.result import OUTCOME_COLUMNS, RESERVED_COLUMNS
from sweeper.wording import suggest

if TYPE_CHECKING:
    import pandas as pd

    from sweeper.store.records import TableLayout
    from sweeper.store.row_queries import Batch

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
_PART: Final = 8192  # rows of a frame converted at a time: enough to be fast, few enough to need little memory

LIST_COLUMNS: Final = ("outputs", "sha256")
CSV_DIALECTS: Final = {"csv": (",", "\r\n"), "tsv": ("\t", "\n")}  # their delimiters and line ends


def encode_text(text: str) -> bytes:
    """Encode as UTF-8, with U+FFFD for half a surrogate pair, which UTF-8 cannot hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return replace_surrogates(text).encode("utf-8")


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
    UsageError for an unknown format, and for `safe` with another format.
    """
    name = choose_format("" if hasattr(file, "write") else file, format_name)
    if name == "parquet" and not safe:
        _write(file, _make_parquet_writer(table))
    else:
        export_parts([str(column) for column in table.columns], _iter_parts_of(table), file, name, safe=safe)


def export_parts(
    names: Sequence[str],
    parts: Iterable[Part],
    file: str | os.PathLike[str] | BinaryIO,
    format_name: str,
    *,
    safe: bool = False,
) -> None:
    """`export` of the parts of a table, in every format but parquet, without holding them in memory."""
    if safe and format_name not in CSV_DIALECTS:
        raise UsageError(f"formulas can be escaped only in csv and tsv, not in {format_name}")
    if format_name == "jsonl":
        texts = _iter_json_lines(names, parts)
    elif format_name == "markdown":
        texts = _iter_markdown_lines(names, parts)
    else:
        texts = format_delimited(names, parts, CSV_DIALECTS[format_name], safe=safe)
    _write(file, lambda handle: handle.writelines(map(encode_text, texts)))


def _write(file: str | os.PathLike[str] | BinaryIO, write: Callable[[BinaryIO], None]) -> None:
    if hasattr(file, "write"):
        write(file)  # type: ignore[arg-type]
    else:
        with atomic_write(Path(file)) as handle:
            write(handle)


def _iter_parts_of(table: pd.DataFrame) -> Iterator[Part]:
    """The cells of the frame as Python values. Every kind of missing value becomes None."""
    for start in range(0, len(table), _PART):
        part = table.iloc[start : start + _PART]
        yield [to_python_values(part.iloc[:, index]) for index in range(part.shape[1])]


def to_python_values(series: pd.Series[Any]) -> list[Any]:
    values: list[Any] = series.tolist()
    missing = series.isna()
    if not missing.any():
        return values
    return [None if absent else value for value, absent in zip(values, missing.tolist(), strict=True)]


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
    if isinstance(value, (list, dict, tuple)):
        return to_json_text(value)
    return repr(value) if isinstance(value, float) else str(value)


# --- the other formats


def _iter_json_lines(names: Sequence[str], parts: Iterable[Part]) -> Iterator[str]:
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    for part in parts:
        columns = [_to_json_values(*column) for column in zip(names, part, strict=True)]
        yield from (encode(dict(zip(names, row, strict=True))) + "\n" for row in zip(*columns, strict=True))


def _to_json_values(name: str, cells: Sequence[Any]) -> Sequence[Any]:
    if name in LIST_COLUMNS or float in map(type, cells):
        return [_to_json_value(name, cell) for cell in cells]
    return cells


def _to_json_value(name: str, cell: Any) -> Any:
    if name in LIST_COLUMNS and isinstance(cell, str):
        return json.loads(cell)
    if isinstance(cell, float) and cell in (float("inf"), float("-inf")):
        return repr(cell)  # JSON has no infinity
    return cell


def _iter_markdown_lines(names: Sequence[str], parts: Iterable[Part]) -> Iterator[str]:
    yield "| " + " | ".join(map(format_markdown_cell, names)) + " |\n"
    yield "|" + " --- |" * len(names) + "\n"
    for cells in chain.from_iterable(zip(*part, strict=True) for part in parts):
        yield "| " + " | ".join(map(format_markdown_cell, cells)) + " |\n"


def format_markdown_cell(value: Any) -> str:
    """A cell of a GitHub table: one line, with everything escaped that Markdown would interpret."""
    return "" if value is None else "<br>".join(map(escape_markdown, _format_cell(value).splitlines()))


def _make_parquet_writer(table: pd.DataFrame) -> Callable[[BinaryIO], None]:
    mixed = [name for name in table.columns if table[name].dtype == object and _is_mixed(table[name])]
    plain = table.copy(deep=False)
    for name in mixed:
        plain[name] = [_to_json_or_none(value) for value in to_python_values(table[name])]

    def write(handle: BinaryIO) -> None:
        plain.to_parquet(handle, engine="pyarrow", index=False)

    return write


def _is_mixed(series: pd.Series[Any]) -> bool:
    """Whether a column has no single Parquet type (1 beside "one", or integers over 64 bits) and becomes JSON text."""
    return {type(value) for value in to_python_values(series)} - {type(None)} not in (set(), {str})


def _to_json_or_none(value: Any) -> str | None:
    return None if value is None else replace_surrogates(to_json_text(value))


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
        return batch[name]
    if name not in {*layout.axis_columns, *layout.slot_names}:
        return list(batch["metrics"].get(name) or [None] * len(batch["trial"]))
    return [cells.get(name) for cells in batch["columns" if name in layout.axis_columns else "params"]]


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
        return [_to_json_value(name, cell) if cell == cell else None for cell in cells]  # noqa: PLR0124 - NaN
    return cells


def iter_parts(batches: Iterable[Batch], layout: TableLayout) -> Iterator[Part]:
    """The columns of `collect_cells` in parts, without holding them in memory; lists of texts as JSON text."""
    names = column_names(layout)
    return ([to_json_lists(name, _get_cells(batch, name, layout)) for name in names] for batch in batches)


def to_json_lists(name: str, cells: Sequence[Any]) -> Sequence[Any]:
    """The cells of a column, lists of texts as JSON text."""
    return list(map(_to_json_list, cells)) if name in LIST_COLUMNS else cells


def _to_json_list(texts: Sequence[str]) -> str:
    """`to_json_text` for a list of texts. Five times as fast, which matters because every row has two lists."""
    return f"[{', '.join(map(encode_basestring, texts))}]"


def write_csv(batches: Iterable[Batch], layout: TableLayout, path: Path) -> None:
    """Write the table to a CSV file without holding it in memory. A run does this at its end."""
    export_parts(column_names(layout), iter_parts(batches, layout), path, "csv")
