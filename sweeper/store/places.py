"""Where a job was sent to, for targets that are many servers under one name: a cluster's workers beside their own.

The name in a job says whose work it stands for; its place says which server to ask about it. The table is made when the
first place is noted, so a results folder that never saw a cluster has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from sweeper.store.database import connect, told

if TYPE_CHECKING:
    from pathlib import Path

_TABLE = "CREATE TABLE IF NOT EXISTS places(job TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID"


class Places:
    """The places of one store's jobs; a context manager. `path`: the store's database, which exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with told(path):
            self._connection = connect(path, readonly=False)
            self._connection.execute("PRAGMA synchronous = FULL")  # as the intents that follow
            self._connection.execute(_TABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def note(self, place: str, jobs: Iterable[str]) -> None:
        """Commit, durably, that these jobs are about to be sent to `place`."""
        with told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", [(job, place) for job in jobs])
            self._connection.execute("COMMIT")

    def of(self, job: str) -> str | None:
        """Where that job was sent to; None where nobody noted it, as in a run on one machine."""
        with told(self.path):
            found = self._connection.execute("SELECT place FROM places WHERE job = ?", (job,)).fetchone()
        return None if found is None else str(found[0])
