"""Facts about servers that a results folder records: versions, node times, which server has a job, uploaded files.

All of them are hints. Without them a run is slower, but not wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sweeper.store.database import Database
from sweeper.store.records import parse_column, to_compact_json

BESIDES_NODES: Final = ""  # in place of a class: the time of a job in which none of its nodes ran


class ServerFacts:
    """The part of `Store` about servers, on the same database. Every method may raise ResultsError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load_info(self) -> dict[tuple[int, str], dict[str, Any]]:
        """The recorded server information: (run, target) -> facts."""
        rows = self._database.query("SELECT run, target, about FROM servers")
        folder = self._database.path.parent
        return {
            (run, target): parse_column(about, {...: object}, "servers.about", folder) for run, target, about in rows
        }

    def save_info(self, run_id: int, target: str, info: Mapping[str, Any]) -> None:
        """Record what a target reports about itself (`sweeper.comfy.responses`) at the start of a run."""
        with self._database.transaction():
            row = (run_id, target, to_compact_json(info))
            self._database.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?)", row)

    def mean_node_seconds(self, targets: Iterable[str]) -> dict[str, float]:
        """The mean seconds that nodes of each class took on these targets: class -> seconds.

        `BESIDES_NODES` is among the classes if the time of jobs is known.
        """
        rows = self._database.query(
            "SELECT class_type, sum(seconds) / sum(runs) FROM node_times"
            " WHERE target IN (SELECT value FROM json_each(?)) GROUP BY class_type HAVING sum(runs) > 0",
            (json.dumps(list(targets)),),
        )
        return dict(rows)

    def add_node_times(self, target: str, times: Mapping[str, tuple[int, float]]) -> None:
        """Add node times of a target: class -> (number of runs, total seconds)."""
        with self._database.transaction():
            self._database.executemany(
                "INSERT INTO node_times VALUES (?, ?, ?, ?) ON CONFLICT(target, class_type) DO UPDATE SET "
                "runs = runs + excluded.runs, seconds = seconds + excluded.seconds",
                [(target, name, runs, seconds) for name, (runs, seconds) in times.items()],
            )

    def get_server_id(self, job: str) -> str | None:
        """The server that a job was sent to, for a target that is many servers; None if it is not recorded."""
        server_id: str | None = self._database.query_value("SELECT place FROM places WHERE job = ?", (job,))
        return server_id

    def save_server_id(self, server_id: str, jobs: Iterable[str]) -> None:
        """Record that these jobs are about to be sent to this server. Durable at the next `sync`, as their intents."""
        with self._database.transaction(durable=False):
            self._database.executemany(
                "INSERT OR REPLACE INTO places VALUES (?, ?)", [(job, server_id) for job in jobs]
            )

    def load_uploads(self, target: str) -> dict[str, tuple[Any, int | None]]:
        """The recorded uploads of a target: content -> (value for the workflow's input, size in bytes or None).

        Only the target knows whether the files still exist.
        """
        rows = self._database.query("SELECT content, value, bytes FROM uploads WHERE target = ?", (target,))
        folder = self._database.path.parent
        return {content: (parse_column(value, object, "uploads.value", folder), size) for content, value, size in rows}

    def save_upload(self, target: str, content: str, value: Any, size: int | None) -> None:
        """Record that a target has this content. If a power cut loses the record, the file is uploaded again."""
        with self._database.transaction(durable=False):
            row = (target, content, json.dumps(value), size)
            self._database.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", row)
