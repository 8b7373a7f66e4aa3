"""The truth about a results folder: `<out>/sweeper.sqlite`, its runs, trials, jobs, artifacts and cached metrics.

Readers need no lock and never hold up a run (SQLite in WAL mode). One process at a time may write runs and jobs: the
runner locks the folder (`sweeper.running.folder_lock`) while it does. This module decides what goes into a row of the
table; `sweeper.tables` shows it. It touches no file but the database.

The rows of a run are its `trials`, each joined by digest through `claims` to the one job that stands for that work in
that run: a job of its own, or one of an earlier run that is not done again. So two trials with one digest share a job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Self

from sweeper.did_you_mean import suggest
from sweeper.errors import ResultsError
from sweeper.model import result
from sweeper.model.result import Result
from sweeper.store.database import Database
from sweeper.store.experiment_path import from_relative, to_relative
from sweeper.store.records import (
    FAILED,
    INTENT,
    REJECTED,
    STATUS_OF_STATE,
    SUBMITTED,
    SUCCEEDED,
    UNSENT,
    Artifact,
    JobRecord,
    RunRecord,
    TableLayout,
    TrialOutcome,
    to_compact_json,
)
from sweeper.store.row_queries import ROWS, ROWS_WITH_FILES, build_outcomes, build_results
from sweeper.store.server_facts import ServerFacts

FILE_NAME: Final = "sweeper.sqlite"

_COUNT_REUSED: Final = """
SELECT count(*) FROM trials t JOIN claims c ON c.run = t.run AND c.digest = t.digest JOIN jobs j ON j.id = c.job
WHERE t.run = ? AND j.run != t.run AND j.state IN (?, ?, ?)
"""

_COUNT_WITHOUT_FILES: Final = """
SELECT count(*) FROM trials t JOIN claims c ON c.run = t.run AND c.digest = t.digest JOIN jobs j ON j.id = c.job
WHERE t.run = ? AND j.state = ? AND NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.job = j.id)
"""

_JOB_COLUMNS: Final = ", ".join(JobRecord.__slots__)


class Store:
    """The database of one results folder. A context manager; not to be shared between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._query = database.query
        self.path = database.path
        self.servers = ServerFacts(database)

    @classmethod
    def open(cls, out: Path | str, *, readonly: bool = False) -> Store:
        """Open `<out>/sweeper.sqlite`; create folder and file unless `readonly`.

        Raises ResultsError when there is nothing to read, when it is no store of ours, when a newer sweeper wrote it,
        or when the folder cannot be used.
        """
        path = Path(out) / FILE_NAME
        if readonly and not path.is_file():
            raise ResultsError(f"{out}: no results here (looked for {FILE_NAME}); `sweeper run` makes them")
        return cls(Database(path, readonly=readonly))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading

    def data_version(self) -> int:
        """A number that is another one after somebody else wrote to this store."""
        return int(next(iter(self._query("PRAGMA data_version")))[0])

    def runs(self) -> tuple[RunRecord, ...]:
        """Every run, oldest first."""
        columns = "id, experiment, file, targets, trials, started, ended, stopped_by, layout"
        return tuple(
            RunRecord(
                *(run, name, from_relative(file, self.path.parent), tuple(json.loads(targets))),
                *(trials, started, ended, stopped_by, json.loads(layout).get("overrides", {})),
            )
            for run, name, file, targets, trials, started, ended, stopped_by, layout in self._query(
                f"SELECT {columns} FROM runs ORDER BY id"  # noqa: S608
            )
        )

    def latest_run_id(self) -> int:
        """The id of the latest run. Raises ResultsError where there is none."""
        found: int | None = next(iter(self._query("SELECT max(id) FROM runs")))[0]
        if found is None:
            raise ResultsError(f"{self.path.parent}: no run is recorded here yet")
        return found

    def layout(self, run_id: int | str | None = None) -> TableLayout:
        """The columns of a run's table (the latest run's by default). Raises ResultsError for an unknown run."""
        run_id = self._resolve_run(run_id)
        for (text,) in self._query("SELECT layout FROM runs WHERE id = ?", (run_id,)):
            found = json.loads(text)
            return TableLayout(
                found["experiment"],
                tuple(found["axis_columns"]),
                tuple(found["slot_names"]),
                tuple(found["metrics"]),
                {name: tuple(trials) for name, trials in found.get("value_order", {}).items()},
                None if found.get("together") is None else tuple((one, other) for one, other in found["together"]),
            )
        raise AssertionError  # _run found it

    def results(self, run_id: int | str | None = None) -> Iterator[Result]:
        """One row per trial of a run (the latest by default), in written order.

        Cached metrics of the run's layout are filled in where every output of the row was measured: the mean of the
        numbers of those that are pictures.
        """
        run_id = self._resolve_run(run_id)
        yield from build_results(self._query(ROWS, (run_id,)), self._load_metrics(run_id))

    def outcomes(self, run_id: int | str | None = None) -> Iterator[TrialOutcome]:
        """The rows of `results`, each with its files and the run that made them."""
        run_id = self._resolve_run(run_id)
        yield from build_outcomes(self._query(ROWS_WITH_FILES, (run_id,)), self._load_metrics(run_id))

    def _load_metrics(self, run_id: int) -> dict[str, dict[str, Any]]:
        return {name: self.load_cached_metrics(name) for name in self.layout(run_id).metrics}

    def count_by_status(self, run_id: int | str | None = None) -> dict[str, int]:
        """How many rows of a run bear each status word; all four are present."""
        run_id = self._resolve_run(run_id)
        counts = dict.fromkeys(result.STATUSES, 0)
        for state, number in self._query(
            "SELECT j.state, count(*) FROM trials t LEFT JOIN claims c ON c.run = t.run AND c.digest = t.digest"
            " LEFT JOIN jobs j ON j.id = c.job WHERE t.run = ? GROUP BY j.state",
            (run_id,),
        ):
            counts[STATUS_OF_STATE.get(state, result.PENDING)] += number
        return counts

    def count_submitted(self, run_id: int) -> int:
        """How many submissions of a run a server took or may have, retries included: not what was refused or unsent."""
        sql = f"SELECT count(*) FROM jobs WHERE run = ? AND state NOT IN ('{UNSENT}', '{REJECTED}')"  # noqa: S608
        return int(next(iter(self._query(sql, (run_id,))))[0])

    def count_reused(self, run_id: int) -> int:
        """How many rows of a run rest on a job that another run submitted, and that came to an end."""
        return int(next(iter(self._query(_COUNT_REUSED, (run_id, SUCCEEDED, FAILED, REJECTED))))[0])

    def count_without_files(self, run_id: int) -> int:
        """How many rows of a run succeeded and have no artifact."""
        return int(next(iter(self._query(_COUNT_WITHOUT_FILES, (run_id, SUCCEEDED))))[0])

    def jobs(self, digests: Iterable[str] | None = None) -> Iterator[JobRecord]:
        """Every submission on record, or those of some digests, in the order in which they were intended."""
        wanted = None if digests is None else set(digests)
        for row in self._query(f"SELECT {_JOB_COLUMNS} FROM jobs ORDER BY intended, attempt"):  # noqa: S608
            if wanted is None or row[3] in wanted:
                yield JobRecord(*row)

    def current_jobs(self, targets: Iterable[str]) -> dict[str, JobRecord]:
        """By digest, the job that stands for it on these targets: a success before anything else, else an open one,
        else the latest. What `plan` and a second run call done, failed or to be looked for.
        """
        names = tuple(targets)
        marks = ",".join("?" * len(names))
        rank = {SUCCEEDED: 2, INTENT: 1, SUBMITTED: 1}
        best: dict[str, JobRecord] = {}
        for row in self._query(
            f"SELECT {_JOB_COLUMNS} FROM jobs WHERE target IN ({marks}) ORDER BY intended, attempt",  # noqa: S608
            names,
        ):
            job = JobRecord(*row)
            before = best.get(job.digest)
            if before is None or rank.get(job.state, 0) >= rank.get(before.state, 0):
                best[job.digest] = job
        return best

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int:
        """How often this work was sent to these targets, as far as anybody knows."""
        marks = ",".join("?" * len(targets))
        sql = f"SELECT count(*) FROM jobs WHERE digest = ? AND state != '{UNSENT}' AND target IN ({marks})"  # noqa: S608
        return int(next(iter(self._query(sql, (digest, *targets))))[0])

    def has_prompt_id(self, prompt_id: str) -> bool:
        """Whether a job of this store already bears that id of the server's."""
        return any(self._query("SELECT 1 FROM jobs WHERE prompt_id = ? LIMIT 1", (prompt_id,)))

    def artifacts(self, job: str) -> tuple[Artifact, ...]:
        rows = self._query(
            "SELECT node, kind, position, path, sha256, bytes, label FROM artifacts WHERE job = ? ORDER BY place",
            (job,),
        )
        return tuple(Artifact(*row) for row in rows)

    def files(self) -> Iterator[tuple[str, str]]:
        """Path and SHA-256 of every artifact on record, of whatever run."""
        yield from self._query("SELECT DISTINCT path, sha256 FROM artifacts")

    def load_cached_metrics(self, metric: str) -> dict[str, Any]:
        """sha256 of a file -> the value of that metric, for every file it was computed of."""
        rows = self._query("SELECT sha256, value FROM metrics WHERE metric = ?", (metric,))
        return {sha256: json.loads(value) for sha256, value in rows}

    def _resolve_run(self, run_id: int | str | None) -> int:
        if run_id is None:
            return self.latest_run_id()
        known = [record.id for record in self.runs()]
        for found in known:
            if str(found) == str(run_id):
                return found
        raise ResultsError(f"{self.path.parent}: no run {run_id} here{suggest(run_id, known, 'there are')}")

    # --- writing

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """All or nothing; see `Database.transaction`. Raises ResultsError."""
        return self._database.transaction(durable=durable)

    def sync(self) -> None:
        """Bring all that was committed to the disk; may be called from another thread. Raises ResultsError."""
        self._database.sync()

    def create_run(
        self,
        layout: TableLayout,
        *,
        file: str,
        targets: Sequence[str],
        now: float,
        overrides: Mapping[str, Any] | None = None,
    ) -> int:
        """Record a run of the experiment `file`, its trials yet to be added; to be called inside `transaction`.

        Returns its id.
        """
        # The overrides stand beside the layout, which they have made: a store of any version has a place for them.
        text = to_compact_json(
            {**{name: getattr(layout, name) for name in TableLayout.__slots__}, "overrides": overrides or {}}
        )
        cursor = self._database.execute(
            "INSERT INTO runs(experiment, file, targets, layout, trials, started) VALUES (?, ?, ?, ?, 0, ?)",
            (layout.experiment, to_relative(self.path.parent, file), json.dumps(list(targets)), text, now),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add_trials(self, run_id: int, trials: Iterable[tuple[int, str, Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Add (index, digest, params, columns) rows to a run; to be called inside `transaction`."""
        rows = (
            (run_id, index, digest, to_compact_json(params), to_compact_json(columns))
            for index, digest, params, columns in trials
        )
        added = self._database.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?)", rows).rowcount
        self._database.execute("UPDATE runs SET trials = trials + ? WHERE id = ?", (max(added, 0), run_id))

    def assign_jobs(self, run_id: int, jobs: Iterable[JobRecord]) -> None:
        """Let these jobs stand for their digests in a run; to be called inside `transaction`."""
        rows = ((run_id, job.digest, job.id) for job in jobs)
        self._database.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)

    def record_intent(self, job: JobRecord, *, durable: bool = True) -> None:
        """Commit that a job is about to be submitted, which must wait for `sync` unless this is `durable`; the job
        stands for its digest in its run from now on.
        """
        marks = ",".join("?" * len(JobRecord.__slots__))
        with self.transaction(durable=durable):
            self._database.execute(
                f"INSERT OR REPLACE INTO jobs({_JOB_COLUMNS}) VALUES ({marks})",  # noqa: S608
                tuple(getattr(job, name) for name in JobRecord.__slots__),
            )
            self.assign_jobs(job.run, [job])

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        """The server took the job under that id. Lost in a power cut, it is an intent again: the job is looked for."""
        self._database.execute(  # one statement: a transaction of its own
            "UPDATE jobs SET state = ?, prompt_id = ?, submitted = coalesce(submitted, ?) WHERE id = ?",
            (SUBMITTED, _replace_surrogates(prompt_id), now, job_id),
        )

    def record_finished(
        self,
        job_id: str,
        state: str,
        *,
        started: float | None = None,
        ended: float | None = None,
        error: tuple[str, str] | None = None,
        artifacts: Sequence[Artifact] = (),
    ) -> None:
        """What became of a job, with its files. `error` is (error_type, message). Durable at the next `sync`; lost in
        a power cut, the job is looked for.
        """
        error_type, message = error or (None, None)
        with self.transaction(durable=False):
            self._database.execute(
                "UPDATE jobs SET state = ?, started = ?, ended = ?, error_type = ?, error = ? WHERE id = ?",
                (state, started, ended, _replace_surrogates(error_type), _replace_surrogates(message), job_id),
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        job_id,
                        n,
                        _replace_surrogates(a.node),
                        _replace_surrogates(a.kind),
                        a.position,
                        a.path,
                        a.sha256,
                        a.bytes,
                        _replace_surrogates(a.label),
                    )
                    for n, a in enumerate(artifacts)
                ],
            )

    def end_run(self, run_id: int, *, now: float, stopped_by: str | None) -> None:
        """The run is over."""
        with self.transaction():
            self._database.execute("UPDATE runs SET ended = ?, stopped_by = ? WHERE id = ?", (now, stopped_by, run_id))

    def cache_metrics(self, rows: Iterable[tuple[str, str, Any]], *, discard: Iterable[str] = ()) -> None:
        """Keep (sha256, metric, value) for the next time; values are JSON. Metrics of `afresh` lose what was kept."""
        with self.transaction():
            self._database.executemany("DELETE FROM metrics WHERE metric = ?", [(metric,) for metric in discard])
            self._database.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)",
                [(sha256, metric, json.dumps(value)) for sha256, metric, value in rows],
            )


def _replace_surrogates(text: str | None) -> str | None:
    """A server's text without what UTF-8 cannot hold: it cut a message in the middle of a character."""
    return None if text is None else text.encode("utf-8", "replace").decode()
