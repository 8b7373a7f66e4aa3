"""The table of a results folder as a file: `results.csv`, and exports.

A run writes `results.csv` at its end, unless the file shows the table already. That is so if nothing wrote to the store
or the file since: then it has the time of the store, to the nanosecond, which the run gave it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from sweeper.store import Store
from sweeper.tables.export import CSV_DIALECTS, column_names, encode_text, export_batches, format_delimited

_NAME: Final = "results.csv"


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
