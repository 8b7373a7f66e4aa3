"""The model files that each job of a results folder was made with, as its server told of them.

Jobs share few sets of files, so each set is stored once. A job may have several: those that a person accepted later as
the same, with `--keep-stale`, follow the first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from sweeper.model.model_facts import MODELS_SHAPE, ModelFacts, ModelKey, Models, decode_models, encode_models
from sweeper.store.database import Database
from sweeper.store.records import SUCCEEDED, parse_column

_INSERT: Final = "INSERT INTO job_models SELECT ?1, (SELECT count(*) FROM job_models WHERE job = ?1), ?2"


# Each set of files once, in the order of the latest jobs that were made with them.
_SELECT_USED: Final = """
SELECT m.facts FROM models m JOIN job_models q ON q.models = m.id AND q.place = 0 JOIN jobs j ON j.id = q.job
WHERE j.state = ? AND j.target = ? GROUP BY m.id ORDER BY max(j.intended)
"""
_SELECT_VOID: Final = "SELECT s.job FROM stale s JOIN jobs j ON j.id = s.job AND j.run = s.run"


class JobModels:
    """The part of `Store` about model files, on the same database. Every method may raise ResultsError."""

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
            self._database.execute(_INSERT, (job, self._ids[text]))

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
        return frozenset(job for (job,) in self._database.query(_SELECT_VOID))

    def set_aside(self, run_id: int, jobs: Iterable[str]) -> None:
        """Record that a run found these results stale: the folder's table shows them no more."""
        with self._database.transaction(durable=False):
            self._database.executemany("INSERT OR IGNORE INTO stale VALUES (?, ?)", [(run_id, job) for job in jobs])
