"""Results as a table: the columns in their order, the typed DataFrame, and `results.csv` beside the store.

Two roads lead to one CSV. After a run, `write_csv` streams rows from the store in little memory and without pandas;
`formats.export` writes a DataFrame that `frame` made (and that a user may have filtered). Both format cells with the
same functions, so their bytes agree.

What does not live here: where rows are kept (`store`), how metrics are computed (`metrics`), file formats
(`formats`), tables on a terminal (`cli`). pandas is imported where it is used: a quarter of a second that most
commands never pay.

A list or mapping in a cell is JSON text in the DataFrame too (`outputs`, `sha256`, slots that hold arrays), so that
cells can be hashed, grouped and compared; only JSON lines hold `outputs` and `sha256` as real lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sweeper.did_you_mean import find_nearest, join_names
from sweeper.errors import ResultsError
from sweeper.model.result import OUTCOME_COLUMNS
from sweeper.tables.export import (
    CHUNK,
    CSV_DIALECTS,
    atomic_write,
    encode_line,
    format_delimited,
    replace_surrogates,
    to_json_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from sweeper.model.result import Result

_UNSIGNED_LIMIT: Final = 2**64
_SIGNED_LIMIT: Final = 2**63

# The types of columns of which no row may hold a value yet.
_TEXT_COLUMNS: Final = frozenset(OUTCOME_COLUMNS) - {"attempts", "queued_s", "ran_s"}
_NUMBER_COLUMNS: Final = {"trial": "int64", "attempts": "int64", "queued_s": "float64", "ran_s": "float64"}


class TableColumns(Protocol):
    """What a table must know beside its rows. `store` returns one for a run."""

    @property
    def axis_columns(self) -> Sequence[str]: ...
    @property
    def slot_names(self) -> Sequence[str]: ...
    @property
    def metrics(self) -> Sequence[str]: ...


# --- rows and columns


def column_names(layout: TableColumns) -> tuple[str, ...]:
    """Every column in the order of CONTRACT 11: trial, axes, the other slots, the outcome, the metrics."""
    axes = set(layout.axis_columns)
    slots = (name for name in layout.slot_names if name not in axes)
    return ("trial", *layout.axis_columns, *slots, *OUTCOME_COLUMNS, *layout.metrics)


def iter_rows(results: Iterable[Result], layout: TableColumns) -> Iterator[tuple[Any, ...]]:
    """One tuple per result, cell beside cell as `column_names` orders them; None where there is no value."""
    axes = tuple(layout.axis_columns)
    slots = tuple(name for name in layout.slot_names if name not in set(axes))
    metrics = tuple(layout.metrics)
    for result in results:
        yield (
            result.trial,
            *map(result.columns.get, axes),
            *map(result.params.get, slots),
            result.digest, result.status, _to_json_list(result.outputs), _to_json_list(result.sha256),
            result.target, result.prompt_id, result.attempts, result.queued_s, result.ran_s,
            result.error_type, result.error,
            *map(result.metrics.get, metrics),
        )  # fmt: skip


def _to_json_list(texts: Sequence[str]) -> str:
    """`json_text` of a list of texts, five times as fast: every row has two."""
    return f"[{', '.join(map(encode_basestring, texts))}]"


# --- the DataFrame


def build_frame(results: Iterable[Result], layout: TableColumns) -> pd.DataFrame:
    """Results as a DataFrame whose types hold every value exactly.

    Integers are int64, or uint64 where one needs it (seeds reach 2^64-1), and their nullable kin where a row has none;
    never floats. Floats and seconds are float64 (missing: NaN), booleans bool or nullable boolean, texts pandas' own
    text type. A column of mixed types stays `object`, each value as it was.
    """
    import pandas as pd

    names = column_names(layout)
    columns: list[Sequence[Any]] = list(zip(*iter_rows(results, layout), strict=True)) or [()] * len(names)
    return pd.DataFrame({name: _build_series(name, values) for name, values in zip(names, columns, strict=True)})


def _build_series(name: str, values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = set(map(type, values))
    missing = type(None) in kinds
    kinds.discard(type(None))
    dtype: str | None = "object"
    if not kinds:
        if name in _TEXT_COLUMNS:
            return _build_text_series(values)
        dtype = _NUMBER_COLUMNS.get(name, "object")
    elif kinds == {bool}:
        dtype = "boolean" if missing else "bool"
    elif kinds == {float}:
        dtype = "float64"
    elif kinds == {int}:
        dtype = _choose_integer_type(values, missing=missing)
    elif kinds == {str}:
        return _build_text_series(values)
    elif kinds & {list, dict, tuple}:
        values = [to_json_text(value) if isinstance(value, (list, dict, tuple)) else value for value in values]
        return _build_series(name, values)
    return pd.Series(list(values), dtype=dtype)


def _choose_integer_type(values: Sequence[Any], *, missing: bool) -> str:
    known = [value for value in values if value is not None] if missing else values
    low, high = min(known), max(known)
    if low >= -_SIGNED_LIMIT and high < _SIGNED_LIMIT:
        return "Int64" if missing else "int64"
    if low >= 0 and high < _UNSIGNED_LIMIT:
        return "UInt64" if missing else "uint64"
    return "object"


def _build_text_series(values: Sequence[Any]) -> pd.Series[Any]:
    """Texts in the type pandas has for them; half a surrogate pair (a server cut its message there) becomes U+FFFD."""
    import pandas as pd

    dtype = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "object"
    try:
        return pd.Series(list(values), dtype=dtype)
    except UnicodeEncodeError:
        return pd.Series([value and replace_surrogates(value) for value in values], dtype=dtype)


# --- the CSV beside the store


def write_csv(results: Iterable[Result], layout: TableColumns, path: Path) -> None:
    """Write `results` as CSV to `path`, streaming: what the runner leaves beside the store after every run."""
    with atomic_write(path) as handle:
        columns = _iter_chunks(iter_rows(results, layout))
        handle.writelines(map(encode_line, format_delimited(column_names(layout), columns, CSV_DIALECTS["csv"])))


def _iter_chunks(cells: Iterator[tuple[Any, ...]]) -> Iterator[list[Sequence[Any]]]:
    while chunk := list(islice(cells, CHUNK)):
        yield list(zip(*chunk, strict=True))


# --- the public door


def results(folder: str | os.PathLike[str], run: str | None = None) -> pd.DataFrame:
    """The table of a results folder (or of an experiment file, meaning its default folder), typed as it was written.

    `run` names an earlier run; the latest is the default. Raises ResultsError where there is nothing to read.
    """
    from sweeper.store import Store  # noqa: PLC0415 - sqlite is not needed to write a frame

    with Store.open(find_results_folder(folder), readonly=True) as store:
        return build_frame(store.results(run), store.layout(run))


def find_results_folder(source: str | os.PathLike[str]) -> Path:
    """The folder that `where` means: itself, or `results/<experiment name>/` here for an experiment file."""
    path = Path(source)
    if path.is_dir():
        if not _is_store(path) and (inside := _find_stores(path)):
            raise ResultsError(f"{path}: no results here, but in folders of it: {join_names(inside)}")
        return path
    if not path.exists():
        there = [*path.parent.glob("*.y*ml"), *_find_stores(Path("results")), *_find_stores(path.parent)]
        near = find_nearest(path.name, by_name := {one.name: one for one in there})
        meant = f"; did you mean {by_name[near]}?" if near is not None else ""
        raise ResultsError(f"{path}: no such results folder, and no experiment file of that name{meant}")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ResultsError(f"{path}: neither a results folder nor an experiment file (.yaml)")
    from sweeper.loading.load import load  # noqa: PLC0415

    folder = Path("results") / load(path).name
    if not folder.is_dir():
        raise ResultsError(f"{path}: there are no results in {folder} yet; sweeper run makes them")
    return folder


def _find_stores(folder: Path) -> list[Path]:
    """The results folders in a folder, by name; none where it cannot be read."""
    try:
        return sorted(one for one in folder.iterdir() if _is_store(one))
    except OSError:
        return []


def _is_store(folder: Path) -> bool:
    from sweeper.store import FILE_NAME  # noqa: PLC0415 - as above

    return (folder / FILE_NAME).is_file()
