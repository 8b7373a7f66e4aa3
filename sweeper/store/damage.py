# ruff: noqa: S608 - the statements are made of the constants below
"""Damage of a store: the checksums of its rows, and the search for what is not as sweeper wrote it.

SQLite's integrity check sees damaged pages, but not a flipped bit in the text of a digest: the job of that digest would
count as never sent, and be paid for again. So triggers keep a checksum of each row that decides what is submitted, or
that a person gave.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sweeper.model.money import KINDS
from sweeper.store.records import ANSWERS, MAX_STARS, STATES, VERDICTS

_TABLES: Final = (  # those that decide about submissions come first
    "jobs", "claims", "places", "server_times", "models", "job_models", "stale", "artifacts", "runs", "trials",
    "charges", "votes", "marks",
)  # fmt: skip
_FUNCTION: Final = "sweeper_checksum"
# Times count seconds since 1970, and those of a mark milliseconds. No number is negative.
_RANGES: Final = {
    "INTEGER": " OR {0} NOT BETWEEN 0 AND 9007199254740991",
    "REAL": " OR {0} NOT BETWEEN 0 AND 100000000000",
    "TEXT": "",
}
_WORDS: Final = {
    ("jobs", "state"): STATES, ("charges", "kind"): KINDS, ("votes", "answer"): ANSWERS,
    ("marks", "verdict"): VERDICTS, ("marks", "stars"): range(MAX_STARS + 1),
}  # fmt: skip
_MAX_SECONDS: Final = 5.0  # of the check when a store is opened; most stores take a few milliseconds
RUN_COLUMNS: Final = ("run", "trials_of", "claims_of")  # in any table
_PROGRESS_STEPS: Final = 10_000  # SQLite's instructions between two looks at the clock


def register_checksum(connection: sqlite3.Connection) -> None:
    """Give a connection the function that the triggers call."""
    connection.create_function(_FUNCTION, -1, _compute_checksum, deterministic=True)


def _compute_checksum(*values: Any) -> int:
    # A column of real numbers stores 5 as 5.0, and a trigger may see either.
    plain = [float(value) if isinstance(value, int) else value for value in values]
    return zlib.crc32(repr(plain).encode("utf-8", "backslashreplace"))


def iter_triggers(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the statements that keep a checksum of every row of the tables."""
    for table in _TABLES:
        new_key, new_columns = _list_columns(connection, table, "NEW.")
        for event in ("INSERT", "UPDATE"):
            yield (
                f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN INSERT OR REPLACE INTO "
                f"checksums VALUES ('{table}', {new_key}, {_FUNCTION}({new_columns})); END;"
            )
        old_key, _ = _list_columns(connection, table, "OLD.")
        yield (
            f"CREATE TRIGGER {table}_delete AFTER DELETE ON {table} BEGIN "
            f"DELETE FROM checksums WHERE name = '{table}' AND id = {old_key}; END;"
        )


def _list_columns(connection: sqlite3.Connection, table: str, prefix: str = "") -> tuple[str, str]:
    """The key of a row of a table as one text, and the columns of the table, as SQL."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    key = " || ' ' || ".join(f"quote({prefix}{name})" for _, name, *_, is_key in columns if is_key)
    return key, ", ".join(f"{prefix}{name}" for _, name, *_ in columns)


def find_damage(connection: sqlite3.Connection, seconds: float = _MAX_SECONDS) -> str | None:
    """Return what is damaged in a store; None if nothing is found in the time that the check may take.

    Raises sqlite3.Error if a page cannot be read.
    """
    try:
        with limit_time(connection, seconds):
            # Without its look at each page, a crafted file could have a table whose rows never end.
            return (
                _find_damaged_pages(connection, "quick_check")
                or _find_damaged_rows(connection)
                or _find_damaged_pages(connection, "integrity_check")
                or _find_wrong_values(connection)
            )
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # a text that is not UTF-8, or a column that is gone
            return str(error)
        raise


@contextmanager
def limit_time(connection: sqlite3.Connection, seconds: float = _MAX_SECONDS) -> Iterator[None]:
    """Interrupt what the block executes after a few seconds, with sqlite3.OperationalError."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _find_damaged_rows(connection: sqlite3.Connection) -> str | None:
    for table in _TABLES:
        key, columns = _list_columns(connection, table)
        ((damaged, rows, sums),) = connection.execute(
            f"SELECT (SELECT count(*) FROM (SELECT {key} row_id, {_FUNCTION}({columns}) row_value "
            f"FROM {table}) LEFT JOIN checksums c ON c.name = '{table}' AND c.id = row_id "
            "WHERE c.value IS NOT row_value), "
            f"(SELECT count(*) FROM {table}), (SELECT count(*) FROM checksums WHERE name = '{table}')"
        ).fetchall()
        if damaged or rows != sums:
            return f"{max(damaged, abs(rows - sums))} rows of the table '{table}' are not as sweeper wrote them"
    return None


def _find_damaged_pages(connection: sqlite3.Connection, check: str) -> str | None:
    ((answer, *_), *_) = connection.execute(f"PRAGMA {check}(1)").fetchall()
    return None if answer == "ok" else " ".join(str(answer).split())


def _find_wrong_values(connection: sqlite3.Connection) -> str | None:
    """Look for values that sweeper does not write: wrong types, infinite numbers, and runs that are gone."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        wrong = {}  # by column
        for _, name, kind, is_required, _, key in connection.execute(f"PRAGMA table_info({table})").fetchall():
            words = "".join(f", '{word}'" for word in _WORDS.get((table, name), ()))
            known = words[2:] or ("SELECT id FROM runs" if name in RUN_COLUMNS else "")
            unknown = f" OR {name} NOT IN ({known})" if known else ""
            optional = "" if is_required or key else f"{name} IS NOT NULL AND "
            wrong[name] = f"{optional}(typeof({name}) != '{kind.lower()}'{_RANGES[kind].format(name)}{unknown})"
        found = f"SELECT {', '.join(f'coalesce({part}, 0)' for part in wrong.values())} FROM {table}"
        for row in connection.execute(f"{found} WHERE {' OR '.join(wrong.values())} LIMIT 1"):
            name = next(name for name, is_wrong in zip(wrong, row, strict=True) if is_wrong)
            what = "names a run that is gone" if name in RUN_COLUMNS else "has a value that sweeper does not write"
            return f"the column '{name}' of the table '{table}' {what}"
    return None
