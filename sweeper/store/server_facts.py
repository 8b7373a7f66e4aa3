"""What servers told, as a results folder records it: facts about themselves, and the model files of each job."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sweeper.model.model_facts import MODELS_SHAPE, ModelFacts, ModelKey, Models, decode_models, encode_models
from sweeper.store.database import Database
from sweeper.store.records import SUCCEEDED, parse_column, to_compact_json

BESIDES_NODES: Final = ""  # in place of a class: the time of a job in which none of its nodes ran


class ServerFacts:
    """The part of `Store` about servers, on the same database. Every method may raise ResultsError.

    All are hints: versions, node times, which server has a job, uploaded files. Without, a run is slower, not wrong.
    """

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


_INSERT: Final = "INSERT INTO job_models SELECT :job, (SELECT count(*) FROM job_models WHERE job = :job), :models"


# Each set of files once, in the order of the latest jobs that were made with them.
_SELECT_USED: Final = """
SELECT m.facts FROM models m JOIN job_models q ON q.models = m.id AND q.place = 0 JOIN jobs j ON j.id = q.job
WHERE j.state = ? AND j.target = ? GROUP BY m.id ORDER BY max(j.intended)
"""


class JobModels:
    """The part of `Store` about model files, on the same database. Every method may raise ResultsError.

    Jobs share few sets of files, so each set is stored once. A job may have several: those that a person accepted later
    as the same, with `--keep-stale`, follow the first.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[str, int] = {}

    def add(self, job: str, models: Models) -> None:
        """Record that a job is made with these files. Durable at the next `sync`, as its intent is."""
        if not models:
            return
        text = json.dumps(encode_models(models), separators=(",", ":"))
        with self._database.transaction(durable=False):
            if text not in self._ids:
                self._database.execute("INSERT OR IGNORE INTO models(facts) VALUES (?)", (text,))
                self._ids[text] = self._database.query_value("SELECT id FROM models WHERE facts = ?", (text,))
            self._database.execute(_INSERT, {"job": job, "models": self._ids[text]})

    def load(self) -> dict[str, list[dict[ModelKey, ModelFacts]]]:
        """The sets of files of each job that has any: job id -> those that it was made with first."""
        folder = self._database.path.parent
        sets: dict[int, Any] = {
            key: decode_models(parse_column(text, MODELS_SHAPE, "models.facts", folder))
            for key, text in self._database.query("SELECT id, facts FROM models")
        }
        found: dict[str, list[dict[ModelKey, ModelFacts]]] = defaultdict(list)
        for job, key in self._database.query("SELECT job, models FROM job_models ORDER BY job, place"):
            if key in sets:
                found[job].append(sets[key])
        return found

    def load_latest(self, target: str) -> dict[ModelKey, ModelFacts]:
        """The facts with which the latest successful job on a target used each file."""
        folder = self._database.path.parent
        found: dict[ModelKey, ModelFacts] = {}
        for (text,) in self._database.query(_SELECT_USED, (SUCCEEDED, target)):
            found |= decode_models(parse_column(text, MODELS_SHAPE, "models.facts", folder))
        return found

    def load_void(self) -> frozenset[str]:
        """The jobs that their own run set aside, because a file was replaced while it made them."""
        sql = "SELECT s.job FROM stale s JOIN jobs j ON j.id = s.job AND j.run = s.run"
        return frozenset(job for (job,) in self._database.query(sql))

    def set_aside(self, run_id: int, jobs: Iterable[str]) -> None:
        """Record that a run found these results stale: the folder's table shows them no more."""
        with self._database.transaction(durable=False):
            self._database.executemany("INSERT OR IGNORE INTO stale VALUES (?, ?)", [(run_id, job) for job in jobs])
