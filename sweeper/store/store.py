"""The database of a results folder, `<out>/sweeper.sqlite`: its runs, trials, jobs, artifacts and cached metrics.

Readers need no lock and never block a run, because SQLite is in WAL mode. Only one process at a time may write runs and
jobs: a run locks the folder (`sweeper.running.folder_lock`). This module decides what goes into a row of the table, and
`sweeper.tables` shows it. It touches no file but the database.

A run has one row in `trials` for each trial. The table `claims` assigns one job to each (run, digest): a job of this
run, or one of an earlier run whose result is reused. Two trials with the same digest therefore share a job. A run with
the trials or claims of the run before shares its rows. The table of the folder also shows results that the latest run
does not claim, so that no later run hides them (`row_queries`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Self

from sweeper.errors import ResultsError
from sweeper.model import result
from sweeper.model.model_facts import NO_MODELS, Models
from sweeper.model.money import Charge
from sweeper.model.result import PIXEL_HASH, SAMPLING_METRIC, Result
from sweeper.model.search_columns import VOTES_METRIC
from sweeper.store import row_queries
from sweeper.store.containment import check_artifact, from_relative, make_artifact_check, to_relative
from sweeper.store.database import Database, is_blank
from sweeper.store.job_charges import JobCharges
from sweeper.store.records import (
    FAILED,
    REJECTED,
    STATUS_OF_STATE,
    SUBMITTED,
    SUCCEEDED,
    UNSENT,
    Artifact,
    ArtifactRef,
    JobEnd,
    JobRecord,
    RunRecord,
    TableLayout,
    TrialOutcome,
    decode_layout,
    encode_layout,
    parse_column,
    parse_columns,
    parse_trial,
    to_compact_json,
)
from sweeper.store.row_queries import OF_FOLDER, OF_RUN, OF_TRIALS, Batch
from sweeper.store.server_facts import JobModels, ServerFacts
from sweeper.store.votes import Marks, Votes
from sweeper.wording import join_command, suggest

FILE_NAME: Final = "sweeper.sqlite"

_SELECT_FILES: Final = """
SELECT DISTINCT path, sha256 FROM artifacts WHERE sha256 NOT IN (
    SELECT sha256 FROM metrics WHERE metric IN (SELECT value FROM json_each(?)) GROUP BY sha256 HAVING count(*) >= ?)
"""
_SELECT_HASHES: Final = """SELECT sha256, trim(value, '"') FROM metrics WHERE metric = ? AND value LIKE '"%'"""
_ALL_JOBS: Final[Mapping[str, int | str | None]] = {"run": 0, "trials": None}
_INSERT_RUN: Final = """
INSERT INTO runs SELECT id, ?, ?, ?, ?, 0, ?, NULL, NULL, id, id FROM (SELECT coalesce(max(id), 0) + 1 id FROM runs)
"""
_INSERT_JOB: Final = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_get_cells: Final = attrgetter(*JobRecord.__slots__)  # `astuple` copies each cell


class Store:
    """The database of one results folder. A context manager; use it in one thread only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._query, self.transaction = database.query, database.transaction
        self.sync, self.close = database.sync, database.close
        self.path = database.path
        self.servers = ServerFacts(database)
        self.charges = JobCharges(database)
        self.models = JobModels(database)
        self.votes = Votes(database)
        self.marks = Marks(database)

    @classmethod
    def open(cls, out: Path | str, *, readonly: bool = False) -> Store:
        """Open `<out>/sweeper.sqlite`, creating the folder and the file unless `readonly`.

        Raises ResultsError if there is nothing to read, if the file is not a store of this version of sweeper, or if
        the folder cannot be used.
        """
        path = Path(out) / FILE_NAME
        if readonly and not path.is_file():
            create = join_command(["sweeper", "run", "EXPERIMENT", "--out", str(out)])
            raise ResultsError(f"{out}: no results here (looked for {FILE_NAME}); create them with `{create}`")
        return cls(Database(path, readonly=readonly))

    @staticmethod
    def exists(out: Path) -> bool:
        """Whether `out` has a store. One that a killed process left without a table counts as none."""
        return (out / FILE_NAME).is_file() and not is_blank(out / FILE_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading

    def data_version(self) -> int:
        """A number that changes when another connection writes to this store."""
        return int(self._database.query_value("PRAGMA data_version"))

    def change_count(self) -> int:
        """A number that changes when this connection writes."""
        return int(self._database.query_value("SELECT total_changes()"))

    def runs(self) -> tuple[RunRecord, ...]:
        """Every run, oldest first."""
        rows = self._query(
            "SELECT id, experiment, file, targets, trials, started, ended, stopped_by, layout FROM runs ORDER BY id"
        )
        return tuple(
            RunRecord(
                *(run_id, name, from_relative(file, self.path.parent)),
                tuple(parse_column(targets, [str], "runs.targets", self.path.parent)),
                *(trials, started, ended, stopped_by, decode_layout(layout, self.path.parent)[1]["overrides"]),
            )
            for run_id, name, file, targets, trials, started, ended, stopped_by, layout in rows
        )

    def latest_run_id(self) -> int:
        """The id of the latest run. Raises ResultsError if there is none."""
        run_id: int | None = self._database.query_value("SELECT max(id) FROM runs")
        if run_id is None:
            raise ResultsError(f"{self.path.parent}: no run is recorded here yet; start one with `sweeper run`")
        return run_id

    def layout(self, run_id: int | str | None = None) -> TableLayout:
        """The columns of a run's table (by default the latest run's). Raises ResultsError for an unknown run.

        If the folder has votes, they are a metric, unless the experiment has a column of that name.
        """
        run_id = self._resolve_run(run_id)
        layout, _ = self._load_layout(run_id)
        own = {*layout.axis_columns, *layout.slot_names, *layout.metrics}
        votes = (VOTES_METRIC,) if VOTES_METRIC not in own and self.votes.has_any() else ()
        return replace(layout, metrics=(*layout.metrics, *votes, *(layout.search.columns if layout.search else ())))

    def results(self, run_id: int | str | None = None, *, of_folder: bool | None = None) -> Iterator[Result]:
        """One row for each trial of a run (by default the latest), in written order.

        `of_folder`: whether results of all runs fill the rows, or only those that the run claims; by default, whether
        no run is named. `row_queries` has the rules. A run that was recorded as `alone` never shows others' results.

        A metric of the run's layout is filled in if every output of the row has been measured. With several pictures it
        is the mean of their numbers. The rows of a search have its columns among the metrics.
        """
        return (outcome.result for outcome in self.outcomes(run_id, of_folder=of_folder))

    def iter_trials(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """The digest, the params and the columns of each trial of each run, in the order of the runs."""
        for digest, params, columns in self._query("SELECT digest, params, columns FROM trials ORDER BY run, idx"):
            yield digest, *parse_trial(params, columns, self.path.parent)

    def outcomes(self, run_id: int | str | None = None, *, of_folder: bool | None = None) -> Iterator[TrialOutcome]:
        """The rows of `results`, each with its files and the run that made them."""
        layout = self.layout(run_id)
        outcomes = row_queries.build_outcomes(self._read_batches(*self._resolve_view(run_id, of_folder), layout))
        yield from outcomes if layout.search is None else row_queries.add_search_columns(list(outcomes), layout.search)

    def batches(
        self, run_id: int | str | None = None, *, of_folder: bool | None = None,
        columns: Collection[str] | None = None, trials: Collection[int] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """The rows of `results`, some at a time, by the fields of Result; these need a fraction of the time.

        `columns`: those of the table that are needed (None: all). Fields that only others need may be missing.
        `trials`: those that are needed (None: all).
        """
        layout = self.layout(run_id)
        if layout.search is not None:  # its columns need all rows
            rows = self.outcomes(run_id, of_folder=of_folder)
            return row_queries.batch_outcomes(row for row in rows if trials is None or row.result.trial in trials)
        return self._read_batches(*self._resolve_view(run_id, of_folder), layout, columns, trials)

    def _read_batches(
        self, run_id: int, of_folder: bool, layout: TableLayout,
        columns: Collection[str] | None = None, trials: Collection[int] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        needed = row_queries.find_fields(layout, columns)
        metrics = (name for name in layout.metrics if columns is None or name in columns)
        cached = {name: self.load_cached_metrics(name) for name in metrics}
        costs = {} if needed.isdisjoint(("cost", "cost_kind")) else self.charges.load_job_costs()
        view = f"{OF_FOLDER if of_folder else OF_RUN}{OF_TRIALS} ORDER BY t.idx"
        parameters = {"run": run_id, "trials": None if trials is None else json.dumps([*trials])}
        found = self._query(row_queries.select_rows(needed) + view, parameters)
        rows = found if trials is None else row_queries.keep_trials(found, trials, costs)
        files = self.load_job_files(parameters) if "outputs" in needed else {}
        hashes = {} if files or needed.isdisjoint(("sha256", "metrics")) else self.load_job_hashes()
        folder = self.path.parent
        return row_queries.read_batches(rows, needed, cached, costs, files=files, hashes=hashes, folder=folder)

    def count_by_status(self, run_id: int | str | None = None) -> dict[str, int]:
        """Count the rows that a run claims by status. All four statuses are present."""
        counts = dict.fromkeys(result.STATUSES, 0)
        for state, number in self._query(row_queries.COUNT_BY_STATE, {"run": self._resolve_run(run_id)}):
            counts[STATUS_OF_STATE.get(state, result.PENDING)] += number
        return counts

    def count_submitted(self, run_id: int) -> int:
        """Count the submissions of a run that a server accepted or may have accepted, retries included."""
        sql = "SELECT count(*) FROM jobs WHERE run = ? AND state NOT IN (?, ?)"
        return int(self._database.query_value(sql, (run_id, UNSENT, REJECTED)))

    def count_reused(self, run_id: int) -> int:
        """Count the rows of a run that reuse a finished job of another run."""
        parameters = {"run": run_id, "succeeded": SUCCEEDED, "failed": FAILED, "rejected": REJECTED}
        return int(self._database.query_value(row_queries.COUNT_REUSED, parameters))

    def count_kept(self, run_id: int) -> dict[str, int]:
        """Count by target the rows of the folder's table that show a result of an earlier run in place of this run's.

        The run must be the latest.
        """
        _, of_folder = self._resolve_view(run_id, of_folder=True)
        sql = f"SELECT j.target, count(*){OF_FOLDER}{row_queries.NOT_CLAIMED}"
        return dict(self._query(sql, {"run": run_id})) if of_folder else {}

    def list_result_jobs(self) -> frozenset[str]:
        """The jobs whose successful results the folder's table shows. Raises ResultsError if there is no run."""
        run_id, of_folder = self._resolve_view(None, None)
        sql = "SELECT j.id" + (OF_FOLDER if of_folder else OF_RUN) + "AND j.state = :state"
        return frozenset(job for (job,) in self._query(sql, {"run": run_id, "state": SUCCEEDED}))

    def count_without_files(self, run_id: int) -> int:
        return int(self._database.query_value(row_queries.COUNT_WITHOUT_FILES, {"run": run_id, "state": SUCCEEDED}))

    def jobs(self, digests: Iterable[str] | None = None) -> Iterator[JobRecord]:
        """Every job, or those of some digests, in the order of their intents."""
        wanted = None if digests is None else set(digests)
        for row in self._query("SELECT * FROM jobs ORDER BY intended, attempt"):
            job = JobRecord(*row)  # the schema was checked, so that these are its columns, in their order
            if wanted is None or job.digest in wanted:
                yield job

    def load_params(self, digests: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The params of the trials with these digests, of any run, by digest."""
        sql = "SELECT digest, params, columns FROM trials WHERE digest IN (SELECT value FROM json_each(?))"
        rows = self._query(f"{sql} GROUP BY digest", (json.dumps(list(digests)),))
        return {digest: parse_trial(params, columns, self.path.parent)[0] for digest, params, columns in rows}

    def count_attempts(self, digest: str, targets: Sequence[str]) -> int:
        """Count how often this work was sent, or may have been sent, to these targets."""
        sql = "SELECT count(*) FROM jobs WHERE digest = ? AND state != ? AND target IN (SELECT value FROM json_each(?))"
        return int(self._database.query_value(sql, (digest, UNSENT, json.dumps(list(targets)))))

    def has_prompt_id(self, prompt_id: str) -> bool:
        return bool(self._database.query_value("SELECT 1 FROM jobs WHERE prompt_id = ? LIMIT 1", (prompt_id,)))

    def load_server_time(self, job_id: str) -> float | None:
        """When the intent of a job was recorded, by the server's clock; None if unknown."""
        time: float | None = self._database.query_value("SELECT intended FROM server_times WHERE job = ?", (job_id,))
        return time

    def artifacts(self, job: str) -> tuple[Artifact, ...]:
        """The files of one job, by its id. Raises ResultsError for a path outside of the results folder."""
        rows = self._query("SELECT * FROM artifacts WHERE job = ? ORDER BY place", (job,))
        artifacts = tuple(Artifact(*row[2:]) for row in rows)
        for artifact in artifacts:
            check_artifact(self.path.parent, artifact.path, artifact.sha256)
        return artifacts

    def files(self, *, lacking: Collection[str] = ()) -> Iterator[tuple[str, str]]:
        """Path and SHA-256 of every artifact of every run, or of those that lack a value of one of these metrics.

        Raises ResultsError for a path outside of the folder.
        """
        check = make_artifact_check(self.path.parent)
        for path, sha256 in self._query(_SELECT_FILES, (json.dumps([*lacking]), max(1, len(lacking)))):
            check(path, sha256)
            yield path, sha256

    def load_cached_metrics(self, metric: str, sha256: str | None = None) -> dict[str, Any]:
        """The values of one metric: SHA-256 of a file -> value; of one file if it is given."""
        sql = "SELECT sha256, value FROM metrics WHERE metric = ?"
        rows = self._query(sql, (metric,)) if sha256 is None else self._query(f"{sql} AND sha256 = ?", (metric, sha256))
        found: dict[str, Any] = {}
        while batch := list(islice(rows, 1000)):
            values = parse_columns([value for _, value in batch], object, "metrics.value", self.path.parent)
            found.update(zip((key for key, _ in batch), values, strict=True))
        return found

    def has_equal_pixels(self) -> bool:
        """Whether any two files have equal pixels, or any two trials of the latest run share a job. A fast query."""
        return bool(self._database.query_value(row_queries.HAS_EQUAL_PIXELS, (PIXEL_HASH,)))

    def load_job_hashes(self) -> dict[str, tuple[str, ...]]:
        """The SHA-256 of the files of each job that has any, by its id."""
        files: dict[str, tuple[str, ...]] = {}
        for job, sha256 in self._query("SELECT job, sha256 FROM artifacts ORDER BY job, place"):
            files[job] = (*files.get(job, ()), sha256)
        return files

    def load_job_files(self, of: Mapping[str, int | str | None] = _ALL_JOBS) -> dict[str, tuple[ArtifactRef, ...]]:
        """The files of each job that has any, by its id. Raises ResultsError as `artifacts` does.

        `of`: the parameters of `row_queries.SELECT_FILES`, `run` and `trials`; by default, those of all jobs.
        """
        check = make_artifact_check(self.path.parent)
        files: dict[str, tuple[ArtifactRef, ...]] = {}
        for job, node, at, path, sha in self._query(row_queries.SELECT_FILES, of):
            check(path, sha)
            file = ArtifactRef(sys.intern(node), at, path, sha)
            files[job] = (*files[job], file) if job in files else (file,)
        return files

    def load_pixel_hashes(self) -> dict[str, str]:
        """The hash of the pixels of each picture that was decoded, by the SHA-256 of its file; see `PIXEL_HASH`."""
        return dict(self._query(_SELECT_HASHES, (PIXEL_HASH,)))

    def _resolve_view(self, run_id: int | str | None, of_folder: bool | None) -> tuple[int, bool]:
        """The id of the run, and whether results of other runs may fill its rows."""
        found = self._resolve_run(run_id)
        wanted = run_id is None if of_folder is None else of_folder
        if not wanted or self._database.query_value(row_queries.CLAIMS_ALL_JOBS, (found,)):
            return found, False
        return found, not self._load_layout(found)[1]["alone"]

    def _load_layout(self, run_id: int) -> tuple[TableLayout, dict[str, Any]]:
        text = self._database.query_value("SELECT layout FROM runs WHERE id = ?", (run_id,))
        return decode_layout(text, self.path.parent)

    def _resolve_run(self, run_id: int | str | None) -> int:
        if run_id is None:
            return self.latest_run_id()
        ids = {str(record.id): record.id for record in self.runs()}
        if str(run_id) not in ids:
            raise ResultsError(f"{self.path.parent}: no run {run_id} here{suggest(run_id, ids.values(), 'there are')}")
        return ids[str(run_id)]

    # --- writing

    def checkpoint(self) -> bool:
        """Copy the log into the database file, whose time then is that of the last write; False if others read it."""
        ((is_busy, in_log, copied),) = self._query("PRAGMA wal_checkpoint(PASSIVE)")  # the others would wait
        return not is_busy and in_log == copied

    def create_run(
        self,
        layout: TableLayout,
        *,
        file: str,
        targets: Sequence[str],
        now: float,
        overrides: Mapping[str, Any] | None = None,
        alone: bool = False,
    ) -> int:
        """Record a run of the experiment `file`, still without trials, and return its id. Call inside `transaction`.

        `alone`: while it is the latest run, the folder's table shows only what this run claims.
        """
        text = encode_layout(layout, overrides, alone=alone)
        cursor = self._database.execute(
            _INSERT_RUN, (layout.experiment, to_relative(self.path.parent, file), json.dumps(list(targets)), text, now)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def extend_run(self, run_id: int, layout: TableLayout, overrides: Mapping[str, Any] | None = None) -> int:
        """Open a run that ended, to add trials to it; return how many it has. Call inside `transaction`."""
        text = encode_layout(layout, overrides, alone=False)
        sql = "UPDATE runs SET layout = ?, ended = NULL, stopped_by = NULL WHERE id = ?"
        self._database.execute(sql, (text, run_id))
        return int(self._database.query_value("SELECT trials FROM runs WHERE id = ?", (run_id,)))

    def add_trials(self, run_id: int, trials: Iterable[tuple[int, str, Mapping[str, Any], Mapping[str, Any]]]) -> bool:
        """Add (index, digest, params, columns) rows to a run. Call inside `transaction`.

        Returns whether they and the layout are exactly those of the run before.
        """
        rows = ((index, digest, to_compact_json(params), to_compact_json(own)) for index, digest, params, own in trials)
        added, are_equal = row_queries.add_rows(self._database, "trials", run_id, rows)
        self._database.execute("UPDATE runs SET trials = trials + ? WHERE id = ?", (added, run_id))
        return are_equal and bool(self._database.query_value(row_queries.HAS_LAYOUT_OF_RUN_BEFORE, {"run": run_id}))

    def assign_jobs(self, run_id: int, jobs: Iterable[JobRecord]) -> bool:
        """Assign each job to its digest in this run, so that its result fills the rows. Call inside `transaction`.

        Returns whether they are exactly those of the run before.
        """
        # In the order of the key, because SQLite adds rows to one end of a tree much faster than everywhere.
        rows = sorted((job.digest, job.id) for job in jobs)
        return row_queries.add_rows(self._database, "claims", run_id, rows)[1]

    def record_intent(
        self,
        job: JobRecord,
        *,
        server_time: float | None = None,
        charges: Sequence[Charge] = (),
        models: Models = NO_MODELS,
    ) -> None:
        """Record that a job is about to be submitted, and assign it to its digest in its run.

        `server_time`: the time now by the server's clock, if known. `charges`: what the job costs at most. `models`:
        the facts about the files that it uses. Call `sync` before the request leaves.
        """
        with self.transaction(durable=False):
            self._database.execute(_INSERT_JOB, _get_cells(job))
            row_queries.own_rows(self._database, "claims", job.run)
            self._database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (job.run, job.digest, job.id))
            if server_time is not None:
                self._database.execute("INSERT OR REPLACE INTO server_times VALUES (?, ?)", (job.id, server_time))
            if charges:
                self.charges.replace(job.id, charges)
            self.models.add(job.id, models)

    def record_submitted(self, job_id: str, prompt_id: str, now: float) -> None:
        """Record that the server accepted the job under this id.

        If a power cut loses the record, the job is an intent again and the next run looks for it on the server.
        """
        self._database.execute(  # one statement: a transaction of its own
            "UPDATE jobs SET state = ?, prompt_id = ?, submitted = coalesce(submitted, ?) WHERE id = ?",
            (SUBMITTED, _replace_surrogates(prompt_id), now, job_id),
        )

    def record_finished(self, job_id: str, end: JobEnd) -> None:
        """Record how a job ended, and its files.

        The record is durable at the next `sync`. If a power cut loses it, the next run looks for the job on the server.
        """
        error_type, message = map(_replace_surrogates, end.error or (None, None))
        rows = [
            (
                *(job_id, index, _replace_surrogates(a.node), _replace_surrogates(a.kind), a.position),
                *(a.path, a.sha256, a.bytes, _replace_surrogates(a.label)),
            )
            for index, a in enumerate(end.artifacts)
        ]
        with self.transaction(durable=False):
            self._database.execute(
                "UPDATE jobs SET state = ?, started = ?, ended = ?, error_type = ?, error = ? WHERE id = ?",
                (end.state, end.started, end.ended, error_type, message, job_id),
            )
            self._database.executemany("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            if end.charges is not None:
                self.charges.replace(job_id, end.charges)
            if end.sampling_s is not None:
                self._insert_metrics([(job_id, SAMPLING_METRIC, round(end.sampling_s, 6))])

    def end_run(self, run_id: int, *, now: float, stopped_by: str | None) -> None:
        with self.transaction():
            self._database.execute("UPDATE runs SET ended = ?, stopped_by = ? WHERE id = ?", (now, stopped_by, run_id))

    def cache_metrics(self, rows: Iterable[tuple[str, str, Any]], *, discard: Iterable[str] = ()) -> None:
        """Store (sha256, metric, value) rows; values are JSON. First delete all values of the metrics in `discard`."""
        with self.transaction():
            self._database.executemany("DELETE FROM metrics WHERE metric = ?", [(metric,) for metric in discard])
            self._insert_metrics(rows)

    def _insert_metrics(self, rows: Iterable[tuple[str, str, Any]]) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)",
            [(key, metric, json.dumps(value)) for key, metric, value in rows],
        )


def _replace_surrogates(text: str | None) -> str | None:
    """Replace half a surrogate pair, which UTF-8 cannot hold. A server may cut a message inside a character."""
    return None if text is None else text.encode("utf-8", "replace").decode()
