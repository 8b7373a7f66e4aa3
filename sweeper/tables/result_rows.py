"""The rows and columns of a results table, and `results.csv` beside the store.

There are two ways to a CSV. After a run, `write_csv` streams rows from the store, with little memory and without
pandas. `sweeper.tables.export` writes a DataFrame, which a user may have filtered. Both format cells with the same
functions, so they write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol

from sweeper.files import atomic_write
from sweeper.model.result import OUTCOME_COLUMNS, Result
from sweeper.tables.export import CSV_DIALECTS, encode_line, format_delimited

_get_outcome: Final = attrgetter(*OUTCOME_COLUMNS)


class TableColumns(Protocol):
    """What a table needs besides its rows; the store has one for each run."""

    @property
    def axis_columns(self) -> Sequence[str]: ...
    @property
    def slot_names(self) -> Sequence[str]: ...
    @property
    def metrics(self) -> Sequence[str]: ...


def column_names(layout: TableColumns) -> tuple[str, ...]:
    """Every column in order: trial, axes, the other slots, the outcome, the metrics."""
    axes = set(layout.axis_columns)
    slots = (name for name in layout.slot_names if name not in axes)
    return ("trial", *layout.axis_columns, *slots, *OUTCOME_COLUMNS, *layout.metrics)


def iter_rows(results: Iterable[Result], layout: TableColumns) -> Iterator[tuple[Any, ...]]:
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


def write_csv(results: Iterable[Result], layout: TableColumns, path: Path) -> None:
    """Write `results` to a CSV file without holding them in memory. A run does this at its end."""
    with atomic_write(path) as handle:
        lines = format_delimited(column_names(layout), iter_rows(results, layout), CSV_DIALECTS["csv"])
        handle.writelines(map(encode_line, lines))
