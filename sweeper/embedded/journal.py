"""Jobs on disk, for the Cloud dialect, which still knows its jobs after a restart.

One SQLite file with one row per job. The queue writes it, under its lock, before the server answers a submission. After
a restart, ended jobs are unchanged and waiting jobs wait again. A job that was running is `lost`: nobody knows how far
it got, and running it again could be paid for twice. (When a server is stopped and not killed, it first puts the job
that it interrupts back into the queue.)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from pathlib import Path

from sweeper.embedded.jobs import ENDED, LOST, SUBMITTED, WAITING, JournalError, ServerJob, StoredGraph
from sweeper.errors import UsageError

_FIELDS = (
    "number", "extra_data", "outputs", "state", "created", "changed", "started", "ended", "results", "meta", "labels",
    "charges", "idempotency_key", "messages",
)  # fmt: skip


class SQLiteJournal:
    """A `Journal` in an SQLite file. Not thread-safe by itself, because the queue calls it under its lock.

    Raises UsageError if another server uses the file, or if it is not an SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.1)
        try:
            # A lock until this process ends, even by kill -9, so that two servers never share a folder.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing that it has written. Only a power failure may lose the last seconds.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS job (id TEXT PRIMARY KEY, place INTEGER, graph TEXT, record TEXT)"
            )
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("COMMIT")
        except sqlite3.Error as problem:
            self._db.close()
            raise UsageError(
                f"{path}: cannot keep jobs here ({problem}); is another server using this folder?"
            ) from problem

    def close(self) -> None:
        """Close the file and release its lock."""
        self._db.close()

    def save(self, job: ServerJob) -> None:
        """Store the current state of a job. Raises JournalError."""
        text = json.dumps({name: getattr(job, name) for name in _FIELDS})
        try:
            if self._db.execute("UPDATE job SET record = ? WHERE id = ?", (text, job.id)).rowcount == 0:
                self._db.execute(
                    "INSERT INTO job VALUES (?, ?, ?, ?)", (job.id, job.created, job.stored_graph.to_json(), text)
                )
        except sqlite3.Error as problem:
            raise JournalError(str(problem)) from problem

    def forget(self, ids: Collection[str]) -> None:
        """Delete jobs."""
        self._db.executemany("DELETE FROM job WHERE id = ?", [(prompt_id,) for prompt_id in ids])

    def load(self) -> list[ServerJob]:
        """All jobs, in order of submission. Jobs that ran when the last server was killed become `lost`."""
        jobs = []
        for prompt_id, graph, text in self._db.execute("SELECT id, graph, record FROM job ORDER BY place, rowid"):
            record = json.loads(text)
            messages = [(event, data) for event, data in record.pop("messages")]
            record["outputs"] = tuple(record["outputs"])
            job = ServerJob(id=prompt_id, stored_graph=StoredGraph(None, graph), messages=messages, **record)
            if job.state not in ENDED and job.state not in {SUBMITTED, WAITING}:
                job.set_state(LOST)
                self.save(job)
            jobs.append(job)
        return jobs
