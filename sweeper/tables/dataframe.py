"""Results as a pandas DataFrame, with a type for each column that holds every value exactly.

A list or mapping in a cell is JSON text, so that cells can be hashed, grouped and compared. Importing this module loads
pandas, which takes a quarter of a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd

from sweeper.model.result import OUTCOME_COLUMNS, Result
from sweeper.store import Store
from sweeper.tables.export import replace_surrogates, to_json_text
from sweeper.tables.result_rows import TableColumns, column_names, iter_rows
from sweeper.tables.results_folder import find_results_folder

_UNSIGNED_LIMIT: Final = 2**64
_SIGNED_LIMIT: Final = 2**63

# The types of the columns that may be empty in every row.
_TEXT_COLUMNS: Final = frozenset(OUTCOME_COLUMNS) - {"attempts", "queued_s", "ran_s"}
_NUMBER_COLUMNS: Final = {"trial": "int64", "attempts": "int64", "queued_s": "float64", "ran_s": "float64"}


def results(folder: str | os.PathLike[str], run: str | None = None) -> pd.DataFrame:
    """The table of a results folder as a typed DataFrame. An experiment file stands for its default results folder.

    `run` selects an earlier run than the latest. Raises ResultsError if there is nothing to read.
    """
    with Store.open(find_results_folder(folder), readonly=True) as store:
        return build_frame(store.results(run), store.layout(run))


def build_frame(results: Iterable[Result], layout: TableColumns) -> pd.DataFrame:
    """Results as a DataFrame whose types hold every value exactly.

    Integers are int64, or uint64 if one needs it (seeds reach 2^64-1), or their nullable forms if a row has no value.
    They are never floats. Floats and seconds are float64 (missing: NaN), booleans are bool or nullable boolean, and
    texts have pandas' own text type. A column of mixed types is `object`, with each value unchanged.
    """
    names = column_names(layout)
    columns: list[Sequence[Any]] = list(zip(*iter_rows(results, layout), strict=True)) or [()] * len(names)
    return pd.DataFrame({name: _build_series(name, values) for name, values in zip(names, columns, strict=True)})


def _build_series(name: str, values: Sequence[Any]) -> pd.Series[Any]:
    types = set(map(type, values))
    missing = type(None) in types
    types.discard(type(None))
    dtype: str | None = "object"
    if not types:
        if name in _TEXT_COLUMNS:
            return _build_text_series(values)
        dtype = _NUMBER_COLUMNS.get(name, "object")
    elif types == {bool}:
        dtype = "boolean" if missing else "bool"
    elif types == {float}:
        dtype = "float64"
    elif types == {int}:
        dtype = _choose_integer_type(values, missing=missing)
    elif types == {str}:
        return _build_text_series(values)
    elif types & {list, dict, tuple}:
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
    """Texts in pandas' text type. Half a surrogate pair, where a server cut a message, becomes U+FFFD."""
    dtype = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "object"
    try:
        return pd.Series(list(values), dtype=dtype)
    except UnicodeEncodeError:
        return pd.Series([value and replace_surrogates(value) for value in values], dtype=dtype)
