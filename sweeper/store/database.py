"""The SQLite file of a results folder: its schema and version, how it is opened, and how its errors are told.

What the tables mean is the affair of `store` and `servers`; no query on them is made here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from sweeper.did_you_mean import join_names
from sweeper.errors import ResultsError

SCHEMA_VERSION: Final = 4

# Pages (of 4 KiB) of log after which a commit also brings it into the database file, and waits for the disk to have
# both. SQLite's own 1000 are a hundred jobs, so with short jobs the event loop would stand still every few moments.
_CHECKPOINT_PAGES: Final = 10_000

SCHEMA: Final = """
CREATE TABLE runs(
    id INTEGER PRIMARY KEY, experiment TEXT NOT NULL, file TEXT NOT NULL, targets TEXT NOT NULL, layout TEXT NOT NULL,
    trials INTEGER NOT NULL, started REAL NOT NULL, ended REAL, stopped_by TEXT);
CREATE TABLE trials(
    run INTEGER NOT NULL, idx INTEGER NOT NULL, digest TEXT NOT NULL, params TEXT NOT NULL, columns TEXT NOT NULL,
    PRIMARY KEY(run, idx)) WITHOUT ROWID;
CREATE TABLE jobs(
    id TEXT PRIMARY KEY, run INTEGER NOT NULL, target TEXT NOT NULL, digest TEXT NOT NULL, sent TEXT NOT NULL,
    attempt INTEGER NOT NULL, prompt_id TEXT, state TEXT NOT NULL, intended REAL NOT NULL, submitted REAL,
    started REAL, ended REAL, error_type TEXT, error TEXT);
CREATE INDEX jobs_by_digest ON jobs(digest, target);
CREATE INDEX jobs_by_prompt ON jobs(prompt_id);
CREATE TABLE claims(
    run INTEGER NOT NULL, digest TEXT NOT NULL, job TEXT NOT NULL, PRIMARY KEY(run, digest)) WITHOUT ROWID;
CREATE TABLE artifacts(
    job TEXT NOT NULL, place INTEGER NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL, position INTEGER NOT NULL,
    path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, label TEXT NOT NULL,
    PRIMARY KEY(job, place)) WITHOUT ROWID;
CREATE TABLE node_times(
    target TEXT NOT NULL, class_type TEXT NOT NULL, runs INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY(target, class_type)) WITHOUT ROWID;
CREATE TABLE metrics(
    sha256 TEXT NOT NULL, metric TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(sha256, metric)) WITHOUT ROWID;
"""

# What leads from the version before each to it; a new store takes all of them after the schema of version 1.
MIGRATIONS: Final = {
    2: """
CREATE TABLE servers(
    run INTEGER NOT NULL, target TEXT NOT NULL, about TEXT NOT NULL, PRIMARY KEY(run, target)) WITHOUT ROWID;
""",
    # Which of the servers under one target's name has a job: a cluster's workers stand beside servers of their own.
    3: """
CREATE TABLE places(job TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID;
""",
    # What stands on a target for the content of an input file; `bytes` where it is the very file.
    4: """
CREATE TABLE uploads(
    target TEXT NOT NULL, content TEXT NOT NULL, value TEXT NOT NULL, bytes INTEGER,
    PRIMARY KEY(target, content)) WITHOUT ROWID;
""",
}

_NO_STORE: Final = "not a sweeper store"
_REMEDY: Final = (
    "bring a good copy back, or move this file away: then `sweeper run` makes a new one, that knows no earlier work"
)


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into a sentence about the folder."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_NOTADB:
            raise ResultsError(f"{path}: {_NO_STORE}: {_describe_start(path)}; {_REMEDY}") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise ResultsError(f"{path}: a damaged sweeper store, or none: {error}; {_REMEDY}") from error
        raise ResultsError(f"{path}: {error}; is the disk full, or the folder read-only?") from error
    except OSError as error:
        raise ResultsError(f"{path.parent}: {error.strerror or error}") from error


def _describe_start(path: Path) -> str:
    """What was found in place of a database, as far as a message has room for it."""
    with path.open("rb") as file:
        found = file.read(16)
    return f"its {path.stat().st_size} bytes are no SQLite database, and begin with {found!r}"


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are ours to begin."""
    if not readonly:
        return sqlite3.connect(path, isolation_level=None, timeout=30)
    uri = path.resolve().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, timeout=30)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        # A WAL database in a folder that cannot be written has nowhere for its index; nobody can be writing it either.
        connection.close()
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


def prepare(connection: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if (tables or readonly) and (version == 0 or not {"runs", "trials", "jobs"}.issubset(tables)):
        found = f"an SQLite database with other tables ({join_names(tables)})" if tables else "an empty file"
        raise ResultsError(f"{path}: {_NO_STORE}: {found}; {_REMEDY}")
    if version > SCHEMA_VERSION:
        raise ResultsError(
            f"{path}: written by a newer sweeper (store version {version}, this one reads {SCHEMA_VERSION}): upgrade"
        )
    if version == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        _apply_schema(connection, SCHEMA, 1)
        version = 1
    if not readonly:  # a reader does without what an older store lacks
        for following in range(version + 1, SCHEMA_VERSION + 1):
            _apply_schema(connection, MIGRATIONS[following], following)
    # A log is brought to the disk by `Log.sync`, when that matters and off the thread that talks to servers; SQLite
    # would wait for the disk at every commit. Where it keeps no log (on some network drives), that stays its affair.
    logged = connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if logged else 'FULL'}")


class WriteAheadLog:
    """The write-ahead log of a database that we write to: where a commit stands before the database file has it.

    A committed transaction survives a kill at once, and a power cut after `sync`: SQLite checks each record of the log
    when it reads it (https://www.sqlite.org/wal.html). A file of its own handle, so `sync` may run in any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def sync(self) -> None:
        """Return when every commit so far is on the disk. Raises ResultsError."""
        with translate_errors(self._path):
            if self._file is None:
                log = self._path.with_name(f"{self._path.name}-wal")
                if not log.exists():
                    return  # nothing was committed, or SQLite keeps no log here
                self._file = log.open("r+b", buffering=0)  # writable: Windows flushes no other
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Database:
    """An open database: statements, and transactions that are all or nothing. Not to be shared between threads, but
    for `sync`. Everything raises ResultsError when the disk is full or the folder cannot be used.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        """Open the file at `path`, made (with its folder) and brought to this version's schema unless `readonly`.

        Raises ResultsError also when it is no store of ours, and when a newer sweeper wrote it.
        """
        with translate_errors(path):
            if not readonly:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(path, readonly=readonly)
        try:
            with translate_errors(path):
                prepare(self._connection, path, readonly=readonly)
        except BaseException:
            self._connection.close()
            raise
        self._log = WriteAheadLog(path)
        self.path = path

    def close(self) -> None:
        self._log.close()
        self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with translate_errors(self.path):
            cursor = self._connection.execute(sql, parameters)
            try:
                yield from cursor
            finally:
                cursor.close()

    def has_table(self, table: str) -> bool:
        """Whether there is such a table: an older store that is only read may lack one."""
        return any(self.query("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement, which outside of a transaction is one of its own."""
        with translate_errors(self.path):
            return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        with translate_errors(self.path):
            return self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing, safe from a kill at the end; from a power cut too if `durable`, else at the next `sync`.
        Inside another it is part of that.
        """
        if self._connection.in_transaction:
            yield
            return
        with translate_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()
        if durable:
            self.sync()

    def sync(self) -> None:
        """Bring all that was committed to the disk; may be called from another thread."""
        self._log.sync()


def _apply_schema(connection: sqlite3.Connection, statements: str, version: int) -> None:
    """All of the statements and the version that they make, or nothing."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE;{statements}PRAGMA user_version = {version};COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.rollback()
        if connection.execute("PRAGMA user_version").fetchone()[0] < version:  # else somebody else was faster
            raise
