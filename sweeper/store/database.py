"""The SQLite file of a results folder: its schema, its version, opening it, and its error messages.

The queries are in `store` and `server_facts`, the checksums of rows in `damage`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final
from urllib.parse import quote_from_bytes

from sweeper.errors import ResultsError
from sweeper.schemas.values import format_value
from sweeper.store.checked_stores import find_once, remember
from sweeper.store.containment import refuse_links
from sweeper.store.damage import find_damage, iter_triggers, limit_time, register_checksum
from sweeper.wording import join_names

SCHEMA_VERSION: Final = 1
_CHECKED_SECONDS: Final = 60.0  # later, bits that nobody read since may have flipped
_LATER_FILES: Final = ("artifacts", "results.csv")  # a run makes them after the store

# After this many pages (of 4 KiB) in the log, a commit also copies the log into the database file and waits for the
# disk. SQLite's default of 1000 pages is about 100 jobs, so with short jobs the event loop would stall all the time.
_CHECKPOINT_PAGES: Final = 10_000
_CACHE_KIB: Final = 16 * 1024  # of a connection; the pages of jobs are read in the order of their random ids

SCHEMA: Final = """
CREATE TABLE runs(
    id INTEGER PRIMARY KEY, experiment TEXT NOT NULL, file TEXT NOT NULL, targets TEXT NOT NULL, layout TEXT NOT NULL,
    trials INTEGER NOT NULL, started REAL NOT NULL, ended REAL, stopped_by TEXT,
    trials_of INTEGER NOT NULL, claims_of INTEGER NOT NULL);  -- the run whose trials, and claims, this run has too
CREATE TABLE trials(
    run INTEGER NOT NULL, idx INTEGER NOT NULL, digest TEXT NOT NULL, params TEXT NOT NULL, columns TEXT NOT NULL,
    PRIMARY KEY(run, idx)) WITHOUT ROWID;
CREATE TABLE jobs(
    id TEXT PRIMARY KEY, run INTEGER NOT NULL, target TEXT NOT NULL, digest TEXT NOT NULL, sent TEXT NOT NULL,
    attempt INTEGER NOT NULL, prompt_id TEXT, state TEXT NOT NULL, intended REAL NOT NULL, submitted REAL,
    started REAL, ended REAL, error_type TEXT, error TEXT);
CREATE INDEX jobs_by_digest ON jobs(digest, target); CREATE INDEX jobs_by_prompt ON jobs(prompt_id);
CREATE INDEX jobs_not_succeeded ON jobs(id, state) WHERE state != 'succeeded';  -- few, and no result needs the others
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
CREATE TABLE servers(
    run INTEGER NOT NULL, target TEXT NOT NULL, about TEXT NOT NULL, PRIMARY KEY(run, target)) WITHOUT ROWID;
-- Which server a job went to. On a cluster, one target name covers many servers: each worker has its own.
CREATE TABLE places(job TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID;
-- The name under which a target has an uploaded input file, by the file's content.
-- `bytes` is its size, NULL if the target stores another file, as for a mask.
CREATE TABLE uploads(
    target TEXT NOT NULL, content TEXT NOT NULL, value TEXT NOT NULL, bytes INTEGER,
    PRIMARY KEY(target, content)) WITHOUT ROWID;
-- When the intent of a job was recorded by the server's clock, in seconds since 1970, because ours may be wrong.
CREATE TABLE server_times(job TEXT PRIMARY KEY, intended REAL NOT NULL) WITHOUT ROWID;
-- What each job was charged, in micro-dollars, by partner node; `high` is NULL if the charge has no upper bound.
CREATE TABLE charges(
    job TEXT NOT NULL, node TEXT NOT NULL, class_type TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER,
    kind TEXT NOT NULL, PRIMARY KEY(job, node)) WITHOUT ROWID;
-- Two pictures that a voter saw, and the answer, NULL as long as there is none; see `votes`.
CREATE TABLE votes(
    id TEXT PRIMARY KEY, voter TEXT NOT NULL, axis TEXT NOT NULL, left_digest TEXT NOT NULL, left_sha256 TEXT NOT NULL,
    right_digest TEXT NOT NULL, right_sha256 TEXT NOT NULL, shown REAL NOT NULL, answered REAL, answer TEXT,
    undone INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE marks(
    digest TEXT PRIMARY KEY, verdict TEXT NOT NULL, stars INTEGER NOT NULL, comment TEXT NOT NULL,
    changed INTEGER NOT NULL) WITHOUT ROWID;
-- The model files that jobs were made with: sets of facts, those of each job, and the jobs that a run found stale.
CREATE TABLE models(id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
CREATE TABLE job_models(
    job TEXT NOT NULL, place INTEGER NOT NULL, models INTEGER NOT NULL, PRIMARY KEY(job, place)) WITHOUT ROWID;
CREATE TABLE stale(run INTEGER NOT NULL, job TEXT NOT NULL, PRIMARY KEY(run, job)) WITHOUT ROWID;
CREATE TABLE checksums(
    name TEXT NOT NULL, id TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY(name, id)) WITHOUT ROWID;
"""

_SUFFIXES: Final = ("-wal", "-shm", "-journal")  # of the files that SQLite keeps beside a database
# A journal that ends with this names another file, which SQLite deletes when it has rolled the journal back
# (https://www.sqlite.org/fileformat.html, "The Rollback Journal"). Only transactions of several databases write one.
_SUPER_JOURNAL: Final = bytes.fromhex("d9d505f920a163d7")
_DAMAGE_CODES: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_INTERRUPT,  # by `limit_time`
    sqlite3.SQLITE_TOOBIG,
    None,  # a text that is not UTF-8
)
_MAX_CELL: Final = 2**28  # bytes; a crafted file of a few kilobytes may declare a text of a gigabyte
_NO_STORE: Final = "not a sweeper store"
# Of a statement with `?`, or of one with names.
Parameters = Sequence[Any] | Mapping[str, Any]
_START_OVER: Final = "move this file away and start over with `sweeper run`, which repeats all trials"
_REMEDY: Final = f"restore a good copy, or {_START_OVER}"


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into a ResultsError that names the folder."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_NOTADB:
            with path.open("rb") as file:
                head = file.read(16)
            start = f"its {path.stat().st_size} bytes are not an SQLite database and begin with {head!r}"
            raise ResultsError(f"{path}: {_NO_STORE}: {start}; {_REMEDY}") from error
        if code in _DAMAGE_CODES:
            raise ResultsError(f"{path}: the sweeper store is damaged: {error}; {_REMEDY}") from error
        raise ResultsError(f"{path}: {error}; check that the disk is not full and the folder is writable") from error
    except OSError as error:
        raise ResultsError(f"{path.parent}: {error.strerror or error}") from error


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Connect in autocommit mode, so that transactions begin only where we begin them."""
    connection = _connect_to_read(path) if readonly else sqlite3.connect(path, isolation_level=None, timeout=30)
    with _close_on_error(connection):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL)
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        register_checksum(connection)
    return connection


@contextmanager
def _close_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection if the block that prepares it raises, because nobody else has it yet."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = make_uri(path.resolve())
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, timeout=30)
    try:
        with _close_on_error(connection), limit_time(connection):
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError:
        # In a read-only folder SQLite cannot create the index file that WAL mode needs. Nobody can be writing the
        # database there either, so it is safe to call it immutable.
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    with _close_on_error(connection):
        connection.execute("PRAGMA trusted_schema = OFF")  # a writer needs it for the triggers of the checksums
    return connection


def make_uri(path: PurePath) -> str:
    """Return the URI of an absolute path, as SQLite reads it (https://www.sqlite.org/uri.html).

    SQLite refuses a host, so the server of a Windows share belongs to the path: `file:////server/share/sweeper.sqlite`.
    """
    text = path.as_posix()
    return f"file://{'' if text.startswith('/') else '/'}{quote_from_bytes(os.fsencode(text), safe='/:')}"


def is_blank(path: Path) -> bool:
    """Whether a process was killed while it created this database, before there was a table in it."""
    if any((path.parent / name).exists() for name in _LATER_FILES):  # it lost its content; opening it says so
        return False
    with suppress(sqlite3.DatabaseError), closing(connect(path, readonly=True)) as connection:
        return not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    return False


def prepare(connection: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
    """Check that this is a store of ours, and unless `readonly` create it in an empty file. Raises ResultsError."""
    with limit_time(connection):
        connection.execute("BEGIN")  # because another process may create the store between the two statements
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        schema = _read_schema(connection)
        connection.execute("COMMIT")
    tables = sorted(name for kind, name, *_ in schema if kind == "table")
    if (schema or version or readonly) and (version == 0 or not {"runs", "trials", "jobs"}.issubset(tables)):
        content = f"an SQLite database with other tables ({join_names(tables)})" if schema else "an empty file"
        raise ResultsError(f"{path}: {_NO_STORE}: {content}; {_REMEDY}")
    if schema and version != SCHEMA_VERSION:
        raise ResultsError(
            f"{path}: has the store version {version}, but this sweeper reads only {SCHEMA_VERSION}; use the sweeper "
            f"that wrote it, or {_START_OVER}"
        )
    if schema and (change := _find_schema_change(schema)):
        raise ResultsError(
            f"{path}: {change}: it is of a sweeper before the first release, or somebody made this folder to harm "
            "you; use the sweeper that wrote it, or delete this folder"
        )
    if damage := find_once(path, partial(find_damage, connection)) if schema else None:
        raise _make_damage_error(path, damage)
    if not schema:
        connection.execute("PRAGMA journal_mode = WAL")
        _create_schema(connection)
    # With FULL, SQLite would wait for the disk at every commit. `Database.sync` waits instead: only where it
    # matters, and outside the event loop. Without a log (on some network drives) SQLite must wait itself.
    has_log = connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if has_log else 'FULL'}")


def _create_schema(connection: sqlite3.Connection) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;{_make_script()}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.rollback()
        if not connection.execute("PRAGMA user_version").fetchone()[0]:  # otherwise another process did it first
            raise


def _read_schema(connection: sqlite3.Connection) -> frozenset[tuple[Any, ...]]:
    """Read the type, name, table and statement of each table, index, trigger and view. This executes none of them."""
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


@cache
def _make_schema() -> frozenset[tuple[Any, ...]]:
    """Return what `_read_schema` returns for a store that sweeper made."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_make_script())
        return _read_schema(connection)


@cache
def _make_script() -> str:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return "\n".join((SCHEMA, *iter_triggers(connection)))


def _find_schema_change(schema: frozenset[tuple[Any, ...]]) -> str | None:
    """Return how a schema differs from sweeper's; None if it does not.

    A view in the place of a table may have rows without end, and a trigger writes what its author wants.
    """
    expected = _make_schema()
    names = {(kind, name) for kind, name, *_ in expected}
    for kind, name, *_ in sorted(schema - expected, key=repr):
        if (kind, name) in names:
            return f"its {kind} '{name}' was changed"
        return f"sweeper did not make its {kind} {format_value(name)}"
    for kind, name, *_ in sorted(expected - schema, key=repr):
        return f"its {kind} '{name}' is gone"
    return None


def _refuse_super_journal(path: Path) -> None:
    """Raise ResultsError if the rollback journal of a database names another file, which SQLite would delete."""
    journal = path.with_name(f"{path.name}-journal")
    with suppress(FileNotFoundError), journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_SUPER_JOURNAL)))
        if file.read() == _SUPER_JOURNAL:
            raise ResultsError(
                f"{journal}: names another file to delete, so somebody may have made this folder to reach your files; "
                "remove it, and run the same command again"
            )


def _make_damage_error(path: Path, damage: str) -> ResultsError:
    return ResultsError(f"{path}: the sweeper store is damaged: {damage}; {_REMEDY}")


def _check_not_emptied(path: Path) -> None:
    """Raise ResultsError if the file is empty and cannot be new: a new store would repeat every job.

    A process that was killed while it created the store leaves an empty file too, but no results.
    """
    if path.is_file() and path.stat().st_size == 0:
        for name in _LATER_FILES:
            if (path.parent / name).exists():
                raise _make_damage_error(path, f"it is empty, but {name} beside it is from an earlier run")


class Database:
    """An open database, for use in one thread only (`sync` excepted).

    Every method raises ResultsError if the disk is full or the folder cannot be used.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        """Open the file at `path`. Unless `readonly`, create it with its folder if there is none.

        Raises ResultsError also if the file is a link, or not a store of this version of sweeper.
        """
        refuse_links(path, *(path.with_name(path.name + suffix) for suffix in _SUFFIXES))
        with translate_errors(path):
            if not readonly:
                path.parent.mkdir(parents=True, exist_ok=True)
                _check_not_emptied(path)
            _refuse_super_journal(path)
            self._connection = connect(path, readonly=readonly)
        with _close_on_error(self._connection), translate_errors(path):
            prepare(self._connection, path, readonly=readonly)
        self._log: BinaryIO | None = None  # a handle of our own, so that any thread may sync
        self.path, self._checked_until = path, 0.0 if readonly else time.monotonic() + _CHECKED_SECONDS

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._connection.close()
        if time.monotonic() < self._checked_until:
            remember(self.path)

    def query(self, sql: str, parameters: Parameters = ()) -> Generator[tuple[Any, ...]]:
        with translate_errors(self.path):
            cursor = self._connection.execute(sql, parameters)
            try:
                for row in cursor:  # noqa: UP028 - `yield from` would close the cursor of a closed store, which fails
                    yield row
            finally:
                with suppress(sqlite3.ProgrammingError):  # the store was closed before this iterator
                    cursor.close()

    def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first value of the first row; None if there is no row."""
        return next(iter(self.query(sql, parameters)), (None,))[0]

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Execute one statement. Outside a transaction it is committed at once."""
        with translate_errors(self.path):
            return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        with translate_errors(self.path):
            return self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Commit the block's statements together, or none of them if it raises.

        The commit survives a killed process, and a power cut if `durable`. Inside another transaction it joins that.
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
        """Wait until everything committed so far is on the disk. May be called from another thread.

        SQLite verifies each record that it reads from its write-ahead log (https://www.sqlite.org/wal.html).
        """
        with translate_errors(self.path):
            if self._log is None:
                log = self.path.with_name(f"{self.path.name}-wal")
                if not log.exists():
                    return  # nothing was committed, or SQLite uses no log here
                self._log = log.open("r+b", buffering=0)  # writable, because Windows flushes only such
            os.fsync(self._log.fileno())
