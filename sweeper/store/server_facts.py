"""What a results folder knows of the servers that worked for it: what they said of themselves, how long their nodes
took, which of several a job went to, and which input files they have.

Hints, all of them: without any a run is slower, not wrong. Jobs are `store`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sweeper.store.records import to_compact_json

if TYPE_CHECKING:
    from sweeper.store.database import Database


class ServerFacts:
    """A part of `Store`, on the same database; every method may raise ResultsError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load_info(self) -> dict[tuple[int, str], dict[str, Any]]:
        """What each target said of itself at the start of a run, as far as it was asked: (run, target) -> facts."""
        if not self._database.has_table("servers"):
            return {}
        rows = self._database.query("SELECT run, target, about FROM servers")
        return {(run, target): json.loads(about) for run, target, about in rows}

    def save_info(self, run_id: int, target: str, info: Mapping[str, Any]) -> None:
        """Keep what a target says of itself (`sweeper.comfy.server_info`) in this run."""
        with self._database.transaction():
            row = (run_id, target, to_compact_json(info))
            self._database.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?)", row)

    def mean_node_seconds(self, targets: Iterable[str]) -> dict[str, float]:
        """The mean seconds that a node of each class took on these targets, as far as they told."""
        names = set(targets)
        found: dict[str, tuple[int, float]] = {}
        rows = self._database.query("SELECT target, class_type, runs, seconds FROM node_times")
        for target, name, runs, seconds in rows:
            if target in names:
                before = found.get(name, (0, 0.0))
                found[name] = (before[0] + runs, before[1] + seconds)
        return {name: seconds / runs for name, (runs, seconds) in found.items()}

    def add_node_times(self, target: str, times: Mapping[str, tuple[int, float]]) -> None:
        """Add class -> (runs, seconds in all) to what is known of a target."""
        with self._database.transaction():
            self._database.executemany(
                "INSERT INTO node_times VALUES (?, ?, ?, ?) ON CONFLICT(target, class_type) DO UPDATE SET "
                "runs = runs + excluded.runs, seconds = seconds + excluded.seconds",
                [(target, name, runs, seconds) for name, (runs, seconds) in times.items()],
            )

    def get_server_id(self, job: str) -> str | None:
        """Where that job was sent to, for a target that is many servers; None where nobody noted it."""
        found = next(iter(self._database.query("SELECT place FROM places WHERE job = ?", (job,))), None)
        return None if found is None else str(found[0])

    def save_server_id(self, server_id: str, jobs: Iterable[str]) -> None:
        """Commit that these jobs are about to be sent to `place`, durable as their intents."""
        with self._database.transaction(durable=False):
            self._database.executemany(
                "INSERT OR REPLACE INTO places VALUES (?, ?)", [(job, server_id) for job in jobs]
            )

    def load_uploads(self, target: str) -> dict[str, tuple[Any, int | None]]:
        """By content, what stands for an input file on that target, and its bytes; whether it is still there, only
        the target can tell.
        """
        if not self._database.has_table("uploads"):
            return {}
        rows = self._database.query("SELECT content, value, bytes FROM uploads WHERE target = ?", (target,))
        return {content: (json.loads(value), size) for content, value, size in rows}

    def save_upload(self, target: str, content: str, value: Any, size: int | None) -> None:
        """That target has this content now. Lost in a power cut, it is uploaded again."""
        with self._database.transaction(durable=False):
            row = (target, content, json.dumps(value), size)
            self._database.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", row)
