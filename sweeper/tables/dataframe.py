"""Results as a pandas DataFrame, with a type for each column that holds every value exactly.

A list or mapping in a cell is JSON text, so that cells can be hashed, grouped and compared; only `outputs` and `sha256`
of `results` are lists. Importing this module loads pandas, which takes a quarter of a second.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import pandas as pd

from sweeper.answers.cells import to_json_text
from sweeper.images.html_thumbnail import make_thumbnail
from sweeper.model.result import OUTCOME_COLUMNS
from sweeper.store import Store
from sweeper.store.records import TableLayout
from sweeper.store.row_queries import Batch
from sweeper.tables.export import (
    LIST_COLUMNS,
    collect_cells,
    column_names,
    replace_surrogates,
    to_json_lists,
    to_python_values,
)
from sweeper.tables.results_folder import find_picture, find_results_folder

_UNSIGNED_LIMIT: Final = 2**64
_SIGNED_LIMIT: Final = 2**63
_PICTURE: Final = "picture"
_BATCHES: Final = 16  # of 256 rows

# For columns that are empty in every row.
_COLUMN_TYPES: Final[Mapping[str, type]] = {"trial": int, **OUTCOME_COLUMNS}
_NUMBER_TYPES: Final[Mapping[type, str]] = {int: "int64", float: "float64"}


class ResultsFrame(pd.DataFrame):
    """A DataFrame that shows a thumbnail in each row in a notebook. Its selections do so too.

    `results_folder` and `results_run`: where its rows come from, for `sweeper.show`.
    """

    _metadata: ClassVar = ["results_folder", "results_run"]  # pandas copies these to selections
    results_folder: Path | None = None
    results_run: str | None = None

    @property
    def _constructor(self) -> type[ResultsFrame]:
        return ResultsFrame

    def _repr_html_(self) -> str | None:
        """The table as a notebook shows it, with thumbnails in the place of local paths in the column `picture`."""
        if list(self.columns).count(_PICTURE) != 1:
            return _to_html(pd.DataFrame(self))
        marked = pd.DataFrame(self)
        paths = marked[_PICTURE].tolist()
        # pandas escapes all texts, because a stranger may have written them. So it gets marks, which become thumbnails.
        marked[_PICTURE] = [f"\ue000{index}\ue000" for index in range(len(paths))]
        text = _to_html(marked)
        return text and re.sub("\ue000([0-9]+)\ue000", lambda mark: make_thumbnail(paths[int(mark[1])]), text)


def results(folder: str | os.PathLike[str], run: str | None = None) -> pd.DataFrame:
    """The table of a results folder as a typed DataFrame. An experiment file stands for its default results folder.

    Each trial of the latest run has the best result of all runs; `run` selects the results of one run. The columns are
    those of `results.csv`, with a list of texts in each row of `outputs` and `sha256`. Beside them the frame has
    `picture`: the absolute path, or the URL, of the first picture of each row, unless the experiment has a column of
    that name. A notebook shows thumbnails there. Raises ResultsError if there is nothing to read.
    """
    path = find_results_folder(folder).resolve()
    frame = ResultsFrame(read_table(path, run))
    frame.results_folder, frame.results_run = path, run
    for name in LIST_COLUMNS:
        frame[name] = pd.Series([json.loads(cell) for cell in frame[name]], dtype="object")
    if _PICTURE not in frame.columns:
        frame[_PICTURE] = _build_text_series([find_picture(path, paths) for paths in frame["outputs"]])
    return frame


def read_table(folder: str | os.PathLike[str], run: str | None = None) -> pd.DataFrame:
    """The table of a results folder as a DataFrame with exactly the columns of `results.csv`. Raises ResultsError."""
    with Store.open(find_results_folder(folder), readonly=True) as store:
        return build_frame(store.batches(run), store.layout(run))


def build_frame(batches: Iterable[Batch], layout: TableLayout) -> pd.DataFrame:
    """The table as a DataFrame whose types hold every value exactly.

    Integers are int64, or uint64 if one needs it (seeds reach 2^64-1), or their nullable forms if a row has no value.
    They are never floats. Floats and seconds are float64 (missing: NaN), booleans are bool or nullable boolean, and
    texts have pandas' own text type. A column of mixed types is `object`, with each value unchanged.
    """
    iterator = iter(batches)
    # Cells need several times the memory of a column, so only those of some rows exist at a time.
    parts = [_build_columns([], layout)]
    while some := list(islice(iterator, _BATCHES)):
        parts.append(_build_columns(some, layout))
    return pd.DataFrame({name: _join(name, [part.pop(name) for part in parts]) for name in column_names(layout)})


def _build_columns(batches: Iterable[Batch], layout: TableLayout) -> dict[str, pd.Series[Any]]:
    return {
        name: _build_series(name, to_json_lists(name, cells)) for name, cells in collect_cells(batches, layout).items()
    }


def _join(name: str, parts: Sequence[pd.Series[Any]]) -> pd.Series[Any]:
    """The parts of a column as one; they have different types if one part has, for example, no missing value."""
    parts = [part for part in parts if len(part)] or parts
    if len({str(part.dtype) for part in parts}) == 1:
        return pd.concat(parts, ignore_index=True)
    return _build_series(name, [cell for part in parts for cell in to_python_values(part)])


def _to_html(frame: pd.DataFrame) -> str | None:
    text: str | None = cast("Any", frame)._repr_html_()  # None if the user's pandas options say so
    return text


def _build_series(name: str, values: Sequence[Any]) -> pd.Series[Any]:
    types = set(map(type, values))
    missing = type(None) in types
    types.discard(type(None))
    dtype: str | None = "object"
    if not types:
        kind = _COLUMN_TYPES.get(name, object)
        if kind in (str, tuple):
            return _build_text_series(values)
        dtype = _NUMBER_TYPES.get(kind, "object")
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
